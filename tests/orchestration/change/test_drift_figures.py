"""Drift: figures of fresh events beside the window before, and what leaves its limits."""

import numpy as np
import pytest

from orchestration.change.drift_figures import figures, gini, passed, told
from orchestration.params.data import DriftConfig

CODES = np.array([0, 1, 2, 3, -1])  # of five items; the champion lacks the last one
NEWEST = 100


def found(before, fresh, back=50, cosine=1.0, **lists):
    """Of events on these items: `before` over the `back` seconds up to the champion's newest event, `fresh` over the 50 after it."""
    times = np.r_[np.linspace(NEWEST - back + 1, NEWEST, len(before)), np.linspace(NEWEST + 1, NEWEST + 50, len(fresh))].astype(np.int64)
    return figures(np.array([*before, *fresh], np.int32), times, NEWEST, CODES, 4, cosine) | lists


def test_figures_of_a_small_case_by_hand():
    drift = found([0, 1, 2, 3], [0, 0, 4, 4, 0, 0, 0, 0])
    assert drift["fresh_events"] == 8
    assert drift["event_volume"] == pytest.approx(2)
    assert drift["new_item_share"] == 0.25
    assert (drift["coverage"], drift["coverage_before"]) == (0.25, 1.0)  # of the four items that the champion knows
    assert (drift["concentration"], drift["concentration_before"]) == (1.0, 0.0)
    assert (drift["code_usage"], drift["code_usage_before"]) == (0.25, 1.0)
    assert drift["embedding_drift"] == 0.0


def test_events_that_reach_back_less_far_than_the_fresh_ones_are_compared_by_their_rate():
    assert found([0, 1], [0, 1, 2, 3], back=25)["event_volume"] == pytest.approx(1)


def test_of_a_longer_past_only_the_window_before_counts():
    drift = found([0] * 30 + [1, 2, 3] * 10, [0, 1, 2, 3] * 8, back=100)
    assert drift["event_volume"] == pytest.approx(32 / 30, rel=0.05)
    assert drift["coverage_before"] == 0.75


def test_without_fresh_events_or_times_only_the_vectors_count():
    for drift in (found([0, 1], [], cosine=0.9), figures(np.zeros(3, np.int32), None, None, CODES, 4, 0.9)):
        assert drift["coverage"] is None
        assert list(passed(drift, DriftConfig())) == ["embedding_drift"]
        assert told(drift, DriftConfig()) == "the vectors of known items moved by 10.0% (max_embedding_drift: 5.0%)"
    assert told(drift | {"embedding_drift": None}, DriftConfig()) == "not measured: the events have no times"
    assert told(found([0, 1], []), DriftConfig()) == "no event is newer than the champion's newest"


def test_gini_is_0_where_all_are_alike_and_1_where_one_has_all():
    assert gini(np.full(9, 5)) == pytest.approx(0)
    assert gini(np.array([0, 0, 7])) == pytest.approx(1)
    assert gini(np.array([1, 3])) == pytest.approx(0.5)  # of two: (3 - 1) / (3 + 1)


CALM = [0, 1, 2, 3] * 3
FEW = DriftConfig(min_events=1)


@pytest.mark.parametrize(
    ("drift", "figure", "key"),
    [
        (found(CALM, CALM * 3), "event_volume", "max_volume: 2.00"),
        (found(CALM * 3, CALM), "event_volume", "min_volume: 0.50"),
        (found(CALM, [0, 1, 2, 3, 4, 4]), "new_item_share", "33.3% of the fresh events are on items that the champion lacks (max_new_items: 20.0%)"),
        (found(CALM, [0] * 6 + [1, 2, 3, 1, 2, 3]), "concentration", "max_concentration_rise: 0.10"),
        (found(CALM, [0, 1, 2, 4] * 3), "coverage", "from 100.0% to 75.0% (min_coverage_ratio: 0.80)"),
        (found(CALM, [0, 1, 2] * 4), "code_usage", "from 100.0% to 75.0% (min_code_usage_ratio: 0.80)"),
        (found(CALM, CALM, cosine=0.8), "embedding_drift", "max_embedding_drift: 5.0%"),
    ],
)
def test_each_figure_outside_its_limits_is_named_with_its_key(drift, figure, key):
    assert key in passed(drift, FEW)[figure]


def test_events_as_before_pass_no_limit_and_few_events_are_not_judged():
    assert passed(found([*CALM, *CALM], [*CALM, *CALM]), DriftConfig(min_events=24)) == {}
    assert told(found(CALM * 2, CALM * 2), FEW) == "within its limits"
    assert passed(found(CALM, [0, 0, 4, 4] * 3), DriftConfig(min_events=13)) == {}
    assert told(found(CALM, [0, 0, 4, 4] * 3), DriftConfig(min_events=13)) == "12 fresh events are too few to judge by (min_events: 13)"


def test_lists_that_lost_quality_are_told_where_the_loss_is_large_and_real():
    values = {"list_ndcg_10_at_release": 0.2, "list_ndcg_10": 0.15, "list_decay": 0.25, "list_decay_low": 0.1}
    lost = found(CALM, CALM, **values)
    assert passed(lost, FEW)["list_decay"] == (
        "the champion's lists lost 25.0%: NDCG@10 0.2000 at the release, 0.1500 on fresh events (max_list_decay: 10.0%)"
    )
    assert "list_decay" not in passed(lost | {"list_decay_low": -0.01}, FEW)  # too few users to rule chance out
    assert "list_decay" not in passed(lost, DriftConfig(min_events=1, max_list_decay=0.3))


@pytest.mark.parametrize("key", ["min_events", "max_list_decay", "list_users", "max_volume"])
def test_a_limit_that_cannot_be_is_refused(key):
    with pytest.raises(ValueError, match=key):
        DriftConfig(**{key: -1})
