"""Stage `tuned_model`: the promotion of a study's winner, the joint model trained in full with its configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diger_core.errors import DigerError
from orchestration.champion.baseline import extra_inputs
from orchestration.search.space import applied

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun

__all__ = ["extra_inputs", "tuned_model"]


def tuned_model(run: StageRun) -> None:
    """Writes promotion.json: study, trial, configuration, and the joint model that they led to.

    The model is the `joint_model` of these parameters, found or trained under its own key and with the study in its record: a run of the flow
    with the winner's parameters finds the same one, evaluates it, and may release it.
    """
    from orchestration.engine.runner import Session
    from orchestration.graph import BY_NAME

    study = run.inputs["decay_search"].json("study.json")
    wanted = run.params.tuned_model.trial or study["winner"]["trial"]
    winner = next((f for f in study["finalists"] if f["trial"] == wanted), None)
    if winner is None:
        numbers = ", ".join(str(f["trial"]) for f in study["finalists"])
        raise DigerError(f"tuned_model.trial = {wanted}: no finalist of study {study['study'][:12]} (these are {numbers}): name one, or null")
    params = replace(run.params, joint_model=applied(run.params.joint_model, winner["config"]))
    origin = {"study": study["study"], "trial": winner["trial"], "decay_search": run.inputs["decay_search"].hash}
    session = Session(run.store, params, run.snapshot, run.progress, {"launched_by": "tuned_model", **origin})
    model = session.materialise(BY_NAME["joint_model"]).artefact
    figures = {
        name: model.facts.get(name) for name in ("best_epoch", "validation_ndcg_10", "validation_recall_10", "unique_prefixes", "assignment_hash")
    }
    run.out.json("promotion.json", {**origin, "config": winner["config"], "overrides": winner["overrides"], "joint_model": model.hash, **figures})
    run.facts(study=study["study"], trial=winner["trial"], joint_model=model.hash, **figures)
