"""Lists that listen to several models: an additive mixture of a few named distributions over items.

    score(item) = f(item) sum_k w_k p_k(item),   sum_k w_k = 1,   f(item) = (1 + n(item))^beta, and nu for an item without a training event,
    sum over items of p_k(item) = 1 for every user whom part k knows something about, or, where validation prefers it, 1 on the mean over users: a
    part that knows much about a user then counts more for this user

n(item): its events among the newest share of all (`Trend`); beta = 0 where validation says that what sells now says nothing. nu >= 1: what gives
new items a place in the lists, since only text, and a model, can name them.

Parts: `generative` (the beams' probabilities), `transitions` and `text` (scores of the item-to-item tables), `repeat` (what the user had before),
`recent` and `popular` (shares of the last and of all training events). The candidates are the union of what the parts name.

The weights maximise NDCG@10 of validation users by direct search: Dirichlet draws, then a refinement around the best. Weights that maximise the
likelihood rank worse. The best draw of each of many resamples of the users is found, and their mean taken (bagging: Breiman, 1996), so that a small
validation set does not choose by luck.

T rows (a user at a moment), P candidates of all rows together, K parts, k places.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from diger_core.data.neighbours import history_weights, scored
from diger_core.data.sequences import Float32, Int32, Int64, Sequences, gathered, ranges
from diger_core.evaluation.counts import LISTED, NO_TREND, Counts, Trend

PARTS = ("generative", "transitions", "text", "repeat", "recent", "popular")
TAUS = (1.5, 5.0, 20.0)  # of exp(-a / tau), a the number of later events
REPEAT_TAUS = (5.0, 20.0, 100.0, 1000.0)  # likewise, of what a user had before: where shops buy for stock, an old purchase counts like a new one
HISTORY = 50  # events of a user that the tables look at
REMEMBERED = 200  # events of a user among which it is looked for what the user had before
DRAWS, REFINEMENTS, RESAMPLES = 300, 200, 50
COMPARED = 1 << 21  # (draw, candidate) pairs compared at once
SEARCHED = 10_000  # validation users that the search looks at, at most
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """row_P ascending, item_P ascending in each row, value_KP float32: p_k of each candidate, in the order of `parts`."""

    parts: tuple[str, ...]
    rows: int
    row_P: Int64
    item_P: Int32
    value_KP: Float32

    def scores(self, weights: Mapping[str, float]) -> Float32:
        """float32 [P]."""
        found: Float32 = np.array([weights.get(part, 0.0) for part in self.parts], dtype=np.float32) @ self.value_KP
        return found

    def sums(self) -> dict[str, float]:
        """The mean sum of each part's values over the rows; 1 where a part says nothing."""
        total_K = self.value_KP.sum(axis=1, dtype=np.float64) / max(1, self.rows)
        return {part: float(total) or 1.0 for part, total in zip(self.parts, total_K, strict=True)}

    def scaled(self, scale: Mapping[str, float]) -> Candidates:
        """The same candidates with each part's values in the given unit."""
        unit_K = np.array([scale.get(part, 1.0) for part in self.parts])
        return replace(self, value_KP=(self.value_KP / unit_K[:, None]).astype(np.float32))

    def times(self, factor_N: Float32) -> Candidates:
        """The same candidates with every part's value multiplied by its item's factor."""
        return replace(self, value_KP=self.value_KP * factor_N[self.item_P])

    def places(self, target_T: Int32, items: int) -> Int64:
        """[T]: where each row's target stands among the candidates, -1 where it is none."""
        key_P = self.row_P * items + self.item_P
        wanted_T = np.arange(self.rows, dtype=np.int64) * items + target_T
        place_T = np.searchsorted(key_P, wanted_T)
        hit_T = (place_T < len(key_P)) & (key_P[np.minimum(place_T, len(key_P) - 1)] == wanted_T) if len(key_P) else np.zeros(self.rows, dtype=bool)
        return np.where(hit_T, place_T, -1)


