"""Recipes for lists: which parts, how a history ages, and what each part weighs. Baselines and the released lists are recipes alike.

All numbers of a recipe are chosen on validation targets. Baselines add raw scores (C + w T + s identity). The released lists mix either each user's
shares, or raw scores in units of their mean sum, so that a user of whom the transitions know little listens to text: whichever validation prefers.
They follow the trend where it raises the best baseline on validation by more than two standard errors. Items without a training event count
so many times that they get the share of the places that they have of the targets (calibration: Steck, 2018), if that costs next to nothing.
Where the mixture does not beat the best baseline on validation, that baseline serves, and the recipe says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from diger_core.config import NEW_ITEMS_COST
from diger_core.data.sequences import Float32, Int32, Int64, Sequences, gathered
from diger_core.data.splits import targets
from diger_core.evaluation.counts import RECENT, Counts, Trend
from diger_core.evaluation.fusion import REPEAT_TAUS, TAUS, Candidates, candidates, fused, ndcg_of, search_weights

TEXT_WEIGHTS = (0.0, 0.3, 0.7, 1.0, 2.0)
REPEAT_WEIGHTS = (0.0, 0.3, 1.0, 3.0, 10.0)
TREND_SHARES, TREND_POWERS = (0.003, 0.01, 0.03, RECENT), (0.2, 0.4, 0.6, 0.8)
NEW_ITEMS = (1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 24.0)  # factors for items without a training event
REPEATS = 0.05  # share of validation targets that the user had before, from which on people repeat
CHUNK = 4096  # rows whose candidates are held at once
FITTED = 20_000  # validation rows that recipes are fitted on, at most
Beams = tuple[Int32, Float32]


@dataclass(frozen=True)
class Recipe:
    """`tau`: of each part that ages a history; `weights` by part. `raw`: scores are added as they are, not as shares; `scale`: the unit of a part's
    raw scores, in which its weight counts (1 where none is given). `trend`: what all scores are multiplied by, and `new_items` those of items
    without a training event. `ndcg`: on validation."""

    weights: Mapping[str, float]
    tau: Mapping[str, float] = field(default_factory=dict)
    raw: bool = False
    ndcg: float = 0.0
    scale: Mapping[str, float] = field(default_factory=dict)
    trend: Trend = Trend()
    new_items: float = 1.0

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
class NewItems:
    """The validation targets without a training event: how many, their share of all targets and of the lists' first ten places, and NDCG@10 on them
    of the lists, of the lists without their factor for such items, and of text alone."""

    targets: int = 0
    share: float = 0.0
    places: float = 0.0
    ndcg: float = 0.0
    without: float = 0.0
    text: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """`baselines` by name; `lists`: what is released; `fallback`: the baseline that serves because the mixture did not beat it, or None."""

    baselines: dict[str, Recipe]
    lists: Recipe
    fallback: str | None
    halves: tuple[dict[str, float], dict[str, float]]
    moved: float
    repeat_share: float
    new_items: NewItems = NewItems()

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
            "new_items": asdict(self.new_items),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Fitted:
        baselines = {name: Recipe.from_document(plain) for name, plain in document["baselines"].items()}
        first, second = document["halves"]
        lists, new = Recipe.from_document(document["lists"]), NewItems(**document.get("new_items", {}))
        return cls(baselines, lists, document["fallback"], (first, second), document["moved"], document["repeat_share"], new)


def ranked(recipe: Recipe, counts: Counts, seq: Sequences, users_T: Int64, end_T: Int64, k: int, beams: Beams | None = None, **options: Any) -> Beams:
    """(items [T, k], scores [T, k]) of the recipe; `options`: remove_seen, allowed_N. Rows are computed in chunks.
    A part without weight names no candidates."""
    items_Tk, scores_Tk = np.full((len(users_T), k), -1, dtype=np.int32), np.zeros((len(users_T), k), dtype=np.float32)
    aged, parts = _aged(counts, recipe.tau), {part for part, weight in recipe.weights.items() if weight}
    for start in range(0, len(users_T), CHUNK):
        part = slice(start, start + CHUNK)
        own = None if beams is None else (beams[0][part], beams[1][part])
        follows: Any = {"raw": recipe.raw, "parts": parts, "trend": recipe.trend, "new_items": recipe.new_items}
        found = candidates(aged, seq, users_T[part], end_T[part], own, **follows, **options)
        items_Tk[part], scores_Tk[part] = fused(found, recipe.applied, k)
    return items_Tk, scores_Tk


def fit(
    counts: Counts, seq: Sequences, beams: Beams | None, seed: int = 0, *, remove_seen: bool = False, new_items_cost: float = NEW_ITEMS_COST
) -> Fitted:
    """Chooses every recipe on the validation targets of `seq`. beams: the generative model's lists for these rows; None: without it.
    `new_items_cost`: share of the lists' NDCG@10 that a place for items without a training event may cost."""
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
        forms.append((Recipe(searched.weights, tau, raw, searched.ndcg, scale, trend), searched, found))
    lists, searched, found = max(forms, key=lambda form: form[0].ndcg)
    fallback, new = best if lists.ndcg < baselines[best].ndcg else None, NewItems()
    if fallback is None:
        lists, new = place_new_items(lists, found, counts.new_N, target_T, new_items_cost)
        named = candidates(_aged(counts, baselines["text"].tau), seq, users_T, end_T, remove_seen=remove_seen, raw=True, parts=("text",))
        new = replace(new, text=_mean(_gains(named, {"text": 1.0}, target_T, seq.items)[counts.new_N[target_T]]))
    return Fitted(baselines, baselines[best] if fallback else lists, fallback, searched.halves, searched.moved, repeats, new)


