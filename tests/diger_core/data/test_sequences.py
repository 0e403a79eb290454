"""Canonical numbering, order inside a user, leave-one-out rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from diger_core.data.sequences import Sequences, id_hashes, mixed, sequences
from diger_core.data.splits import targets, training_counts, training_mask, training_rows
from diger_core.errors import DigerError


def tables(rows: list[tuple], catalogue: list, columns: tuple[str, ...] = ("user_id", "item_id", "pos")) -> tuple[pa.Table, pa.Table]:
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(columns)}), pa.table({"item_id": catalogue})


def of_lengths(lengths: list[int], items: int = 50) -> Sequences:
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Sequences(np.arange(offsets[-1], dtype=np.int32) % items, offsets, items)


def test_integers_are_numbered_by_value_and_strings_by_utf8_bytes():
    seq, items, users = sequences(*tables([(10, 9, 0), (2, 10, 0)], [10, 9, -1]))
    assert items["item_id"].to_pylist() == [-1, 9, 10]
    assert users["user_id"].to_pylist() == [2, 10]
    assert seq.events_E.tolist() == [2, 1]
    names = ["é", "z", "\U0001f600", "\uffee", "Z", "007", "7"]
    _, items, _ = sequences(*tables([("u", "z", 0)], names))
    assert items["item_id"].to_pylist() == sorted(names, key=lambda name: name.encode())


def test_ids_from_two_to_the_63_survive_in_either_column_type():
    big = 2**63 + 5
    interactions = pa.table({"user_id": pa.array([big], pa.uint64()), "item_id": pa.array([7], pa.int32()), "pos": [0]})
    seq, items, users = sequences(interactions, pa.table({"item_id": pa.array([big, 7], pa.uint64())}))
    assert items["item_id"].to_pylist() == [7, big]
    assert users["user_id"].to_pylist() == [big]
    assert seq.events_E.tolist() == [0]


def test_pos_orders_before_timestamp_unless_time_is_asked_for():
    rows = [(1, 5, 2, 100), (1, 6, 1, 900), (1, 7, 0, 500)]
    by_pos, _, _ = sequences(*tables(rows, [5, 6, 7], ("user_id", "item_id", "pos", "timestamp")))
    assert by_pos.events_E.tolist() == [2, 1, 0]
    assert by_pos.timestamps_E is not None
    assert by_pos.timestamps_E.tolist() == [500, 900, 100]
    by_time, _, _ = sequences(*tables(rows, [5, 6, 7], ("user_id", "item_id", "pos", "timestamp")), by_time=True)
    assert by_time.events_E.tolist() == [0, 2, 1]
    tied, _, _ = sequences(*tables([(1, 5, 1, 9), (1, 6, 0, 9)], [5, 6], ("user_id", "item_id", "pos", "timestamp")), by_time=True)
    assert tied.events_E.tolist() == [1, 0]


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_ties_have_another_order_for_each_user_and_none_that_other_items_change(kind):
    """An order by item id would be one direction for all: what counts directed pairs would learn it."""
    users, items = np.arange(400), np.array([3, 8])
    rows = {"user_id": pa.array(np.repeat(users, 2)).cast(kind), "item_id": pa.array(np.tile(items, 400)).cast(kind), "timestamp": [7] * 800}
    small, _, _ = sequences(pa.table(rows), pa.table({"item_id": pa.array([3, 8]).cast(kind)}))
    first = small.events_E[::2] == 0
    assert 0.4 < first.mean() < 0.6
    grown, _, _ = sequences(pa.table(rows), pa.table({"item_id": pa.array([1, 3, 5, 8]).cast(kind)}))
    assert ((grown.events_E[::2] == 1) == first).all()


def test_string_hashes_differ_where_ids_do_and_do_not_depend_on_a_slice():
    ids = pa.array(["", "a", "b", "ab", "ba", "aa", "é", "a" * 300], pa.large_string())
    found = id_hashes(ids)
    assert len(set(found.tolist())) == len(ids)
    assert id_hashes(ids.slice(3, 2)).tolist() == found[3:5].tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 6), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_row_order_changes_nothing_and_the_order_is_that_of_a_plain_sort(rows, weighted, random):
    columns = ("user_id", "item_id", "timestamp", "weight")
    shuffled = random.sample(rows, len(rows))
    first = sequences(*tables(rows, list(range(7)), columns), use_weights=weighted)
    second = sequences(*tables(shuffled, list(range(6, -1, -1)), columns), use_weights=weighted)
    for a, b in zip(first[0].to_tensors().values(), second[0].to_tensors().values(), strict=True):
        assert a.tolist() == b.tolist()
    tie = {key: place for place, key in enumerate(sorted({(row[0], row[1]) for row in rows}, key=lambda key: tie_of(*key)))}
    expected = sorted(rows, key=lambda row: (row[0], row[2], tie[row[0], row[1]], row[3]))
    assert first[0].events_E.tolist() == [row[1] for row in expected]
    if weighted:
        assert first[0].weights_E.tolist() == [row[3] for row in expected]


def tie_of(user: int, item: int) -> int:
    """As the module's formula: a hash of the user's hash and the hashed item's."""
    user_1, item_1 = (id_hashes(pa.array([value], pa.int64())) for value in (user, item))
    return int((mixed(user_1 ^ mixed(item_1)) >> np.uint64(1))[0])


