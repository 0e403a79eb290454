"""Stage `frozen_model`: the control, the same recommender on the codes of the warm-up (docs/method.md, section 7), on Ray Train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.config import JointModelConfig
from orchestration.champion.baseline import extra_inputs
from orchestration.on_ray.train import launch_training

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun

__all__ = ["extra_inputs", "frozen_model"]


def frozen_model(run: StageRun) -> None:
    """Writes model.safetensors, config.json, id_table.parquet and curves.json; switched off, only a config.json that says so."""
    if not run.params.frozen_model.enabled:
        run.out.json("config.json", {"enabled": False})
        run.out.json("curves.json", [])
        run.facts(enabled=False)
        run.progress.message("frozen_model is switched off (frozen_model.enabled=false): the joint model will have no control beside it")
        return
    launch_training(run, JointModelConfig(tokenizer="frozen"))
