"""Sections `frozen_model`, `refit` and `retraining`; those of the method itself are in diger_core/config.py."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from diger_core.config import STRICT, StabilityConfig, TrainingConfig

HASH = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class FrozenModelConfig:
    """Stage `frozen_model`, the frozen control. It shares `recommender` and `training` with the joint model."""

    __pydantic_config__: ClassVar = STRICT
    enabled: bool = True  # false: a training less, and the report cannot say what joint training gains


@dataclass(frozen=True)
class RefitConfig:
    """Stage `refit`: the joint model's recommender trained on over all events before it serves."""

    __pydantic_config__: ClassVar = STRICT
    epochs: int = 1  # 0: the joint model serves as it was judged
    learning_rate: float | None = None  # null: a tenth of training.learning_rate

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"epochs = {self.epochs!r}: must be at least 0")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate!r}: must be positive, or null")

    def budget(self, training: TrainingConfig) -> TrainingConfig:
        """The optimisation of the refit: no early stop, no last stage."""
        rate = self.learning_rate or training.learning_rate / 10
        return replace(training, epochs=self.epochs, learning_rate=rate, last_stage_epochs=0, patience=self.epochs + 1)


@dataclass(frozen=True)
class RetrainingConfig:
    """How a run continues from its starting bundle. In a first training, without one, none of it counts."""

    __pydantic_config__: ClassVar = STRICT
    # warm: from the starting bundle's tokenizer and recommender; scratch: both new, codes named like the old ones
    start: Literal["warm", "scratch"] = "warm"
    baseline: str = "champion"  # the starting bundle: champion, none, or a bundle's hash
    stability: StabilityConfig = field(default_factory=StabilityConfig)  # of warm starts
    epochs: int | None = None  # of warm starts, in the place of training.epochs; None: training.epochs
    learning_rate: float | None = None  # the recommender's in warm starts, in the place of training.learning_rate; None: training.learning_rate

    def __post_init__(self) -> None:
        if self.baseline not in ("champion", "none") and not HASH.fullmatch(self.baseline):
            raise ValueError(f"baseline = {self.baseline!r}: must be champion, none or the hash of a bundle")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs = {self.epochs!r}: must be at least 1, or null")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate!r}: must be positive, or null")

    def shadowed(self, overrides: Iterable[str]) -> list[str]:
        """A line for each override of `training` that does not count in a warm start, because this section has a value of its own for it."""
        given = {key.strip(): value.strip() for key, _, value in (each.partition("=") for each in overrides)}
        found = [name for name in ("epochs", "learning_rate") if getattr(self, name) is not None and f"training.{name}" in given]
        return [
            f"training.{name}={given[f'training.{name}']} does not count here: this run continues from the champion, and retraining.{name}="
            f"{getattr(self, name)} is what a warm start takes (--set retraining.{name}={given[f'training.{name}']}, or retraining.start=scratch)"
            for name in found
            if f"retraining.{name}" not in given
        ]
