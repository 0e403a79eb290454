"""The writer of an artefact: collects its files in a local directory, and describes them by a manifest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diger_core.store.artefact import FORMAT, MANIFEST, artefact_hash
from diger_core.store.canonical import bytes_sha256, jsonable
from diger_core.store.files import safe_name

if TYPE_CHECKING:
    import pyarrow as pa
    import torch  # imported where they are used: the store's start must not wait for them


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
