"""Where trials come from: random and grid are functions of the trial's number alone, Optuna's sampler of what the journal knows."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diger_core.errors import DigerError
from orchestration.params.search import SearchConfig
from orchestration.search.journal import Told
from orchestration.search.space import Config, Value, grid, relevant


class Searcher(ABC):
    """`propose(number)`: proposal 1, 2, …, or None where the space is exhausted; `tell`: what came of one. Number 0 is the present configuration,
    the study's first trial: proposal n is trial n + 1."""

    @abstractmethod
    def propose(self, number: int) -> Config | None: ...

    def tell(self, number: int, config: Config, score: float | None) -> None:  # noqa: B027 - random and grid do not learn
        """`score`: the trial's best validation NDCG@10; None where it has none."""


class Random(Searcher):
    """Each value is drawn by (seed, number, dimension): a dimension more changes no other draw, and no draw depends on what ran before."""

    def __init__(self, config: SearchConfig, schedule: str) -> None:
        self.config, self.schedule = config, schedule

    def propose(self, number: int) -> Config:
        drawn = {name: dimension.at(_share(self.config.seed, number, name)) for name, dimension in self.config.space.named.items()}
        return relevant({name: rounded(value) for name, value in drawn.items()}, self.schedule)


class Grid(Searcher):
    """All combinations, in an order shuffled by the seed, so that a small budget sees all of the space."""

    def __init__(self, config: SearchConfig, schedule: str) -> None:
        cells = grid(config.space, config.grid_points, schedule)
        order = np.random.Generator(np.random.Philox(key=config.seed)).permutation(len(cells))
        self.cells = [{name: rounded(value) for name, value in cells[i].items()} for i in order]

    def propose(self, number: int) -> Config | None:
        return self.cells[number - 1] if number <= len(self.cells) else None


class Optuna(Searcher):
    """Optuna's TPE, fed from our journal; Optuna's own storage is memory only."""

    def __init__(self, config: SearchConfig, schedule: str) -> None:
        try:
            import optuna
        except ImportError as error:
            raise DigerError(
                "decay_search.searcher = 'optuna': Optuna is not installed: pip install 'diger[tune]', or choose random or grid"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna: Any = optuna
        self.config, self.schedule = config, schedule
        self.study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=config.seed, n_startup_trials=5))
        self.asked: dict[int, Any] = {}

    def propose(self, number: int) -> Config:
        trial = self.asked[number] = self.study.ask()
        named = self.config.space.named
        drawn: dict[str, Value] = {}
        for name in sorted(named, key=lambda n: n != "schedule"):  # the schedule first: it decides what else is read
            if name in relevant({**drawn, name: 0.0}, self.schedule) or name == "schedule":
                drawn[name] = rounded(self._suggest(trial, name, named[name]))
        return {name: drawn[name] for name in named if name in drawn}

    def _suggest(self, trial: Any, name: str, dimension: Any) -> Value:
        if dimension.is_range:
            low, high = dimension.values
            return float(trial.suggest_float(name, low, high, log=dimension.loguniform is not None))
        chosen: Value = trial.suggest_categorical(name, list(dimension.values))
        return chosen

    def tell(self, number: int, config: Config, score: float | None) -> None:
        state = self.optuna.trial.TrialState
        if number in self.asked:
            self.study.tell(self.asked.pop(number), score, state=state.COMPLETE if score is not None else state.FAIL)
        elif score is not None:  # from the journal
            named = self.config.space.named
            known = {name: self._distribution(named[name]) for name, value in config.items() if name in named and _within(named[name], value)}
            self.study.add_trial(self.optuna.trial.create_trial(params={n: config[n] for n in known}, distributions=known, value=score))

    def _distribution(self, dimension: Any) -> Any:
        if dimension.is_range:
            low, high = dimension.values
            return self.optuna.distributions.FloatDistribution(low, high, log=dimension.loguniform is not None)
        return self.optuna.distributions.CategoricalDistribution(list(dimension.values))


def _within(dimension: Any, value: Value) -> bool:
    """Whether the space could have proposed the value; the present configuration may lie outside, and Optuna takes no such trial."""
    if dimension.is_range:
        low, high = dimension.values
        return not isinstance(value, str) and low <= value <= high
    return value in dimension.values


SEARCHERS: dict[str, type] = {"random": Random, "grid": Grid, "optuna": Optuna}


def searcher(config: SearchConfig, schedule: str, known: Mapping[int, Told] | Sequence[Told] = ()) -> Searcher:
    """The configured searcher, told what the journal knows. `schedule`: the one that a configuration without a schedule has."""
    made: Searcher = SEARCHERS[config.searcher](config, schedule)
    for told in known.values() if isinstance(known, Mapping) else known:
        if told.state != "running" and told.trial.repeats is None:
            made.tell(told.trial.number - 1, told.trial.config, told.score)
    return made


def rounded(value: Value) -> Value:
    """Four significant digits: what people read, type into `--set` and find in the report is what was trained."""
    return value if isinstance(value, str) else float(f"{value:.4g}")


def _share(seed: int, number: int, name: str) -> float:
    """Uniform in [0, 1), a function of its arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{number}|{name}".encode()).digest()[:7], "big") / 2**56
