"""What a study has found: finalists, their means over seeds, the Pareto set, and which dimensions seem to matter. Pure functions of the trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

from diger_core.evaluation.crossed import student_t
from orchestration.search.journal import Told

# name -> +1: more is better, -1: less is better
OBJECTIVES = {"validation_ndcg_10": 1, "unique_prefixes": 1, "churn": -1}
PERMUTATIONS = 2000


def searched(trials: Mapping[int, Told] | Iterable[Told]) -> list[Told]:
    """The trials of the search, without the repetitions on other seeds."""
    listed = trials.values() if isinstance(trials, Mapping) else trials
    return [told for told in listed if told.trial.repeats is None]


def finalists(trials: Mapping[int, Told], count: int) -> list[Told]:
    """The best trials that were trained to the end, one for each configuration, best first."""
    ended = sorted((t for t in searched(trials) if t.state == "finished" and t.score is not None), key=lambda t: (-(t.score or 0), t.trial.number))
    found: list[Told] = []
    for told in ended:
        if all(told.trial.config != other.trial.config for other in found):
            found.append(told)
    return found[:count]


@dataclass(frozen=True)
class Finalist:
    """A configuration on several seeds. `scores`: the best validation NDCG@10 of each seed, the search's own not among them, unless it is alone."""

    trial: int
    config: Mapping[str, float | str]
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.scores)

    @property
    def spread(self) -> float | None:
        """The standard deviation over the seeds; None for a single one."""
        return stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the mean, by Student's t over the seeds."""
        if self.spread is None:
            return None
        half = student_t(len(self.scores) - 1) * self.spread / math.sqrt(len(self.scores))
        return self.mean - half, self.mean + half


def ranked_finalists(trials: Mapping[int, Told], count: int) -> list[Finalist]:
    """Best mean first: the first is the winner. A repetition that collapsed counts with what it had reached."""
    found = []
    for told in finalists(trials, count):
        repeats = sorted((t for t in trials.values() if t.trial.repeats == told.trial.number), key=lambda t: t.trial.seed)
        scores = [t.score or 0.0 for t in repeats if t.state != "failed"] or [told.score or 0.0]
        found.append(Finalist(told.trial.number, told.trial.config, tuple(scores)))
    return sorted(found, key=lambda finalist: (-finalist.mean, finalist.trial))


def pareto(trials: Mapping[int, Told] | Iterable[Told]) -> list[Told]:
    """The trials trained to the end that no other one beats or equals in every objective while beating it in one; best NDCG@10 first."""
    ended = [t for t in searched(trials) if t.state == "finished" and t.best is not None]
    points = np.array([[sign * float((t.best or {})[name]) for name, sign in OBJECTIVES.items()] for t in ended]).reshape(len(ended), -1)
    kept = [not bool(((points >= p).all(1) & (points > p).any(1)).any()) for p in points]
    return sorted((t for t, keep in zip(ended, kept, strict=True) if keep), key=lambda t: -(t.score or 0))


@dataclass(frozen=True)
class Importance:
    """`share`: of the variance of the trials' ranks that the dimension goes with, alone; `p`: how often a random shuffle gives as much."""

    name: str
    share: float
    p: float
    trials: int


def importance(trials: Mapping[int, Told] | Iterable[Told], epoch: int) -> list[Importance]:
    """By dimension, largest share first. Ranks are of NDCG@10 after `epoch` epochs, which every trial that was not stopped before has.

    Numbers: the squared rank correlation. Names: the share of the ranks' variance that lies between the groups. Both are marginal: they see
    no interaction, and with few trials they say little; p, by permutation, says how little.
    """
    rated = [(t, t.rows[epoch]["validation_ndcg_10"]) for t in searched(trials) if epoch in t.rows]
    rated = [(t, score) for t, score in rated if score is not None]
    names = list(dict.fromkeys(name for t, _ in rated for name in t.trial.config))
    found = []
    for name in names:
        pairs = [(t.trial.config[name], score) for t, score in rated if name in t.trial.config]
        values = [value for value, _ in pairs]
        if len(pairs) < 4 or len(set(values)) < 2:
            continue
        rank_T = _ranks([score for _, score in pairs])
        share = _explained(values, rank_T)
        random = np.random.Generator(np.random.Philox(key=0))
        at_least = sum(_explained(values, random.permutation(rank_T)) >= share - 1e-12 for _ in range(PERMUTATIONS))
        found.append(Importance(name, share, (at_least + 1) / (PERMUTATIONS + 1), len(pairs)))
    return sorted(found, key=lambda i: (-i.share, i.name))


def _explained(values: Sequence[float | str], rank_T: np.ndarray) -> float:
    spread = float(((rank_T - rank_T.mean()) ** 2).sum())
    if spread == 0:
        return 0.0
    if all(not isinstance(value, str) for value in values):
        other = _ranks([float(value) for value in values])
        return float(np.corrcoef(other, rank_T)[0, 1] ** 2)
    groups = [rank_T[np.array([v == value for v in values])] for value in dict.fromkeys(values)]
    return float(sum(len(g) * (g.mean() - rank_T.mean()) ** 2 for g in groups) / spread)


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse]
