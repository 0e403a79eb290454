"""Stage `raw_items`: the snapshot's catalogue, byte for byte, and the vectors that it may bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.engine.registry import places
from orchestration.snapshot.files import fetch_from

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun


def raw_items(run: StageRun) -> None:
    """Copies items.parquet and, where there is one, vectors.parquet; refuses bytes that changed since the registration."""
    rows = {}
    for name in ("items.parquet", "vectors.parquet"):
        if name in run.snapshot.files:
            known = run.snapshot.files[name]
            run.out.file(name, fetch_from(places(run.store, run.snapshot), name, run.scratch / name, known["sha256"]))
            rows[name] = int(known["rows"])
    run.facts(rows=rows["items.parquet"], vectors=rows.get("vectors.parquet", 0))
