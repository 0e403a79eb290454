"""Canonical hashes of tables, tensors and files: equal content gives an equal SHA-256, whatever the machine, row order or file layout.

Tables are hashed column by column, columns by name and rows in the order of their sort keys; tensors by name with type and shape; JSON with sorted
keys. Only metadata keys that begin with ``diger.`` count: the others belong to the writing library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.store.canonical import bytes_sha256, canonical_json, digest
from diger_core.store.streamed_hash import column_digests

METADATA_PREFIX = "diger."
_BLOCK = 1 << 22
# The types of safetensors by the names that torch has for them, which the hash is made of.
_TENSORS = {
    "BOOL": "torch.bool",
    "U8": "torch.uint8",
    "I8": "torch.int8",
    "I16": "torch.int16",
    "I32": "torch.int32",
    "I64": "torch.int64",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "F32": "torch.float32",
    "F64": "torch.float64",
    "U16": "torch.uint16",
    "U32": "torch.uint32",
    "U64": "torch.uint64",
    "F8_E4M3": "torch.float8_e4m3fn",
    "F8_E5M2": "torch.float8_e5m2",
}


def _metadata_parts(metadata: Mapping[Any, Any] | None) -> Iterable[bytes]:
    items = {(_bytes(k), _bytes(v)) for k, v in (metadata or {}).items()}
    for key, value in sorted(items):
        if key.startswith(METADATA_PREFIX.encode()):
            yield key
            yield value


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """One contiguous array of a layout-independent type: no dictionaries, 64-bit offsets."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_string_view(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.large_string())
    elif pa.types.is_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        column = column.cast(pa.large_binary())
    elif pa.types.is_map(kind):
        column = column.cast(pa.large_list(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    elif pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        column = column.cast(pa.large_list(kind.value_type))
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _array_parts(array: pa.Array) -> Iterable[bytes]:
    """Type, length, validity and values; nulls contribute a zero value, so that garbage under them does not count."""
    yield str(array.type).encode()
    yield len(array).to_bytes(8, "little")
    valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
    yield np.packbits(valid, bitorder="little").tobytes() if array.null_count else b""
    if pa.types.is_null(array.type):
        return
    if pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type):
        filled = pc.fill_null(array, "" if pa.types.is_large_string(array.type) else b"")
        yield pc.binary_length(filled).cast(pa.int64()).to_numpy(zero_copy_only=False).tobytes()
        offsets = np.frombuffer(filled.buffers()[1], np.int64)[filled.offset : filled.offset + len(filled) + 1]
        data = filled.buffers()[2]
        yield memoryview(data)[int(offsets[0]) : int(offsets[-1])].tobytes() if data is not None and len(filled) else b""
    elif pa.types.is_large_list(array.type):
        yield pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64()).to_numpy(zero_copy_only=False).tobytes()
        yield from _array_parts(_plain(pa.chunked_array([pc.list_flatten(array)])))
    elif pa.types.is_struct(array.type):
        for index in range(array.type.num_fields):
            yield array.type.field(index).name.encode()
            yield from _array_parts(_plain(pa.chunked_array([pc.struct_field(array, index)])))
    else:
        if pa.types.is_temporal(array.type):
            array = array.cast(pa.int64()) if array.type.bit_width == 64 else array.cast(pa.int32())
        filled = pc.fill_null(array, pa.scalar(0).cast(array.type)) if array.null_count else array
        values = filled.to_numpy(zero_copy_only=False)
        if values.dtype.hasobject:  # its bytes would be addresses
            raise _NoCanonicalHash(f"a column of type {array.type} has no canonical hash: cast it to a string, a number or a list of them")
        yield np.ascontiguousarray(values).tobytes()


def _sortable(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_null(kind))


