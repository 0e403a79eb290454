"""What a study leaves: its description for the journal, and the files and facts of its artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestration.champion.baseline import BASELINE
from orchestration.params.search import SearchConfig
from orchestration.search.journal import Told
from orchestration.search.page import page, picture, summary_markdown
from orchestration.search.ranking import OBJECTIVES, importance, pareto, ranked_finalists, searched
from orchestration.search.space import overrides
from orchestration.search.terminal import shown, trials_table
from orchestration.training.job import Job

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun


def described(run: StageRun) -> dict[str, Any]:
    """What `diger tune --resume` needs to compute the same key again: the snapshot and all parameters."""
    return {"snapshot": run.snapshot.key, "params": asdict(run.params), "created_at": datetime.now(UTC).isoformat(timespec="seconds")}


def summary(study: str, config: SearchConfig, epochs: int, trials: Mapping[int, Told]) -> dict[str, Any]:
    """study.json. Everything in it follows from the journal; no times."""
    ranked = ranked_finalists(trials, config.finalists)
    search = searched(trials)
    trained = sum(len(told.rows) for told in search)
    entries = [
        {
            "trial": f.trial,
            "config": dict(f.config),
            "overrides": overrides(f.config),
            "scores": list(f.scores),
            "mean": f.mean,
            "spread": f.spread,
            "interval": None if f.interval is None else list(f.interval),
        }
        for f in ranked
    ]
    return {
        "study": study,
        "settings": asdict(config),
        "epochs_of_a_trial": epochs,
        "objectives": OBJECTIVES,
        "winner": entries[0],
        "finalists": entries,
        "pareto": [told.trial.number for told in pareto(trials)],
        "importance": [asdict(i) for i in importance(trials, config.grace_epochs)],
        "epochs": {"search": trained, "search_without_pruning": len(search) * epochs, "seeds": sum(len(t.rows) for t in trials.values()) - trained},
        "states": {state: sum(t.state == state for t in search) for state in sorted({t.state for t in search})},
    }


def trials_json(trials: Mapping[int, Told]) -> list[dict[str, Any]]:
    """trials.json: every trial with its configuration, its state and one row an epoch."""
    return [
        {**asdict(told.trial), "state": told.state, "reason": told.reason, "score": told.score, "rows": told.curve}
        for _, told in sorted(trials.items())
    ]


def write_study(run: StageRun, config: SearchConfig, job: Job, trials: Mapping[int, Told]) -> None:
    """Writes the artefact's files and says who has won."""
    found = summary(run.key, config, job.model.training.epochs, trials)
    run.out.json("study.json", found)
    run.out.json("trials.json", trials_json(trials))
    lineage = [(name, artefact.hash) for name, artefact in run.inputs.items()]
    reference = "the champion's" if BASELINE in run.inputs else "the warm-up's"
    run.out.bytes("report.html", page(found, config, trials, lineage, reference).encode())
    run.out.bytes("report.md", summary_markdown(found, config, trials).encode())
    run.out.bytes("parallel.png", picture(found, config, trials))
    winner, epochs = found["winner"], found["epochs"]
    saved = 1 - epochs["search"] / epochs["search_without_pruning"]
    run.facts(
        study=run.key,
        trials=len(searched(trials)),
        pruned=found["states"].get("pruned", 0),
        epochs=epochs["search"],
        epochs_saved=round(saved, 4),
        winner=winner["trial"],
        validation_ndcg_10=winner["mean"],
        spread=winner["spread"],
        configuration=shown(winner["config"]),
    )
    run.note(cpu_seconds=round(sum(told.cpu_seconds for told in trials.values()), 1))
    run.progress.message(
        trials_table("Finalists on more seeds", (t for t in trials.values() if t.trial.repeats is not None), job.model.training.epochs)
    )
    spread = "" if winner["spread"] is None else f" ± {winner['spread']:.4f}"
    run.progress.message(
        f"decay_search: trial {winner['trial']} wins: NDCG@10 {winner['mean']:.4f}{spread} over {len(winner['scores'])} seed(s), "
        f"{shown(winner['config'])}; pruning saved {saved:.0%} of {epochs['search_without_pruning']} epochs"
    )
