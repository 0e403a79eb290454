"""Snapshots known to a store: each gets a key from its name and content, created once, with the snapshot that came before it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from diger_core.store.canonical import jsonable
from diger_core.store.files import safe_name
from orchestration.graph import STAGES

if TYPE_CHECKING:
    from orchestration.snapshot.files import SnapshotFiles

_SECTION = "snapshots"
# Stage -> the files of a snapshot that it takes
FILES_OF = {stage.name: stage.snapshot_files for stage in STAGES if stage.snapshot_files}


@dataclass(frozen=True)
class Registered:
    """A registered snapshot: where it lies, its bytes' hashes, and the volume of the one before."""

    key: str
    url: str
    content_hash: str
    files: Mapping[str, Mapping[str, Any]]  # name -> sha256, bytes, rows
    previous: Mapping[str, Any] | None  # key and rows of the snapshot registered before
    registered_at: str

    def file_hash(self, stage: str) -> str:
        """What a raw stage's key depends on: the SHA-256 of its files."""
        return " ".join(f"{name}={self.files[name]['sha256']}" for name in FILES_OF[stage] if name in self.files)

    def previous_rows(self, file: str) -> int | None:
        """Rows of the file in the previous snapshot; None for the first."""
        return None if self.previous is None else int(self.previous["rows"][file])


def snapshot_key(url: str, content_hash: str) -> str:
    """A readable, unambiguous partition key: the directory's name and the beginning of the content hash."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", url.rstrip("/").rsplit("/", 1)[-1]).strip("-_")[:60] or "snapshot"
    return f"{name}-{content_hash[:8]}"


def register(store: Store, url: str, described: SnapshotFiles | None = None) -> Registered:
    """Describes the snapshot at `url`, unless the caller just has, and registers it; the same bytes under the same name again change nothing."""
    from orchestration.snapshot.files import describe

    described = described or describe(url)
    key = snapshot_key(described.url, described.content_hash)
    known = registered(store)
    for entry in known:
        if entry.key == key:
            return entry
    files = {name: {"sha256": f.sha256, "bytes": f.bytes, "rows": f.rows} for name, f in described.files.items()}
    latest = known[-1] if known else None
    previous = None if latest is None else {"key": latest.key, "rows": {name: f["rows"] for name, f in latest.files.items()}}
    entry = Registered(key, described.url, described.content_hash, files, previous, datetime.now(UTC).isoformat())
    import json

    store.root.create(json.dumps(jsonable(entry.__dict__), indent=1, sort_keys=True).encode(), _SECTION, f"{key}.json")
    return lookup(store, key)


def lookup(store: Store, key: str) -> Registered:
    """The registered snapshot of a partition key; an unknown or malformed key is refused by name."""
    import json

    if not store.root.exists(_SECTION, f"{safe_name(key)}.json"):
        names = ", ".join(entry.key for entry in registered(store)) or "none"
        raise DigerError(f"snapshot {key!r} is not registered in {store.url} (registered: {names}): register it with `diger snapshot add DIR_OR_URL`")
    return Registered(**json.loads(store.root.read(_SECTION, f"{key}.json")))


def registered(store: Store) -> list[Registered]:
    """All registered snapshots, oldest first."""
    import json

    names = [name for name in store.root.list(_SECTION) if name.endswith(".json")]
    entries = [Registered(**json.loads(store.root.read(_SECTION, name))) for name in names]
    return sorted(entries, key=lambda entry: (entry.registered_at, entry.key))
