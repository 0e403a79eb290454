"""Recipes for lists: which parts, how a history ages, and what each part weighs. Baselines and the released lists are recipes alike.

All numbers of a recipe are chosen on validation targets. Baselines add raw scores (C + w T + s identity). The released lists mix either each user's
shares, or raw scores in units of their mean sum, so that a user of whom the transitions know little listens to text: whichever validation prefers.
They follow the trend where it raises the best baseline on validation by more than two standard errors.
Where the mixture does not beat the best baseline on validation, that baseline serves, and the recipe says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from diger_core.data.sequences import Float32, Int32, Int64, Sequences, gathered
from diger_core.data.splits import targets
from diger_core.evaluation.fusion import RECENT, TAUS, Candidates, Counts, Trend, candidates, fused, ndcg_of, search_weights

TEXT_WEIGHTS = (0.0, 0.3, 0.7, 1.0, 2.0)
REPEAT_WEIGHTS = (0.0, 0.3, 1.0, 3.0, 10.0)
TREND_SHARES, TREND_POWERS = (0.003, 0.01, 0.03, RECENT), (0.2, 0.4, 0.6, 0.8)
REPEATS = 0.05  # share of validation targets that the user had before, from which on people repeat
CHUNK = 4096  # rows whose candidates are held at once
FITTED = 20_000  # validation rows that recipes are fitted on, at most
Beams = tuple[Int32, Float32]


@dataclass(frozen=True)
class Recipe:
    """`tau`: of each part that ages a history; `weights` by part. `raw`: scores are added as they are, not as shares; `scale`: the unit of a part's
    raw scores, in which its weight counts (1 where none is given). `trend`: what all scores are multiplied by. `ndcg`: on validation."""

    weights: Mapping[str, float]
    tau: Mapping[str, float] = field(default_factory=dict)
    raw: bool = False
    ndcg: float = 0.0
    scale: Mapping[str, float] = field(default_factory=dict)
    trend: Trend = Trend()

    @classmethod
    def from_document(cls, plain: Mapping[str, Any]) -> Recipe:
        return cls(**{**plain, "trend": Trend(**plain.get("trend", {}))})

    @property
    def applied(self) -> dict[str, float]:
        """What each part's score is multiplied by."""
        return {part: weight / self.scale.get(part, 1.0) for part, weight in self.weights.items()}

    @property
    def mixes(self) -> bool:
        """True where the weights are comparable and sum to 1; False for a baseline's raw sum."""
        return not self.raw or bool(self.scale)