def place_new_items(
    recipe: Recipe, found: Candidates, new_N: npt.NDArray[np.bool_], target_T: Int32, cost: float = NEW_ITEMS_COST
) -> tuple[Recipe, NewItems]:
    """The recipe with the largest factor that gives new items no larger share of the places than they have of the targets, and is affordable.
    `found`: the candidates of the validation rows [T], without a factor; `new_N`: items without a training event; `cost`: as in `fit`."""
    new_T, chosen = new_N[target_T], recipe

    def figures(factor: float) -> tuple[float, float, float]:
        """NDCG@10 of all targets and of those that are new items, and the share of such items among the first ten places."""
        raised = found.times(np.where(new_N, factor, 1).astype(np.float32))
        gain_T, items_Tk = _gains(raised, recipe.applied, target_T, len(new_N)), fused(raised, recipe.applied, 10)[0]
        return float(gain_T.mean()), _mean(gain_T[new_T]), _mean(new_N[items_Tk[items_Tk >= 0]])

    before, without, places = figures(1.0)
    ndcg, share = without, _mean(new_T)
    for factor in NEW_ITEMS if share else ():
        everybody, on_new, taken = figures(factor)
        if taken > share or everybody < before * (1 - cost):
            break
        chosen, ndcg, places = replace(recipe, new_items=factor, ndcg=everybody), on_new, taken
    return chosen, NewItems(int(new_T.sum()), share, places, ndcg, without)


def _mean(values_x: npt.NDArray[Any]) -> float:
    return float(values_x.mean()) if len(values_x) else 0.0


def _gains(found: Candidates, weights: Mapping[str, float], target_T: Int32, items: int) -> Float32:
    """[T]: NDCG@10 of each row's target."""
    draw_1K = np.array([[weights.get(part, 0.0) for part in found.parts]])
    gain_T: Float32 = ndcg_of(found, found.places(target_T, items), draw_1K, np.arange(found.rows))[0]
    return gain_T


def _trend(best: Recipe, counts: Counts, seq: Sequences, users_T: Int64, end_T: Int64, target_T: Int32, remove_seen: bool) -> Trend:
    """The trend that raises this baseline most, by more than two standard errors of the paired difference; otherwise none."""
    parts = {part for part, weight in best.weights.items() if weight}
    found = candidates(_aged(counts, best.tau), seq, users_T, end_T, remove_seen=remove_seen, raw=True, parts=parts)

    def gains(trend: Trend) -> Float32:
        return _gains(found.times(counts.factor_N(trend)), best.weights, target_T, seq.items)

    without_T = gains(Trend())
    tried = {trend: gains(trend) - without_T for trend in (Trend(*each) for each in product(TREND_SHARES, TREND_POWERS))}
    trend = max(tried, key=lambda each: tried[each].mean())
    return trend if _clearly_more(tried[trend]) else Trend()


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
    if "repeat" in best:
        best["repeat"] = _remembered(best["repeat"], counts, seq, users_T, end_T, target_T)
    return best


def _remembered(rule: Recipe, counts: Counts, seq: Sequences, users_T: Int64, end_T: Int64, target_T: Int32) -> Recipe:
    """The repeat rule with an age of its own for what a user had before, where that gains more than two standard errors: what follows an item and
    what is bought again may be forgotten at different speeds."""
    tried = [weights for _, weights in _repeats()]

    def gains(tau: float, each: list[dict[str, float]]) -> Float32:
        ages = _aged(counts, {**rule.tau, "repeat": tau})
        found = candidates(ages, seq, users_T, end_T, raw=True, parts=("transitions", "text", "repeat"))
        draw_DK = np.array([[weights[part] for part in found.parts] for weights in each])
        return ndcg_of(found, found.places(target_T, seq.items), draw_DK, np.arange(found.rows))

    best, best_T = rule, gains(rule.tau["repeat"], [dict(rule.weights)])[0]
    plain_T = best_T
    for tau in REPEAT_TAUS:
        if tau == rule.tau["repeat"]:
            continue  # the rule is the best of these already
        gain_DT = gains(tau, tried)
        d = int(gain_DT.mean(axis=1).argmax())
        if gain_DT[d].mean() > best_T.mean():
            best, best_T = Recipe(tried[d], {**rule.tau, "repeat": tau}, True, float(gain_DT[d].mean())), gain_DT[d]
    return best if _clearly_more(best_T - plain_T) else rule


def _clearly_more(more_T: Float32) -> bool:
    """Whether a paired difference is more than two standard errors above 0."""
    return bool(more_T.mean() > 2 * more_T.std() / max(1, len(more_T)) ** 0.5)


def _grid(repeating: bool) -> list[tuple[str, dict[str, float]]]:
    tried: list[tuple[str, dict[str, float]]] = [
        ("most_popular", {"popular": 1.0}),
        ("recent_popular", {"recent": 1.0}),
        ("item_item", {"transitions": 1.0}),
        ("text", {"text": 1.0}),
    ]
    tried += [("item_item_text", {"transitions": 1.0, "text": text}) for text in TEXT_WEIGHTS[1:]]
    return tried + _repeats() if repeating else tried


def _repeats() -> list[tuple[str, dict[str, float]]]:
    return [("repeat", {"transitions": 1.0, "text": text, "repeat": again}) for text, again in product(TEXT_WEIGHTS, REPEAT_WEIGHTS[1:])]


def _means(found: Candidates, target_T: Int32, items: int, draw_DK: npt.NDArray[np.float64]) -> list[float]:
    gain_DT = ndcg_of(found, found.places(target_T, items), draw_DK, np.arange(found.rows))
    return [float(value) for value in gain_DT.mean(axis=1)]