def candidates(
    counts: Counts,
    seq: Sequences,
    users_T: Int64,
    end_T: Int64,
    beams: tuple[Int32, Float32] | None = None,
    *,
    remove_seen: bool = False,
    allowed_N: npt.NDArray[np.bool_] | None = None,
    raw: bool = False,
    parts: Container[str] = PARTS,
    trend: Trend = NO_TREND,
    new_items: float = 1.0,
) -> Candidates:
    """The union of what the `parts` name for each row, with every part's distribution on it.

    beams: (items [T, W], -1 where there is none; their log-probabilities). `allowed_N`: items that may be recommended. `raw`: the parts' scores
    as they are, not each user's shares of them, which is how counting rules add them. `trend` and `new_items` multiply every part's values.
    """
    named: dict[str, tuple[Int32, Float32]] = {}
    if beams is not None and "generative" in parts:
        finite_TW = np.where((beams[0] >= 0) & np.isfinite(beams[1]), beams[1], -np.inf)
        # shares: from the best beam on, so that none underflows; raw: the probabilities themselves, which say how sure the model is
        top_T1 = 0.0 if raw else np.maximum(finite_TW.max(axis=1, keepdims=True, initial=-1e9), -1e9)
        named["generative"] = (beams[0], np.exp(finite_TW - top_T1).astype(np.float32))
    for part, table in (("transitions", counts.transitions), ("text", counts.text)):
        if part in parts:
            items_TL, weights_TL = history_weights(seq, users_T, end_T, HISTORY, counts.tau[part])
            named[part] = scored([(table, 1.0)], items_TL, weights_TL, LISTED)
    if "repeat" in parts:
        named["repeat"] = history_weights(seq, users_T, end_T, REMEMBERED, counts.tau["repeat"])
    for part, share_N, best_k in (("recent", counts.recent_N, counts.recent_k), ("popular", counts.popular_N, counts.popular_k)):
        if part in parts:
            named[part] = (np.tile(best_k, (len(users_T), 1)), np.tile(share_N[best_k], (len(users_T), 1)))
    found = _union(named, counts, seq, users_T, end_T, remove_seen, allowed_N, raw)
    return found.times(counts.factor_N(trend, new_items)) if trend.power or new_items != 1 else found


def _union(
    named: Mapping[str, tuple[Int32, Float32]],
    counts: Counts,
    seq: Sequences,
    users_T: Int64,
    end_T: Int64,
    remove_seen: bool,
    allowed_N: npt.NDArray[np.bool_] | None,
    raw: bool,
) -> Candidates:
    keys = {part: _keys(items, value, seq.items) for part, (items, value) in named.items()}
    key_P = np.sort(np.concatenate([key for key, _ in keys.values()]))
    key_P = key_P[np.r_[True, key_P[1:] != key_P[:-1]]] if len(key_P) else key_P  # numpy's unique hashes: fifteen times slower here
    if remove_seen:
        key_P = key_P[~np.isin(key_P, _seen_keys(seq, users_T, end_T), kind="sort")]
    if allowed_N is not None:
        key_P = key_P[allowed_N[key_P % seq.items]]
    row_P, item_P = key_P // seq.items, (key_P % seq.items).astype(np.int32)
    value_KP = np.zeros((len(named), len(key_P)), dtype=np.float32)
    for k, (part, (key_X, value_X)) in enumerate(keys.items()):
        if part in ("recent", "popular"):
            value_KP[k] = (counts.recent_N if part == "recent" else counts.popular_N)[item_P]  # exact for every candidate
            continue
        place_X = np.searchsorted(key_P, key_X)
        kept_X = (place_X < len(key_P)) & (key_P[np.minimum(place_X, len(key_P) - 1)] == key_X) if len(key_P) else np.zeros(len(key_X), dtype=bool)
        row_X = key_X // seq.items
        share_X = value_X if raw else value_X / np.maximum(np.bincount(row_X, value_X, minlength=len(users_T))[row_X], 1e-12)
        value_KP[k] = np.bincount(place_X[kept_X], share_X[kept_X], minlength=len(key_P)).astype(np.float32)
    return Candidates(tuple(named), len(users_T), row_P, item_P, value_KP)


