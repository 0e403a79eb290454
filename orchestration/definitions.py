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
    description="Everything, from a registered snapshot to the report. Stages whose inputs and params are unchanged are reused.",
)
evaluate = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets("evaluation", "report"),
    description="Rank the test events again and rebuild the report, from models that exist.",
)

tune = dg.define_asset_job(
    "tune",
    selection=dg.AssetSelection.assets("decay_search").upstream(),
    description="A study of decay schedules, and what it is made from. A study that was stopped goes on where it was.",
)

# `diger ui --store` names the store in DIGER_STORE, so that the launchpad's default is the store whose snapshots are shown.
pipeline = Pipeline(store=os.environ.get("DIGER_STORE", DEFAULT_STORE))

# Ray gives the parallelism; a process for every step would only pay the imports again.
defs = dg.Definitions(assets=ASSETS, jobs=[retrain, evaluate, tune], resources={"pipeline": pipeline}, executor=dg.in_process_executor)
