"""The Dagster assets, one per stage of `orchestration/graph.py`."""

from assets.stage_asset import stage_asset
from orchestration.graph import STAGES

ASSETS = [stage_asset(stage) for stage in STAGES]

__all__ = ["ASSETS"]
