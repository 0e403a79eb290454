"""Parquet files whose rows need not fit into memory: read by row numbers, and written from pieces of any length."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 1 << 20  # of a row group, as `pq.write_table` makes them


class RowGroupWriter:
    """A new Parquet file with the row groups that the whole table would have, so that the file does not tell how it was made."""

    def __init__(self, path: Path, schema: pa.Schema):
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=3)
        self._held: list[pa.Table] = [schema.empty_table()]
        self._rows, self._begun = 0, False

    def write(self, rows: pa.Table) -> None:
        """Appends rows of the file's schema; what is left of a row group waits for the next ones."""
        self._held.append(rows)
        self._rows += rows.num_rows
        if self._rows >= ROWS:
            self._begun = True
            held, whole = pa.concat_tables(self._held), self._rows // ROWS * ROWS
            for start in range(0, whole, ROWS):
                self._writer.write_table(held.slice(start, ROWS).combine_chunks(), row_group_size=ROWS)
            self._held, self._rows = [held.slice(whole)], self._rows - whole

    def __enter__(self) -> RowGroupWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None and (self._rows or not self._begun):  # a table without rows has a row group, too
            self._writer.write_table(pa.concat_tables(self._held).combine_chunks(), row_group_size=ROWS)
        self._writer.close()


def read_rows(file: pq.ParquetFile, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
    """The rows start..stop - 1; only their row groups are read."""
    groups, first, begin = list[int](), 0, 0
    for group in range(file.num_row_groups):
        end = begin + file.metadata.row_group(group).num_rows
        if begin < stop and end > start:
            first = first if groups else begin
            groups.append(group)
        begin = end
    return file.read_row_groups(groups, columns=columns).slice(start - first, stop - start)


def value_ranges(file: pq.ParquetFile, column: str, rows: int) -> list[tuple[int, int]]:
    """(first row, row after the last) of ranges of at least `rows` rows, but the last, that do not part equal values of a sorted column."""
    found, start, total = list[tuple[int, int]](), 0, file.metadata.num_rows
    while start < total:
        stop = _change(file, column, start + rows, total)
        found.append((start, stop))
        start = stop
    return found


def _change(file: pq.ParquetFile, column: str, row: int, total: int) -> int:
    """The first row from `row` on whose value is not the one before it; `total` where there is none."""
    if row >= total:
        return total
    before = read_rows(file, row - 1, row, [column])[column][0]
    begin = 0
    for group in range(file.num_row_groups):
        end = begin + file.metadata.row_group(group).num_rows
        if end > row:
            for at, value in enumerate(file.read_row_group(group, columns=[column])[column].slice(max(row - begin, 0))):
                if value != before:
                    return max(row, begin) + at
        begin = end
    return total
