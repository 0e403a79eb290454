"""One stored artefact: its name, its manifest, and its files, which are verified when they are opened.

An artefact is an immutable directory named by the canonical hash of its content, without times, run ids or hosts; its manifest is written
last, so that its presence means "complete".
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diger_core.errors import Damaged, DigerError
from diger_core.store.canonical import bytes_sha256, canonical_json, digest
from diger_core.store.durable import make_directories
from diger_core.store.faults import describe_os_error
from diger_core.store.files import Root
from diger_core.store.owner import abandoned, signature

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch  # a second of start-up, and the two above a quarter, that questions about the store need not wait for

MANIFEST = "manifest.json"
FORMAT = 1


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
