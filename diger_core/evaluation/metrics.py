"""Metrics of a full ranking with one relevant item for each user, and bootstrap intervals over users (docs/method.md, section 6).

T users. `rank_T`: the place of the target in the recommendations, 1 first, 0 not among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.integer]
LEVEL = 0.95  # of the intervals


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile interval."""

    mean: float
    low: float
    high: float


class Difference(TypedDict):
    """A mean with its 95% interval, as it is stored."""

    mean: float
    low: float
    high: float


# A model's metrics on some users: "recall@k" and "ndcg@k" of the configured cut-offs, "intervals" (metric -> [low, high]) and, over all users,
# "invalid_rate". The cut-offs are configuration, so the keys are not known here.
ModelMetrics = dict[str, Any]


class Period(TypedDict):
    """Every event of the test period: how many, each model's metrics over them, and the differences ("a - b" -> metric)."""

    events: int
    models: dict[str, ModelMetrics]
    differences: dict[str, dict[str, Difference]]


class Metrics(TypedDict):
    """metrics.json: models by name; slices (slice -> model -> metrics); differences ("a - b" -> metric); how many users, and on each slice; where
    the split is temporal, the same over every event of the test period."""

    models: dict[str, ModelMetrics]
    slices: dict[str, dict[str, ModelMetrics]]
    differences: dict[str, dict[str, Difference]]
    users: int
    slice_users: dict[str, int]
    period: NotRequired[Period]