def test_ranges_too_wide_for_one_packed_key_give_the_same_order():
    wide = 2**62
    seq, _, _ = sequences(*tables([(1, 0, wide), (1, 1, -wide), (0, 1, 5)], [0, 1]))
    assert seq.events_E.tolist() == [1, 1, 0]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_rows_and_targets_are_those_of_leave_one_out(lengths):
    seq = of_lengths(lengths)
    users, positions = training_rows(seq)
    expected = [(u, seq.offsets_U1[u] + e) for u, n in enumerate(lengths) for e in range(1, n - 2)]
    assert list(zip(users.tolist(), positions.tolist(), strict=True)) == expected
    for split, back in (("validation", 2), ("test", 1)):
        got = [array.tolist() for array in targets(seq, split)]
        kept = [u for u, n in enumerate(lengths) if n >= 3]
        ends = [int(seq.offsets_U1[u + 1]) - back for u in kept]
        assert got == [kept, ends, [int(seq.events_E[end]) for end in ends]]


def test_training_events_end_before_the_last_two_and_short_users_count_whole():
    seq = of_lengths([5, 2, 3], items=10)
    assert training_mask(seq).tolist() == [True] * 3 + [False] * 2 + [True] * 2 + [True] + [False] * 2
    assert training_counts(seq).tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 0, 0]


def test_tensors_survive_safetensors():
    rows = [(1, 5, 2, 0.5), (1, 6, 1, 1.5), (2, 5, 9, 2.0)]
    seq, _, _ = sequences(*tables(rows, [5, 6], ("user_id", "item_id", "timestamp", "weight")), use_weights=True)
    back = Sequences.from_tensors(load(save(seq.to_tensors())))
    assert back.items == seq.items
    for name in ("events_E", "offsets_U1", "timestamps_E", "weights_E"):
        assert getattr(back, name).dtype == getattr(seq, name).dtype
        np.testing.assert_array_equal(getattr(back, name), getattr(seq, name))


@pytest.mark.parametrize(
    ("interactions", "items", "message"),
    [
        ({"user_id": [1], "pos": [0]}, [1], "'item_id' is missing"),
        ({"user_id": [1], "item_id": [1]}, [1], "neither `pos` nor `timestamp`"),
        ({"user_id": [1], "item_id": [1.0], "pos": [0]}, [1], "item_id has type double"),
        ({"user_id": [1, None], "item_id": [1, 1], "pos": [0, 1]}, [1], "user_id is null in row 1"),
        ({"user_id": [1], "item_id": ["1"], "pos": [0]}, [1], "one type in both"),
        ({"user_id": [1, 1], "item_id": [1, 4], "pos": [0, 1]}, [1], "item_id 4 .row 1. is not in the items"),
        ({"user_id": [1], "item_id": [1], "pos": [0]}, [1, 1], "item_id 1 occurs more than once"),
        ({"user_id": [1], "item_id": [1], "pos": [None]}, [1], "pos is null|pos has type"),
        ({"user_id": [1], "item_id": [1], "pos": [0.5]}, [1], "pos has type double"),
    ],
)
def test_bad_tables_are_refused_by_name(interactions, items, message):
    with pytest.raises(DigerError, match=message):
        sequences(pa.table(interactions), pa.table({"item_id": items}))


def test_beauty_gives_the_published_number_of_training_rows(shared_data):
    folder = shared_data("amazon_beauty")
    seq, items, users = sequences(pq.read_table(folder / "interactions.parquet"), pq.read_table(folder / "items.parquet"))
    assert (items.num_rows, users.num_rows, len(seq.events_E)) == (12_101, 22_363, 198_502)
    assert len(training_rows(seq)[0]) == 131_413
    assert len(targets(seq, "test")[0]) == 22_363
