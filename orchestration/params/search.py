"""Section `decay_search` of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from diger_core.config import STRICT
from orchestration.search.space import SpaceConfig

Searcher = Literal["random", "grid", "optuna"]


@dataclass(frozen=True)
class SearchConfig:
    """Stage `decay_search`: what is tried, how much of it, and how a winner is named."""

    __pydantic_config__: ClassVar = STRICT
    trials: int = 12  # the first is the present configuration
    searcher: Searcher = "random"  # optuna: the extra diger[tune]
    grid_points: int = 3  # of each range, for the searcher grid
    seed: int = 0  # of the searcher; a trial trains with training.seed
    epochs: int | None = None  # of a trial; null: training.epochs
    pruning: Literal["asha", "none"] = "asha"  # asha: trials that fall behind are stopped early
    grace_epochs: int = 1  # no trial is pruned before
    reduction: float = 6.0  # at each rung the best 1/reduction of the trials so far continue; of 12 four or five, since the first have nobody to beat
    finalists: int = 2  # configurations that are trained again on more seeds
    seeds: int = 3  # of each finalist, none of them the search's own; 0: the best trial wins as it stands
    gpus_per_trial: float = 0.0  # beside one CPU; for instance 1, or 0.25 where four trials share a GPU
    space: SpaceConfig = field(default_factory=SpaceConfig)

    def __post_init__(self) -> None:
        for name in ("trials", "grace_epochs", "finalists"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be at least 1")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs = {self.epochs!r}: must be at least 1, or null")
        if self.grid_points < 2:
            raise ValueError(f"grid_points = {self.grid_points!r}: must be at least 2")
        if self.reduction <= 1:
            raise ValueError(f"reduction = {self.reduction!r}: must be above 1")
        if not 0 <= self.seeds <= 100:
            raise ValueError(f"seeds = {self.seeds!r}: must be between 0 and 100")
        if self.gpus_per_trial < 0:
            raise ValueError(f"gpus_per_trial = {self.gpus_per_trial!r}: must be at least 0")


@dataclass(frozen=True)
class PromotionConfig:
    """Stage `tuned_model`: which of the study's trials is promoted."""

    __pydantic_config__: ClassVar = STRICT
    trial: int | None = None  # null: the winner; another finalist by its number

    def __post_init__(self) -> None:
        if self.trial is not None and self.trial < 1:
            raise ValueError(f"trial = {self.trial!r}: must be at least 1, or null for the winner")
