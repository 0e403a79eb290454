"""The store's records as a graph of artefacts, small enough to hold in memory.

Records never change once written, so a line of the cache stays true for as long as its file stands as it did: a store that was deleted and made again
at the same place has other times. The cache lives outside the store, may be deleted at any time, and only says where to look: whatever is shown of a
record is read from the store again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from typing import Any

from diger_core.errors import Damaged, DigerError
from diger_core.store.artefact import MANIFEST, Artefact, cache_directory
from diger_core.store.artefacts import Store
from diger_core.store.canonical import digest
from diger_core.store.record import Record
from orchestration.audit.documents import Documents
from orchestration.engine.registry import AGAIN, is_entry

EARLIER = ("baseline", "champion", "anchor", "released")  # inputs that are an earlier release: its bundle, or the verdict that let it serve
_RESTORE = "restore it from a copy of the store"


@dataclass(frozen=True)
class Made:
    """A record, as far as the graph needs it: which computation made `artefact` from which inputs (name -> hash)."""

    path: str  # relative to records/
    stamp: str  # of the file: `Root.stamps`
    stage: str
    key: str
    number: int
    artefact: str
    inputs: Mapping[str, str]
    snapshot: str | None
    source: str | None  # a raw stage's files, as the snapshot registered them
    commit: str | None
    at: str
    horizon: bool = False  # came with `dvc pull` as a given input: what it was made from belongs to another revision of the repository


@dataclass(frozen=True)
class Release:
    """An entry of the champion log."""

    number: int
    action: str
    bundle: str
    verdict: str | None
    release: str | None
    previous: str | None
    reason: str
    at: str
    by: str
    forced: bool = False


class Index:
    """What a store holds. Everything is read when it is first asked for."""

    def __init__(self, store: Store, cached: bool = True) -> None:
        self.store, self.root = store, store.root
        self.documents = Documents(store.root, packed=cached)
        self._cached = cached
        self._records: dict[str, Record] = {}
        self._manifests: dict[str, Artefact | None] = {}
        self.faults: list[str] = []  # files that could not be read while the index was built

    # Records

    @cached_property
    def made(self) -> list[Made]:
        """All records, oldest first."""
        listed = {path: stamp for path, stamp in self.documents.stamps("records").items() if path.endswith(".json") and path.count("/") == 2}
        known = self._load_cache() if self._cached else {}
        found = [known[path] for path, stamp in listed.items() if path in known and known[path].stamp == stamp]
        fresh = [path for path, stamp in listed.items() if path not in known or known[path].stamp != stamp]
        if fresh:
            read = [made for made in self.each(lambda path: self._make(path, listed[path]), fresh) if made is not None]
            found += read
            if self._cached:
                self._save_cache(read)
        return sorted(found, key=lambda made: (made.at, made.stage, made.key, made.number))

    def _make(self, path: str, stamp: str) -> Made | None:
        try:
            return _made(path, stamp, self._read_record(path))
        except DigerError as error:  # one damaged record must not hide the others
            self.faults.append(str(error))
        except (AttributeError, TypeError, ValueError):
            self.faults.append(f"{self.store.url}/records/{path}: damaged, its fields are not those of a record; {_RESTORE}")
        return None

    @cached_property
    def makers(self) -> dict[str, list[Made]]:
        """Artefact hash -> the records that led to it, oldest first."""
        return _grouped(self.made, lambda made: [made.artefact])

    @cached_property
    def users(self) -> dict[str, list[Made]]:
        """Artefact hash -> the records that had it as an input."""
        return _grouped(self.made, lambda made: set(made.inputs.values()))

    def maker(self, hash_: str, snapshot: str | None) -> Made | None:
        """The record to follow from an asker of `snapshot`: where several computations led to equal content, that snapshot's own, else the first."""
        found = self.makers.get(hash_, [])
        own = [made for made in found if made.snapshot == snapshot]
        return own[0] if own else (found[0] if found else None)

    @cached_property
    def consumers(self) -> dict[str, list[Made]]:
        """Path of a record -> the records that took its artefact from it, as `maker` sees it."""
        return _grouped(self.made, lambda made: {m.path for hash_ in made.inputs.values() if (m := self.maker(hash_, made.snapshot)) is not None})

    def record(self, made: Made) -> Record:
        """The whole record, from the store."""
        if made.path not in self._records:
            self._records[made.path] = self._read_record(made.path)
        return self._records[made.path]

    def _read_record(self, path: str) -> Record:
        record: Record = parsed(self.documents.read("records", *path.split("/")), f"{self.store.url}/records/{path}")
        return record

    # Artefacts

    @cached_property
    def stages(self) -> dict[str, list[str]]:
        """Stage -> the hashes whose directories exist, complete or not."""
        return self.documents.folders("artefacts")

    @cached_property
    def present(self) -> dict[str, str]:
        """Artefact hash -> stage, of all directories."""
        return {hash_: stage for stage, hashes in self.stages.items() for hash_ in hashes}

    def stage_of(self, hash_: str, name: str = "") -> str:
        """The stage of an artefact, from its directory or its records; `name` (that of the input) where neither exists."""
        if hash_ in self.present:
            return self.present[hash_]
        return self.makers[hash_][0].stage if hash_ in self.makers else name

    def artefact(self, hash_: str) -> Artefact | None:
        """The artefact; None where it is missing. Raises DigerError where its manifest is damaged."""
        if hash_ not in self._manifests:
            stage = self.present.get(hash_)
            data = None if stage is None else self.documents.find("artefacts", stage, hash_, MANIFEST)
            self._manifests[hash_] = None if stage is None or data is None else self.store.opened(stage, hash_, data)
        return self._manifests[hash_]

    def complete(self, hash_: str) -> bool:
        """Whether the artefact was finished; a damaged manifest counts, too."""
        try:
            return self.artefact(hash_) is not None
        except DigerError:
            return True

    def artefacts(self, stages: Iterable[str] | None = None) -> list[Artefact]:
        """All complete artefacts of the stages (default: all); a damaged manifest is passed over: `diger verify` names it."""

        def find(hash_: str) -> Artefact | None:
            with contextlib.suppress(DigerError):
                return self.artefact(hash_)
            return None

        hashes = [hash_ for stage in (stages if stages is not None else self.stages) for hash_ in self.stages.get(stage, [])]
        return [artefact for artefact in self.each(find, hashes) if artefact is not None]

    def made_at(self, hash_: str) -> str:
        """When the artefact was first made, ISO 8601; empty where no record says so."""
        return self.makers[hash_][0].at if hash_ in self.makers else ""

    # Snapshots, releases, pointers

    @cached_property
    def snapshots(self) -> dict[str, dict[str, Any]]:
        """Key -> the registered snapshot, oldest first."""
        names = [name for name in self.documents.names("snapshots") if name.endswith(".json")]
        found: dict[str, dict[str, Any]] = {}
        for name, value in self._readable([("snapshots", name) for name in names]):
            if is_entry(value):
                found[name.removesuffix(".json")] = value
            else:
                self.faults.append(f"{self.store.url}/snapshots/{name}: damaged, it is no snapshot's entry: {AGAIN}")
        return dict(sorted(found.items(), key=lambda pair: (int(pair[1].get("number", 0)), str(pair[1].get("registered_at")), pair[0])))

    @cached_property
    def releases(self) -> list[Release]:
        """The champion log, oldest first."""
        names = [name for name in self.documents.names("champion") if name.endswith(".json")]
        documents = self.each(lambda name: self.document("champion", name), names)
        fields = Release.__dataclass_fields__
        for name, document in zip(names, documents, strict=True):
            texts = ("action", "bundle", "reason", "at", "by")
            if not isinstance(document.get("number"), int) or not all(isinstance(document.get(text), str) for text in texts):
                raise Damaged(f"{self.store.url}/champion/{name}: damaged, its fields are not those of an entry; {_RESTORE}")
        return [Release(**{name: value for name, value in document.items() if name in fields}) for document in documents]

    @cached_property
    def pointers(self) -> list[tuple[str, dict[str, Any]]]:
        """(kind/name, value) of every pointer."""
        paths = [path for path in self.documents.stamps("pointers") if path.endswith(".json")]
        found = self._readable([("pointers", *path.split("/")) for path in paths])
        return [(name.removesuffix(".json").removeprefix("pointers/"), value) for name, value in found]

    @cached_property
    def removed(self) -> dict[str, dict[str, Any]]:
        """Artefact hash -> what took it out on purpose (removal.py)."""
        found = self._readable([("removed", name) for name in self.documents.names("removed") if name.endswith(".json")])
        return {entry["artefact"]: entry for _, entry in found if "artefact" in entry}

    def damaged(self) -> list[str]:
        """Reads all that is read once, and returns what is to be said of files that cannot be."""
        _ = (self.made, self.snapshots, self.pointers, self.removed)
        return self.faults

    def _readable(self, places: list[tuple[str, ...]]) -> list[tuple[str, dict[str, Any]]]:
        """(name below its section's first folder, document) of those that can be read; the others are faults, and hide nothing else."""

        def read(names: tuple[str, ...]) -> tuple[str, dict[str, Any]] | None:
            try:
                return "/".join(names if names[0] == "pointers" else names[1:]), self.document(*names)
            except Damaged as error:
                self.faults.append(str(error))
                return None

        return [found for found in self.each(read, places) if found is not None]

    def document(self, *names: str) -> dict[str, Any]:
        document: dict[str, Any] = parsed(self.documents.read(*names), "/".join([self.store.url, *names]))
        return document

    # Reading many

    def each(self, work: Any, values: Iterable[Any]) -> list[Any]:
        """`work` of every value, in order; requests to an object store many at a time."""
        return self.documents.each(work, values)

    def remember(self) -> None:
        """At the end of a question: what was read from an object store is left there for the next one."""
        self.documents.remember()

    def distrust(self) -> None:
        """From now on every document is read from the store itself: for whoever verifies them."""
        self.documents.distrust()
        self._records.clear()
        self._manifests.clear()

    # The cache

    @property
    def _cache_file(self) -> str:
        place = os.path.realpath(self.root.base) if self.root.is_local else self.store.url
        return str(cache_directory() / "records" / f"{digest('records', place)[:32]}.jsonl")

    def _load_cache(self) -> dict[str, Made]:
        known: dict[str, Made] = {}
        with contextlib.suppress(OSError), open(self._cache_file, "rb") as f:
            for line in f:
                with contextlib.suppress(
                    ValueError, TypeError, RecursionError
                ):  # cut short by a crash, or of another version: that record is read again
                    made = Made(*json.loads(line))
                    known[made.path] = made
        return known

    def _save_cache(self, fresh: Iterable[Made]) -> None:
        lines = b"".join(json.dumps(astuple(made), separators=(",", ":")).encode() + b"\n" for made in fresh)
        with contextlib.suppress(OSError):  # a read-only home makes the next question slower, nothing else
            os.makedirs(os.path.dirname(self._cache_file), exist_ok=True)
            with open(self._cache_file, "ab", buffering=0) as f:
                f.write(lines)


