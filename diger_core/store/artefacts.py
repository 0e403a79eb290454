"""Content-addressed artefacts and append-only records on a local path or s3:// (layout: docs/architecture.md).

An artefact is an immutable directory named by the canonical hash of its content, without times, run ids or hosts; its manifest is written
last, so that its presence means "complete". A record says which computation made which artefact; records are only ever added.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diger_core.errors import Damaged, DigerError
from diger_core.store.canonical import bytes_sha256, canonical_json, digest, jsonable
from diger_core.store.files import Root, describe_os_error, make_directories, safe_name
from diger_core.store.owner import abandoned, ended, identity, signature
from diger_core.store.record import Record

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch  # a second of start-up, and the two above a quarter, that questions about the store need not wait for

MANIFEST = "manifest.json"
FORMAT = 1
_OWNER = "owner.json"


def cache_directory() -> Path:
    base = os.environ.get("DIGER_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "diger")
    return Path(base)


def artefact_hash(stage: str, files: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """The artefact's name: over its stage, each file's name and canonical hash, and the facts."""
    listed = sorted((str(f["name"]), str(f["canonical"])) for f in files)
    return digest("artefact", str(FORMAT), stage, canonical_json(facts), *(part for pair in listed for part in pair))


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest, which a record seals: the artefact's name covers the files' content, this their bytes too. Without the files' places,
    which differ between a disk and an object store."""
    files = [{name: value for name, value in entry.items() if name != "path"} for entry in manifest["files"]]
    return digest("manifest", canonical_json({**manifest, "files": files}))


def seal(record: Mapping[str, Any]) -> str:
    """SHA-256 over a record's other fields: what an edit or a damaged byte of the record changes."""
    return digest("record file", canonical_json({name: value for name, value in record.items() if name != "seal"}))


@dataclass(frozen=True)
class Artefact:
    """One stored artefact. Files are verified against the manifest's SHA-256 once per process, when first opened."""

    root: Root
    stage: str
    hash: str
    manifest: Mapping[str, Any]
    _verified: dict[str, Path] = field(default_factory=dict, repr=False, compare=False)

    @property
    def facts(self) -> Mapping[str, Any]:
        facts: Mapping[str, Any] = self.manifest["facts"]
        return facts

    @cached_property
    def manifest_hash(self) -> str:
        return manifest_hash(self.manifest)

    @cached_property
    def files(self) -> dict[str, Mapping[str, Any]]:
        return {f["name"]: f for f in self.manifest["files"]}

    @property
    def names(self) -> list[str]:
        return sorted(self.files)

    @property
    def directory(self) -> str:
        """Where the artefact lies, for messages and links."""
        return f"{self.root.url}/artefacts/{self.stage}/{self.hash}"

    def path(self, name: str) -> Path:
        """A verified local file; from an object store, a cached copy named by its SHA-256."""
        if name in self._verified:
            return self._verified[name]
        if name not in self.files:
            raise DigerError(f"{self.directory} holds no {name} (it holds {', '.join(self.names)}): run stage {self.stage} again")
        entry = self.files[name]
        location = ("artefacts", self.stage, self.hash, entry["path"])
        local = Path(self.root.at(*location)) if self.root.is_local else self._cached(name, location)
        if self.root.is_local:
            if not local.exists():
                raise Damaged(
                    f"{local}: missing from its artefact: restore it (dvc pull), or remove {self.directory} and run stage {self.stage} again"
                )
            with self.root.faults(*location):
                same = bytes_sha256(local) == entry["sha256"]
            if not same:
                raise Damaged(self._differs(str(local)))
        self._verified[name] = local
        return local

    def _cached(self, name: str, location: tuple[str, ...]) -> Path:
        """A local copy of an object, whose bytes are right. A copy that was damaged (cut short by a power loss, say) is fetched again: it says
        nothing about the object."""
        entry = self.files[name]
        local: Path = cache_directory() / "files" / str(entry["sha256"]) / name
        try:
            if local.is_file() and bytes_sha256(local) == entry["sha256"]:
                return local
            make_directories(str(local.parent))
            self._fetch(local, location)
        except OSError as error:
            raise describe_os_error(error, str(local)) from error
        return local

    def _differs(self, place: str) -> str:
        return f"{place}: its bytes are not those of the manifest (SHA-256 differs): remove {self.directory} and run stage {self.stage} again"

    def mark_verified(self, name: str, local: Path) -> None:
        """For a caller that has just hashed the file itself."""
        self._verified[name] = local

    def _fetch(self, local: Path, location: tuple[str, ...]) -> None:
        for left in local.parent.glob(".*.tmp"):  # by a download that was killed
            if abandoned(left.name):
                left.unlink(missing_ok=True)
        temporary = local.parent / f".{signature()}.{uuid.uuid4().hex}.tmp"
        place = "/".join([self.root.url, *location])
        try:
            if not self.root.exists(*location):
                raise Damaged(f"{place}: missing from its artefact: remove {self.directory} and run stage {self.stage} again")
            self.root.download(temporary, *location)
            if bytes_sha256(temporary) != self.files[local.name]["sha256"]:
                raise Damaged(self._differs(place))
            os.replace(temporary, local)
        finally:
            temporary.unlink(missing_ok=True)

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        import pyarrow.parquet as pq

        return pq.read_table(self.path(name), columns=columns)

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        return load_file(self.path(name))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The tensors of a file as numpy arrays, without torch: for questions that must not wait for its import. No bfloat16."""
        from safetensors.numpy import load_file

        return load_file(self.path(name))

    def mapped(self, name: str) -> dict[str, np.ndarray]:
        """The same as read-only arrays that lie in the file, for one that need not fit into memory."""
        from diger_core.store.tensor_file import mapped

        return mapped(self.path(name))

    def tensors_metadata(self, name: str) -> dict[str, str]:
        from safetensors import safe_open

        with safe_open(str(self.path(name)), framework="np") as f:
            return dict(f.metadata() or {})

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_bytes())

    def verify(self) -> list[str]:
        """Every file's bytes against the manifest, and the manifest against the name; the list of faults."""
        faults = []
        if artefact_hash(self.stage, self.manifest["files"], self.facts) != self.hash:
            faults.append(f"{self.directory}/{MANIFEST}: does not hash to the artefact's name: it was edited")
        for name in self.names:
            self._verified.pop(name, None)
            try:
                self.path(name)
            except DigerError as error:
                faults.append(str(error))
        return faults


