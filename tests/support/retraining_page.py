"""The world of docs/retraining.md: a champion from Monday's snapshot, and what arrived since."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from orchestration.champion import log
from orchestration.engine.registry import register
from tests.support.retraining_world import FIRST, LENIENT, RENAMED, SECOND, SMALL, TO_BUNDLE, RetrainingWorld, shop
from tests.support.snapshot_material import write


def world(folder: Path) -> None:
    """params.yaml, a store with a champion, and the directory `incoming` with snapshots good, late, half and broken."""
    changes: dict[str, Any] = {
        "arrival": {"watch": "incoming", "enabled": True},
        "retraining": {"epochs": 1},
        "frozen_model": {"enabled": False},
        "gate": LENIENT,
        "validated_items": {"max_quarantined": 0.5, "min_volume_ratio": 0.75},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(SMALL | changes), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        made = RetrainingWorld(Path())
        drop("monday", *shop(FIRST, 60))
        results = made.run(register(made.store, "incoming/monday"), (*TO_BUNDLE, "gate"), **changes)
        log.promote(made.store, results["bundle"].artefact.hash, "the first one")
    finally:
        os.chdir(before)
    events, items = shop(SECOND, 70, 9, RENAMED)
    drop("tuesday", events, items, folder)
    drop("sunday", *shop(FIRST, 50, 7), folder)
    write(folder / "incoming" / "wednesday", events, items.slice(1))
    later = folder / "later"
    for name, tables in {
        "one-new-item": shop([*FIRST, 60], 60), "shrunk": shop(range(42), 60), "remapped": shop(FIRST, 60, ids=lambda i: (i * 7 + 1) % 60)
    }.items():  # fmt: skip
        (write(later / name, *tables) / "_SUCCESS").touch()


def drop(name: str, events: Any, items: Any, folder: Path = Path()) -> None:
    (write(folder / "incoming" / name, events, items) / "_SUCCESS").touch()
