"""Stage `decay_search`: a study of decay schedules on validation NDCG@10 (orchestration/search), on Ray Tune."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.champion.baseline import extra_inputs
from orchestration.on_ray.tune import executor
from orchestration.search.journal import Journal
from orchestration.search.study import study
from orchestration.search.writing import described, write_study
from orchestration.training.job import stage_job

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun

__all__ = ["decay_search", "extra_inputs"]


def decay_search(run: StageRun) -> None:
    """Writes study.json, trials.json, report.html, report.md and pictures: all functions of the study's journal, whose name is the record's key."""
    config, job = run.params.decay_search, stage_job(run, run.params.joint_model)
    job = job.with_training(epochs=config.epochs or job.model.training.epochs)
    journal = Journal(run.store, run.key, run.progress)
    journal.describe(described(run))
    trials = study(job, config, journal, executor(config, run.params.cluster, str(run.scratch / "ray")), run.progress)
    write_study(run, config, job, trials)
