"""The page's first screen: the decision, where it is better, what changed, why, and what to look at. Figures come from the verdict alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestration.verdict.models import NAMES
from orchestration.verdict.report import change, forest, text
from orchestration.verdict.report.figures import metric_label
from orchestration.verdict.report.listens import UNSTABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestration.verdict.report.compared import Compared, Tone
    from orchestration.verdict.report.identity import Identity
    from orchestration.verdict.report.material import Material
    from orchestration.verdict.report.verdict import Verdict

MARKS = {"Accepted": "✔", "Refused": "✘", "Not judged by a gate": "–"}
DATA = ("validated_items", "validated_interactions")


@dataclass(frozen=True)
class Look:
    """Something to look at. `grave`: it refuses, or stopped the training. `target`: the part of the page that has more."""

    message: str
    grave: bool = False
    target: str | None = None


@dataclass(frozen=True)
class Figure:
    """The one number at the top: the lists beside the champion, or beside the best baseline where there is none."""

    metric: str
    change: str
    interval: str
    values: str
    tone: Tone


def first_screen(material: Material, found: Verdict, identity: Identity) -> dict[str, Any]:
    return {
        "identity": identity,
        "mark": MARKS[found.word],
        "state": identity.state or _state(material, found),
        "figure": figure(found),
        "plots": [forest.plot(each.against, each.rows, "Difference in NDCG@10") for each in found.where],
        "changed": change.summary(material),
        "first": material.gate is None or material.gate["champion"] is None,
        "looks": sorted(looks(material, found), key=lambda look: not look.grave),
    }


def _state(material: Material, found: Verdict) -> str | None:
    """What follows from the decision, as far as the content knows."""
    if found.word == "Refused":
        return "it may not serve" if material.gate is None or material.gate["champion"] is None else "the champion stays"
    return "it may serve" if found.word == "Accepted" else None


def figure(found: Verdict) -> Figure | None:
    row = found.champion or found.baseline
    return None if row is None else _figure(row)


def _figure(row: Compared) -> Figure:
    who = "the champion" if row.theirs == "champion" else NAMES.get(row.theirs, row.theirs)
    relative = row.relative
    if relative is None:
        change, interval = f"{row.mean:+.4f}", f"{row.low:+.4f} to {row.high:+.4f}"
    else:
        change, interval = f"{relative[0]:+.1%}", f"{relative[1]:+.1%} to {relative[2]:+.1%}"
    values = f"{row.base:.4f} → {row.value:.4f} against {who}, {row.users:,} users"
    return Figure(metric_label(row.metric), change, interval, values, row.tone)


def looks(material: Material, found: Verdict) -> Iterator[Look]:
    """What is wrong, then what is doubtful."""
    yield from (Look(message, grave=True, target="rules") for message in found.failed)
    for model in ("joint_model", "frozen_model"):
        alarm = material.configs.get(model, {}).get("alarm")
        if alarm:
            yield Look(f"Training of the {NAMES[model]} stopped on an alarm: {alarm}", grave=True, target="joint_model")
    if found.baseline is not None and found.baseline.tone == "worse":
        yield Look(f"{NAMES[found.baseline.theirs]} is above the lists: {found.baseline.told}", target="evaluation")
    yield from (Look(message, target="slices") for message in found.warnings)
    if material.fusion is not None and material.fusion.moved > UNSTABLE and not material.fusion.fallback:
        yield Look("The weights of the lists are not stable between two halves of the validation users.", target="fusion")
    for stage in DATA:
        checks = material.checks(stage)
        failed = [] if checks is None else [check for check in checks["checks"] if not check["passed"]]
        if failed:
            names = ", ".join(text.printable(check["name"], 40) for check in failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
            yield Look(f"{len(failed)} data warning{'s' * (len(failed) != 1)} on {'items' if stage == DATA[0] else 'events'}: {names}", target=stage)
