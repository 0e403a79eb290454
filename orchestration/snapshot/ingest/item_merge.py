"""A catalogue continued by a day: new metadata beside the old, items that wait for their first event, items that had it today.

A row of the day replaces the item's whole row: the later export is the newer one. An item that the day does not name keeps its row: its events are
still there. Items stand in the order in which their metadata was first seen. Old texts are streamed, the day's are held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.progress import Progress
from orchestration.snapshot.ingest.item_files import ITEM_GROUP, Int64, ItemFiles, first_of, note_merged, places, write_first
from orchestration.snapshot.ingest.previous import Previous
from orchestration.snapshot.ingest.source import Source
from orchestration.snapshot.parts import reading_of

_KEPT, _WAITING, _DAY = 0, 1, 2


@dataclass(frozen=True)
class _Order:
    """The merged metadata, row by row [R]: `side` (_KEPT, _WAITING or _DAY) and `row` say where the item stood, `day` which row of the day it gets
    (-1: none), `place` where it is in the catalogue (-1: it waits)."""

    side: npt.NDArray[np.int8]
    row: Int64
    day: Int64
    place: Int64


def write_next(files: ItemFiles, previous: Previous, source: Source, progress: Progress) -> dict[str, int]:
    """The metadata of `previous` and of the day. DigerError where the day's columns are not those of the snapshot."""
    if previous.item_columns.names == ["item_id"] and previous.waiting is None:
        return {**write_first(files, source, progress), "items_replaced": 0}
    wide = previous.item_columns if previous.waiting is None else pq.read_schema(previous.waiting).remove(0)
    texts = pa.schema([field for field in wide if field.name != "item_id"])
    day, rows, repeated = _day(source, texts, progress)
    with reading_of(previous.items):
        kept_ids = pq.read_table(previous.items, columns=["item_id"])["item_id"].slice(0, previous.described)
    with reading_of(str(previous.waiting)):
        waiting = None if previous.waiting is None else pq.read_table(previous.waiting, columns=["before", "item_id"])
    order = _order(kept_ids, waiting, day["item_id"], files.catalogue, source)
    schema = pa.schema([pa.field("item_id", _id_type(kept_ids, waiting, day)), *texts])
    for table, place in _merged(previous, order, day, schema):
        files.write(table, place)
        progress.update("writing items", files.rows, len(order.row))
    replaced = int(np.count_nonzero((order.day >= 0) & (order.side != _DAY)))
    return {"metadata_rows": rows, "metadata_rows_repeated": repeated, "items_without_metadata": files.close(), "items_replaced": replaced}


def _id_type(kept: pa.ChunkedArray, waiting: pa.Table | None, day: pa.Table) -> pa.DataType:
    """Of ids in metadata: that of the files of metadata, where one is known."""
    if waiting is not None:
        return waiting["item_id"].type
    kind = day["item_id"].type if len(day) else kept.type
    return kind if pa.types.is_integer(kind) else pa.large_string()


def _day(source: Source, texts: pa.Schema, progress: Progress) -> tuple[pa.Table, int, int]:
    """(the day's metadata, each item once: its first row; rows read; rows repeated)."""
    batches = list(source.items(progress)) if source.items else []
    if not batches:
        return pa.table({"item_id": pa.array([], pa.large_string()), **{field.name: pa.nulls(0, field.type) for field in texts}}), 0, 0
    day = pa.concat_tables(batches)
    _require_columns(day.schema, texts, source.files["items"].name)
    once = first_of(_codes(day["item_id"]))
    note_merged(source.notes, day, np.flatnonzero(~once))
    return day.filter(pa.array(once)).select(["item_id", *texts.names]), len(day), int(np.count_nonzero(~once))


def _codes(ids: pa.ChunkedArray) -> Int64:
    return np.asarray(ids.combine_chunks().dictionary_encode().indices.to_numpy(), np.int64)


