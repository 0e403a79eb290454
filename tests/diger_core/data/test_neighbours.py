"""Item-to-item tables against plain loops, and scores against the sum that defines them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.config import NeighboursConfig
from diger_core.data import neighbours
from diger_core.data.neighbours import ItemTable, empty_table, history_weights, scored, transitions, vector_neighbours
from diger_core.data.sequences import Sequences
from diger_core.data.splits import to_the_end
from diger_core.errors import DigerError

DAY = 86_400


def of_rows(rows: list[list[int]], times: list[list[int]] | None, items: int = 6, until: int = 100) -> Sequences:
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
    events = np.array([e for row in rows for e in row], np.int32)
    moments = None if times is None else np.array([t for row in times for t in row], np.int64) * DAY
    return Sequences(events, offsets, items, moments, boundaries=None if times is None else (until * DAY, (until + 1) * DAY))


def by_loops(rows: list[list[int]], times: list[list[int]], config: NeighboursConfig, until: int = 100) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = defaultdict(float)
    newest = max((t for row in times for t in row if t <= until), default=0)
    for row, moments in zip(rows, times, strict=True):
        kept = [(i, t) for i, t in zip(row, moments, strict=True) if t <= until]
        for a in range(len(kept)):
            for b in range(a + 1, min(len(kept), a + config.window + 1)):
                (i, t), (j, u) = kept[a], kept[b]
                if i == j:
                    continue
                share = np.exp(-(b - a - 1) / config.gap)
                age = 1.0 if config.half_life_days is None else 2 ** (-(newest - t) / config.half_life_days)
                other = 1.0 if config.half_life_days is None else 2 ** (-(newest - u) / config.half_life_days)
                if t == u:
                    found[i, j] += 0.5 * share * age
                    found[j, i] += 0.5 * share * other
                else:
                    found[i, j] += share * age
    sums: dict[int, float] = defaultdict(float)
    for (i, _), value in found.items():
        sums[i] += value
    return {(i, j): value / np.sqrt(sums[i]) for (i, j), value in found.items()}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=9), min_size=1, max_size=6),
    st.integers(1, 4),
    st.sampled_from([None, 3.0]),
    st.integers(1, 40),
)
def test_transitions_are_the_pairs_that_a_loop_finds_whatever_the_blocks(drawn, window, half_life, block):
    rows = [[item for item, _ in row] for row in drawn]
    times = [sorted(time for _, time in row) for row in drawn]
    config = NeighboursConfig(window=window, half_life_days=half_life)
    before, neighbours.BLOCK = neighbours.BLOCK, block
    try:
        table = transitions(of_rows(rows, times), config)
    finally:
        neighbours.BLOCK = before
    found = {(i, int(j)): float(w) for i in range(6) for j, w in zip(*table.row(i), strict=True)}
    expected = by_loops(rows, times, config)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[key] for key in expected], list(expected.values()), rtol=1e-5)


def test_rows_hold_the_strongest_neighbours_first_and_only_so_many():
    rows = [[0, 1]] * 3 + [[0, 2]] * 2 + [[0, 3]]
    table = transitions(of_rows(rows, [[1, 2]] * 6), NeighboursConfig(keep=2))
    assert table.row(0)[0].tolist() == [1, 2]
    assert (np.diff(table.row(0)[1]) < 0).all()


def test_events_after_the_training_are_not_counted():
    table = transitions(of_rows([[0, 1, 2]], [[1, 2, 200]]), NeighboursConfig())
    assert (table.row(0)[0].tolist(), table.row(1)[0].tolist()) == ([1], [])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=8), min_size=1, max_size=5), st.booleans(), st.integers(1, 7))
def test_scores_are_the_weighted_sum_of_rows_in_dense_cells_and_in_sorted_entries(rows, dense, top):
    times = [list(range(len(row))) for row in rows]
    seq, table = of_rows(rows, times), transitions(of_rows(rows, times), NeighboursConfig(window=3))
    users, ends = np.arange(len(rows)), of_rows(rows, times).offsets_U1[1:]
    items_TL, weights_TL = history_weights(seq, users, ends, 50, 2.0)
    before, neighbours.DENSE = neighbours.DENSE, 100 if dense else 0
    try:
        found, score = scored([(table, 1.0), (table, 0.5)], items_TL, weights_TL, top)
    finally:
        neighbours.DENSE = before
    for user, row in enumerate(rows):
        expected = np.zeros(6)
        for age, item in enumerate(reversed(row)):
            if np.exp(-age / 2.0) >= neighbours.FAINT:
                for j, w in zip(*table.row(item), strict=True):
                    expected[j] += 1.5 * np.exp(-age / 2.0) * w
        order = [j for j in np.lexsort((np.arange(6), -expected)) if expected[j] > 0][:top]
        assert sorted(found[user][found[user] >= 0].tolist()) == sorted(order) or np.isclose(
            sorted(expected)[-top], sorted(expected)[-top - 1], rtol=1e-4
        )
        np.testing.assert_allclose(score[user][: len(order)], expected[order], rtol=1e-4)
        assert (found[user][len(order) :] == -1).all()


def test_vectors_have_their_nearest_by_cosine_and_never_themselves():
    vectors = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    table = vector_neighbours(vectors, 2)
    assert table.row(0)[0].tolist() == [1]  # nothing else has a positive cosine
    assert table.row(1)[0].tolist() == [0, 2]
    assert table.row(3)[0].tolist() == []


def test_a_table_survives_its_tensors_and_a_missing_one_is_named():
    table = transitions(of_rows([[0, 1, 2]], [[1, 2, 3]]), NeighboursConfig())
    back = ItemTable.from_tensors(table.to_tensors("t"), "t")
    assert all(np.array_equal(getattr(back, name), getattr(table, name)) for name in ("offsets_N1", "items_P", "weights_P"))
    with pytest.raises(DigerError, match="'other.offsets' is missing.*run that stage again"):
        ItemTable.from_tensors(table.to_tensors("t"), "other")
    assert empty_table(3).row(2)[0].tolist() == []


def test_half_lives_need_times_and_without_them_all_pairs_count_the_same():
    seq = replace(of_rows([[0, 1, 2, 3]], None), boundaries=None)
    assert transitions(seq, NeighboursConfig(half_life_days=1)).row(0)[0].tolist() == [1]


def test_counted_to_the_end_pairs_keep_their_direction_where_there_are_no_times():
    seq = to_the_end(of_rows([[0, 1, 2]], None))
    assert [transitions(seq, NeighboursConfig()).row(item)[0].tolist() for item in (0, 1, 2)] == [[1, 2], [2], []]