class ArtefactWriter:
    """Collects an artefact's files in a local directory; `Store.publish` names and stores it."""

    def __init__(self, stage: str, directory: Path):
        self.stage, self.directory = safe_name(stage), directory
        self.facts: dict[str, Any] = {}
        self._sort: dict[str, list[str] | None] = {}

    def _new(self, name: str) -> Path:
        path = self.directory / safe_name(name)
        if name == MANIFEST or path.exists():
            raise ValueError(f"{self.stage}: {name} is written twice or reserved")
        return path

    def table(self, name: str, table: pa.Table, sort_by: Iterable[str] = ()) -> None:
        """A Parquet file; rows are ordered by `sort_by` (empty: as they are, and then their order is content)."""
        keys = list(sort_by)
        import pyarrow.parquet as pq

        from diger_core.store.content_hash import sort_table

        pq.write_table(sort_table(table, keys), self._new(name), compression="zstd", compression_level=3)
        self._sort[name] = keys

    def place(self, name: str, sort_by: Iterable[str] = ()) -> Path:
        """Where a file goes that is written piece by piece, its rows in the order of `sort_by` (empty: their order is content)."""
        self._sort[name] = list(sort_by)
        return self._new(name)

    def tensors(self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
        from safetensors.torch import save_file

        plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        save_file(plain, self._new(name), metadata=dict(metadata or {}))

    def json(self, name: str, value: Any) -> None:
        self._new(name).write_bytes(json.dumps(jsonable(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def bytes(self, name: str, data: bytes) -> None:
        self._new(name).write_bytes(data)

    def file(self, name: str, source: str | Path, sort_by: Iterable[str] | None = ()) -> None:
        """Copies a local file as it is; `sort_by=None` declares a Parquet file's rows unordered."""
        shutil.copyfile(source, self._new(name))
        self._sort[name] = None if sort_by is None else list(sort_by)

    def link(self, name: str, source: str | Path, sort_by: Iterable[str] | None = ()) -> None:
        """Like `file`, but by a hard link where the file system allows one: the source must never change afterwards."""
        try:
            os.link(source, self._new(name))
        except OSError:
            shutil.copyfile(source, self.directory / name)
        self._sort[name] = None if sort_by is None else list(sort_by)

    def manifest(self) -> dict[str, Any]:
        from diger_core.store.content_hash import file_hash

        files = []
        for path in sorted(self.directory.iterdir()):
            keys = self._sort.get(path.name, [])
            entry = {"name": path.name, "path": path.name, "bytes": path.stat().st_size, "sha256": bytes_sha256(path)}
            files.append({**entry, "sort_by": keys, "canonical": file_hash(path, keys)})
        facts = jsonable(self.facts)
        return {"format": FORMAT, "stage": self.stage, "hash": artefact_hash(self.stage, files, facts), "facts": facts, "files": files}


class Store:
    """Artefacts, records, snapshots and pointers under one root."""

    def __init__(self, url: str | Path):
        self.root = Root(url)
        self.url = self.root.url

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # Artefacts

    def artefact(self, stage: str, hash_: str) -> Artefact:
        """The artefact, or a `DigerError` where it is missing, incomplete or its manifest is not its own."""
        found = self.find(stage, hash_)
        if found is None:
            raise DigerError(f"{self.url}/artefacts/{stage}/{hash_}: not in the store: restore it (dvc pull), or run stage {stage} again")
        return found

    def find(self, stage: str, hash_: str) -> Artefact | None:
        data = self.root.read_if_there("artefacts", stage, hash_, MANIFEST)
        return None if data is None else self.opened(stage, hash_, data)

    def opened(self, stage: str, hash_: str, data: bytes) -> Artefact:
        """The artefact whose manifest has these bytes; `Damaged` where they are not its own."""
        try:
            manifest = json.loads(data)
            same = artefact_hash(manifest["stage"], manifest["files"], manifest["facts"]) == manifest["hash"] == hash_
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            same = False
        if not same:
            raise Damaged(
                f"{self.url}/artefacts/{stage}/{hash_}/{MANIFEST}: damaged or edited (it does not hash to its name): "
                f"remove that directory and run stage {stage} again"
            )
        return Artefact(self.root, stage, hash_, manifest)

    @contextlib.contextmanager
    def writer(self, stage: str) -> Iterator[ArtefactWriter]:
        """A scratch directory for a new artefact; removed unless `publish` has moved it into the store."""
        if self.root.is_local:
            self.sweep()
        with self.root.faults("tmp"):
            parent = self.root.at("tmp") if self.root.is_local else None
            if parent is not None:
                make_directories(parent)
            outer = Path(tempfile.mkdtemp(prefix=f"{safe_name(stage)}-", dir=parent))
        try:
            with self.root.faults("artefacts", stage):
                (outer / _OWNER).write_text(json.dumps(identity()), encoding="utf-8")
                directory = outer / "files"
                directory.mkdir()
                yield ArtefactWriter(stage, directory)
        finally:
            shutil.rmtree(outer, ignore_errors=True)

    def sweep(self) -> list[str]:
        """Removes what writers left in tmp/ whose process is gone; returns the directories' names. Local stores only."""
        gone = []
        for name in self.root.list("tmp") if self.root.is_local else []:
            path = Path(self.root.at("tmp", name))
            try:
                dead = ended(json.loads((path / _OWNER).read_bytes()))
            except (OSError, ValueError, AttributeError):
                continue  # it has just begun, has just ended, or is nobody's: `diger gc` removes it by its age
            if dead:
                shutil.rmtree(path, ignore_errors=True)
                gone.append(name)
        return gone

    def publish(self, writer: ArtefactWriter) -> Artefact:
        """Names the written files by their content and stores them, manifest last. Storing equal content twice is harmless."""
        with self.root.faults("artefacts", writer.stage):
            manifest = writer.manifest()
            hash_ = manifest["hash"]
            existing = self._intact(writer.stage, hash_)
            if existing is not None:
                return existing
            if self.root.is_local:
                self._publish_local(writer, manifest)
            else:
                self._publish_remote(writer, manifest)
        return self.artefact(writer.stage, hash_)

    def _intact(self, stage: str, hash_: str) -> Artefact | None:
        """The stored artefact if every byte verifies; a damaged one is moved out of the way, because we hold a good copy. One that cannot be
        read now (no network, no credentials) is not damaged, and stays."""
        try:
            existing = self.find(stage, hash_)
            if existing is not None:
                for name in existing.names:
                    existing.path(name)
                return existing
        except Damaged:
            existing = None
        if self.root.list("artefacts", stage, hash_):
            self.root.remove_directory("artefacts", stage, hash_)
        return None

    def _publish_local(self, writer: ArtefactWriter, manifest: Mapping[str, Any]) -> None:
        for path in writer.directory.iterdir():
            path.chmod(0o444)
        manifest_path = writer.directory / MANIFEST
        manifest_path.write_bytes(canonical_json(manifest))
        manifest_path.chmod(0o444)
        writer.directory.chmod(0o755)
        self.root.adopt_directory(writer.directory, "artefacts", writer.stage, manifest["hash"])

    def _publish_remote(self, writer: ArtefactWriter, manifest: Mapping[str, Any]) -> None:
        # Objects are named by their bytes: two writers of equal content in different encodings cannot mix their files.
        files = [{**f, "path": f"{f['sha256'][:16]}-{f['name']}"} for f in manifest["files"]]
        for entry in files:
            self.root.upload(writer.directory / entry["name"], "artefacts", writer.stage, manifest["hash"], entry["path"])
        self.root.create(canonical_json({**manifest, "files": files}), "artefacts", writer.stage, manifest["hash"], MANIFEST)

    # Records

    def records(self, stage: str, key: str) -> list[Record]:
        """All records of one computation, oldest first."""
        names = [n for n in self.root.list("records", stage, key) if n.endswith(".json")]
        again = "restore it from a copy of the store, or remove it: its stage is then computed again"
        found: list[Any] = [self.document("records", stage, key, name, remedy=again) for name in names]
        for name, record in zip(names, found, strict=True):
            if not isinstance(record.get("artefact"), str):
                raise Damaged(f"{self.url}/records/{stage}/{key}/{name}: damaged, it names no artefact: {again}")
        return found

    def document(self, *names: str, remedy: str = "restore it from a copy of the store") -> dict[str, Any]:
        """A JSON object of the store; `Damaged` where it is empty, cut short or no object, with its place and the remedy."""
        data = self.root.read(*names)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            what = "empty (0 bytes)" if not data else "not valid JSON, or no object"
            raise Damaged(f"{'/'.join([self.url, *names])}: damaged, it is {what}: {remedy}")
        return value

    def lookup(self, stage: str, key: str) -> Artefact | None:
        """The artefact of the newest record whose artefact is still there."""
        for record in reversed(self.records(stage, key)):
            found = self.find(stage, record["artefact"])
            if found is not None:
                return found
        return None

    def append_record(self, stage: str, key: str, record: Mapping[str, Any]) -> Record:
        """Adds a record under the next free number (conditional create: two writers never share one)."""
        names = [name for name in self.root.list("records", stage, key) if name.endswith(".json")]
        number = int(names[-1].removesuffix(".json")) + 1 if names else 1
        while True:
            full: Record = jsonable({"format": FORMAT, "stage": stage, "key": key, "number": number, **record})
            full["seal"] = seal(full)
            if self.root.create(json.dumps(full, indent=1, sort_keys=True, ensure_ascii=False).encode(), "records", stage, key, f"{number:06d}.json"):
                return full
            number += 1

    # Pointers: created once, never changed

    def pointer(self, kind: str, name: str) -> dict[str, Any] | None:
        if not self.root.exists("pointers", kind, f"{name}.json"):
            return None
        return self.document("pointers", kind, f"{name}.json", remedy="restore it from a copy of the store, or remove it: the next run decides again")

    def create_pointer(self, kind: str, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Creates the pointer, or returns the one that was there first."""
        if self.root.create(canonical_json(value), "pointers", kind, f"{name}.json"):
            return dict(value)
        found = self.pointer(kind, name)
        assert found is not None
        return found
