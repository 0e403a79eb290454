"""Snapshots known to a store: each gets a key from its name and content, created once, with the snapshot that came before it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from diger_core.errors import Damaged, DigerError
from diger_core.store.artefacts import Store
from diger_core.store.canonical import digest, jsonable
from diger_core.store.files import safe_name
from orchestration.graph import STAGES
from orchestration.stage import Stage

if TYPE_CHECKING:
    from orchestration.snapshot.files import SnapshotFiles

_SECTION, _PLACE = "snapshots", "place"
AGAIN = "restore it from a copy of the store, or remove it and register the snapshot again (diger snapshot add)"
DEMO = ("data/snapshots/demo-1", "data/snapshots/demo-2")
# Stage -> the files of a snapshot that it takes
FILES_OF = {stage.name: stage.snapshot_files for stage in STAGES if stage.snapshot_files}


@dataclass(frozen=True)
class Volume:
    """Rows of a file in the snapshot `key`."""

    rows: int
    key: str

    def __str__(self) -> str:
        return f"{self.rows} of {self.key}"


@dataclass(frozen=True)
class Registered:
    """A registered snapshot: where it lies, its bytes' hashes, the one before, and the volume that it is compared with.

    The order of snapshots is `number`, counted at the registration: no clock decides it, as clocks differ and are set back.
    """

    key: str
    url: str
    content_hash: str
    files: Mapping[str, Mapping[str, Any]]  # name -> sha256, bytes, rows
    previous: Mapping[str, Any] | None  # key and rows of the snapshot registered before
    registered_at: str
    number: int = 0
    compared: Mapping[str, Any] | None = None  # key and rows of the last accepted snapshot before; None before anything was released

    def file_hash(self, stage: str) -> str:
        """What a raw stage's key depends on: the SHA-256 of its files."""
        return " ".join(f"{name}={self.files[name]['sha256']}" for name in FILES_OF[stage] if name in self.files)

    def previous_of(self, file: str) -> Volume | None:
        """The volume of the file in the snapshot that this one is compared with; None where there is nothing to compare with."""
        if self.compared is None:
            return None
        rows = self.compared["rows"].get(file)
        return None if not rows else Volume(int(rows), str(self.compared["key"]))


def snapshot_key(url: str, content_hash: str) -> str:
    """A readable, unambiguous partition key: the directory's name and the beginning of the content hash."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", url.rstrip("/").rsplit("/", 1)[-1]).strip("-_")[:60] or "snapshot"
    return f"{name}-{content_hash[:8]}"


def register(store: Store, url: str, described: SnapshotFiles | None = None) -> Registered:
    """Describes the snapshot at `url`, unless the caller just has, and registers it.

    The same bytes again are the same snapshot, whatever their directory is called; that they lie here, too, is kept, so that they are found when
    the other place is gone. The entry that is returned names this place.
    """
    from orchestration.snapshot.files import describe

    described = described or describe(url)
    key = snapshot_key(described.url, described.content_hash)
    if store.root.exists(_SECTION, f"{key}.json"):
        return _here(store, lookup(store, key), described.url)
    known, damaged = readable(store)
    same = next((entry for entry in known if entry.content_hash == described.content_hash), None)
    if same is not None:
        return _here(store, same, described.url)
    if damaged:  # which snapshot came before this one is unknown
        raise Damaged(damaged[0])
    files = {name: {"sha256": f.sha256, "bytes": f.bytes, "rows": f.rows} for name, f in described.files.items()}
    number = max((entry.number for entry in known), default=0) + 1
    alike = _of_one_shop(store, known, described.url)
    before, compared = alike[-1] if alike else None, _accepted(store, alike)
    now = datetime.now(UTC).isoformat()
    entry = Registered(key, described.url, described.content_hash, files, _volumes(before), now, number, _volumes(compared))
    store.root.create(json.dumps(jsonable(entry.__dict__), indent=1, sort_keys=True).encode(), _SECTION, f"{key}.json")
    return _here(store, lookup(store, key), described.url)


def is_demo(url: str) -> bool:
    """Whether a snapshot is one of the embedded shop's, by where `diger demo` and `diger ui` write them."""
    return url.rstrip("/").endswith(DEMO)


