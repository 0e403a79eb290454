"""What Dagster loads: the assets, the jobs, the automation, and the one resource that they share."""

from __future__ import annotations

import os
from datetime import timedelta

import dagster as dg

from assets import ASSETS
from orchestration.on_dagster.jobs import JOBS
from orchestration.on_dagster.resources import DEFAULT_STORE, Pipeline
from orchestration.on_dagster.sensors import automation
from orchestration.params.load import load_params

# `diger ui --store` names the store in DIGER_STORE, so that the launchpad's default is the store whose snapshots are shown.
pipeline = Pipeline(store=os.environ.get("DIGER_STORE", DEFAULT_STORE))
config = load_params().arrival
sensors, schedules = automation(config)


def with_freshness(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The release says in the UI when it is older than `arrival.freshness_hours`."""
    if config.freshness_hours is None or asset.key != dg.AssetKey("release"):
        return asset
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=config.freshness_hours))
    return asset.map_asset_specs(lambda spec: dg.apply_freshness_policy(spec, policy))


# Ray gives the parallelism; a process for every step would only pay the imports again.
defs = dg.Definitions(
    assets=[with_freshness(asset) for asset in ASSETS],
    jobs=JOBS,
    sensors=sensors,
    schedules=schedules,
    resources={"pipeline": pipeline},
    executor=dg.in_process_executor,
)