def ranks(items_Tk: npt.NDArray[np.integer], target_T: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """[T] int32: the place of each target in its row, 1 first; 0 where it is not there.

    -1 in `items_Tk` (no item, or an invalid tuple) holds its place.
    """
    hit_Tk = (items_Tk == target_T[:, None]) & (items_Tk >= 0)
    return np.where(hit_Tk.any(axis=1), hit_Tk.argmax(axis=1) + 1, 0).astype(np.int32)


def recall(rank_T: Ranks, k: int) -> Float64:
    """[T]: 1 where the target is among the first k. Item-level: a colliding item with the same codes but another suffix is no hit."""
    return ((rank_T >= 1) & (rank_T <= k)).astype(np.float64)


def ndcg(rank_T: Ranks, k: int) -> Float64:
    """[T]: 1 / log2(1 + rank) among the first k, else 0; with one relevant item the ideal gain is 1."""
    return recall(rank_T, k) / np.log2(1.0 + np.maximum(rank_T, 1))


def bootstrap_interval(values_T: Float64, resamples: int, seed: int, level: float = LEVEL) -> Interval:
    """The mean of users' values with its percentile bootstrap interval."""
    means_R = np.concatenate(list(resampled_sums(np.asarray(values_T, dtype=np.float64)[:, None], resamples, seed)))[:, 0] / len(values_T)
    return _interval(float(np.mean(values_T)), means_R, level)


def paired_bootstrap(values_a: Float64, values_b: Float64, resamples: int, seed: int, level: float = LEVEL) -> tuple[float, float, float]:
    """(mean of a - b, low, high): users are drawn with both of their values, so what makes a user easy for both cancels."""
    if len(values_a) != len(values_b):
        raise ValueError(f"paired_bootstrap: {len(values_a)} and {len(values_b)} values; the two must hold the same users in one order")
    interval = bootstrap_interval(np.asarray(values_a, dtype=np.float64) - values_b, resamples, seed, level)
    return interval.mean, interval.low, interval.high


def resampled_sums(values_TC: Float64, resamples: int, seed: int) -> Iterator[Float64]:
    """Blocks [r, C] of column sums over `resamples` draws of T rows with replacement; every column sees the same draws.

    Rows with equal values are interchangeable, so a draw is a multinomial over the distinct rows: ranks have few of them.
    """
    if len(values_TC) == 0:
        raise ValueError("bootstrap: there are no users to draw from")
    return drawn_sums(*np.unique(values_TC, axis=0, return_counts=True), resamples, seed)


def drawn_sums(distinct_GC: Float64, counts_G: npt.NDArray[np.int64], resamples: int, seed: int) -> Iterator[Float64]:
    """As `resampled_sums`, of distinct rows and how many users have each."""
    for drawn_rG in draws(counts_G, resamples, seed):
        yield drawn_rG @ distinct_GC


def draws(counts_G: npt.NDArray[np.int64], resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Blocks [r, G] of how often each kind is drawn, of as many users as there are."""
    generator = np.random.default_rng(seed)
    block = max(1, 4_000_000 // len(counts_G))
    for done in range(0, resamples, block):
        yield generator.multinomial(counts_G.sum(), counts_G / counts_G.sum(), size=min(block, resamples - done))


def distinct(columns: Iterable[npt.NDArray[np.integer]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(a row of each distinct combination of the columns' values [G], how many rows have it [G]), in the order of these values.

    columns: integers [T] of at least 0. Memory: some 40 bytes a row, whatever the number of columns.
    """
    key_T, size = np.zeros(1, dtype=np.int64), 1
    for column_T in columns:
        span = int(column_T.max(initial=0)) + 1
        if size * span > np.iinfo(np.int64).max:
            key_T = np.unique(key_T, return_inverse=True)[1]
            size = int(key_T.max()) + 1
        key_T, size = key_T * span + column_T, size * span
    _, first_G, counts_G = np.unique(key_T, return_index=True, return_counts=True)
    return first_G, counts_G


class Estimates:
    """Means and bootstrap intervals of columns over parts of the users; a part's mean in one draw is its sum over its number of users.

    values_GC: of each distinct kind of user; slices: masks [G]; counts_G: how many users are of each kind.
    """

    def __init__(
        self, values_GC: Float64, slices: dict[str, npt.NDArray[np.bool_]], counts_G: npt.NDArray[np.int64], resamples: int, seed: int
    ) -> None:
        self.columns, self.place = values_GC.shape[1], {name: i for i, name in enumerate(slices)}
        values_GX = np.column_stack((values_GC, np.ones(len(values_GC))))

        def sums(drawn_rG: npt.NDArray[np.int64]) -> Float64:
            """[r, slices x (C + 1)]; the draws are masked, not the values: of those there are more."""
            return np.concatenate([(drawn_rG * mask_G) @ values_GX for mask_G in slices.values()], axis=1)

        self.observed = self._means(sums(counts_G[None]))[0]
        self.drawn = self._means(np.concatenate([sums(drawn_rG) for drawn_rG in draws(counts_G, resamples, seed)]))

    def _means(self, sums_RX: Float64) -> Float64:
        """[R, slices, C]; a draw without any user of a small slice counts as 0."""
        sums = sums_RX.reshape(len(sums_RX), len(self.place), self.columns + 1)
        return sums[:, :, :-1] / np.maximum(sums[:, :, -1:], 1)

    def model(self, part: str, column: int, labels: list[str]) -> ModelMetrics:
        place = self.place[part]
        values: ModelMetrics = {label: float(self.observed[place, column + i]) for i, label in enumerate(labels)}
        values["intervals"] = {label: _bounds(self.drawn[:, place, column + i]) for i, label in enumerate(labels)}
        return values

    def difference(self, part: str, a: int, b: int, labels: list[str]) -> dict[str, Difference]:
        place = self.place[part]
        found: dict[str, Difference] = {}
        for i, label in enumerate(labels):
            low, high = _bounds(self.drawn[:, place, a + i] - self.drawn[:, place, b + i])
            found[label] = {"mean": float(self.observed[place, a + i] - self.observed[place, b + i]), "low": low, "high": high}
        return found


def _bounds(drawn_R: Float64) -> list[float]:
    return [float(bound) for bound in np.quantile(drawn_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]


def _interval(mean: float, means_R: Float64, level: float) -> Interval:
    low, high = np.quantile(means_R, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))
