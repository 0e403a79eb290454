"""Two snapshots, two releases and three ID assignments in one store: what the audit's tests ask about.

`first` trains and releases a model; `second`, with a bad supplier file in it, is released on top; `third` trains on the second snapshot with another
seed and stays a candidate.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diger_core.store.artefacts import Store
from orchestration.engine.registry import Registered, register
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME, FLOW
from orchestration.params.load import build_params
from tests.support.retraining_world import SMALL, shop
from tests.support.snapshot_material import write

BAD = {58: "a completely different thing"}  # the supplier's file gives item 58 another item's words
LENIENT: dict[str, Any] = {
    "gate": {
        **{"min_relative_ndcg": 0.0, "min_relative_anchor": 0.0, "min_relative_slice": 0.0, "min_new_items": 0.0, "max_churn": 1.0},
        **{"min_unique_prefixes": 0.0, "min_coverage": 0.0},
        **{"min_relative_coverage": 0.0, "min_common_items": 0.0, "beat_most_popular": False, "bootstrap": 100, "servability_users": 8},
    },
    "evaluation": {"beams": 20, "bootstrap": 100},
}


@dataclass
class AuditWorld:
    store: Store
    snapshots: list[Registered]
    runs: list[dict[str, str]]  # stage -> artefact hash, of the three runs

    def copy(self, folder: Path) -> Store:
        """The same store elsewhere, for a test that damages it."""
        shutil.copytree(self.store.root.base, folder / "store")
        return Store(folder / "store")


def audit_world(folder: Path) -> AuditWorld:
    store = Store(folder / "store")
    params = SMALL | LENIENT
    first = register(store, str(write(folder / "monday", *shop(range(60), 60))))
    runs = [run(store, first, params)]
    second = register(store, str(write(folder / "tuesday", *shop([i for i in range(66) if i != 7], 70, 9, BAD))))
    runs.append(run(store, second, params))
    other = params | {"tokenizer": {**SMALL["tokenizer"], "seed": 5}, "retraining": {"baseline": "none"}}
    runs.append(run(store, second, other, skip=("release", "cold_start", "recommendations")))
    return AuditWorld(store, [first, second], runs)


def run(store: Store, snapshot: Registered, params: dict[str, Any], skip: tuple[str, ...] = ()) -> dict[str, str]:
    session = Session(store, build_params(params), snapshot, provenance={"dagster_run_id": f"run-of-{snapshot.key}"})
    return {stage.name: session.materialise(stage).artefact.hash for stage in FLOW if stage.name not in skip}


def story(folder: Path) -> None:
    """docs/audit.md: two days of releases, the second with a bad supplier file, and the recommendations that went out on both."""
    store = Store(folder / "store")
    params = SMALL | LENIENT
    monday = register(store, str(write(folder / "monday", *shop(range(60), 60))))
    tuesday_files = write(folder / "tuesday", *shop([i for i in range(66) if i != 7], 70, 9, BAD))
    for snapshot in (monday, None):
        known = snapshot or register(store, str(tuesday_files))
        run(store, known, params)
        Session(store, build_params(params), known).materialise(BY_NAME["recommendations"])
