"""CSV and Parquet files with a column mapping. Ids in a CSV file are text, exactly as they stand there; Parquet keeps its types."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.progress import Progress, Silent
from orchestration.snapshot.ingest.source import BATCH_ROWS, BLOCK_BYTES, Reading, Source, is_gzip, reading
from orchestration.snapshot.ingest.times import floats, place, whole_seconds
from orchestration.validation.columns import decoded, exact_ids, is_text, nearest_column

CANONICAL = ("user_id", "item_id", "timestamp", "pos", "rating", "weight", "event_type")


@dataclass(frozen=True)
class TextFormat:
    """How a text table is cut into cells. `names`: the columns, where they differ from the header line's own words; `text_fields`: those of
    them that an item keeps (None: all)."""

    delimiter: str = ","
    quoted: bool = True
    names: tuple[str, ...] | None = None
    text_fields: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TableOptions:
    """`mapping`: canonical name -> column of the file. `unit`: of integer timestamps. `floor`: drop fractions of a second, do not refuse."""

    mapping: Mapping[str, str]
    items_mapping: Mapping[str, str]
    unit: str = "s"
    floor: bool = False
    integer_ids: bool = False
    with_rating: bool = False
    text: TextFormat = TextFormat()
    items_text: TextFormat = TextFormat()


def table_source(interactions: Path, items: Path | None, options: TableOptions, name: str = "table") -> Source:
    """Checks the columns of both files, and returns their readers. DigerError for a column that does not exist."""
    options = replace(options, mapping=_interaction_columns(interactions, options))
    if items is not None:
        options = replace(options, items_mapping=_item_columns(items, options))
    return Source(
        format=name,
        files={"interactions": interactions} | ({"items": items} if items else {}),
        interactions=lambda progress: _interactions(interactions, options, progress),
        items=(lambda progress: _items(items, options, progress)) if items else None,
        integer_ids=options.integer_ids,
        options={"map": dict(options.mapping), "map_items": dict(options.items_mapping), "timestamp_unit": options.unit, "floor": options.floor},
    )


def is_parquet(path: Path) -> bool:
    with reading(path, Silent()) as file:
        return file.raw.read(4) == b"PAR1"


def header(path: Path, text: TextFormat) -> list[str]:
    """The columns' names of a Parquet or text table."""
    if is_parquet(path):
        return list(_parquet(path).schema_arrow.names)
    if text.names:
        return list(text.names)
    with reading(path, Silent()) as file:
        first = io.TextIOWrapper(io.BufferedReader(_bytes(file)), "utf-8-sig", newline="")
        try:
            dialect: dict[str, Any] = {"delimiter": text.delimiter, "quoting": csv.QUOTE_MINIMAL if text.quoted else csv.QUOTE_NONE}
            return next(csv.reader(first, **dialect), [])
        except (UnicodeDecodeError, csv.Error, OSError) as error:
            raise DigerError(f"{path.name}: the header line cannot be read ({error}); give a CSV file in UTF-8, or a Parquet file") from error
        finally:
            first.detach()


def _interaction_columns(path: Path, options: TableOptions) -> dict[str, str]:
    """What is mapped, and the canonical names that the file has itself; user, item and an order must be there."""
    names = header(path, options.text)
    mapping = {name: name for name in CANONICAL if name in names} | dict(options.mapping)
    for name in ("user_id", "item_id", *options.mapping, *(("rating",) if options.with_rating else ())):
        _require(path, names, name, mapping.get(name, name))
    if not {"timestamp", "pos"} & mapping.keys():
        raise DigerError(f"{path.name}: no column is mapped to timestamp or pos, so events have no order; pass --map timestamp=COLUMN")
    if not options.with_rating:
        mapping.pop("rating", None)
    return mapping


def _item_columns(path: Path, options: TableOptions) -> dict[str, str]:
    names = header(path, options.items_text)
    shared = options.mapping.get("item_id", "item_id")
    own = options.items_mapping.get("item_id") or (shared if shared in names else "item_id")
    mapping = {**options.items_mapping, "item_id": own}
    for name, column in mapping.items():
        _require(path, names, name, column, "--map-items")
    return mapping


def _require(path: Path, names: Sequence[str], name: str, column: str, option: str = "--map") -> None:
    if column in names:
        return
    near = nearest_column(column, list(names))
    hint = f"pass {option} {name}={near}" if near else f"pass {option} {name}=COLUMN"
    raise DigerError(f"{path.name}: column {column} is missing; the file has: {', '.join(names[:20])}; {hint}")


