"""Parquet in pieces: the bytes of the whole table, rows by their numbers, ranges that part no value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diger_core.store import row_groups
from diger_core.store.row_groups import RowGroupWriter, read_rows, value_ranges


@pytest.mark.parametrize(("rows", "piece"), [(1000, 1), (1000, 64), (1000, 333), (1024, 1000), (0, 1)])
def test_pieces_of_any_length_give_the_bytes_of_the_whole_table(tmp_path, monkeypatch, rows, piece):
    monkeypatch.setattr(row_groups, "ROWS", 128)
    table = pa.table({"index": np.arange(rows), "name": pa.array([f"user {i % 37}" for i in range(rows)], pa.string())})
    pq.write_table(table, tmp_path / "whole", compression="zstd", compression_level=3, row_group_size=128)
    with RowGroupWriter(tmp_path / "pieces", table.schema) as out:
        for start in range(0, rows, piece):
            out.write(table.slice(start, piece))
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


def test_rows_are_read_by_their_numbers_whatever_the_row_groups(tmp_path):
    pq.write_table(pa.table({"index": np.arange(100)}), tmp_path / "file", row_group_size=7)
    with pq.ParquetFile(tmp_path / "file") as file:
        for start, stop in ((0, 100), (6, 7), (7, 14), (13, 29), (99, 100), (40, 40)):
            assert read_rows(file, start, stop)["index"].to_pylist() == list(range(start, stop))


def test_ranges_part_no_value(tmp_path):
    user = np.repeat([3, 5, 6, 9, 12], [4, 1, 30, 2, 3])
    pq.write_table(pa.table({"user_id": user}), tmp_path / "file", row_group_size=6)
    with pq.ParquetFile(tmp_path / "file") as file:
        for rows in (1, 2, 4, 5, 6, 36, 39, 40, 100):
            found = value_ranges(file, "user_id", rows)
            assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
            assert found[-1][1] == len(user)
            assert all(user[stop - 1] != user[stop] for _, stop in found[:-1])
            assert all(stop - start >= rows for start, stop in found[:-1])
        assert value_ranges(file, "user_id", 1) == [(0, 4), (4, 5), (5, 35), (35, 37), (37, 40)]
