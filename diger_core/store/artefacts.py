"""The store: content-addressed artefacts, append-only records and pointers on a local path or s3:// (layout: docs/architecture.md).

An artefact is stored under the hash of its content (artefact.py). A record says which computation made which artefact; records are only ever
added.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diger_core.errors import Damaged, DigerError
from diger_core.store.artefact import FORMAT, MANIFEST, Artefact, artefact_hash
from diger_core.store.artefact_writer import ArtefactWriter
from diger_core.store.canonical import canonical_json, jsonable
from diger_core.store.durable import make_directories
from diger_core.store.files import Root, safe_name
from diger_core.store.owner import ended, identity
from diger_core.store.record import Record, seal

_OWNER = "owner.json"


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
