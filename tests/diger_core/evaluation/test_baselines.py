"""Most popular and last-item Markov against plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.data.sequences import Sequences
from diger_core.data.splits import targets
from diger_core.evaluation.baselines import markov, most_popular


def of_histories(histories: list[list[int]], items: int) -> Sequences:
    offsets = np.cumsum([0] + [len(history) for history in histories]).astype(np.int64)
    return Sequences(np.array([item for history in histories for item in history], dtype=np.int32), offsets, items)


def training(history: list[int]) -> list[int]:
    return history[:-2] if len(history) >= 3 else history


def expected_markov(histories: list[list[int]], items: int, last: int, k: int) -> list[int]:
    counts = Counter(item for history in histories for item in training(history))
    follows = Counter(b for history in histories for a, b in zip(training(history), training(history)[1:], strict=False) if a == last)
    order = sorted(range(items), key=lambda item: (-follows[item], -counts[item], item))[:k]
    return order + [-1] * (k - len(order))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=12), min_size=1, max_size=15), st.integers(1, 10))
def test_both_rank_as_a_plain_loop_over_training_events_does(histories, k):
    seq = of_histories(histories, 8)
    for split in ("validation", "test"):
        users, ends, _ = targets(seq, split)
        counts = Counter(item for history in histories for item in training(history))
        popular = (sorted(range(8), key=lambda item: (-counts[item], item)) + [-1] * 2)[:k]
        assert most_popular(seq, users, ends, k).tolist() == [popular] * len(users)
        expected = [expected_markov(histories, 8, int(seq.events_E[end - 1]), k) for end in ends]
        assert markov(seq, users, ends, k).tolist() == expected


def test_held_out_events_change_no_recommendation():
    histories = [[0, 1, 2, 3, 4], [1, 2, 0, 5, 6], [3, 4]]
    changed = [[0, 1, 2, 7, 7], [1, 2, 0, 6, 7], [3, 4]]
    seq, other = of_histories(histories, 8), of_histories(changed, 8)
    users, ends, _ = targets(seq, "validation")
    assert markov(seq, users, ends, 8).tolist() == markov(other, users, ends, 8).tolist()
    assert most_popular(seq, users, ends, 8).tolist() == most_popular(other, users, ends, 8).tolist()
