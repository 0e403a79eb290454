"""What Dagster loads: the assets, the jobs, and the one resource that they share."""

from __future__ import annotations

import os

import dagster as dg

from assets import ASSETS
from orchestration.graph import FLOW
from orchestration.resources import DEFAULT_STORE, Pipeline

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.assets(*(stage.name for stage in FLOW)),
    description="Everything, from a registered snapshot to the report and, where the gate accepts, the release. What is unchanged is reused.",
)
evaluate = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets("evaluation", "report"),
    description="Rank the test events again and rebuild the report, from models that exist.",
)
gate_and_release = dg.define_asset_job(
    "gate_and_release",  # a job may not have the name of an asset
    selection=dg.AssetSelection.assets("gate", "report", "release"),
    description="Judge a trained bundle against the present champion again, and release it where the gate accepts.",
)
recommend = dg.define_asset_job(
    "recommend",
    selection=dg.AssetSelection.assets("recommendations").upstream(),
    description="The present champion's lists for all users of a snapshot; new items get IDs by cold start, nothing is trained.",
)
tune = dg.define_asset_job(
    "tune",
    selection=dg.AssetSelection.assets("decay_search").upstream(),
    description="A study of decay schedules, and what it is made from. A study that was stopped goes on where it was.",
)

# `diger ui --store` names the store in DIGER_STORE, so that the launchpad's default is the store whose snapshots are shown.
pipeline = Pipeline(store=os.environ.get("DIGER_STORE", DEFAULT_STORE))

# Ray gives the parallelism; a process for every step would only pay the imports again.
JOBS = [retrain, evaluate, gate_and_release, recommend, tune]
defs = dg.Definitions(assets=ASSETS, jobs=JOBS, resources={"pipeline": pipeline}, executor=dg.in_process_executor)
