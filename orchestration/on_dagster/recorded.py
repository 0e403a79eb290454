"""Runs of a terminal, recorded as runs of the jobs: the UI shows them where it shows those that it launched itself.

`dagster.materialize` makes a job of its own for each call, without the code location that it came from: no job's page lists such a run, and the
landing page leaves it out. So the run is made by hand, with the origin that `diger ui` gives to its code location.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from assets import ASSETS
from orchestration.on_dagster.jobs import JOBS, compare_training, gate_and_release, retrain, tune
from orchestration.on_dagster.resources import Pipeline

LOCATION = "orchestration.definitions"  # as `diger ui` and workspace.yaml load it
_REPOSITORY = "__repository__"
EVERYTHING = "__ASSET_JOB"  # Dagster's own job of all assets, which the UI uses for a selection of them


@cache
def _repository() -> dg.RepositoryDefinition:
    """The jobs without automation, whose reading of params.yaml no run of a terminal needs."""
    return dg.Definitions(assets=ASSETS, jobs=JOBS, resources={"pipeline": Pipeline()}, executor=dg.in_process_executor).get_repository_def()


def jobs_of(chosen: Collection[str]) -> list[tuple[str, set[str]]]:
    """(job, the stages of it), in their order: a retraining and then its release, as the unattended cycle has them; else the job that holds all."""
    rest = set(chosen) - {"release"}
    for job in (retrain, tune, compare_training):
        if rest <= stages_of(job.name):
            return [(job.name, rest), *([(gate_and_release.name, {"release"})] if "release" in chosen else [])]
    return [(EVERYTHING, set(chosen))]


def stages_of(job: str) -> set[str]:
    """The stages that a job materialises."""
    return {key.to_user_string() for key in _repository().get_job(job).asset_layer.executable_asset_keys}


def execute(
    instance: dg.DagsterInstance, job: str, stages: Collection[str], snapshot: str, pipeline: Mapping[str, Any], tags: Mapping[str, str]
) -> None:
    """Materialises the stages of one snapshot as a run of the job, in this process. Raises what a stage raises.

    pipeline: the resource's configuration, which the run keeps: launched again from the UI, it computes the same.
    """
    definition = _repository().get_job(job)
    config = {"resources": {"pipeline": {"config": dict(pipeline)}}, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    selection = frozenset(dg.AssetKey(stage) for stage in stages)
    run = instance.create_run_for_job(
        definition,
        run_config=config,
        tags={**definition.run_tags, **tags, "dagster/partition": snapshot},
        asset_selection=None if selection == set(definition.asset_layer.executable_asset_keys) else selection,
        remote_job_origin=_origin(job),
    )
    execute_run(InMemoryJob(definition), run, instance, raise_on_error=True)


def _origin(job: str) -> RemoteJobOrigin:
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=LOCATION, working_directory=os.getcwd())
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, _REPOSITORY), job)
