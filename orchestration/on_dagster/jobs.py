"""The jobs. One runs after the other by itself (sensors.py), and each by a click."""

from __future__ import annotations

import dagster as dg

from orchestration.graph import FLOW, upstream

_assets = dg.AssetSelection.assets

arrival = dg.define_asset_job(
    "arrival",
    selection=_assets("catalogue_diff").upstream(),
    description="Check a snapshot and compare it with the champion's: what changed, and what that asks for. Nothing is trained.",
)
assign_new_items = dg.define_asset_job(
    "assign_new_items",  # a job may not have the name of an asset
    selection=_assets("cold_start"),
    description="Cold start: IDs for items that the champion lacks, in seconds and without training.",
)
retrain = dg.define_asset_job(
    "retrain",
    selection=_assets(*(stage.name for stage in FLOW if stage.name != "release")),
    description="Everything from a registered snapshot to the gate's verdict and the report. What is unchanged is reused. The verdict stands in the "
    "checks of gate; an accepted candidate is released by gate_and_release.",
)
evaluate = dg.define_asset_job(
    "evaluate",
    selection=_assets("evaluation", "report"),
    description="Rank the test events again and rebuild the report, from models that exist.",
)
gate_and_release = dg.define_asset_job(
    "gate_and_release",
    selection=_assets("gate", "report", "release"),
    description="Release: judge a trained bundle against the present champion again, and make it the champion where the gate accepts.",
)
recommend = dg.define_asset_job(
    "recommend",
    selection=_assets(*upstream({"recommendations"})),  # what it is made from; the release that it comes after is no part
    description="The present champion's lists for all users of a snapshot; new items get IDs by cold start, nothing is trained.",
)
tune = dg.define_asset_job(
    "tune",
    selection=_assets("decay_search").upstream(),
    description="A study of decay schedules, and what it is made from. A study that was stopped continues where it stopped.",
)
compare_training = dg.define_asset_job(
    "compare_training",
    selection=_assets("training_comparison").upstream(),
    description="Ways to train on several seeds, paired by seed and user, and what they are made from. One that was stopped continues.",
)

CYCLE = [arrival, assign_new_items, retrain, gate_and_release, recommend]
JOBS = [*CYCLE, evaluate, tune, compare_training]
