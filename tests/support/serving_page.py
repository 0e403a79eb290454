"""The world of docs/serving.md: a champion from Monday's snapshot, and a second bundle that nobody has released yet."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from orchestration.engine.registry import register
from tests.support.retraining_world import FIRST, LENIENT, SMALL, RetrainingWorld, shop
from tests.support.snapshot_material import write


def world(folder: Path) -> None:
    """params.yaml, the snapshot `monday`, a store with a champion, next.txt with the hash of another bundle."""
    (folder / "params.yaml").write_text(yaml.safe_dump({**SMALL, "snapshot": "monday", "gate": LENIENT}), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        made = RetrainingWorld(Path())
        write(Path("monday"), *shop(FIRST, 60))
        monday = register(made.store, "monday")
        made.release(made.run(monday))
        later = made.run(monday, joint_model={"codebook_learning_rate": 0.01}, retraining={"baseline": "none"})
        Path("next.txt").write_text(later["bundle"].artefact.hash, encoding="utf-8")
    finally:
        os.chdir(before)