def _keys(items_Tx: Int32, value_Tx: Float32, items: int) -> tuple[Int64, Float32]:
    """(row * N + item, value) of the entries that are there and not 0."""
    row_X, column_X = np.nonzero((items_Tx >= 0) & (value_Tx > 0))
    return row_X * np.int64(items) + items_Tx[row_X, column_X], value_Tx[row_X, column_X]


def _seen_keys(seq: Sequences, users_T: Int64, end_T: Int64) -> Int64:
    """row * N + item of what each row's history holds."""
    events_e, offsets_T1 = gathered(seq, seq.offsets_U1[users_T], end_T)
    return np.repeat(np.arange(len(users_T), dtype=np.int64), np.diff(offsets_T1)) * seq.items + events_e


def fused(found: Candidates, weights: Mapping[str, float], k: int) -> tuple[Int32, Float32]:
    """(items [T, k] int32, scores [T, k] float32), best first, equal scores by item; -1 and 0 where a row has fewer candidates."""
    score_P = found.scores(weights)
    begin_T = np.searchsorted(found.row_P, np.arange(found.rows))
    # A row's k-th best score first: that is linear, and what lies below it need not be sorted.
    column_P = np.arange(len(score_P)) - begin_T[found.row_P]
    cost_Tx = np.full((found.rows, max(k, int(column_P.max(initial=-1)) + 1)), np.inf, dtype=np.float32)
    cost_Tx[found.row_P, column_P] = -score_P
    least_T = -np.partition(cost_Tx, k - 1, axis=1)[:, k - 1]  # from the front: among many equal values numpy is ten times as slow from the end
    near_p = np.flatnonzero((score_P > 0) & (score_P >= least_T[found.row_P]))
    order_p = near_p[np.lexsort((found.item_P[near_p], -score_P[near_p], found.row_P[near_p]))]
    row_p = found.row_P[order_p]
    place_p = np.arange(len(order_p)) - np.searchsorted(row_p, np.arange(found.rows))[row_p]
    at_p, row_p, place_p = order_p[place_p < k], row_p[place_p < k], place_p[place_p < k]
    items_Tk, scores_Tk = np.full((found.rows, k), -1, dtype=np.int32), np.zeros((found.rows, k), dtype=np.float32)
    items_Tk[row_p, place_p], scores_Tk[row_p, place_p] = found.item_P[at_p], score_P[at_p]
    return items_Tk, scores_Tk


# The search for weights


@dataclass(frozen=True)
class Weights:
    """Weights by part (sum 1). `halves`: what each half of the validation users alone would have chosen; `ndcg`: on all of them."""

    weights: dict[str, float]
    ndcg: float
    halves: tuple[dict[str, float], dict[str, float]]

    @property
    def moved(self) -> float:
        """Half the sum of the differences between the halves' weights: 0 where they agree, 1 where nothing is common."""
        return 0.5 * sum(abs(self.halves[0][part] - self.halves[1][part]) for part in self.weights)


def search_weights(found: Candidates, target_T: Int32, items: int, seed: int = 0) -> Weights:
    """The weights that rank the validation targets best. Needs at least two rows; the same candidates and seed give the same weights."""
    random = np.random.Generator(np.random.Philox(key=seed))
    place_T, rows = found.places(target_T, items), np.arange(found.rows)
    if len(rows) > SEARCHED:
        rows = np.sort(random.choice(rows, SEARCHED, replace=False))
    half_t = random.permutation(len(rows)) % 2
    draw_DK = np.concatenate((np.eye(len(found.parts)), random.dirichlet(np.full(len(found.parts), 0.5), DRAWS)))
    gain_DT = ndcg_of(found, place_T, draw_DK, rows)
    everybody = _refined(found, place_T, rows, draw_DK, gain_DT, seed)
    sides = (np.flatnonzero(half_t == side) for side in (0, 1))
    halves = tuple(_named(found, _refined(found, place_T, rows[side], draw_DK, gain_DT[:, side], seed)) for side in sides)
    ndcg = float(ndcg_of(found, place_T, everybody[None, :], np.arange(found.rows)).mean())
    return Weights(_named(found, everybody), ndcg, (halves[0], halves[1]))


