"""What is trained on and what is held out, by time; and that nothing that is fitted knows what is held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.config import NeighboursConfig
from diger_core.data.item_factors import item_factors
from diger_core.data.neighbours import empty_table, transitions
from diger_core.data.sequences import Sequences, sequences
from diger_core.data.splits import (
    Moments,
    NoTemporalSplit,
    SplitCounts,
    parts,
    require_rows,
    same_time,
    split_counts,
    targets,
    time_boundaries,
    to_the_end,
    training_counts,
    training_mask,
    training_rows,
    trains,
    up_to_test,
)
from diger_core.evaluation.counts import Counts, Trend

# user 0: 1 2 | 3 | 4 5;  user 1: 1 | | 4;  user 2: (nothing) | 3 4 |;  user 3: only after T2;  user 4: two events, both before T1
EVENTS = [[1, 2, 3, 4, 5], [1, 4], [3, 4], [5, 6], [2, 1]]
TIMES = [[10, 20, 50, 80, 90], [15, 95], [45, 60], [85, 99], [5, 6]]


def by_time(boundaries: tuple[int, int] | None = (30, 70)) -> Sequences:
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in EVENTS]))).astype(np.int64)
    return Sequences(np.array(sum(EVENTS, []), np.int32), offsets, 7, np.array(sum(TIMES, []), np.int64), boundaries=boundaries)


def test_training_ends_with_the_first_boundary_for_every_user():
    seq = by_time()
    assert seq.events_E[training_mask(seq)].tolist() == [1, 2, 1, 2, 1]
    users, positions = training_rows(seq)
    assert [(u, int(seq.events_E[p])) for u, p in zip(users.tolist(), positions.tolist(), strict=True)] == [(0, 2), (4, 1)]
    assert training_counts(seq).tolist() == [0, 3, 2, 0, 0, 0, 0]


def test_a_target_is_the_first_event_after_its_boundary_and_needs_one_before_it():
    seq = by_time()
    assert [array.tolist() for array in targets(seq, "validation")] == [[0], [2], [3]]  # user 2 has nothing before its first one
    users, ends, items = targets(seq, "test")
    assert users.tolist() == [0, 1]
    assert [seq.events_E[seq.offsets_U1[u] : e].tolist() for u, e in zip(users, ends, strict=True)] == [[1, 2, 3], [1]]
    assert items.tolist() == [4, 4]
    users, ends, items = targets(seq, "test_all")
    assert (users.tolist(), items.tolist()) == ([0, 0, 1], [4, 5, 4])
    assert ends.tolist() == [3, 3, 6]
    assert split_counts(seq).without_rows(seq.boundaries) == {"users_without_events_after_validation": 2, "users_new_after_validation": 1}


def test_counting_up_to_the_test_and_to_the_end():
    seq = by_time()
    assert training_counts(up_to_test(seq)).sum() == 8
    assert training_counts(to_the_end(seq)).sum() == len(seq.events_E)
    assert training_mask(to_the_end(replace(seq, timestamps_E=None, boundaries=None))).all()


def test_on_the_eve_of_leave_one_out_all_but_each_users_last_event_are_training():
    seq = by_time(None)
    eve = up_to_test(seq)
    assert seq.events_E[training_mask(eve)].tolist() == [1, 2, 3, 4, 1, 4, 3, 4, 5, 6, 2, 1], "the last of three events or more"
    at_e = np.arange(len(seq.events_E))
    assert trains(eve, at_e, np.repeat(np.arange(seq.users), np.diff(seq.offsets_U1))).tolist() == training_mask(eve).tolist()
    users, positions = training_rows(eve)
    assert [(u, int(seq.events_E[p])) for u, p in zip(users.tolist(), positions.tolist(), strict=True)] == [(0, 2), (0, 3), (0, 4)]
    assert len(targets(eve, "validation")[0]) == 0, "these events are training"
    assert [array.tolist() for array in targets(eve, "test")] == [array.tolist() for array in targets(seq, "test")]


def test_boundaries_are_shares_of_the_events_or_the_end_of_a_day():
    seq = replace(by_time(None), timestamps_E=np.array(sum(TIMES, []), np.int64) * 86_400)
    first, second = time_boundaries(Moments.of(seq), 0.5, "1970-03-12")
    assert (seq.timestamps_E <= first).sum() == round(0.5 * len(seq.events_E) + 0.5)
    assert second == 71 * 86_400 - 1
    assert Sequences.from_tensors(replace(seq, boundaries=(first, second)).to_tensors()).boundaries == (first, second)


@pytest.mark.parametrize(
    ("train", "validate", "message"),
    [
        ("1971-01-01", "1972-01-01", "no event for validation.*train_until"),
        ("1969-01-01", "1970-01-02", "no event for training"),
        (0.5, 0.5, "no time between them"),
        (0.2, "1999-01-01", "no event for test.*1970-01-01 00:01:39.*leave_one_out"),
    ],
)
def test_boundaries_that_leave_a_part_empty_are_refused_with_dates(train, validate, message):
    with pytest.raises(NoTemporalSplit, match=message):
        time_boundaries(Moments.of(by_time(None)), train, validate)


def test_events_of_one_moment_have_no_temporal_split():
    seq = replace(by_time(None), timestamps_E=np.full(13, 7, np.int64))
    with pytest.raises(NoTemporalSplit, match="no time between them"):
        time_boundaries(Moments.of(seq), 0.8, 0.9)


def test_too_few_test_users_are_counted_and_named():
    with pytest.raises(NoTemporalSplit, match="leaves 1 validation and 2 test users, and at least 100"):
        require_rows(split_counts(by_time()), by_time().boundaries, 100)
    require_rows(split_counts(by_time()), by_time().boundaries, 1)


def test_targets_of_the_moment_before_are_marked():
    seq = replace(by_time(None), timestamps_E=np.array([1, 2, 3, 4, 4, 1, 2, 1, 1, 1, 2, 1, 2], np.int64))
    tied = same_time(seq, "test")
    assert tied is not None
    assert tied.tolist() == [True]
    assert same_time(replace(seq, timestamps_E=None), "test") is None


def test_nothing_that_is_fitted_knows_a_pair_that_exists_only_after_the_first_boundary():
    """The leak test: items 5 and 6 meet (often) after T1 alone. Take the mask away and every assertion here fails."""
    rows = [([1, 2, 1, 2], [1, 2, 3, 4])] * 30 + [([5, 6, 5, 6], [50, 51, 52, 53])] * 30
    offsets = np.arange(61, dtype=np.int64) * 4
    seq = Sequences(
        np.array([r[0] for r in rows], np.int32).ravel(), offsets, 7, np.array([r[1] for r in rows], np.int64).ravel(), boundaries=(10, 52)
    )
    assert len(transitions(seq, NeighboursConfig()).row(1)[0])
    counts = Counts.of(seq, transitions(seq, NeighboursConfig()), empty_table(7))
    for item in (5, 6):
        assert not len(transitions(seq, NeighboursConfig()).row(item)[0])
        assert not item_factors(seq, 4, 0)[item].any()
        assert [share[item] for share in (counts.recent_N, counts.popular_N, counts.factor_N(Trend(0.1, 1.0)))] == [0, 0, 1]
    assert not set(seq.events_E[training_rows(seq)[1]].tolist()) & {5, 6}
    assert training_counts(seq)[5:].sum() == 0
    leaking = replace(seq, boundaries=(53, 60))
    assert len(transitions(leaking, NeighboursConfig()).row(5)[0])
    assert item_factors(leaking, 4, 0)[5].any()


@pytest.mark.parametrize(("name", "users"), [("amazon_beauty", 5_517), ("online_retail", 516), ("yelp", 11_072)])
def test_real_data_have_the_test_users_that_the_protocol_counts(shared_data, name, users):
    folder = shared_data(name)
    seq, _, _ = sequences(pq.read_table(folder / "interactions.parquet"), pq.read_table(folder / "items.parquet"), by_time=True)
    seq = replace(seq, boundaries=time_boundaries(Moments.of(seq), 0.8, 0.9))
    assert len(targets(seq, "test")[0]) == users


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 400_000) | st.integers(0, 90), min_size=1, max_size=40), st.integers(1, 9))
def test_moments_know_the_sorted_times_without_sorting_them(times, length):
    time_E = np.array(times, np.int64)
    moments = Moments(lambda: (time_E[at : at + length] for at in range(0, len(time_E), length)))
    assert moments.events == len(times)
    assert [moments.ranked(place) for place in range(len(times))] == sorted(times)
    for moment in (*times, -100, 86_399, 86_400, 10**7):
        assert moments.up_to(moment) == int((time_E <= moment).sum())


@pytest.mark.parametrize("boundaries", [None, (30, 70), (10, 96)])
def test_parts_of_the_users_add_up_and_single_events_know_what_the_mask_knows(boundaries):
    seq = by_time(boundaries)
    whole = split_counts(seq)
    for events in (1, 4, 100):
        found = list(parts(seq, events))
        assert sum((split_counts(part) for part in found), SplitCounts(same_time=0)) == whole
        assert np.concatenate([part.events_E for part in found]).tolist() == seq.events_E.tolist()
    at_E = np.arange(len(seq.events_E))
    for counted in (seq, to_the_end(seq), to_the_end(replace(seq, timestamps_E=None))):
        user_E = np.searchsorted(seq.offsets_U1, at_E, side="right") - 1
        assert trains(counted, at_E, user_E).tolist() == training_mask(counted).tolist()
