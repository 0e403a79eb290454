"""One Parquet file of a snapshot, or the directory of part files that Spark, Dask and Polars write in its place: read as one, parts by name.

Nothing is left out unseen: a file that is no part, a column that only some parts have, and a column that stands in directory names are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.store.canonical import digest
from diger_core.store.files import Root
from diger_core.store.regular import require_regular

_BLOCK = 1 << 22
_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Described:
    """Size and SHA-256 of the bytes (of a directory: over its parts' names and bytes), rows, columns (nested ones counted), what it takes in
    memory at least, in bytes, and the Arrow schema."""

    bytes: int
    sha256: str
    rows: int
    leaves: int
    memory: int
    schema: pa.Schema


def parts(root: Root, name: str) -> list[str]:
    """The names, relative to `root`, that hold the file's rows: itself, or the Parquet files in the directory, in the order of their names."""
    return [part for part, _ in listed(root, name)]


def listed(root: Root, name: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The same with what the file system says of each (size, time). Names that begin with a dot or underscore are marks of the writing tool."""
    with root.faults(name):
        entry = root.fs.info(root.at(name))
    if entry["type"] != "directory":
        _require_part(root, name)
        return [(name, entry)]
    found = sorted(_below(root, name), key=lambda pair: pair[0])
    if not found:
        raise DigerError(f"{root.url}/{name}: is a directory without Parquet files; write one file, or the part files (*.parquet) into it")
    return found


def _below(root: Root, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    path = root.at(folder)
    with root.faults(folder):
        entries = root.fs.ls(path, detail=True, **({} if root.is_local else {"refresh": True}))
    if any(str(entry["name"]).endswith(".metadata.json") for entry in entries):
        raise DigerError(f"{root.url}/{folder}: is of an Iceberg table, which also holds older data: make a snapshot with diger ingest table")
    for entry in entries:
        full = str(entry["name"]).rstrip("/")
        base = full.rsplit("/", 1)[-1]
        name = f"{folder}/{base}"
        if base == "_delta_log":
            raise DigerError(f"{root.url}/{folder}: is a Delta table, which also holds older versions: make a snapshot with diger ingest table")
        if base[0] in "._" or full == path:  # the last: an object store's empty object that stands for the directory
            continue
        if entry["type"] == "directory":
            if "=" in base:
                column = base.partition("=")[0]
                raise DigerError(
                    f"{root.url}/{name}: column {column} stands in the directory's name alone; write it into the files (not partitioned by it)"
                )
            yield from _below(root, name)
        elif not base.endswith(".parquet"):
            raise DigerError(f"{root.url}/{name}: is no Parquet file (*.parquet) and lies among them; take it out of the directory")
        else:
            _require_part(root, name)
            yield name, entry


def _require_part(root: Root, name: str) -> None:
    if root.is_local:
        require_regular(root.at(name), f"{root.url}/{name}")


def described(root: Root, name: str) -> Described:
    """Reads every byte once, and the footers. DigerError where a part is empty, not Parquet, or not like the others."""
    found: dict[str, Described] = {part: _describe_part(root, part) for part in parts(root, name)}
    if list(found) == [name]:
        return found[name]
    schema = together(root.url, {part: each.schema for part, each in found.items()})
    sha = digest("parts", *(text for part, each in found.items() for text in (part.removeprefix(f"{name}/"), each.sha256)))
    size, rows, memory = (sum(getattr(each, name) for each in found.values()) for name in ("bytes", "rows", "memory"))
    return Described(size, sha, rows, next(iter(found.values())).leaves, memory, schema)


def _describe_part(root: Root, name: str) -> Described:
    where = f"{root.url}/{name}"
    with root.faults(name):
        size, sha = 0, hashlib.sha256()
        with root.fs.open(root.at(name), "rb", block_size=_BLOCK) as f:
            while block := f.read(_BLOCK):
                sha.update(block)
                size += len(block)
        if size == 0:
            raise DigerError(f"{where}: is empty (0 bytes); write it again")
        with root.fs.open(root.at(name), "rb") as f:
            try:
                parquet = pq.ParquetFile(f)
                rows, leaves, schema = parquet.metadata.num_rows, parquet.metadata.num_columns, parquet.schema_arrow
                memory = _in_memory(parquet.metadata)
            except pa.ArrowException as error:
                raise DigerError(not_parquet(where, error)) from error
    for field in schema:
        if (times := schema.names.count(field.name)) > 1:
            raise DigerError(f"{where}: column {field.name} exists {times} times; keep one of them")
    return Described(size, sha.hexdigest(), rows, leaves, memory, schema)


def _in_memory(metadata: Any) -> int:
    """Of equal values a file holds one and a count, memory holds each: by the footer, 4 bytes a value, or what the pages say where that is more."""
    chunks = (metadata.row_group(group).column(leaf) for group in range(metadata.num_row_groups) for leaf in range(metadata.num_columns))
    return sum(max(int(chunk.total_uncompressed_size), 4 * int(chunk.num_values)) for chunk in chunks)


def together(where: str, schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    """One schema for all parts: the same columns, each of a type that holds the parts' own (int32 beside int64 is int64)."""
    first, *others = schemas
    names = schemas[first].names
    for part in others:
        if odd := sorted(set(names) ^ set(schemas[part].names)):
            without, other = (part, first) if odd[0] in names else (first, part)
            raise DigerError(f"{where}/{without}: column {odd[0]} is missing, {other} has it; write all parts alike")
    fields = []
    for name in names:
        kinds = {part: schemas[part].field(name).type for part in schemas}
        try:
            whole = pa.unify_schemas([pa.schema([(name, kind)]) for kind in dict.fromkeys(kinds.values())], promote_options="permissive")
        except pa.ArrowException as error:
            odd_part = next(part for part in schemas if kinds[part] != kinds[first])
            raise DigerError(
                f"{where}/{odd_part}: column {name} has type {kinds[odd_part]}, in {first} it has {kinds[first]}; write all parts alike"
            ) from error
        fields.append(whole.field(0))
    return pa.schema(fields)


def join(files: Mapping[str, Path], where: str, target: Path) -> None:
    """Writes the parts, local copies by their names, into one Parquet file, row by row in their order."""
    at = where
    try:
        schema = together(where, {part: pq.read_schema(path) for part, path in files.items()})
        with pq.ParquetWriter(target, schema, compression="zstd", compression_level=3) as writer:
            for part, path in files.items():
                at = f"{where}/{part}"
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(_BATCH_ROWS):
                        writer.write_table(pa.Table.from_batches([batch]).select(schema.names).cast(schema))
    except (pa.ArrowException, OSError) as error:
        raise DigerError(not_parquet(at, error)) from error


@contextlib.contextmanager
def reading_of(path: str | Path) -> Iterator[None]:
    """Names the Parquet file that a fault of reading comes from. Nothing may be written inside: a full disk would be told as a damaged file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DigerError(not_parquet(str(path), error)) from error


def not_parquet(where: str, error: BaseException) -> str:
    """The line that names a file which cannot be read."""
    reason = " ".join(str(error).split())[:160].rstrip(". ")
    if isinstance(error, pa.ArrowNotImplementedError):
        return f"{where}: has a column whose type cannot be read ({reason}); write it again without that column, or as text or numbers"
    return f"{where}: not a complete Parquet file ({reason}): truncated, damaged or of another format; write or copy it again"