def _named(found: Candidates, weight_K: Floats) -> dict[str, float]:
    return {part: round(float(weight), 6) for part, weight in zip(found.parts, weight_K, strict=True)}


def _refined(found: Candidates, place_T: Int64, rows: Int64, draw_DK: Floats, gain_DT: Float32, seed: int) -> Floats:
    """[K]: draws around the best of `draw_DK`, then the mean of the best draws of resampled users."""
    random = np.random.Generator(np.random.Philox(key=seed + 1))
    for width in (0.7, 0.3):
        best_K = draw_DK[gain_DT.mean(axis=1).argmax()]
        near_DK = (best_K + 0.01) * np.exp(width * random.standard_normal((REFINEMENTS // 2, len(found.parts))))
        near_DK /= near_DK.sum(axis=1, keepdims=True)
        draw_DK, gain_DT = np.concatenate((draw_DK, near_DK)), np.concatenate((gain_DT, ndcg_of(found, place_T, near_DK, rows)))
    times_RT = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES).astype(np.float32)
    mean_K: Floats = draw_DK[(gain_DT @ times_RT.T).argmax(axis=0)].mean(axis=0)
    return mean_K


def ndcg_of(found: Candidates, place_T: Int64, draw_DK: Floats, rows: Int64) -> Float32:
    """float32 [D, rows]: NDCG@10 of each row's target under each draw of weights (at least 0); equal scores are ordered by item."""
    gain_DT = np.zeros((len(draw_DK), len(rows)), dtype=np.float32)
    hit_t = np.flatnonzero(place_T[rows] >= 0)  # a target that is no candidate gains nothing, whatever the weights
    if not len(hit_t):
        return gain_DT
    hit_rows, own_t = rows[hit_t], place_T[rows[hit_t]]
    begin_t, end_t = np.searchsorted(found.row_P, hit_rows), np.searchsorted(found.row_P, hit_rows, side="right")
    place_p, row_p = ranges(begin_t, end_t - begin_t), np.repeat(np.arange(len(hit_t)), end_t - begin_t)
    # What a candidate has more than the row's target. Where it has more of nothing it is never ahead, and most have.
    more_Kp = found.value_KP[:, place_p] - found.value_KP[:, own_t[row_p]]
    earlier_p = found.item_P[place_p] < found.item_P[own_t[row_p]]
    rival_p = (more_Kp > 0).any(axis=0) | (earlier_p & (more_Kp == 0).any(axis=0)) | (place_p == own_t[row_p])  # the target, so that no row is empty
    more_Kp, row_p = np.ascontiguousarray(more_Kp[:, rival_p]), row_p[rival_p]
    above_p = np.where(earlier_p[rival_p], -np.finfo(np.float32).smallest_subnormal, np.float32(0))  # an earlier item wins a draw
    first_t, value_Kt, weight_DK = np.searchsorted(row_p, np.arange(len(hit_t))), found.value_KP[:, own_t], draw_DK.astype(np.float32)
    block = max(1, COMPARED // len(row_p))
    for start in range(0, len(weight_DK), block):
        weight_dK = weight_DK[start : start + block]
        rank_dt = 1 + np.add.reduceat(weight_dK @ more_Kp > above_p, first_t, axis=1, dtype=np.int32)
        gain_DT[start : start + block, hit_t] = np.where((rank_dt <= 10) & (weight_dK @ value_Kt > 0), 1 / np.log2(1 + rank_dt), 0)
    return gain_DT
