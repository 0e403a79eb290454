"""The directed transitions against their definition, pair by pair; nobody's own future speaks for a training row."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diger_core.data.sequences import Sequences
from diger_core.data.splits import targets, training_ends, training_rows
from diger_core.data.transitions import Transitions, TransitionsConfig
from diger_core.recommender.sasrec import Mixture, SasRec, SasRecConfig, candidates

CONFIG = TransitionsConfig(window=3, decay=0.5, row=0.3)
USERS = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=9), min_size=1, max_size=6)


def sequences(users: list[list[int]]) -> Sequences:
    offsets = np.concatenate(([0], np.cumsum([len(user) for user in users])))
    return Sequences(np.array([item for user in users for item in user], dtype=np.int32), offsets, items=8)


def expected(seq: Sequences, user: int, end: int) -> np.ndarray:
    """Scores of one row by the definition, not normalised: r of all users, c without what `user` did at `end` and later."""
    whole, without = np.zeros((8, 8)), np.zeros((8, 8))
    for u, last in enumerate(training_ends(seq)):
        for j in range(seq.offsets_U1[u], last):
            for i in range(max(seq.offsets_U1[u], j - CONFIG.window), j):
                a, b = seq.events_E[i], seq.events_E[j]
                if a != b:
                    whole[a, b] += 1 / (j - i)
                    # A pair of two later events says nothing about this row's history unless its first item occurs there, too: it stays.
                    without[a, b] += 1 / (j - i) if not (u == user and i < end <= j) else 0.0
    scale = np.maximum(whole.sum(1), 1e-9)[:, None] ** -CONFIG.row
    history = seq.events_E[seq.offsets_U1[user] : end][::-1][: 2 * CONFIG.window]
    return sum(CONFIG.decay**k * (without * scale)[item] for k, item in enumerate(history))


def normalised(score: np.ndarray) -> np.ndarray:
    return score / max(score.sum(), 1e-12)


@given(USERS)
def test_scores_of_evaluation_rows_are_those_of_the_definition(users: list[list[int]]) -> None:
    seq = sequences([*users, [0, 1, 2, 3]])
    users_T, end_T, _ = targets(seq, "test")
    found = Transitions(seq, CONFIG).probabilities(seq.offsets_U1[users_T], end_T)
    for row, (user, end) in enumerate(zip(users_T, end_T, strict=True)):
        np.testing.assert_allclose(found[row], normalised(expected(seq, user, end)), atol=1e-5)


def test_a_training_row_is_scored_without_what_its_user_did_then_and_later() -> None:
    seq = sequences([[0, 1, 2, 3, 4, 5], [6, 7, 6, 5, 4, 3], [0, 1, 4, 2, 7, 7]])
    user_R, end_R = training_rows(seq)
    found = Transitions(seq, CONFIG).probabilities(seq.offsets_U1[user_R], end_R)
    for row, (user, end) in enumerate(zip(user_R, end_R, strict=True)):
        np.testing.assert_allclose(found[row], normalised(expected(seq, user, end)), atol=1e-5)


def test_nothing_follows_an_item_that_nobody_else_has_seen() -> None:
    seq = sequences([[6, 7, 1, 2, 3, 3], [0, 1, 2, 3, 4, 5]])
    assert Transitions(seq, CONFIG).probabilities(np.array([0]), np.array([1])).sum() == 0


def test_events_of_validation_and_test_are_not_counted() -> None:
    counted = Transitions(sequences([[0, 1, 2, 3], [4, 0, 5, 5]]), CONFIG).followers_NN.to_dense().T
    assert set(map(tuple, counted.nonzero().tolist())) == {(0, 1), (4, 0)}


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_candidates_of_a_mixture_are_those_of_the_product(weight: float) -> None:
    seq = sequences([[0, 1, 2, 3, 4, 5], [6, 7, 6, 5, 4, 3], [0, 1, 4, 2, 7, 7]])
    torch.manual_seed(0)
    model = SasRec(SasRecConfig(d_model=8, history=4), 8).eval()
    counted = Transitions(seq, CONFIG)
    user_R, end_R = training_rows(seq)
    begin_R = seq.offsets_U1[user_R]
    alone, alone_share = candidates([model], seq, begin_R, end_R, 8, 1.0, "cpu")
    mixed, mixed_share = candidates([model], seq, begin_R, end_R, 8, 1.0, "cpu", Mixture(counted, weight, 0.01))
    follows = counted.probabilities(begin_R, end_R).numpy()
    for row in range(len(end_R)):
        p = np.zeros(8)
        p[alone[row]] = alone_share[row]
        wanted = p * (follows[row] + 0.01) ** weight
        np.testing.assert_allclose(mixed_share[row], normalised(wanted)[mixed[row]], atol=1e-5)