def _require_columns(day: pa.Schema, texts: pa.Schema, name: str) -> None:
    new = [column for column in day.names if column != "item_id" and column not in texts.names]
    if new:
        raise DigerError(
            f"{name}: column {new[0]} is not in the snapshot, whose items have {', '.join(texts.names) or 'ids alone'}; leave it out of the file "
            "or give it its old name (--map-items), or ingest all files together to take it up"
        )
    for field in texts:
        if field.name not in day.names:
            raise DigerError(
                f"{name}: column {field.name} is missing, the snapshot's items have it; write it, or name it (--map-items {field.name}=COLUMN)"
            )
        if day.field(field.name).type != field.type:
            raise DigerError(
                f"{name}: column {field.name} has type {day.field(field.name).type}, in the snapshot {field.type}; write it with that type"
            )


def _order(kept: pa.ChunkedArray, waiting: pa.Table | None, day: pa.ChunkedArray, catalogue: pa.Array, source: Source) -> _Order:
    """Old rows in their order, kept and waiting ones merged, then the day's new items in the order of the file."""
    old, before = kept, np.zeros(0, np.int64)
    if waiting is not None:
        old = pa.chunked_array([*kept.cast(waiting["item_id"].type).chunks, *waiting["item_id"].chunks])
        before = waiting["before"].to_numpy()
    count = len(kept)
    by_place = np.argsort(np.concatenate([2 * np.arange(count) + 1, 2 * before]), kind="stable")
    replaced, place = places(old, day, source), places(old, catalogue, source)
    once = first_of(_codes(old))
    stays = once | (replaced < 0) & (place < 0)
    by_place = by_place[stays[by_place]]
    new = np.setdiff1d(np.arange(len(day)), replaced)
    side = np.concatenate([np.where(by_place < count, _KEPT, _WAITING), np.full(len(new), _DAY)]).astype(np.int8)
    row = np.concatenate([np.where(by_place < count, by_place, by_place - count), new])
    return _Order(side, row, np.concatenate([replaced[by_place], new]), np.concatenate([place[by_place], places(day, catalogue, source)[new]]))


def _merged(previous: Previous, order: _Order, day: pa.Table, schema: pa.Schema) -> Iterator[tuple[pa.Table, Int64]]:
    """(rows, their places in the catalogue), `ITEM_GROUP` at a time."""
    day = day.cast(schema)
    kept, waiting = _Cursor(previous.items, schema), _Cursor(previous.waiting, schema)
    for start in range(0, len(order.row), ITEM_GROUP):
        part = slice(start, start + ITEM_GROUP)
        side, row, own = order.side[part], order.row[part], order.day[part]
        olds = [kept.rows(row[side == _KEPT]), waiting.rows(row[side == _WAITING])]
        at = np.zeros(len(row), np.int64)
        at[side == _KEPT] = np.arange(len(olds[0]))
        at[side == _WAITING] = len(olds[0]) + np.arange(len(olds[1]))
        at[own >= 0] = len(olds[0]) + len(olds[1]) + own[own >= 0]
        yield pa.concat_tables([*olds, day]).take(pa.array(at)), order.place[part]


class _Cursor:
    """Rows of a Parquet file by ascending row number, read once from its beginning, a row group's worth at a time."""

    def __init__(self, path: Path | None, schema: pa.Schema) -> None:
        self._schema, self._first = schema, 0
        self._held = schema.empty_table()
        self._path = path
        self._batches = iter(()) if path is None else pq.ParquetFile(path).iter_batches(ITEM_GROUP, columns=schema.names)

    def rows(self, wanted: Int64) -> pa.Table:
        """The wanted rows. They follow those that were asked for before; what lies between is skipped."""
        if not len(wanted):
            return self._schema.empty_table()
        while self._first + len(self._held) <= wanted[-1]:
            self._drop(int(wanted[0]))
            with reading_of(str(self._path)):
                batch = pa.Table.from_batches([next(self._batches)]).select(self._schema.names).cast(self._schema)
            self._held = pa.concat_tables([self._held, batch])
        self._drop(int(wanted[0]))
        return self._held.take(pa.array(wanted - self._first))

    def _drop(self, before: int) -> None:
        gone = min(max(before - self._first, 0), len(self._held))
        self._held, self._first = self._held.slice(gone), self._first + gone
