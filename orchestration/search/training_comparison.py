"""Stage `training_comparison`: ways to train on several seeds of one snapshot, paired by seed and user (docs/tuning.md).

Every training is the ordinary stage `tokenizer`, then `joint_model` or `frozen_model`, under its own key: what is there is found, a comparison that
was stopped continues, and the first seed of the run's own models is the run's. What is compared are the models alone on the test targets: the
released lists listen to counting, too, which hides what training changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from diger_core.evaluation.crossed import crossed
from orchestration.champion.baseline import BASELINE, extra_inputs
from orchestration.params.comparison import Variant
from orchestration.search.comparison_document import DOCUMENT, METRICS, ComparisonDocument, Gain, K, Trained, Training
from orchestration.search.comparison_page import page, picture, summary_line, summary_markdown

if TYPE_CHECKING:
    from diger_core.data.sequences import Sequences
    from diger_core.store.artefact import Artefact
    from orchestration.engine.stage_run import StageRun
    from orchestration.params.sections import Params

__all__ = ["extra_inputs", "training_comparison"]


def training_comparison(run: StageRun) -> None:
    """Writes comparison.json, report.html, report.md and comparison.png."""
    found = compared(run)
    run.out.json(DOCUMENT, found)
    run.out.bytes("report.html", page(found, [(name, artefact.hash) for name, artefact in run.inputs.items()]).encode())
    run.out.bytes("report.md", summary_markdown(found).encode())
    run.out.bytes("comparison.png", picture(found))
    run.facts(seeds=len(found["seeds"]), users=found["users"], reference=found["reference"], **_facts(found))
    run.progress.message(f"training_comparison: {summary_line(found)}")


def compared(run: StageRun) -> ComparisonDocument:
    """Trains what is missing, ranks every model's test targets, and compares with the first variant."""
    from diger_core.data.sequences import Sequences
    from diger_core.evaluation.metrics import ndcg, recall

    variants, params = run.params.training_comparison.parsed(), run.params
    seq = Sequences.from_tensors(run.inputs["sequences"].tensors("sequences.safetensors"))
    seeds = [params.training.seed + place for place in range(params.training_comparison.seeds)]
    told: dict[str, list[Training]] = {variant.name: [] for variant in variants}
    values: dict[tuple[str, str], list[np.ndarray]] = {}
    total = len(seeds) * len(variants)
    for variant in variants:
        seeded(params, variant, 0)  # an unknown key is told before anything is trained
    for place in range(len(seeds)):
        for number, variant in enumerate(variants):
            model = _trained(run, variant, place)
            rank_T = _ranks(run, model, seq)
            figures = {"ndcg@10": ndcg(rank_T, K), "recall@10": recall(rank_T, K)}
            for metric, value_T in figures.items():
                values.setdefault((variant.name, metric), []).append(value_T)
            told[variant.name].append(
                {
                    "seed": seeds[place],
                    "model": model.hash,
                    "alarm": model.facts.get("alarm"),
                    "ndcg@10": float(figures["ndcg@10"].mean()),
                    "recall@10": float(figures["recall@10"].mean()),
                }
            )
            run.progress.update("training_comparison", place * len(variants) + number + 1, total)
            run.progress.message(f"training_comparison: {variant.name}, seed {seeds[place]}: NDCG@10 {figures['ndcg@10'].mean():.4f}")
    reference = variants[0].name
    gains = [
        _gain(variant.name, metric, np.stack(values[variant.name, metric]) - np.stack(values[reference, metric]))
        for variant in variants[1:]
        for metric in METRICS
    ]
    found: ComparisonDocument = {
        "format": 1,
        "reference": reference,
        "seeds": seeds,
        "users": len(values[reference, METRICS[0]][0]),
        "split": "leave_one_out" if seq.boundaries is None else "temporal",
        "variants": [_described(run, variant, told[variant.name]) for variant in variants],
        "gains": gains,
    }
    if BASELINE in run.inputs:
        found["start"] = run.inputs[BASELINE].hash
    return found


def seeded(params: Params, variant: Variant, place: int) -> Params:
    """The run's parameters with the variant's changes, and the seeds of tokenizer and training moved on by `place`."""
    from orchestration.params.load import overridden

    changed = overridden(params, (*variant.overrides, "frozen_model.enabled=true"))
    return replace(
        changed,
        training=replace(changed.training, seed=params.training.seed + place),
        tokenizer=replace(changed.tokenizer, seed=params.tokenizer.seed + place),
    )


def continued(params: Params, inputs: Mapping[str, Artefact]) -> bool:
    """Whether trainings begin from the starting bundle's weights: such a control is no frozen control, but a continued one."""
    return BASELINE in inputs and params.retraining.start == "warm"


def _trained(run: StageRun, variant: Variant, place: int) -> Artefact:
    from orchestration.engine.runner import Session
    from orchestration.graph import BY_NAME

    launched = {"launched_by": "training_comparison", "comparison": run.key}
    session = Session(run.store, seeded(run.params, variant, place), run.snapshot, run.progress, launched)
    session.materialise(BY_NAME["tokenizer"])
    return session.materialise(BY_NAME[variant.model]).artefact


def _ranks(run: StageRun, model: Artefact, seq: Sequences) -> np.ndarray:
    from diger_core.data.splits import targets
    from diger_core.evaluation.metrics import ranks
    from orchestration.verdict.evaluation import model_beams

    items_TW, _ = model_beams(model, model, "id_table.parquet", run.inputs["sequences"], seq, "test", run.params.evaluation, run.progress)
    return ranks(items_TW, targets(seq, "test")[2])


def _gain(variant: str, metric: str, gain_SU: np.ndarray) -> Gain:
    found = crossed(gain_SU)
    return {
        "variant": variant,
        "metric": metric,
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "seed_error": found.seed_error,
        "user_error": found.user_error,
        "word": found.word(len(gain_SU)),
        "each": [float(value) for value in gain_SU.mean(axis=1)],
    }


def _described(run: StageRun, variant: Variant, trainings: list[Training]) -> Trained:
    label = variant.name
    if variant.model == "frozen_model" and continued(run.params, run.inputs):
        label = "continued frozen" if variant.name == "frozen" else f"{variant.name} (continued frozen)"
    return {"name": variant.name, "label": label, "model": variant.model, "overrides": list(variant.overrides), "trainings": trainings}


def _facts(found: ComparisonDocument) -> dict[str, float | str]:
    """Flat values for the UI: each variant's difference in NDCG@10 and what may be said of it."""
    facts: dict[str, float | str] = {}
    for gain in found["gains"]:
        if gain["metric"] == "ndcg@10":
            facts |= {f"{gain['variant']}_mean": gain["mean"], f"{gain['variant']}_word": gain["word"]}
            if gain["low"] is not None and gain["high"] is not None:
                facts |= {f"{gain['variant']}_low": gain["low"], f"{gain['variant']}_high": gain["high"]}
    return facts
