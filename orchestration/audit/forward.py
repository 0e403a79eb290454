"""Forwards: everything that was made with a thing, directly or through others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestration.audit.index import Index, Release
from orchestration.audit.names import Thing, with_assignment
from orchestration.graph import ORDER


@dataclass
class Uses:
    """`starts`: the artefacts that the question is about; `reached`: those made with them (stage -> hashes, oldest first)."""

    starts: list[str]
    reached: dict[str, list[str]]
    releases: list[Release] = field(default_factory=list)


def where_used(index: Index, thing: Thing) -> Uses:
    """From an artefact, a snapshot, an assignment, a commit or a release to all models, tables, reports and releases that depend on it."""
    starts = _starts(index, thing)
    found = closure(index, starts)
    beyond = found - set(starts) if thing.kind in ("artefact", "release") else found
    grouped: dict[str, list[str]] = {}
    for hash_ in sorted(beyond, key=lambda h: (ORDER.get(index.stage_of(h), -1), index.made_at(h), h)):
        grouped.setdefault(index.stage_of(hash_, "unknown"), []).append(hash_)
    return Uses(starts, grouped, [entry for entry in index.releases if entry.bundle in found])


def closure(index: Index, starts: list[str]) -> set[str]:
    """The starts and all that was made with them. Beyond the first step it follows computations, not content: what another computation made from
    an artefact that merely came out equal is not counted."""
    followed, waiting = set[str](), [made for hash_ in starts for made in index.users.get(hash_, [])]
    reached = set(starts)
    while waiting:
        made = waiting.pop()
        if made.path not in followed:
            followed.add(made.path)
            reached.add(made.artefact)
            waiting += index.consumers.get(made.path, [])
    return reached


def _starts(index: Index, thing: Thing) -> list[str]:
    if thing.kind == "snapshot":
        return snapshot_artefacts(index, thing.value)
    if thing.kind == "assignment":
        return with_assignment(index, thing.value)
    if thing.kind == "commit":
        return list(dict.fromkeys(made.artefact for made in index.made if made.commit == thing.value))
    if thing.kind == "release":
        return [entry.bundle for entry in index.releases if str(entry.number) == thing.value]
    return [thing.value]


def snapshot_artefacts(index: Index, key: str) -> list[str]:
    """The raw artefacts that hold a snapshot's bytes, under whatever name the same bytes were registered."""
    from orchestration.engine.registry import FILES_OF

    files = index.snapshots[key]["files"]
    sources = {stage: " ".join(f"{name}={files[name]['sha256']}" for name in names if name in files) for stage, names in FILES_OF.items()}
    return list(dict.fromkeys(made.artefact for made in index.made if made.source is not None and made.source == sources.get(made.stage)))


def period(index: Index, entry: Release) -> tuple[str, str | None]:
    """From when to when the entry's bundle served; None: it still does."""
    later = [other.at for other in index.releases if other.number == entry.number + 1]
    return entry.at, later[0] if later else None


def as_json(index: Index, uses: Uses) -> dict[str, Any]:
    releases = [{**entry.__dict__, "until": period(index, entry)[1]} for entry in uses.releases]
    stages = {
        stage: [{"hash": h, "at": index.made_at(h), "snapshots": _snapshots(index, h), "present": h in index.present} for h in hashes]
        for stage, hashes in uses.reached.items()
    }
    return {"starts": uses.starts, "stages": stages, "releases": releases}


def _snapshots(index: Index, hash_: str) -> list[str]:
    return sorted({str(made.snapshot) for made in index.makers.get(hash_, []) if made.snapshot})
