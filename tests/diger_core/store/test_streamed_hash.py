"""A hash that is streamed is the one of the whole table, and is given up where it cannot be."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.store import content_hash
from diger_core.store.content_hash import file_hash, sort_table, table_hash

VALUES = {
    pa.int64(): st.integers(-(2**40), 2**40) | st.integers(0, 3),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.string(): st.text(max_size=4),
    pa.large_string(): st.sampled_from(["", "a", "ä", "\U0001f600"]),
    pa.bool_(): st.booleans(),
    pa.float32(): st.sampled_from([0.0, -1.5, 2.0, float("inf")]),
    pa.timestamp("ms"): st.integers(0, 2**40),
}


@st.composite
def tables(draw):
    rows = draw(st.integers(2, 40))
    columns = {}
    for number, kind in enumerate(draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4))):
        value = VALUES[kind] | st.none() if draw(st.booleans()) else VALUES[kind]
        columns[f"c{number}"] = pa.array(draw(st.lists(value, min_size=rows, max_size=rows)), kind)
    return pa.table(columns).replace_schema_metadata({"diger.kind": "x", "other": "y"} if draw(st.booleans()) else None)


@pytest.fixture
def streamed(monkeypatch):
    """Counts how often a file's hash was streamed."""
    taken = []

    def counted(*arguments):
        found = canonical_digests(*arguments)
        taken.append(found is not None)
        return found

    canonical_digests = content_hash.column_digests
    monkeypatch.setattr(content_hash, "column_digests", counted)
    return taken


@settings(max_examples=80, deadline=None)
@given(tables(), st.sampled_from([(), ("c0",)]), st.integers(1, 9))
def test_the_hash_is_that_of_the_whole_table(tmp_path_factory, table, sort_by, group):
    path = tmp_path_factory.mktemp("hash") / "file.parquet"
    for rows in (table, sort_table(table, sort_by)):
        pq.write_table(rows, path, row_group_size=group)
        assert file_hash(path, sort_by) == table_hash(pq.read_table(path), sort_by)
        assert file_hash(path, None) == table_hash(pq.read_table(path), None)


def write(path, table):
    pq.write_table(table, path, row_group_size=8)
    return path


def test_rows_in_order_are_streamed_and_others_are_not(tmp_path, streamed):
    table = pa.table({"user": np.arange(100) // 3, "item": np.arange(100) % 3, "name": [f"{at:03}" for at in range(100)]})
    ordered = file_hash(write(tmp_path / "a.parquet", table), ("user",))
    assert streamed == [True]
    mixed = table.take(pa.array(np.random.default_rng(0).permutation(100)))
    assert file_hash(write(tmp_path / "b.parquet", mixed), ("user",)) == ordered
    assert streamed == [True, False]
    swapped = table.take(pa.array([*range(7), 8, 7, *range(9, 100)]))  # over the end of a row group, within one user
    assert file_hash(write(tmp_path / "c.parquet", swapped), ("user",)) == ordered
    assert streamed == [True, False, False]
    assert file_hash(write(tmp_path / "c.parquet", swapped), ()) != file_hash(tmp_path / "a.parquet", ())


def test_nested_columns_and_nan_are_read_whole(tmp_path, streamed):
    table = pa.table({"user": np.arange(20), "value": np.r_[np.arange(19), np.nan]})
    assert file_hash(write(tmp_path / "a.parquet", table), ("value",)) == table_hash(table, ("value",))
    lists = pa.table({"user": np.arange(20), "values": [[at] for at in range(20)]})
    assert file_hash(write(tmp_path / "b.parquet", lists), ("user",)) == table_hash(lists, ("user",))
    assert streamed == [False, False]