def sort_table(table: pa.Table, sort_by: Iterable[str] | None) -> pa.Table:
    """Rows by `sort_by`, ties by all other columns; `None`: by all columns (an unordered table); empty: as they are."""
    order = [(name, "ascending") for name in _order(table.schema, sort_by)]
    if not order:
        return table
    indices = pc.sort_indices(table, sort_keys=order)
    if np.array_equal(indices.to_numpy(), np.arange(len(table))):
        return table
    # 64-bit offsets while gathering: 2 GB of text would overflow the 32-bit ones.
    wide = pa.schema([f.with_type(pa.large_string()) if pa.types.is_string(f.type) else f for f in table.schema], table.schema.metadata)
    return table.cast(wide).take(indices).cast(table.schema)


def _order(schema: pa.Schema, sort_by: Iterable[str] | None) -> list[str]:
    """The columns that decide the order of rows, as `sort_table` has them."""
    if sort_by is not None and not (keys := list(sort_by)):
        return []
    keys = list(sort_by) if sort_by is not None else []
    return [*keys, *sorted(f.name for f in schema if f.name not in keys and _sortable(f.type))]


def table_hash(table: pa.Table, sort_by: Iterable[str] | None = None) -> str:
    """Canonical hash of a table [rows, columns]; `sort_by` as in `sort_table`."""
    decoded = table
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            decoded = decoded.set_column(i, field.name, table.column(i).cast(field.type.value_type))
    ordered = sort_table(decoded, sort_by)
    parts: list[bytes] = [b"table", *_metadata_parts(table.schema.metadata)]
    for name in sorted(ordered.column_names):
        column = digest(*_column_parts(ordered.column(name)))
        parts += [name.encode(), column.encode()]
    return digest(*parts)


def _column_parts(column: pa.ChunkedArray) -> Iterable[bytes]:
    return _array_parts(_plain(column))


def safetensors_hash(path: str | Path) -> str:
    """Canonical hash of a safetensors file: name, type, shape and bytes of every tensor, and the ``diger.`` metadata."""
    parts: list[bytes] = [b"tensors"]
    held = Path(path).stat().st_size
    with open(path, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(min(size, held)))
        parts += _metadata_parts(header.pop("__metadata__", None))
        for name in sorted(header):
            begin, end = header[name]["data_offsets"]
            if 8 + size + end > held:
                raise ValueError(f"cut short: tensor {name} ends behind the file's end")
            f.seek(8 + size + begin)
            body = hashlib.sha256()
            for start in range(begin, end, _BLOCK):
                body.update(f.read(min(_BLOCK, end - start)))
            parts += [name.encode(), _TENSORS[header[name]["dtype"]].encode(), str(tuple(header[name]["shape"])).encode(), body.hexdigest().encode()]
    return digest(*parts)


class _NoCanonicalHash(DigerError):
    """A column's type has no values that could be hashed whatever their layout."""


def _parquet_hash(path: str | Path, sort_by: Iterable[str] | None) -> str:
    """Of the table; of the bytes where the file, a copy of somebody else's, has a type that no canonical hash is defined for."""
    try:
        schema = pq.read_schema(path)
        streamed = column_digests(path, _order(schema, sort_by), _column_parts)
        if streamed is not None:
            parts = [part.encode() for name in sorted(streamed) for part in (name, streamed[name])]
            return digest(b"table", *_metadata_parts(schema.metadata), *parts)
        return table_hash(pq.read_table(path), sort_by)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, _NoCanonicalHash):
        return digest("bytes", bytes_sha256(path))


def file_hash(path: str | Path, sort_by: Iterable[str] | None = ()) -> str:
    """Canonical hash of one local file, by its kind (.parquet, .safetensors, .json, else its bytes)."""
    suffix = Path(path).suffix
    try:
        if suffix == ".parquet":
            return _parquet_hash(path, sort_by)
        if suffix == ".safetensors":
            return safetensors_hash(path)
        if suffix == ".json":
            return digest("json", canonical_json(json.loads(Path(path).read_bytes())))
    except (pa.ArrowInvalid, ValueError, OSError) as error:
        raise DigerError(f"{path}: cannot be read as {suffix[1:]} ({error}): restore it from a copy, or run its stage again") from error
    return digest("bytes", bytes_sha256(path))
