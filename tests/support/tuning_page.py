"""The world of docs/tuning.md: a tiny shop's snapshot and params.yaml, nothing trained yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support.retraining_world import FIRST, SMALL, shop
from tests.support.snapshot_material import write


def world(folder: Path) -> None:
    """params.yaml with a study of six short trials, in one process, and the snapshot `monday`."""
    changes: dict[str, Any] = {
        "snapshot": "monday",
        "training": SMALL["training"] | {"epochs": 4, "learning_rate": 0.02},
        "decay_search": {"trials": 6, "seeds": 2, "reduction": 2.0, "space": {"codebook_learning_rate": {"loguniform": [0.001, 0.1]}}},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(SMALL | changes), encoding="utf-8")
    write(folder / "monday", *shop(FIRST, 60))
