"""Section `training_comparison` of params.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from diger_core.config import STRICT, check

Model = Literal["joint_model", "frozen_model"]
SECTIONS = ("tokenizer", "recommender", "training", "joint_model", "semantic_ids")  # what a variant may change
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.-]{0,39}")
_FORM = "NAME, NAME: model=frozen, or NAME: section.key=value …"


@dataclass(frozen=True)
class Variant:
    """One way to train: which stage, and what differs from the run's parameters."""

    name: str
    model: Model
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonConfig:
    """Stage `training_comparison`: ways to train, each on several seeds of one snapshot, paired by seed and user."""

    __pydantic_config__: ClassVar = STRICT
    # The first is what the others are compared with. "joint" and "frozen" are the run's own two models; "NAME: section.key=value …" changes keys of
    # tokenizer, recommender, training, joint_model or semantic_ids; "NAME: model=frozen …" trains the control so.
    variants: tuple[str, ...] = ("frozen", "joint")
    seeds: int = 3  # of each: training.seed and tokenizer.seed and the ones after them; fewer than three claim nothing

    def __post_init__(self) -> None:
        check(1 <= self.seeds <= 100, "seeds", self.seeds, "between 1 and 100")
        check(len(self.variants) >= 2, "variants", list(self.variants), "at least two ways to train")
        names = [variant.name for variant in self.parsed()]
        check(len(set(names)) == len(names), "variants", list(self.variants), "of different names")

    def parsed(self) -> tuple[Variant, ...]:
        """The variants in their order; ValueError names the one that is malformed."""
        return tuple(_variant(text) for text in self.variants)


def _variant(text: str) -> Variant:
    name, _, rest = text.partition(":")
    name, changes = name.strip(), rest.split()
    check(bool(_NAME.fullmatch(name)), "variants", text, f"written as {_FORM}")
    model: Model = "frozen_model" if text.strip() == "frozen" else "joint_model"
    overrides = []
    for change in changes:
        key, separator, value = change.partition("=")
        if key == "model":
            check(value in ("joint", "frozen"), "variants", change, "model=joint or model=frozen")
            model = "frozen_model" if value == "frozen" else "joint_model"
            continue
        section, _, leaf = key.partition(".")
        check(bool(separator and leaf) and section in SECTIONS, "variants", change, f"section.key=value of {', '.join(SECTIONS)}")
        check(key not in ("training.seed", "tokenizer.seed"), "variants", change, "without a seed: the comparison sets it")
        overrides.append(change)
    return Variant(name, model, tuple(overrides))
