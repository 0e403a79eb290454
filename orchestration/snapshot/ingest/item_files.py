"""items.parquet as ingest writes it, and waiting_items.parquet beside it.

items.parquet: the items that have events. First those with metadata, in its order; then the others, in the order of their first event.
waiting_items.parquet: the metadata of items that have no event yet, which a later day may bring. `before`: how many rows of items.parquet stand
before the row in the order of the metadata. Row groups have `ITEM_GROUP` rows: the bytes depend on the rows alone, not on how they were read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.item_ids import index_of
from diger_core.progress import Progress
from orchestration.snapshot.ingest.event_files import id_type
from orchestration.snapshot.ingest.notes import Notes
from orchestration.snapshot.ingest.source import Source
from orchestration.validation.columns import id_kind

NAME = "items.parquet"
WAITING = "waiting_items.parquet"
ITEM_GROUP = 1 << 14

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class ItemFile:
    """Writes rows in row groups of `ITEM_GROUP`; the first table gives the schema. No table, no file."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self.schema: pa.Schema | None = None
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._held = 0

    def write(self, table: pa.Table) -> None:
        self.schema = self.schema or table.schema
        self._pending.append(table.cast(self.schema))
        self._held += len(table)
        self.rows += len(table)
        if self._held >= ITEM_GROUP:
            together = pa.concat_tables(self._pending)
            full = self._held // ITEM_GROUP * ITEM_GROUP
            for start in range(0, full, ITEM_GROUP):
                self._group(together.slice(start, ITEM_GROUP))
            self._pending, self._held = [together.slice(full)], self._held - full

    def close(self) -> None:
        if self._held:
            self._group(pa.concat_tables(self._pending))
        if self._writer:
            self._writer.close()

    def _group(self, table: pa.Table) -> None:
        self._writer = self._writer or pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table.combine_chunks())


class ItemFiles:
    """The two files of one snapshot. `catalogue`: the ids of all items with events, in the order of their first event."""

    def __init__(self, directory: Path, catalogue: pa.Array, keep_waiting: bool) -> None:
        self.catalogue, self.described = catalogue, np.zeros(len(catalogue), bool)
        self._kind = id_type(catalogue)
        self._items = ItemFile(directory / NAME)
        self._waiting = ItemFile(directory / WAITING) if keep_waiting else None

    @property
    def rows(self) -> int:
        return self._items.rows + (self._waiting.rows if self._waiting else 0)

    def write(self, rows: pa.Table, place: Int64) -> None:
        """Metadata in its order. `place` [rows]: of each row's item in the catalogue, at most one row an item; -1: it waits."""
        known = place >= 0
        self.described[place[known]] = True
        before = self._items.rows + np.cumsum(known)
        kept = rows.filter(pa.array(known)).drop_columns("item_id")
        self._items.write(kept.add_column(0, "item_id", self.catalogue.take(pa.array(place[known])).cast(self._kind)))
        if self._waiting is not None:
            waits = rows.filter(pa.array(~known))
            names = ["item_id", *(name for name in rows.column_names if name != "item_id")]
            self._waiting.write(waits.select(names).add_column(0, "before", pa.array(before[~known].astype(np.int64))))

    def close(self) -> int:
        """Writes the items without metadata, with nulls; returns how many they are."""
        missing = np.flatnonzero(~self.described)
        schema = self._items.schema or pa.schema([("item_id", self._kind)])
        ids = self.catalogue.take(pa.array(missing)).cast(self._kind)
        rest = [ids if name == "item_id" else pa.nulls(len(missing), schema.field(name).type) for name in schema.names]
        self._items.write(pa.table(rest, schema=schema))
        self._items.close()
        if self._waiting is not None:
            self._waiting.close()
        return len(missing)


def write_first(files: ItemFiles, source: Source, progress: Progress) -> dict[str, int]:
    """A catalogue's first metadata, streamed. Where it repeats an item, its first row counts."""
    rows = repeated = 0
    for batch in source.items(progress) if source.items else ():
        rows += len(batch)
        place = places(batch["item_id"], files.catalogue, source)
        once = first_of(place) & ~(files.described[place] & (place >= 0))
        again = np.flatnonzero(~once)
        repeated += len(again)
        note_merged(source.notes, batch, again)
        files.write(batch.filter(pa.array(once)), place[once])
    if source.items and not files.described.any():
        name, known = list(source.files.values())[-1].name, str(files.catalogue[0].as_py())[:40]
        source.notes.say(
            f"{name}: none of its {rows:,} rows is of an item with events; compare its ids with those of the interactions, such as {known!r}"
        )
    return {"metadata_rows": rows, "metadata_rows_repeated": repeated, "items_without_metadata": files.close()}


def first_of(place: Int64) -> Mask:
    """[n] bool: whether a place occurs for the first time; what has none (-1) always."""
    first = place < 0
    first[np.unique(place, return_index=True)[1]] = True
    return first


def note_merged(notes: Notes, rows: pa.Table, again: Int64) -> None:
    if len(again):
        notes.merged_example = notes.merged_example or repr(rows["item_id"][int(again[0])].as_py())[:80]
        notes.merged += len(again)


def places(ids: pa.ChunkedArray, among: pa.Array | pa.ChunkedArray, source: Source) -> Int64:
    """Where each item of the metadata stands in `among`; -1: it is not there."""
    if len(ids) and len(among) and id_kind(ids.type) != id_kind(among.type):
        if not source.integer_ids:
            raise DigerError(
                f"{source.files['items'].name}: its item ids are {id_kind(ids.type)}, but those of the interactions are {id_kind(among.type)}; "
                "pass --integer-ids, or convert the file"
            )
        ids, among = ids.cast(pa.large_string()), among.cast(pa.large_string())
    return index_of(ids, among)
