"""What a record holds: which computation made which artefact, from what, where, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from diger_core.store.canonical import canonical_json, digest


class Code(TypedDict, total=False):
    """`dirty_diff`: SHA-256 of uncommitted changes, null for a clean tree; `lock`: SHA-256 of the lock file. "unknown" outside a checkout."""

    commit: str
    dirty_diff: str | None
    lock: str | None


class Machine(TypedDict, total=False):
    """Host, processor, accelerators and the versions that numbers depend on."""

    host: str
    system: str
    processor: str
    cpus: int | None
    accelerators: list[str]
    python: str
    torch: str
    numpy: str


class Record(TypedDict, total=False):
    """One record. The store adds format, stage, key, number and seal; the encoder's has neither snapshot, code nor machine. Whoever looks for
    damage reads with `get`."""

    format: int
    stage: str
    key: str
    number: int
    seal: str  # SHA-256 over the other fields
    artefact: str
    manifest: str  # SHA-256 of the artefact's manifest
    inputs: dict[str, str]  # name -> hash
    snapshot: str
    snapshot_file: str  # the canonical hash of the file that a first stage read
    params: dict[str, dict[str, Any]]  # the sections that the stage depends on
    code_version: str
    started_at: str  # ISO 8601, UTC
    seconds: float
    peak_memory_mb: float
    peak_gpu_memory_mb: float
    code: Code
    machine: Machine
    cluster: dict[str, Any]
    notes: dict[str, Any]
    launched_by: str
    dagster_run_id: str
    ray_job: str
    study: str  # of a promoted trial, as the next two
    decay_search: str
    trial: int
    forgotten: dict[str, Any]  # what `diger forget` replaced, and for whom
    horizon: bool  # what it was made from may belong to another revision


def seal(record: Mapping[str, Any]) -> str:
    """SHA-256 over a record's other fields: what an edit or a damaged byte of the record changes."""
    return digest("record file", canonical_json({name: value for name, value in record.items() if name != "seal"}))
