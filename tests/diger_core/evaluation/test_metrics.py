"""Ranks, recall, NDCG and bootstrap intervals."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from diger_core.evaluation.metrics import Estimates, bootstrap_interval, distinct, ndcg, paired_bootstrap, ranks, recall, resampled_sums


def test_ranks_count_from_one_and_empty_places_are_no_hit():
    items = np.array([[4, 2, 9], [4, 2, 9], [-1, 7, -1], [-1, -1, 3]])
    assert ranks(items, np.array([4, 9, -1, 3])).tolist() == [1, 3, 0, 3]


def test_recall_and_ndcg_of_one_relevant_item():
    rank = np.array([0, 1, 2, 5, 6])
    assert recall(rank, 5).tolist() == [0, 1, 1, 1, 0]
    assert recall(rank, 1).tolist() == [0, 1, 0, 0, 0]
    np.testing.assert_allclose(ndcg(rank, 5), [0, 1, 1 / math.log2(3), 1 / math.log2(6), 0])


def test_the_interval_is_that_of_the_normal_approximation():
    values = (np.arange(2000) % 10 == 0).astype(float)
    interval = bootstrap_interval(values, 4000, seed=1)
    half = 1.96 * math.sqrt(0.1 * 0.9 / 2000)
    assert interval.mean == pytest.approx(0.1)
    assert interval.low == pytest.approx(0.1 - half, abs=0.001)
    assert interval.high == pytest.approx(0.1 + half, abs=0.001)


def test_grouping_equal_rows_leaves_the_spread_of_distinct_ones():
    values = np.random.default_rng(0).normal(size=(500, 1))
    sums = np.concatenate(list(resampled_sums(values, 3000, seed=0)))
    assert sums.shape == (3000, 1)
    assert sums.std() == pytest.approx(values.std() * math.sqrt(500), rel=0.05)


def test_pairing_removes_what_users_have_in_common():
    generator = np.random.default_rng(0)
    common = generator.normal(size=3000)
    a, b = common + 0.05 + 0.1 * generator.normal(size=3000), common + 0.1 * generator.normal(size=3000)
    mean, low, high = paired_bootstrap(a, b, 1000, seed=0)
    assert low < mean < high
    assert low > 0.03
    assert high - low < 0.02
    assert paired_bootstrap(a, b, 1000, seed=0) == (mean, low, high)
    assert paired_bootstrap(a, a, 1000, seed=0) == (0, 0, 0)
    with pytest.raises(ValueError, match="same users"):
        paired_bootstrap(a, b[1:], 1000, seed=0)


def test_slices_are_means_over_their_own_users_and_differences_are_paired():
    values = np.array([[1.0, 0.5], [0.0, 0.5], [1.0, 1.0], [1.0, 1.0]] * 50)
    part = np.tile([True, True, False, False], 50)
    estimates = Estimates(values, {"all": np.ones(200, dtype=bool), "part": part}, np.ones(200, dtype=np.int64), 500, seed=0)
    assert estimates.model("all", 0, ["a", "b"]) | {"intervals": None} == {"a": 0.75, "b": 0.75, "intervals": None}
    assert estimates.model("part", 0, ["a"])["a"] == 0.5
    low, high = estimates.model("part", 0, ["a"])["intervals"]["a"]
    assert 0.3 < low < 0.5 < high < 0.7
    assert estimates.difference("all", 0, 0, ["a"]) == {"a": {"mean": 0.0, "low": 0.0, "high": 0.0}}  # the same draws for both
    assert estimates.difference("part", 1, 1, ["b"]) == {"b": {"mean": 0.0, "low": 0.0, "high": 0.0}}
    assert estimates.difference("all", 0, 1, ["x"])["x"]["mean"] == 0


def test_distinct_kinds_are_those_of_a_loop_also_where_their_keys_would_not_fit():
    random = np.random.default_rng(1)
    for columns in ([random.integers(0, 3, 500) for _ in range(3)], [random.integers(0, 2, 500) * (2**40) for _ in range(4)]):
        first_G, counts_G = distinct(columns)
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        assert {rows[at]: int(count) for at, count in zip(first_G, counts_G, strict=True)} == dict(Counter(rows))


def test_kinds_with_counts_give_what_users_one_by_one_give():
    random = np.random.default_rng(2)
    rank_T, mask_T = random.integers(0, 11, 3000), random.random(3000) < 0.3
    row_G, counts_G = distinct([rank_T, mask_T])
    few = Estimates(ndcg(rank_T[row_G], 10)[:, None], {"part": mask_T[row_G]}, counts_G, 2000, seed=0).model("part", 0, ["n"])
    many = Estimates(ndcg(rank_T, 10)[:, None], {"part": mask_T}, np.ones(3000, dtype=np.int64), 2000, seed=0).model("part", 0, ["n"])
    assert few["n"] == pytest.approx(many["n"], abs=1e-12)
    np.testing.assert_allclose(few["intervals"]["n"], many["intervals"]["n"], atol=0.002)
