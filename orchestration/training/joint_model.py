"""Stage `joint_model`: recommender and tokenizer trained together (docs/method.md, sections 3 to 5), on Ray Train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.champion.baseline import extra_inputs
from orchestration.on_ray.train import launch_training

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun

__all__ = ["extra_inputs", "joint_model"]


def joint_model(run: StageRun) -> None:
    """Writes model.safetensors, config.json, id_table.parquet, curves.json and code_usage.parquet."""
    launch_training(run, run.params.joint_model)
