"""Stage `refit`: the joint model trained on over all events, before it serves.

Validation has chosen the state, its ID table and the lists' weights by then; the verdict is about that state (`judged` in the bundle). Here its
recommender continues on the fixed table with what was held out until then, for a few epochs at a low rate. Nothing is left to validate on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.config import JointModelConfig
from diger_core.store.artefact import Artefact
from orchestration.champion.model_artefact import ASSIGNMENT, MODEL_FILES
from orchestration.on_ray.train import launch_training

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun

__all__ = ["refit"]


def refit(run: StageRun) -> None:
    """Writes model.safetensors, config.json, id_table.parquet and curves.json; with refit.epochs=0 they are joint_model's."""
    config, model = run.params.refit, run.inputs["joint_model"]
    if config.epochs:
        launch_training(run, JointModelConfig(tokenizer="frozen"), config)
    else:
        _link(run, model)
    run.facts(refit_epochs=config.epochs, continued_from=model.hash)


def _link(run: StageRun, model: Artefact) -> None:
    for name, keys in MODEL_FILES.items():
        run.out.file(name, model.path(name), sort_by=keys)
    run.out.json("curves.json", [])
    run.facts(assignment_hash=model.tensors_metadata("model.safetensors")[ASSIGNMENT])
    run.progress.message("refit is switched off (refit.epochs=0): the bundle serves the joint model as it was judged")
