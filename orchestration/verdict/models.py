"""The models that an evaluation sets side by side: their names in metrics.json, what people call them, and their order and colour everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# In the order of every table: what is released, the models alone, what counting gives, and what it gave at the end of training.
NAMES = {
    "lists": "released lists",
    "joint_model": "generative model alone",
    "frozen_model": "frozen control",
    "lists_frozen": "lists with the control's model",
    "repeat": "item-item + text + repeat",
    "item_item_text": "item-item + text",
    "item_item": "item-item",
    "text": "text",
    "markov": "last-item Markov",
    "recent_popular": "recent popular",
    "most_popular": "most popular",
    "lists_earlier": "lists, counted to the end of training",
    "baseline_earlier": "baseline, counted to the end of training",
}
ORDER = tuple(NAMES)
BASELINES = ("repeat", "item_item_text", "item_item", "text", "markov", "recent_popular", "most_popular")
# Counted in training events alone. The others count up to the test, as a shop does that counts every night; models know training events alone.
EARLIER = ("lists_earlier", "baseline_earlier")


def ordered(found: Iterable[str]) -> list[str]:
    """The names in the order of every table, unknown ones last."""
    known = set(found)
    return [name for name in ORDER if name in known] + sorted(known - set(ORDER))


def strongest_baseline(models: Mapping[str, Mapping[str, Any]], metric: str) -> str | None:
    """The counting baseline that is highest in `metric` on the test targets; None where none was ranked."""
    found = [name for name in BASELINES if metric in models.get(name, {})]
    return max(found, key=lambda name: models[name][metric], default=None)
