"""Stage `fusion`: what the released lists listen to. Weights of the generative model and of the counting parts, chosen on validation targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.evaluation.recipes import Fitted, fit
from orchestration.champion.bundle import FUSION

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun


def fusion(run: StageRun) -> None:
    """Writes fusion.json: the recipe of the lists and those of the baselines, with their validation NDCG@10."""
    from diger_core.data.sequences import Sequences
    from orchestration.features.neighbours import read_counts
    from orchestration.verdict.evaluation import beams_of

    seq = Sequences.from_tensors(run.inputs["sequences"].tensors("sequences.safetensors"))
    counts, config = read_counts(run.inputs["neighbours"], seq), run.params.evaluation
    beams = beams_of(run, "joint_model", seq, "validation")
    own = run.params.fusion
    fitted = fit(counts, seq, beams, own.seed, remove_seen=config.remove_seen, new_items_cost=own.new_items_cost)
    run.out.json(FUSION, fitted.document())
    best = fitted.baselines[fitted.best]
    run.facts(
        lists_ndcg_10=fitted.lists.ndcg,
        best_baseline=fitted.best,
        best_baseline_ndcg_10=best.ndcg,
        fallback=fitted.fallback or "none",
        repeat_share=round(fitted.repeat_share, 4),
        weights_moved=round(fitted.moved, 4),
        trend_share=fitted.lists.trend.share,
        trend_power=fitted.lists.trend.power,
        new_items_factor=fitted.lists.new_items,
        **{f"weight_{part}": weight for part, weight in fitted.lists.weights.items()},
    )
    run.progress.message(_told(fitted))


def _told(fitted: Fitted) -> str:
    best = f"{fitted.best} {fitted.baselines[fitted.best].ndcg:.4f}"
    if fitted.fallback:
        return f"fusion: no mixture beats {best} on validation (NDCG@10): the lists are {fitted.fallback}'s"
    heard = ", ".join(f"{part} {weight:.0%}" for part, weight in sorted(fitted.lists.weights.items(), key=lambda pair: -pair[1]) if weight >= 0.005)
    trend = f", raised by the newest {fitted.lists.trend.share:.1%} of the events" if fitted.lists.trend.power else ""
    new = f", items without an event times {fitted.lists.new_items:g}" if fitted.lists.new_items != 1 else ""
    return f"fusion: the lists listen to {heard}{trend}{new}; validation NDCG@10 {fitted.lists.ndcg:.4f}, the best baseline {best}"
