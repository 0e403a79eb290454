"""What comparison.json holds."""

from __future__ import annotations

from typing import Final, Literal, NotRequired, TypedDict

from diger_core.evaluation.crossed import Word

DOCUMENT: Final = "comparison.json"
K: Final = 10
METRICS: Final = ("ndcg@10", "recall@10")

# One seed of a variant: the model's artefact, the alarm that training ended with, and its means over the test users.
Training = TypedDict("Training", {"seed": int, "model": str, "alarm": str | None, "ndcg@10": float, "recall@10": float})


class Trained(TypedDict):
    """A variant with its trainings, one a seed. `label`: its name, or "continued frozen" for a control that began from a joint champion."""

    name: str
    label: str
    model: str
    overrides: list[str]
    trainings: list[Training]


class Gain(TypedDict):
    """A variant minus the reference in one metric, with the 95% interval over seeds and users; `each`: the mean of every seed."""

    variant: str
    metric: str
    mean: float
    low: float | None
    high: float | None
    seed_error: float | None
    user_error: float | None
    word: Word
    each: list[float]


class ComparisonDocument(TypedDict):
    """comparison.json. `reference`: the variant that the others are compared with; `start`: the bundle that trainings continue from, or null."""

    format: int
    reference: str
    seeds: list[int]
    users: int
    split: Literal["temporal", "leave_one_out"]
    start: NotRequired[str]
    variants: list[Trained]
    gains: list[Gain]
