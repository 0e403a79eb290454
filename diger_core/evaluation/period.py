"""Every event of the test period, each ranked in the list that its user would have been given on the eve of it (a temporal split alone).

A user's first event after T2 makes one target a user; all of them make two to four times as many, which a nightly list has to serve as well.
U users, E targets, e_u of user u with the summed gain g_u, C columns. The mean is sum_u g_u / sum_u e_u. Users are drawn, not events: the variance is
that of a ratio, linearised (Cochran, Sampling Techniques, 1977, section 6.4):

    var = U / (U - 1) sum_u (g_u - mean e_u)^2 / (sum_u e_u)^2,   interval: mean +- 1.96 sqrt(var)

Time and memory grow with targets x models; nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diger_core.config import EvaluationConfig
from diger_core.data.sequences import Int64, Sequences
from diger_core.data.splits import targets
from diger_core.evaluation.metrics import Difference, Float64, Period, ndcg, ranks, recall
from diger_core.evaluation.ranking import EvaluationResult

Z = 1.959964  # of a two-sided 95% interval
CHUNK = 1 << 18  # targets ranked at once


def whole_period(results: Mapping[str, EvaluationResult], seq: Sequences, config: EvaluationConfig) -> Period | None:
    """Metrics of every model over all events after T2, and the paired differences of every pair; None without a temporal split.

    The lists of `results` were made for each user's history up to T2, so nothing is ranked again. A target that the cut-off does not reach gains 0.
    """
    if seq.boundaries is None:
        return None
    first = next(iter(results.values()))
    users_E, _, target_E = targets(seq, "test_all")
    row_E = np.searchsorted(first.users_T, users_E)
    row_E = np.minimum(row_E, len(first.users_T) - 1)
    if not np.array_equal(first.users_T[row_E], users_E):
        raise ValueError("whole_period: the lists are not those of every test user")
    events_U = np.bincount(row_E, minlength=len(first.users_T))
    labels = [f"recall@{k}" for k in config.recall_at] + [f"ndcg@{k}" for k in config.ndcg_at]
    gains = {name: _gains(result, row_E, target_E, config) for name, result in results.items()}
    names = list(results)
    models: dict[str, dict[str, Any]] = {}
    for name in names:
        found = [clustered(gain_U, events_U) for gain_U in gains[name].T]
        models[name] = {label: each["mean"] for label, each in zip(labels, found, strict=True)}
        models[name]["intervals"] = {label: [each["low"], each["high"]] for label, each in zip(labels, found, strict=True)}
    differences = {
        f"{a} - {b}": {label: clustered(gain_U, events_U) for label, gain_U in zip(labels, (gains[a] - gains[b]).T, strict=True)}
        for place, a in enumerate(names)
        for b in names[place + 1 :]
    }
    return {"events": len(target_E), "models": models, "differences": differences}


def clustered(gain_U: Float64, events_U: Int64) -> Difference:
    """The mean over events with its 95% interval over users. gain_U: each user's sum; events_U: how many events it is of, at least 1 in all."""
    total, users = float(events_U.sum()), len(events_U)
    mean = float(gain_U.sum()) / total
    spread = float(np.square(gain_U - mean * events_U).sum()) * users / max(1, users - 1)
    half = Z * spread**0.5 / total
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _gains(result: EvaluationResult, row_E: Int64, target_E: np.ndarray, config: EvaluationConfig) -> Float64:
    """[U, C]: each user's gains, summed over their targets."""
    users, columns = len(result.users_T), len(config.recall_at) + len(config.ndcg_at)
    sums_UC = np.zeros((users, columns))
    for start in range(0, len(target_E), CHUNK):
        row_e = row_E[start : start + CHUNK]
        rank_e = ranks(result.items_Tk[row_e], target_E[start : start + CHUNK])
        values = [recall(rank_e, k) for k in config.recall_at] + [ndcg(rank_e, k) for k in config.ndcg_at]
        for column, value_e in enumerate(values):
            sums_UC[:, column] += np.bincount(row_e, value_e, minlength=users)
    return sums_UC
