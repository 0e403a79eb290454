"""interactions.parquet as ingest writes it: one file up to `ROW_GROUP` rows, beyond that a directory of part files of that many rows each.

A part's bytes depend on its own rows alone. So a snapshot that has more rows at its end shares all full parts with the one before, and `diger ingest
append` copies them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestration.snapshot.ingest.events import Events

ROW_GROUP = 1_000_000
NAME = "interactions.parquet"
WRITTEN_BY = f"parquet-cpp-arrow version {pa.cpp_build_info.version}"


def id_type(ids: pa.Array) -> pa.DataType:
    """`string`, which every reader knows; `large_string` where a row group could hold two gigabytes of ids. Integers stay."""
    if ids.type != pa.large_string():
        return ids.type
    longest = pc.max(pc.binary_length(ids)).as_py() or 0
    return ids.type if longest * ROW_GROUP >= 2**31 else pa.string()


def schema_of(events: Events) -> pa.Schema:
    return pa.schema(
        [("user_id", id_type(events.user_ids)), ("item_id", id_type(events.item_ids))]
        + [(name, pa.int64()) for name in ("pos", "timestamp") if name in events.values]
        + ([("weight", pa.float32())] if "weight" in events.values else [])
        + ([("event_type", pa.string())] if events.event_type else [])
    )


def tables(events: Events, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows as tables of at most `ROW_GROUP`, in their order."""
    for start in range(0, len(events.user_E), ROW_GROUP):
        part = slice(start, start + ROW_GROUP)
        columns: dict[str, Any] = {
            "user_id": events.user_ids.take(pa.array(events.user_E[part])),
            "item_id": events.item_ids.take(pa.array(events.item_E[part])),
        }
        columns |= {name: pa.array(values[part]) for name, values in events.values.items() if name in schema.names}
        if events.event_type:
            codes, kinds = events.event_type
            columns["event_type"] = kinds.take(pa.array(codes[part], mask=codes[part] < 0))
        yield pa.table({field.name: columns[field.name].cast(field.type) for field in schema}, schema=schema)


class EventFiles:
    """Writes rows of one schema, in their order, below `directory`. Memory: up to two parts."""

    def __init__(self, directory: Path, schema: pa.Schema) -> None:
        self.schema, self.rows = schema, 0
        self._folder = directory / NAME
        self._pending: list[pa.Table] = []
        self._held = self._parts = 0
        self._folder.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._close()

    def write(self, table: pa.Table) -> None:
        self._pending.append(table.cast(self.schema))
        self._held += len(table)
        self.rows += len(table)
        if self._held >= ROW_GROUP:
            together = pa.concat_tables(self._pending)
            full = self._held // ROW_GROUP * ROW_GROUP
            for start in range(0, full, ROW_GROUP):
                self._part(together.slice(start, ROW_GROUP))
            self._pending, self._held = [together.slice(full)], self._held - full

    def copies(self, metadata: pq.FileMetaData, schema: pa.Schema) -> bool:
        """Whether a file with this footer is the next part as this version would write it, so that its bytes can be copied."""
        whole = metadata.num_row_groups == 1 and metadata.num_rows == ROW_GROUP and metadata.created_by == WRITTEN_BY
        return whole and self._held == 0 and schema.equals(self.schema)

    def copy(self, part: Path) -> None:
        shutil.copyfile(part, self._next())
        self.rows += ROW_GROUP

    def _part(self, table: pa.Table) -> None:
        pq.write_table(table.combine_chunks(), self._next(), compression="zstd", row_group_size=ROW_GROUP)

    def _next(self) -> Path:
        self._parts += 1
        return self._folder / f"part-{self._parts - 1:05d}.parquet"

    def _close(self) -> None:
        if self._held:
            self._part(pa.concat_tables(self._pending))
        if self._parts == 1:
            alone = self._folder.with_name(f".{NAME}")
            (self._folder / "part-00000.parquet").rename(alone)
            self._folder.rmdir()
            alone.rename(self._folder)