def _of_one_shop(store: Store, known: list[Registered], url: str) -> list[Registered]:
    """The snapshots of the same shop, the demo's or one's own: of another shop nothing is a measure. DigerError where the champion is another's."""
    alike = [entry for entry in known if is_demo(entry.url) == is_demo(url)]
    if known and not alike and store.root.list("champion"):
        whose, other = ("a shop of your own", "the demo") if is_demo(url) else ("the demo's shop", "yours")
        raise DigerError(f"{store.url}: what serves there is {whose}: give {other} a store of its own (--store DIR), or remove that store")
    return alike


def _volumes(entry: Registered | None) -> dict[str, Any] | None:
    return None if entry is None else {"key": entry.key, "rows": {name: f["rows"] for name, f in entry.files.items()}}


def _here(store: Store, entry: Registered, url: str) -> Registered:
    """The entry as it is found at `url`, which is kept as one of its places."""
    if entry.url == url:
        return entry
    store.create_pointer(_PLACE, f"{entry.key}-{digest('place', url)[:12]}", {"snapshot": entry.key, "url": url})
    return replace(entry, url=url)


def places(store: Store, entry: Registered) -> list[str]:
    """Every place where the snapshot's bytes have been seen: the entry's own first."""
    names = [name.removesuffix(".json") for name in store.root.list("pointers", _PLACE) if name.startswith(f"{entry.key}-")]
    found = [store.pointer(_PLACE, name) for name in names]
    own = lookup(store, entry.key).url
    return list(dict.fromkeys([entry.url, own, *(each["url"] for each in found if each is not None)]))


def _accepted(store: Store, known: list[Registered]) -> Registered | None:
    """The newest snapshot that every check of volume has accepted. None before anything was released: a first attempt that was cut short, or was
    a small one, is no measure for the next."""
    if not store.root.list("champion"):
        return None
    stages = [stage for stage in STAGES if stage.volume_of is not None]
    passed = {stage.name: _passed(store, stage) for stage in stages}
    return next((entry for entry in reversed(known) if all(entry.key in passed[stage.name] for stage in stages)), None)


def _passed(store: Store, stage: Stage) -> set[str]:
    """Keys of the snapshots whose stored verdict of this stage is a good one."""
    found: set[str] = set()
    for key in store.root.list("records", stage.name):
        with contextlib.suppress(DigerError):  # refused, or its record is damaged, or its artefact gone: no evidence that it was accepted
            for record in store.records(stage.name, key):
                if record["snapshot"] not in found and stage.refuse is not None:
                    stage.refuse(store.artefact(stage.name, record["artefact"]))
                    found.add(record["snapshot"])
    return found


def lookup(store: Store, key: str) -> Registered:
    """The registered snapshot of a partition key; an unknown or malformed key is refused by name."""
    if not store.root.exists(_SECTION, f"{safe_name(key)}.json"):
        names = ", ".join(entry.key for entry in registered(store)) or "none"
        raise DigerError(f"snapshot {key!r} is not registered in {store.url} (registered: {names}): register it with `diger snapshot add DIR_OR_URL`")
    return _read(store, f"{key}.json")


def registered(store: Store) -> list[Registered]:
    """All registered snapshots whose entries can be read, oldest first."""
    return readable(store)[0]


def readable(store: Store) -> tuple[list[Registered], list[str]]:
    """(the snapshots, oldest first; what is to be said of entries that are damaged)."""
    found: list[Registered] = []
    damaged: list[str] = []
    for name in store.root.list(_SECTION):
        if name.endswith(".json"):
            try:
                found.append(_read(store, name))
            except Damaged as error:
                damaged.append(str(error))
    return sorted(found, key=lambda entry: (entry.number, entry.registered_at, entry.key)), damaged


def _read(store: Store, name: str) -> Registered:
    document = store.document(_SECTION, name, remedy=AGAIN)
    if not is_entry(document):
        raise Damaged(f"{store.url}/{_SECTION}/{name}: damaged, it is no snapshot's entry: {AGAIN}")
    return Registered(**document)


def is_entry(document: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a snapshot's entry: its fields, each of its type."""
    texts = ("key", "url", "content_hash", "registered_at")
    files, volumes = document.get("files"), (document.get("previous"), document.get("compared"))
    return (
        document.keys() <= Registered.__dataclass_fields__.keys()
        and all(isinstance(document.get(name), str) for name in texts)
        and isinstance(document.get("number", 0), int)
        and isinstance(files, Mapping)
        and all(isinstance(each, Mapping) and isinstance(each.get("sha256"), str) and isinstance(each.get("rows"), int) for each in files.values())
        and all(each is None or (isinstance(each, Mapping) and isinstance(each.get("rows"), Mapping)) for each in volumes)
    )
