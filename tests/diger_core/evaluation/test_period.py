"""Every event of the test period: counted by hand, with intervals over users, and only where the split has a period."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diger_core.config import EvaluationConfig
from diger_core.data.sequences import Sequences
from diger_core.data.splits import targets
from diger_core.evaluation import period
from diger_core.evaluation.metrics import ranks
from diger_core.evaluation.period import Moments, whole_period
from diger_core.evaluation.ranking import EvaluationResult

CONFIG = EvaluationConfig(recall_at=(1, 2), ndcg_at=(2,))


@pytest.fixture
def seq() -> Sequences:
    """Users of 2 + 3, 1 + 1, 0 + 2 (new: no row) and 2 + 0 (nothing to serve) events before and after time 10."""
    times = [1, 2, 11, 12, 13, 3, 14, 11, 15, 4, 5]
    items = [0, 1, 2, 3, 2, 4, 0, 1, 1, 2, 3]
    return Sequences(
        offsets_U1=np.array([0, 5, 7, 9, 11]), events_E=np.array(items, np.int32), items=5, timestamps_E=np.array(times), boundaries=(6, 10)
    )


def result(seq: Sequences, lists: list[list[int]]) -> EvaluationResult:
    users_T, _, target_T = targets(seq, "test")
    items_Tk = np.array(lists, np.int32)
    return EvaluationResult(users_T, target_T, ranks(items_Tk, target_T), items_Tk)


@pytest.mark.parametrize("block", [1, 1 << 15])
def test_each_event_is_looked_for_in_its_users_list(seq: Sequences, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(period, "BLOCK", block)
    found = whole_period({"a": result(seq, [[2, 3], [1, 0]]), "b": result(seq, [[4, 2], [-1, -1]])}, seq, CONFIG)
    assert found is not None
    assert found["events"] == 4
    half = 1 / np.log2(3)
    assert found["models"]["a"]["recall@1"] == pytest.approx(2 / 4)
    assert found["models"]["a"]["recall@2"] == pytest.approx(4 / 4)
    assert found["models"]["a"]["ndcg@2"] == pytest.approx((2 + 2 * half) / 4)
    assert found["models"]["b"]["ndcg@2"] == pytest.approx(2 * half / 4)
    assert found["differences"]["a - b"]["ndcg@2"]["mean"] == pytest.approx(2 / 4)


def test_without_a_temporal_split_there_is_no_period(seq: Sequences) -> None:
    published = replace(seq, boundaries=None)
    users_T, _, target_T = targets(published, "test")
    lists = np.zeros((len(users_T), 2), np.int32)
    assert whole_period({"a": EvaluationResult(users_T, target_T, ranks(lists, target_T), lists)}, published, CONFIG) is None


def test_lists_of_a_part_of_the_users_are_refused(seq: Sequences) -> None:
    whole = result(seq, [[2, 3], [1, 0]])
    part = EvaluationResult(whole.users_T[:1], whole.target_T[:1], whole.rank_T[:1], whole.items_Tk[:1])
    with pytest.raises(ValueError, match="not those of every test user"):
        whole_period({"a": part}, seq, CONFIG)


def test_the_interval_is_that_of_drawing_users_not_events() -> None:
    random = np.random.default_rng(0)
    events_U = random.integers(1, 8, 800)
    taste_U = random.random(800)  # a user's events are hit together: intervals over events would be too narrow
    gain_U = random.binomial(events_U, taste_U).astype(float)
    moments = Moments(2)
    for part in (slice(0, 300), slice(300, 800)):
        moments.add(np.column_stack((events_U[part], gain_U[part])))
    found = moments.clustered(1)
    drawn = random.integers(0, 800, (4000, 800))
    means = gain_U[drawn].sum(axis=1) / events_U[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    assert found["mean"] == pytest.approx(gain_U.sum() / events_U.sum())
    assert found["high"] - found["low"] == pytest.approx(high - low, rel=0.06)
    over_events = 2 * 1.96 * np.sqrt(found["mean"] * (1 - found["mean"]) / events_U.sum())
    assert found["high"] - found["low"] > 1.3 * over_events