def _interactions(path: Path, options: TableOptions, progress: Progress) -> Iterator[pa.Table]:
    wanted = list(dict.fromkeys(options.mapping.values()))
    first = 1
    for batch in _batches(path, options.text, wanted, progress):
        columns: dict[str, pa.ChunkedArray | pa.Array] = {}
        for name, column in options.mapping.items():
            values, where = batch.column(column), place(path, column, first)
            if name in ("user_id", "item_id"):
                columns[name] = _ids(values, path, column, first)
            elif name == "timestamp":
                columns[name] = pa.array(whole_seconds(values, options.unit, options.floor, where))
            elif name == "pos":
                columns[name] = pa.array(whole_seconds(values, "s", False, where))
            elif name == "event_type":
                columns[name] = decoded(values).cast(pa.large_string())
            else:
                columns[name] = pa.array(floats(values, where).astype(np.float32 if name == "weight" else np.float64))
        yield pa.table(columns)
        first += len(batch)


def _ids(values: pa.ChunkedArray, path: Path, column: str, first: int) -> pa.ChunkedArray:
    """Ids without nulls or empty texts, as large_string, int64 or uint64: one type for all batches of a file."""
    wide = decoded(values).type == pa.uint64()
    ids = exact_ids(values, path.name, column)
    empty = pc.fill_null(pc.equal(ids, ""), True) if is_text(ids.type) else pc.is_null(ids)
    if pc.any(empty).as_py():
        row = first + pc.index(empty, True).as_py()
        raise DigerError(f"{path.name}, row {row}: column {column} holds no id; fill it in, or remove the row")
    return ids.cast(pa.uint64()) if wide else ids


def _items(path: Path, options: TableOptions, progress: Progress) -> Iterator[pa.Table]:
    """item_id and every other column, the mapped ones under their new names."""
    renamed = {column: name for name, column in options.items_mapping.items()}
    first, kept = 1, options.items_text.text_fields
    wanted = [name for name in header(path, options.items_text) if kept is None or name in kept or name in renamed]
    for batch in _batches(path, options.items_text, wanted, progress):
        names = [renamed.get(name, name) for name in batch.column_names]
        if len(set(names)) < len(names):
            double = next(name for name in names if names.count(name) > 1)
            raise DigerError(f"{path.name}: two columns would be called {double}; rename one of them in the file")
        batch = batch.rename_columns(names)
        place_of_id = names.index("item_id")
        yield batch.set_column(place_of_id, "item_id", _ids(batch.column("item_id"), path, options.items_mapping["item_id"], first))
        first += len(batch)


def _batches(path: Path, text: TextFormat, columns: list[str], progress: Progress) -> Iterator[pa.Table]:
    yield from (_parquet_batches(path, columns, progress) if is_parquet(path) else _text_batches(path, text, columns, progress))


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DigerError(f"{path.name}: not a whole Parquet file ({_one_line(error)}); export or download it again") from error


def _parquet_batches(path: Path, columns: list[str], progress: Progress) -> Iterator[pa.Table]:
    file, rows = _parquet(path), 0
    with file:
        try:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                rows += len(batch)
                progress.update(f"reading {path.name} (rows)", rows, file.metadata.num_rows)
                yield pa.Table.from_batches([batch])
        except (pa.ArrowInvalid, OSError) as error:
            raise DigerError(f"{path.name}: cannot be read after row {rows} ({_one_line(error)}); export or download it again") from error


def _bytes(file: Reading) -> pa.NativeFile:
    """The file's text as a stream, unzipped where it is gzipped."""
    raw = pa.PythonFile(file.raw, "r")
    return pa.CompressedInputStream(raw, "gzip") if is_gzip(file.raw) else raw


def _text_batches(path: Path, text: TextFormat, columns: list[str], progress: Progress) -> Iterator[pa.Table]:
    """Every cell as text: an empty one is an empty text, and nothing is taken for a null or a number."""
    rows = 0
    with reading(path, progress) as file:
        try:
            reader = pa_csv.open_csv(
                _bytes(file),
                pa_csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False, column_names=text.names, skip_rows=1 if text.names else 0),
                pa_csv.ParseOptions(delimiter=text.delimiter, quote_char='"' if text.quoted else False, newlines_in_values=text.quoted),
                pa_csv.ConvertOptions(column_types={name: pa.large_string() for name in columns}, strings_can_be_null=False, include_columns=columns),
            )
            for batch in reader:
                rows += len(batch)
                file.advance(rows)
                yield pa.Table.from_batches([batch])
        except pa.ArrowInvalid as error:
            raise DigerError(f"{path.name}, after row {rows}: {_one_line(error)}; fix the row, or check the delimiter") from error
        except OSError as error:
            raise DigerError(f"{path.name}, after row {rows}: cannot be read to its end ({_one_line(error)}); download it again") from error
        file.advance(rows, finished=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
