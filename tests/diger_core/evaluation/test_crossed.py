"""Intervals over seeds and users: they hold the truth as often as they say, and neither source is left out."""

from __future__ import annotations

import numpy as np
import pytest

from diger_core.evaluation.crossed import Crossed, crossed, student_t


@pytest.mark.parametrize(("seed_spread", "user_spread"), [(0.02, 0.05), (0.0, 0.3), (0.03, 0.0)])
def test_the_interval_holds_the_truth_whichever_source_is_larger(seed_spread, user_spread):
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        gain = 0.01 + seed_spread * random.standard_normal((4, 1)) + user_spread * random.standard_normal((1, 200))
        found = crossed(gain + 0.05 * random.standard_normal((4, 200)))
        held += found.low <= 0.01 <= found.high
    assert 0.92 <= held / 400 <= 0.995


def test_an_interval_over_users_alone_would_miss_the_seeds():
    random = np.random.default_rng(1)
    gain = 0.05 * random.standard_normal((3, 1)) + 0.01 * random.standard_normal((3, 500))
    found = crossed(gain)
    assert found.seed_error > 10 * found.user_error
    assert found.high - found.mean > 4 * found.seed_error, "three seeds have two degrees of freedom"


def test_with_one_seed_there_is_a_mean_and_no_interval():
    found = crossed(np.array([[0.1, 0.3]]))
    assert found == Crossed(pytest.approx(0.2))
    assert found.word(1) == "unclaimed"


@pytest.mark.parametrize(
    ("seeds", "low", "high", "word"),
    [(2, 0.1, 0.2, "unclaimed"), (3, 0.1, 0.2, "better"), (3, -0.2, -0.1, "worse"), (3, -0.1, 0.1, "open"), (3, 0.0, 0.1, "open")],
)
def test_better_needs_three_seeds_and_a_whole_interval(seeds, low, high, word):
    assert Crossed((low + high) / 2, low, high).word(seeds) == word


def test_equal_trainings_differ_in_nothing():
    assert crossed(np.zeros((3, 5))) == Crossed(0.0, 0.0, 0.0, 0.0, 0.0)


def test_students_quantiles():
    assert student_t(2) == 4.303
    assert student_t(1e9) == pytest.approx(1.96, abs=1e-3)
    assert 2.776 < student_t(3.5) < 3.182
    assert student_t(40) == pytest.approx(2.021, abs=2e-3)
    with pytest.raises(ValueError, match="at least 1"):
        student_t(0.5)
    with pytest.raises(ValueError, match="at least one of each"):
        crossed(np.zeros((0, 3)))
