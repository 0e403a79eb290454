"""What the released lists listen to: the recipe's weights as a picture and in words, for the page and the UI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diger_core.evaluation.recipes import REPEATS, Fitted
from orchestration.verdict.models import NAMES
from orchestration.verdict.report import figures
from orchestration.verdict.report.drawing import Panel
from orchestration.verdict.report.markdown import picture_markdown
from orchestration.verdict.report.text import decimal, markdown_escape

PARTS = {
    "generative": "generative model",
    "transitions": "what follows what (item-item)",
    "text": "similar text",
    "repeat": "what the user had before",
    "recent": "recent popularity",
    "popular": "popularity",
}
UNSTABLE = 0.3  # of the weights: two halves of the validation users that differ by more do not choose the same recipe


def panel(fitted: Fitted) -> Panel:
    return figures.weights_panel(fitted.lists.weights, _halves(fitted), PARTS, fitted.lists.mixes)


def sentences(fitted: Fitted) -> list[str]:
    """Fallback or mixture, whether what sells now and what is new count, how stable the weights are, and whether people repeat."""
    return [_chosen(fitted), _trend(fitted), *_new_items(fitted), _stable(fitted), _repeats(fitted)]


def rows(fitted: Fitted) -> list[tuple[str, str, str, str]]:
    """(part, weight, range between the two halves of the validation users, age scale), the largest first."""
    shares, found = fitted.lists.mixes, fitted.lists.weights
    told = []
    for part in sorted(found, key=lambda name: -found[name]):
        ends = sorted(half.get(part, 0.0) for half in fitted.halves)
        between = f"{ends[0]:.1%} to {ends[1]:.1%}" if shares else "–"
        tau = fitted.lists.tau.get(part)
        told.append((PARTS.get(part, part), f"{found[part]:.1%}" if shares else f"{found[part]:g}", between, "–" if tau is None else f"{tau:g}"))
    return told


def markdown(document: Mapping[str, Any]) -> str:
    """The weights as a table and a picture, and the sentences; from fusion.json."""
    fitted = Fitted.from_document(document)
    lines = [" ".join(map(markdown_escape, sentences(fitted))), "", "| part | weight | two halves | events to 1/e |", "|---|---:|---:|---:|"]
    lines += ["| " + " | ".join(map(markdown_escape, row)) + " |" for row in rows(fitted)]
    picture = figures.weights_bars(fitted.lists.weights, _halves(fitted), PARTS, fitted.lists.mixes)
    return "\n".join(lines) + "\n\n" + picture_markdown(picture, "Weights of the parts that the released lists are mixed from")


def _halves(fitted: Fitted) -> tuple[Mapping[str, float], ...]:
    """Marks of the two halves; a fallback was not searched by halves."""
    return fitted.halves if fitted.lists.mixes else ()


def _chosen(fitted: Fitted) -> str:
    best = NAMES.get(fitted.best, fitted.best)
    base = f"{best}, {decimal(fitted.baselines[fitted.best].ndcg)}"
    if fitted.fallback:
        return f"No mixture with the generative model beat the best baseline on validation targets (NDCG@10 of {base}), so it serves alone."
    return f"The weights were chosen on validation targets, where the lists reach NDCG@10 {decimal(fitted.lists.ndcg)} and the best baseline, {base}."


def _trend(fitted: Fitted) -> str:
    trend = fitted.lists.trend
    if not trend.power:
        return "What sells now raises no item: on validation it did not help beyond chance."
    return (
        f"What sells now is raised: scores are multiplied by (1 + the item's events among the newest {trend.share:.1%}) to the power {trend.power:g}."
    )


def _new_items(fitted: Fitted) -> list[str]:
    """What gives new items their place; nothing for a baseline that serves alone."""
    new, factor = fitted.new_items, fitted.lists.new_items
    if fitted.fallback:
        return []
    if not new.targets:
        return ["No validation target is an item without a training event, so nothing raises such items."]
    told = f"Items without a training event are {new.share:.1%} of the validation targets and get {new.places:.1%} of the first ten places"
    raised = f", since their scores are multiplied by {factor:g}" if factor != 1 else ""
    before = f" (without that {decimal(new.without)})" if raised else ""
    return [f"{told}{raised}. On these {new.targets:,} targets the lists reach NDCG@10 {decimal(new.ndcg)}{before}, text alone {decimal(new.text)}."]


def _stable(fitted: Fitted) -> str:
    told = f"Chosen on either half of the validation users alone, {fitted.moved:.0%} of the weight would lie elsewhere"
    return f"{told}: the choice is not stable." if fitted.moved > UNSTABLE else f"{told}."


def _repeats(fitted: Fitted) -> str:
    told = f"{fitted.repeat_share:.1%} of the validation targets are items that the user had before"
    if "repeat" in fitted.baselines:
        return f"{told}: people repeat, so the repeat rule stands among the baselines."
    if fitted.repeat_share >= REPEATS:
        return f"{told}, but these figures are of lists without seen items, and the repeat rule is no baseline here."
    return f"{told}, so the repeat rule is no baseline here, and lists that ship leave such items out unless recommendations.seen says otherwise."
