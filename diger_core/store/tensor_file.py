"""Safetensors files that need not fit into memory: written piece by piece, and mapped instead of read.

The bytes are those that the library writes for the same tensors, so a file's hash does not tell how it was made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from diger_core.errors import Damaged

Shape = tuple[int, ...]
_TYPES: dict[str, Any] = {"I64": np.int64, "I32": np.int32, "F64": np.float64, "F32": np.float32, "BOOL": np.bool_, "U8": np.uint8}


class TensorFile:
    """A new file of tensors whose types and shapes are known; rows are written in any order, all of them before it is closed."""

    def __init__(self, path: Path, tensors: Mapping[str, tuple[npt.DTypeLike, Shape]]):
        self._at: dict[str, tuple[int, np.dtype[Any]]] = {}
        header, place = {}, 0
        names: dict[np.dtype[Any], str] = {np.dtype(kind): name for name, kind in _TYPES.items()}
        for name in _order(tensors):
            kind, shape = np.dtype(tensors[name][0]), tensors[name][1]
            end = place + kind.itemsize * int(np.prod(shape, dtype=np.int64))
            header[name] = {"dtype": names[kind], "shape": list(shape), "data_offsets": [place, end]}
            self._at[name], place = (place, kind), end
        text = json.dumps({"__metadata__": {}, **header}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._data = 8 + len(text)
        self._file = open(path, "xb")  # noqa: SIM115 - closed by __exit__
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._data + place)

    def put(self, name: str, start: int, values: npt.NDArray[Any]) -> None:
        """Writes `values` [n] at place `start` of a tensor of one dimension."""
        begin, kind = self._at[name]
        self._file.seek(self._data + begin + start * kind.itemsize)
        self._file.write(np.ascontiguousarray(values, dtype=kind).data)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def _order(tensors: Mapping[str, tuple[npt.DTypeLike, Shape]]) -> list[str]:
    """The names in the order in which the library stores them: asked of itself, with one value a tensor."""
    from safetensors.numpy import save

    header, _ = _header(save({name: np.zeros(1, dtype=kind) for name, (kind, _) in tensors.items()}))
    return [name for name in header if name != "__metadata__"]


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    return header, 8 + size


def save(arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """A file of arrays that are all there."""
    from safetensors.numpy import save_file

    save_file(dict(arrays), path)


def mapped(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a file as read-only arrays that lie in the file: a page is read when it is used. `Damaged` where the file is cut short."""
    with open(path, "rb") as file:
        start = file.read(8)
        header, data = _header(start + file.read(int.from_bytes(start, "little")))
    held, found = path.stat().st_size, {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        if data + end > held:
            raise Damaged(f"{path}: cut short: tensor {name} ends behind the file's end: run the stage that wrote it again")
        kind, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
        empty = begin == end  # nothing can be mapped
        found[name] = np.zeros(shape, kind) if empty else np.asarray(np.memmap(path, kind, "r", data + begin, shape))
    return found
