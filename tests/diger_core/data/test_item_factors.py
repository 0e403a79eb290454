"""PPMI factors: what they find, what they must not see, and that they repeat."""

from __future__ import annotations

import time

import numpy as np
import pyarrow.parquet as pq

from diger_core.data.item_factors import _ppmi, co_occurrences, item_factors
from diger_core.data.sequences import Sequences, sequences
from tests.diger_core.evaluation.test_baselines import of_histories


def two_worlds(users: int = 60) -> Sequences:
    """Items 0-9 occur with one another only, and so do 10-19; 20 is never an event, 21 is held out only."""
    generator = np.random.default_rng(0)
    histories = [[*(generator.permutation(10) + 10 * (user % 2)).tolist(), 21, 21] for user in range(users)]
    return of_histories(histories, 22)


def test_ppmi_is_that_of_plain_loops():
    histories = [[0, 1, 2, 0, 5, 5], [2, 1, 3, 3, 4, 4], [1, 2]]
    seq = of_histories(histories, 6)
    counts = np.zeros((6, 6))
    for history in ([0, 1, 2, 0], [2, 1, 3, 3], [1, 2]):
        for i, a in enumerate(history):
            for distance, b in enumerate(history[i + 1 : i + 3], start=1):
                if a != b:
                    counts[a, b] += 1 / distance
                    counts[b, a] += 1 / distance
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.nan_to_num(np.maximum(np.log(counts * counts.sum() / np.outer(counts.sum(0), counts.sum(0))), 0))
    found = _ppmi(*co_occurrences(seq, 2), 6)
    assert found is not None
    np.testing.assert_allclose(found.to_dense().numpy(), expected, atol=1e-12)


def test_the_svd_is_the_exact_truncated_one():
    seq = two_worlds()
    ppmi = _ppmi(*co_occurrences(seq, 5), seq.items).to_dense().numpy()
    values, vectors = np.linalg.eigh(ppmi)
    order = np.argsort(-np.abs(values))[:6]
    exact = vectors[:, order] * np.sqrt(np.abs(values[order]))
    gram = exact @ exact.T
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-30))
    found = item_factors(seq, 6, seed=0)
    np.testing.assert_allclose(found @ found.T, np.where(np.outer(scale, scale) > 1e-9, gram / np.outer(scale, scale), 0), atol=0.02)


def test_items_that_occur_together_are_near_and_strangers_are_not():
    factors = item_factors(two_worlds(), 2, seed=0)
    similarity = factors @ factors.T
    assert similarity[:10, :10].min() > 0.9
    assert similarity[10:20, 10:20].min() > 0.9
    assert np.abs(similarity[:10, 10:20]).max() < 0.1


def test_rows_have_length_one_and_items_without_training_events_are_zero():
    factors = item_factors(two_worlds(), 40, seed=0)
    assert factors.dtype == np.float32
    assert factors.shape == (22, 40)
    np.testing.assert_allclose(np.linalg.norm(factors[:20], axis=1), 1, atol=1e-5)
    assert not factors[20:].any()


def test_held_out_events_change_nothing_and_a_seed_repeats():
    seq = two_worlds()
    events = seq.events_E.copy()
    events[events == 21] = 3
    first = item_factors(seq, 8, seed=0)
    assert np.array_equal(first, item_factors(Sequences(events, seq.offsets_U1, seq.items), 8, seed=0))
    assert np.array_equal(first, item_factors(seq, 8, seed=0))


def test_users_of_single_events_give_zeros():
    assert not item_factors(of_histories([[0], [1], [2]], 3), 4, seed=0).any()
    assert item_factors(of_histories([[0], [1]], 2), 0, seed=0).shape == (2, 0)


def test_beauty_takes_seconds(shared_data):
    folder = shared_data("amazon_beauty")
    seq, _, _ = sequences(pq.read_table(folder / "interactions.parquet"), pq.read_table(folder / "items.parquet"))
    start = time.process_time()
    factors = item_factors(seq, 64, seed=0)
    assert time.process_time() - start < 20
    assert factors.shape == (12_101, 64)
    assert np.isfinite(factors).all()
