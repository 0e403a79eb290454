"""Every event of the test period, each ranked in the list that its user would have been given on the eve of it (a temporal split alone).

A user's first event after T2 makes one target a user; all of them make two to four times as many, which a nightly list has to serve as well.
U users, E targets, e_u of user u with the summed gain g_u, C columns. The mean is sum_u g_u / sum_u e_u. Users are drawn, not events: the variance is
that of a ratio, linearised (Cochran, Sampling Techniques, 1977, section 6.4):

    var = U / (U - 1) sum_u (g_u - mean e_u)^2 / (sum_u e_u)^2,   interval: mean +- 1.96 sqrt(var)

For a difference of two models g is that of their gains. So all of it follows from the sums and products of the columns over users, which are added up
in blocks of users: memory grows with one block alone, time with targets x models, and nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diger_core.config import EvaluationConfig
from diger_core.data.sequences import Int32, Int64, Sequences
from diger_core.data.splits import targets
from diger_core.evaluation.metrics import Difference, Float64, Period, ndcg, ranks, recall
from diger_core.evaluation.ranking import EvaluationResult

Z = 1.959964  # of a two-sided 95% interval
BLOCK = 1 << 15  # users whose gains are held at once


def whole_period(results: Mapping[str, EvaluationResult], seq: Sequences, config: EvaluationConfig) -> Period | None:
    """`WholePeriod` of lists that are all there at once; None without a temporal split."""
    if seq.boundaries is None:
        return None
    period = WholePeriod(seq, config)
    period.add(results)
    return period.document()


class WholePeriod:
    """Metrics of every model over all events after T2, and the paired differences of every pair.

    The lists were made for each user's history up to T2, so nothing is ranked again; they come in blocks of users, in the order of `targets(seq,
    "test")`, and none is kept. A target that the cut-off does not reach gains 0.
    """

    def __init__(self, seq: Sequences, config: EvaluationConfig) -> None:
        self.config, (self.users_E, _, self.target_E) = config, targets(seq, "test_all")
        self.labels = [f"recall@{k}" for k in config.recall_at] + [f"ndcg@{k}" for k in config.ndcg_at]
        self.names: list[str] = []
        self.moments = Moments(1)
        self.done = 0  # events of the users so far

    def add(self, results: Mapping[str, EvaluationResult]) -> None:
        """The lists of the next users. ValueError for other users."""
        users_T = next(iter(results.values())).users_T
        if not self.names:
            self.names, self.moments = list(results), Moments(1 + len(results) * len(self.labels))
        end = int(np.searchsorted(self.users_E, users_T[-1], side="right"))
        users_e, target_e = self.users_E[self.done : end], self.target_E[self.done : end]
        if not np.array_equal(users_T, users_e[np.r_[True, users_e[1:] != users_e[:-1]]]):
            raise ValueError("whole_period: the lists are not those of the next test users")
        row_e = np.searchsorted(users_T, users_e)
        for start in range(0, len(users_T), BLOCK):
            rows_u = np.arange(start, min(start + BLOCK, len(users_T)))
            part = slice(*np.searchsorted(row_e, (rows_u[0], rows_u[-1] + 1)))
            gains = [_gains(results[name], rows_u, row_e[part], target_e[part], self.config) for name in self.names]
            self.moments.add(np.column_stack([np.bincount(row_e[part] - start, minlength=len(rows_u)), *gains]))
        self.done = end

    def document(self) -> Period:
        """What metrics.json holds. ValueError where a test user's lists are missing."""
        if self.done != len(self.users_E):
            raise ValueError("whole_period: the lists are not those of every test user")
        names, labels, moments = self.names, self.labels, self.moments
        place = {name: 1 + len(labels) * number for number, name in enumerate(names)}
        models: dict[str, dict[str, Any]] = {}
        for name in names:
            found = [moments.clustered(place[name] + i) for i in range(len(labels))]
            models[name] = {label: each["mean"] for label, each in zip(labels, found, strict=True)}
            models[name]["intervals"] = {label: [each["low"], each["high"]] for label, each in zip(labels, found, strict=True)}
        differences = {
            f"{a} - {b}": {label: moments.clustered(place[a] + i, place[b] + i) for i, label in enumerate(labels)}
            for number, a in enumerate(names)
            for b in names[number + 1 :]
        }
        return {"events": len(self.target_E), "models": models, "differences": differences}


class Moments:
    """Sums and products over users of the columns [users, X]: a user's number of events first, then their summed gains, column by column."""

    def __init__(self, columns: int) -> None:
        self.users, self.sums_X, self.products_XX = 0, np.zeros(columns), np.zeros((columns, columns))

    def add(self, values_uX: Float64) -> None:
        """More users."""
        self.users += len(values_uX)
        self.sums_X += values_uX.sum(axis=0)
        self.products_XX += values_uX.T @ values_uX

    def clustered(self, a: int, b: int | None = None) -> Difference:
        """The mean over events of column `a`, or of `a` minus `b`, with its 95% interval over users. There must be an event."""
        total, column_X = float(self.sums_X[0]), np.zeros(len(self.sums_X))
        column_X[a] = 1.0
        if b is not None:
            column_X[b] -= 1.0
        mean = float(column_X @ self.sums_X) / total
        column_X[0] -= mean  # g - mean e
        spread = max(0.0, float(column_X @ self.products_XX @ column_X)) * self.users / max(1, self.users - 1)
        half = Z * spread**0.5 / total
        return {"mean": mean, "low": mean - half, "high": mean + half}


def clustered(gain_E: Float64, row_E: Int64) -> Difference:
    """The mean of `gain_E` [E] over events with its 95% interval over users; `row_E`: the row of each event's user, from 0 on without a gap."""
    moments = Moments(2)
    moments.add(np.column_stack([np.bincount(row_E), np.bincount(row_E, gain_E)]).astype(np.float64))
    return moments.clustered(1)


def _gains(result: EvaluationResult, rows_u: Int64, row_e: Int64, target_e: Int32, config: EvaluationConfig) -> Float64:
    """[u, C]: the gains of the users at `rows_u`, summed over their targets."""
    rank_e = ranks(result.items_Tk[row_e], target_e)
    values = [recall(rank_e, k) for k in config.recall_at] + [ndcg(rank_e, k) for k in config.ndcg_at]
    return np.stack([np.bincount(row_e - rows_u[0], value_e, minlength=len(rows_u)) for value_e in values], axis=1)
