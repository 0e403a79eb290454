"""Canonical hashes of Parquet files that need not fit into memory: column by column, row group by row group.

The digest is that of canonical.py. It can be streamed where the rows are in order already and every column is plain; otherwise the file has to be
read whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def column_digests(path: str | Path, order: list[str], parts_of: Callable[[pa.ChunkedArray], Iterable[bytes]]) -> dict[str, str] | None:
    """The digest of each column, where the rows are in the order of the columns `order`; None where they are not, or a column is not plain.

    `parts_of`: the parts (type, length, validity, values, or lengths and values) that a column's digest is made of.
    """
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        if file.num_row_groups < 2 or len(set(schema.names)) < len(schema.names) or not all(_plain(field.type) for field in schema):
            return None
        if order and not _in_order(file, order):
            return None
        return {name: _digest(file, name, parts_of) for name in schema.names}


def _plain(kind: pa.DataType) -> bool:
    plain = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_timestamp)
    return any(is_kind(kind) for is_kind in plain)


def _groups(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.Table]:
    for group in range(file.num_row_groups):
        if file.metadata.row_group(group).num_rows:
            yield file.read_row_group(group, columns=columns)


def _digest(file: pq.ParquetFile, name: str, parts_of: Callable[[pa.ChunkedArray], Iterable[bytes]]) -> str:
    """As `digest` of the whole column's parts: each part is prefixed with its length, so the lengths are summed before anything is hashed."""
    rows, nulls, kind = file.metadata.num_rows, 0, b""
    lengths: list[int] = []
    for table in _groups(file, [name]):
        parts = list(parts_of(table[name]))
        kind, nulls = parts[0], nulls + table[name].null_count
        lengths = [a + len(b) for a, b in zip(lengths or [0] * len(parts), parts, strict=True)]
    found = hashlib.sha256()
    for part in (kind, rows.to_bytes(8, "little")):
        found.update(len(part).to_bytes(8, "little") + part)
    found.update(((rows + 7) // 8 if nulls else 0).to_bytes(8, "little"))
    if nulls:
        for bits in _packed(pc.is_valid(table[name]).to_numpy() for table in _groups(file, [name])):
            found.update(bits)
    for place in range(3, len(lengths)):
        found.update(lengths[place].to_bytes(8, "little"))
        for table in _groups(file, [name]):
            found.update(list(parts_of(table[name]))[place])
    return found.hexdigest()


def _packed(pieces: Iterable[np.ndarray]) -> Iterator[bytes]:
    """The bits of all pieces as one row of bytes, wherever a piece ends."""
    left = np.zeros(0, dtype=bool)
    for piece in pieces:
        bits = np.concatenate([left, piece.astype(bool)])
        whole = len(bits) // 8 * 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        left = bits[whole:]
    yield np.packbits(left, bitorder="little").tobytes()


def _in_order(file: pq.ParquetFile, order: list[str]) -> bool:
    last: pa.Table | None = None
    for table in _groups(file, order):
        rows = table if last is None else pa.concat_tables([last, table])
        if not _ascending([rows[name].combine_chunks() for name in order]):
            return False
        last = table.slice(table.num_rows - 1)
    return True


def _ascending(columns: list[Any]) -> bool:
    """Whether each row is at or after the one before, by the first column that tells them apart; nulls come last. NaN: no, to be on the safe side."""
    open_e = np.ones(len(columns[0]) - 1, dtype=bool)
    for column in columns:
        column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
        if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
            return False
        there = pc.is_valid(column).to_numpy(zero_copy_only=False)
        before, after = column.slice(0, len(column) - 1), column.slice(1)
        greater_e = pc.fill_null(pc.greater(before, after), False).to_numpy(zero_copy_only=False) | (~there[:-1] & there[1:])
        if (open_e & greater_e).any():
            return False
        equal_e = pc.fill_null(pc.equal(before, after), False).to_numpy(zero_copy_only=False) | (~there[:-1] & ~there[1:])
        open_e &= equal_e
    return True
