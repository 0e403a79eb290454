"""The world of docs/tuning.md: a toy catalogue and parameters under which a trial takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.orchestration.retraining_world import FIRST, SMALL, shop
from tests.orchestration.snapshot_material import write


def world(folder: Path) -> None:
    write(folder / "data" / "snapshots" / "toy", *shop(FIRST, 120))
    search: dict[str, Any] = {
        "snapshot": "data/snapshots/toy",
        "training": SMALL["training"] | {"epochs": 3},
        "decay_search": {"finalists": 2, "seeds": 2},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(SMALL | search), encoding="utf-8")