def _made(path: str, stamp: str, record: Record) -> Made:
    stage, key, name = path.split("/")
    code = record.get("code") or {}
    return Made(
        path,
        stamp,
        stage,
        key,
        int(name.removesuffix(".json")) if name.removesuffix(".json").isdigit() else 0,
        str(record.get("artefact", "")),
        {str(k): str(v) for k, v in (record.get("inputs") or {}).items()},
        record.get("snapshot"),
        record.get("snapshot_file"),
        code.get("commit"),
        str(record.get("started_at", "")),
        bool(record.get("horizon", False)),
    )


def _grouped(made: Iterable[Made], keys: Any) -> dict[str, list[Made]]:
    groups: dict[str, list[Made]] = {}
    for each in made:
        for key in keys(each):
            groups.setdefault(key, []).append(each)
    return groups


def parsed(data: bytes, where: str) -> Any:
    """A JSON object, or a `Damaged` that names the file."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{where}: not valid JSON ({' '.join(str(error).split())}): damaged; {_RESTORE}") from error
    if not isinstance(value, dict):
        raise Damaged(f"{where}: holds no JSON object: damaged; {_RESTORE}")
    return value


def manifest_path(store: Store, stage: str, hash_: str) -> str:
    return f"{store.url}/artefacts/{stage}/{hash_}/{MANIFEST}"


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON."""
    return asdict(value)
