"""Migrations between ID tables: statuses, composition, inversion, and what the diff counts."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.ids.id_diff import apply, changed_histories, compose, id_diff, invert, migration, statuses


def table(rows, kind=None, levels=2):
    """{item: (codes.., suffix)} -> an ID table, rows in the dictionary's order."""
    names = [*(f"code_{j + 1}" for j in range(levels)), "suffix"]
    columns = {name: pa.array([row[i] for row in rows.values()], pa.int32()) for i, name in enumerate(names)}
    return pa.table({"item_id": pa.array(list(rows), kind), **columns})


@st.composite
def tables(draw, items):
    chosen = draw(st.lists(st.sampled_from(items), unique=True, min_size=1))
    tuples = draw(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=len(chosen), max_size=len(chosen), unique=True))
    return table(dict(zip(chosen, tuples, strict=True)))


histories = st.sampled_from([list(range(6)), list("abcdef")]).flatmap(lambda items: st.tuples(*[tables(items)] * 3))


@settings(max_examples=60, deadline=None)
@given(histories)
def test_migrations_compose_invert_and_carry_a_table_over(three):
    a, b, c = three
    ab, bc = migration(a, b), migration(b, c)
    assert compose(ab, bc).equals(migration(a, c))
    assert invert(ab).equals(migration(b, a))
    assert invert(invert(ab)).equals(ab)
    assert compose(ab, invert(ab)).equals(migration(a, a))
    carried = apply(ab, a)
    assert {row["item_id"]: row for row in carried.to_pylist()} == {row["item_id"]: row for row in b.to_pylist()}


@settings(max_examples=30, deadline=None)
@given(histories, st.randoms())
def test_the_rows_order_never_shows(three, random):
    a, b, _ = three
    rows = list(range(len(b)))
    random.shuffle(rows)
    assert migration(a, b.take(rows)).equals(migration(a, b))


OLD = {10: (0, 0, 0), 11: (0, 1, 0), 12: (1, 1, 0), 13: (1, 1, 1), 14: (2, 0, 0)}
NEW = {10: (0, 0, 0), 11: (0, 2, 0), 12: (2, 2, 0), 13: (1, 1, 4), 15: (2, 0, 1)}


def test_every_item_has_its_status():
    change = migration(table(OLD), table(NEW))
    assert dict(zip(change["item_id"].to_pylist(), statuses(change), strict=True)) == {
        10: "kept", 11: "moved", 12: "moved", 13: "suffix", 14: "removed", 15: "added",
    }  # fmt: skip
    assert change.slice(4, 1).to_pylist()[0]["new_suffix"] is None


def test_counts_and_shares_by_item_and_by_traffic():
    change = migration(table(OLD), table(NEW))
    weights = pa.table({"item_id": [10, 11, 12, 15], "weight": [6.0, 1.0, 1.0, 2.0]})
    report = id_diff(change, weights)
    assert report["counts"] == {"kept": 1, "suffix": 1, "moved": 2, "added": 1, "removed": 1}
    assert (report["items_old"], report["items_new"]) == (5, 5)
    assert report["shares"]["kept"] == 0.25
    assert report["shares"]["level_differs"] == [0.25, 0.5]
    assert report["shares"]["level_differs_first"] == [0.25, 0.25]
    assert report["weighted"]["kept"] == 0.75
    assert report["weighted"]["added"] == 0.2


def test_users_whose_history_holds_a_changed_item():
    change = migration(table(OLD), table(NEW))
    seq = Sequences(np.array([0, 1, 0, 0, 3, 4], np.int32), np.array([0, 2, 4, 6], np.int64), 5)
    found = changed_histories(change, seq, pa.array([10, 11, 12, 13, 15]))
    assert (found["changed_users"], found["users"], found["changed_events"]) == (2, 3, 2)


def test_an_item_that_only_the_middle_table_had_is_gone():
    a, b, c = table({1: (0, 0, 0)}), table({1: (0, 0, 0), 2: (0, 0, 1)}), table({1: (1, 0, 0)})
    assert compose(migration(a, b), migration(b, c))["item_id"].to_pylist() == [1]


def test_migrations_that_do_not_meet_are_refused():
    a, b, c = table({1: (0, 0, 0)}), table({1: (0, 1, 0)}), table({1: (1, 0, 0)})
    with pytest.raises(DigerError, match="does not end in the table"):
        compose(migration(a, b), migration(a, c))
    with pytest.raises(DigerError, match="not the one that it starts from"):
        apply(migration(a, b), c)


def test_tables_of_other_levels_share_no_id():
    change = migration(table({1: (0, 0)}, levels=1), table({1: (0, 0, 0)}))
    assert statuses(change).tolist() == ["moved"]
    assert id_diff(change)["shares"]["level_differs"] == [0.0, 1.0]


def test_ids_beyond_63_bits_and_small_ones_compare_as_numbers():
    old, new = table({5: (0, 0, 0)}, pa.int64()), table({5: (0, 0, 0), 2**63: (0, 0, 1)}, pa.uint64())
    assert statuses(migration(old, new)).tolist() == ["kept", "added"]


def test_numbers_against_strings_and_repeated_items_are_refused():
    with pytest.raises(DigerError, match="integers in the old table, text in the new one"):
        migration(table({1: (0, 0, 0)}), table({"1": (0, 0, 0)}))
    twice = pa.concat_tables([table({1: (0, 0, 0)}), table({1: (0, 0, 1)})])
    with pytest.raises(DigerError, match="more than once"):
        migration(twice, table({1: (0, 0, 0)}))
