"""Stage `raw_interactions`: the snapshot's events, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.engine.registry import places
from orchestration.snapshot.files import fetch_from

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun


def raw_interactions(run: StageRun) -> None:
    """Copies interactions.parquet; refuses bytes that changed since the registration."""
    name = "interactions.parquet"
    known = run.snapshot.files[name]
    run.out.file(name, fetch_from(places(run.store, run.snapshot), name, run.scratch / name, known["sha256"]))
    run.facts(rows=int(known["rows"]))