@dataclass(frozen=True)
class Fitted:
    """`baselines` by name; `lists`: what is released; `fallback`: the baseline that serves because the mixture did not beat it, or None."""

    baselines: dict[str, Recipe]
    lists: Recipe
    fallback: str | None
    halves: tuple[dict[str, float], dict[str, float]]
    moved: float
    repeat_share: float

    @property
    def best(self) -> str:
        """The baseline that is best on validation."""
        return max(self.baselines, key=lambda name: self.baselines[name].ndcg)

    def document(self) -> dict[str, Any]:
        """The content of fusion.json; `from_document` inverts it."""
        return {
            "format": 1,
            "lists": asdict(self.lists),
            "baselines": {name: asdict(recipe) for name, recipe in self.baselines.items()},
            "best_baseline": self.best,
            "fallback": self.fallback,
            "halves": list(self.halves),
            "moved": self.moved,
            "repeat_share": self.repeat_share,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Fitted:
        baselines = {name: Recipe.from_document(plain) for name, plain in document["baselines"].items()}
        first, second = document["halves"]
        lists = Recipe.from_document(document["lists"])
        return cls(baselines, lists, document["fallback"], (first, second), document["moved"], document["repeat_share"])


def ranked(recipe: Recipe, counts: Counts, seq: Sequences, users_T: Int64, end_T: Int64, k: int, beams: Beams | None = None, **options: Any) -> Beams:
    """(items [T, k], scores [T, k]) of the recipe; `options`: remove_seen, allowed_N. Rows are computed in chunks.
    A part without weight names no candidates."""
    items_Tk, scores_Tk = np.full((len(users_T), k), -1, dtype=np.int32), np.zeros((len(users_T), k), dtype=np.float32)
    aged, parts = _aged(counts, recipe.tau), {part for part, weight in recipe.weights.items() if weight}
    for start in range(0, len(users_T), CHUNK):
        part = slice(start, start + CHUNK)
        own = None if beams is None else (beams[0][part], beams[1][part])
        found = candidates(aged, seq, users_T[part], end_T[part], own, raw=recipe.raw, parts=parts, trend=recipe.trend, **options)
        items_Tk[part], scores_Tk[part] = fused(found, recipe.applied, k)
    return items_Tk, scores_Tk


def fit(counts: Counts, seq: Sequences, beams: Beams | None, seed: int = 0, *, remove_seen: bool = False) -> Fitted:
    """Chooses every recipe on the validation targets of `seq`. beams: the generative model's lists for these rows; None: without it."""
    users_T, end_T, target_T = targets(seq, "validation")
    if len(users_T) > FITTED:
        random = np.random.Generator(np.random.Philox(key=seed))
        rows = np.sort(random.choice(len(users_T), FITTED, replace=False))
        users_T, end_T, target_T = users_T[rows], end_T[rows], target_T[rows]
        beams = None if beams is None else (beams[0][rows], beams[1][rows])
    repeats = repeat_share(seq, users_T, end_T, target_T)
    baselines = _baselines(counts, seq, users_T, end_T, target_T, repeats >= REPEATS, remove_seen)
    tau = {part: baselines[name].tau[part] for part, name in (("transitions", "item_item"), ("text", "text"))}
    tau["repeat"] = baselines["repeat"].tau["repeat"] if "repeat" in baselines else tau["transitions"]
    best = max(baselines, key=lambda name: baselines[name].ndcg)
    trend = _trend(baselines[best], counts, seq, users_T, end_T, target_T, remove_seen)
    forms = []
    for raw in (False, True):
        found = candidates(_aged(counts, tau), seq, users_T, end_T, beams, remove_seen=remove_seen, raw=raw, trend=trend)
        scale = found.sums() if raw else {}
        searched = search_weights(found.scaled(scale), target_T, seq.items, seed)
        forms.append((Recipe(searched.weights, tau, raw, searched.ndcg, scale, trend), searched))
    lists, searched = max(forms, key=lambda form: form[0].ndcg)
    fallback = best if lists.ndcg < baselines[best].ndcg else None
    return Fitted(baselines, baselines[best] if fallback else lists, fallback, searched.halves, searched.moved, repeats)


def _trend(best: Recipe, counts: Counts, seq: Sequences, users_T: Int64, end_T: Int64, target_T: Int32, remove_seen: bool) -> Trend:
    """The trend that raises this baseline most, by more than two standard errors of the paired difference; otherwise none."""
    parts = {part for part, weight in best.weights.items() if weight}
    found = candidates(_aged(counts, best.tau), seq, users_T, end_T, remove_seen=remove_seen, raw=True, parts=parts)
    place_T, weight_DK = found.places(target_T, seq.items), np.array([[best.weights[part] for part in found.parts]])

    def gains(trend: Trend) -> npt.NDArray[np.float32]:
        gain_1T = ndcg_of(found.times(counts.trend_N(trend)), place_T, weight_DK, np.arange(found.rows))
        return gain_1T.reshape(-1)

    without_T = gains(Trend())
    tried = {trend: gains(trend) - without_T for trend in (Trend(*each) for each in product(TREND_SHARES, TREND_POWERS))}
    trend = max(tried, key=lambda each: tried[each].mean())
    more_T = tried[trend]
    return trend if more_T.mean() > 2 * more_T.std() / max(1, len(more_T)) ** 0.5 else Trend()


def repeat_share(seq: Sequences, users_T: Int64, end_T: Int64, target_T: Int32) -> float:
    """Share of the targets that their user's history holds."""
    events_e, offsets_T1 = gathered(seq, seq.offsets_U1[users_T], end_T)
    row_e = np.repeat(np.arange(len(users_T)), np.diff(offsets_T1))
    return float((np.bincount(row_e, events_e == target_T[row_e], minlength=len(users_T)) > 0).mean())


def _aged(counts: Counts, tau: Mapping[str, float]) -> Counts:
    return replace(counts, tau={**counts.tau, **tau})


def _baselines(
    counts: Counts, seq: Sequences, users_T: Int64, end_T: Int64, target_T: Int32, repeating: bool, remove_seen: bool
) -> dict[str, Recipe]:
    """item_item (C), text (T), item_item_text (C + w T), where people repeat also repeat (C + w T + s identity), and the two popularities."""
    best: dict[str, Recipe] = {}
    for tau in TAUS:
        ages = {"transitions": tau, "text": tau, "repeat": tau}
        found = candidates(_aged(counts, ages), seq, users_T, end_T, remove_seen=remove_seen, raw=True)
        tried = _grid(repeating and not remove_seen)
        draw_DK = np.array([[weights.get(part, 0.0) for part in found.parts] for _, weights in tried])
        for (name, weights), ndcg in zip(tried, _means(found, target_T, seq.items, draw_DK), strict=True):
            if name not in best or ndcg > best[name].ndcg:
                best[name] = Recipe(weights, ages, True, ndcg)
    return best


def _grid(repeating: bool) -> list[tuple[str, dict[str, float]]]:
    tried: list[tuple[str, dict[str, float]]] = [
        ("most_popular", {"popular": 1.0}),
        ("recent_popular", {"recent": 1.0}),
        ("item_item", {"transitions": 1.0}),
        ("text", {"text": 1.0}),
    ]
    tried += [("item_item_text", {"transitions": 1.0, "text": text}) for text in TEXT_WEIGHTS[1:]]
    if repeating:
        pairs = product(TEXT_WEIGHTS, REPEAT_WEIGHTS[1:])
        tried += [("repeat", {"transitions": 1.0, "text": text, "repeat": again}) for text, again in pairs]
    return tried


def _means(found: Candidates, target_T: Int32, items: int, draw_DK: npt.NDArray[np.float64]) -> list[float]:
    gain_DT = ndcg_of(found, found.places(target_T, items), draw_DK, np.arange(found.rows))
    return [float(value) for value in gain_DT.mean(axis=1)]
