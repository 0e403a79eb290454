"""A few shoppers as a reader can follow them: history, what came next, what was recommended. Titles and pseudonyms only.

They are the first of the evaluation's fixed sample, drawn before any result was known; the gate keeps the champion's lists for the same users.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestration.verdict.gate.shown import SHOWN
from orchestration.verdict.models import NAMES
from orchestration.verdict.report.material import Material

HISTORY, RECOMMENDED = 8, 10
CHAMPION = "champion"


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
    ranks: str  # where each list has the true item
    recommended: tuple[tuple[str, tuple[Line, ...]], ...]  # (whose list, best first)


@dataclass(frozen=True)
class Shoppers:
    """`share`: of all test users, those with the true item in the first ten of the lists; likewise of the sample that the examples begin."""

    examples: tuple[Example, ...]
    users: int
    share: float | None
    sampled: int
    sample_share: float


def shoppers(material: Material, wanted: int) -> Shoppers | None:
    """The first `wanted` users of the fixed sample, and how often the lists are right; None where none are wanted or kept."""
    if wanted == 0 or not material.has("evaluation", "recommendations.parquet"):
        return None
    rows = material.inputs["evaluation"].table("recommendations.parquet").to_pylist()
    champions = _champions(material)
    found = tuple(
        _example(material, {**row, CHAMPION: champions.get(row["user_index"])}, string.ascii_uppercase[place])
        for place, row in enumerate(rows[:wanted])
    )
    hits = sum(row["target"] in row["lists"][:RECOMMENDED] for row in rows)
    share = material.metrics["models"]["lists"].get(f"recall@{RECOMMENDED}")
    return Shoppers(found, material.metrics["users"], share, len(rows), hits / max(len(rows), 1))


def _champions(material: Material) -> dict[int, list[int]]:
    """user_index -> the champion's list; {} where the gate had no champion."""
    if not material.has("gate", SHOWN):
        return {}
    return {row["user_index"]: row[CHAMPION] for row in material.inputs["gate"].table(SHOWN).to_pylist()}


def _example(material: Material, row: dict[str, Any], letter: str) -> Example:
    target, history = row["target"], row["history"]
    beside = CHAMPION if row[CHAMPION] is not None else "joint_model"
    lists = [(_who(who), _lines(material, row[who], target)) for who in ("lists", beside) if row.get(who) is not None]
    ranks = [f"{_who(who)}: {_rank(row[who], target)}" for who in ("lists", CHAMPION, "joint_model", "frozen_model") if row.get(who) is not None]
    return Example(
        f"Shopper {letter}",
        tuple(map(material.title, history[-HISTORY:])),
        row.get("earlier", 0) + max(len(history) - HISTORY, 0),
        material.title(target),
        "; ".join(ranks),
        tuple(lists),
    )


def _who(name: str) -> str:
    return "the champion's lists" if name == CHAMPION else "this run's lists" if name == "lists" else NAMES[name]


def _lines(material: Material, items: Sequence[int], target: int) -> tuple[Line, ...]:
    return tuple(Line(material.title(item), item == target) for item in items[:RECOMMENDED])


def _rank(items: Sequence[int], target: int) -> str:
    return f"rank {items.index(target) + 1}" if target in items else f"not in the first {len(items)}"
