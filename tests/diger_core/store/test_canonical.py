"""Canonical hashes: equal content, equal hash; any other content, another hash."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from diger_core.store.canonical import canonical_json, digest
from diger_core.store.content_hash import file_hash, safetensors_hash, table_hash

rows = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(max_size=5), st.floats(allow_nan=False) | st.none()), max_size=20)


def as_table(values: list) -> pa.Table:
    schema = pa.schema([("a", pa.int64()), ("s", pa.string()), ("f", pa.float64())])
    return pa.table([list(c) for c in zip(*values, strict=True)] if values else [[], [], []], schema=schema)


@given(rows, st.randoms(use_true_random=False))
def test_row_order_does_not_change_an_unordered_tables_hash(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert table_hash(as_table(values)) == table_hash(as_table(shuffled))


@given(rows, rows)
def test_different_rows_have_different_hashes(a, b):
    same = sorted(map(repr, a)) == sorted(map(repr, b))
    assert (table_hash(as_table(a)) == table_hash(as_table(b))) == same


def test_layout_does_not_count(tmp_path):
    table = as_table([(3, "x", 1.0), (1, "é", None), (2, "00", -0.5)])
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    pq.write_table(table.take([2, 0, 1]).select(["f", "a", "s"]), tmp_path / "b.parquet", row_group_size=1, compression="none", use_dictionary=False)
    assert file_hash(tmp_path / "a.parquet", None) == file_hash(tmp_path / "b.parquet", None)
    encoded = table.set_column(1, "s", table["s"].dictionary_encode())
    large = table.set_column(1, "s", table["s"].cast(pa.large_string()))
    assert table_hash(table) == table_hash(encoded) == table_hash(large)


def test_order_counts_where_it_is_content():
    table = as_table([(3, "x", 1.0), (1, "y", None)])
    assert table_hash(table, ()) != table_hash(table.take([1, 0]), ())


def test_neighbouring_strings_cannot_be_confused():
    assert table_hash(pa.table({"s": ["ab", "c"]}), ()) != table_hash(pa.table({"s": ["a", "bc"]}), ())
    assert digest("ab", "c") != digest("a", "bc")


def test_null_is_not_the_empty_string_nor_zero():
    assert table_hash(pa.table({"s": ["", "x"]})) != table_hash(pa.table({"s": [None, "x"]}))
    assert table_hash(pa.table({"n": [0, 1]})) != table_hash(pa.table({"n": [None, 1]}))


def test_sliced_columns_hash_like_copies():
    table = pa.table({"s": ["a", "bb", "ccc", None], "v": [[1.0], [2.0, 3.0], None, []]})
    copied = pa.Table.from_pylist(table.slice(1, 3).to_pylist(), schema=table.schema)
    assert table_hash(table.slice(1, 3), ()) == table_hash(copied, ())


def test_tensor_hash_depends_on_name_type_shape_bytes_and_our_metadata(tmp_path):
    def hashed(tensors, metadata=None):
        save_file(tensors, tmp_path / "t.safetensors", metadata=metadata)
        return safetensors_hash(tmp_path / "t.safetensors")

    base = hashed({"a": torch.arange(6, dtype=torch.float32)})
    others = [
        {"b": torch.arange(6, dtype=torch.float32)},
        {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3)},
        {"a": torch.arange(6, dtype=torch.float32).view(torch.int32)},
        {"a": torch.arange(6, dtype=torch.float32).flip(0)},
    ]
    assert len({base, *map(hashed, others)}) == 5
    assert hashed({"a": torch.arange(6, dtype=torch.float32)}, {"writer": "other"}) == base
    assert hashed({"a": torch.arange(6, dtype=torch.float32)}, {"diger.assignment": "x"}) != base


def test_bfloat16_and_empty_tensors_are_hashed(tmp_path):
    save_file({"a": torch.ones(3, dtype=torch.bfloat16), "e": torch.empty(0, 4)}, tmp_path / "t.safetensors")
    assert len(safetensors_hash(tmp_path / "t.safetensors")) == 64


@pytest.mark.parametrize("value", [float("inf"), float("nan"), np.float64(1.5), {"b": 1, "a": (1, 2)}])
def test_json_is_canonical_and_valid(value):
    assert canonical_json({"x": value}) == canonical_json(json.loads(canonical_json({"x": value})))


def test_json_layout_does_not_count(tmp_path):
    (tmp_path / "a.json").write_text('{"b": 1,  "a": [1, 2]}')
    (tmp_path / "b.json").write_text('{"a":[1,2],"b":1}\n')
    assert file_hash(tmp_path / "a.json") == file_hash(tmp_path / "b.json")


def test_unusual_types_hash_their_values_not_their_addresses():
    from decimal import Decimal

    def build():
        return pa.table(
            {
                "d": pa.array([Decimal("1.50"), None], pa.decimal128(5, 2)),
                "m": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
                "b": pa.array([b"ab", b"cd"], pa.binary(2)),
                "t": pa.array([1, None], pa.date32()),
            }
        )

    assert table_hash(build()) == table_hash(build())
    assert table_hash(build()) != table_hash(build().set_column(0, "d", pa.array([Decimal("1.51"), None], pa.decimal128(5, 2))))
    assert table_hash(build()) != table_hash(build().set_column(1, "m", pa.array([[("a", 2)], []], pa.map_(pa.string(), pa.int64()))))
