"""A few shoppers as a reader can follow them: history, what was recommended, what came next. Titles and pseudonyms only."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any

from orchestration.verdict.evaluation import SAMPLED
from orchestration.verdict.report.material import Material

HISTORY, RECOMMENDED = 8, 10


@dataclass(frozen=True)
class Line:
    title: str
    hit: bool


@dataclass(frozen=True)
class Example:
    name: str  # "Shopper A": of this report only
    history: tuple[str, ...]  # oldest first
    earlier: int  # events before those shown
    truth: str
    recommended: tuple[tuple[str, tuple[Line, ...]], ...]  # (model, best first)


def examples(material: Material, wanted: int) -> list[Example]:
    """The first `wanted` users of the evaluation's fixed sample: chosen before their results were known."""
    if wanted == 0 or not material.has("evaluation", "recommendations.parquet"):
        return []
    table = material.inputs["evaluation"].table("recommendations.parquet").slice(0, wanted).to_pylist()
    return [_example(material, row, string.ascii_uppercase[index]) for index, row in enumerate(table)]


def _example(material: Material, row: dict[str, Any], letter: str) -> Example:
    target = row["target"]
    lists = [
        (model, tuple(Line(material.title(item), item == target) for item in row[model][:RECOMMENDED]))
        for model in SAMPLED
        if row.get(model) is not None
    ]
    history = row["history"]
    return Example(
        f"Shopper {letter}",
        tuple(map(material.title, history[-HISTORY:])),
        row.get("earlier", 0) + max(len(history) - HISTORY, 0),
        material.title(target),
        tuple(lists),
    )
