"""What changed since the baseline, for people: pictures for the UI and the page, and the page's section on catalogue and IDs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestration.verdict.report import drawing, text

if TYPE_CHECKING:
    from orchestration.verdict.report.material import Material

DECISIONS = {"nothing": "Nothing to do", "cold_start": "Cold start of the new items", "retrain": "Retrain"}
MOST_SETTINGS = 4  # on the first screen
CHANGES = {"kept": "whole ID kept", "suffix": "only the suffix differs", "moved": "a code differs"}


def catalogue_panels(diff: Mapping[str, Any]) -> list[drawing.Panel]:
    """Items by what became of them; events before and now."""
    items, events = diff["items"], diff["events"]
    names = ("same", "changed", "added", "removed")

    def catalogue(ax: Any) -> str:
        _bars(ax, names, [items[name] for name in names], "items")
        return f"{items['added']:,} of {items['new']:,} items are new, {items['removed']:,} are gone"

    def volume(ax: Any) -> str:
        _bars(ax, ("baseline", "now"), [events["old"], events["new"]], "events")
        return f"{events['new'] - events['old']:+,} events since the baseline"

    return [catalogue, volume]


def id_panels(report: Mapping[str, Any]) -> list[drawing.Panel]:
    """IDs by what became of them; the share that differs by level."""
    counts, shares = report["counts"], [100 * share for share in report["shares"]["level_differs"]]
    names = {"kept": "kept", "suffix": "suffix only", "moved": "codes moved", "added": "added", "removed": "removed"}

    def items(ax: Any) -> str:
        _bars(ax, tuple(names.values()), [counts[name] for name in names], "items")
        return f"{report['shares']['kept']:.1%} of the items known before keep their ID, {report['weighted']['kept']:.1%} by traffic"

    def by_level(ax: Any) -> str:
        bars = ax.bar(range(len(shares)), shares, color=drawing.DATA)
        ax.bar_label(bars, [f"{share:.1f}%" for share in shares], padding=3)
        ax.set_xticks(range(len(shares)), [f"code {level + 1}" for level in range(len(shares))])
        ax.set_ylim(0, max(5.0, 1.2 * max(shares)))
        ax.set_ylabel("% of the items known before")
        return "Share of known items whose code differs, by level"

    return [items, by_level]


def _bars(ax: Any, names: tuple[str, ...], values: list[int], unit: str) -> None:
    bars = ax.barh(range(len(names)), values, color=drawing.DATA)
    ax.set_xlabel(unit)
    ax.bar_label(bars, [f"{value:,}" for value in values], padding=4)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.margins(x=0.2)
    drawing.thousands(ax.xaxis)


@dataclass(frozen=True)
class Row:
    """A line of "what changed": what, by how much, and from what to what."""

    what: str
    change: str
    detail: str = ""


def summary(material: Material) -> list[Row]:
    """Events, items, IDs and settings against the starting bundle's; sizes alone where there is none."""
    found = _documents(material)
    if found is None:
        return [
            Row("events", text.count(int(material.offsets[-1]))),
            Row("items", text.count(len(material.item_ids))),
            Row("users", text.count(len(material.offsets) - 1)),
        ]
    diff, ids = found
    return [*_data_rows(diff), *_id_rows(ids), *_setting_rows(material)]


def _data_rows(diff: Mapping[str, Any] | None) -> list[Row]:
    if diff is None:
        return []
    events, items = diff["events"], diff["items"]
    grown = f"{(events['new'] - events['old']) / events['old']:+.1%}" if events["old"] else "all new"
    return [
        Row("events", grown, f"{events['old']:,} → {events['new']:,}"),
        Row("items", f"+{items['added']:,} / −{items['removed']:,}", f"{items['changed']:,} edited, {items['new']:,} now"),
    ]


def _id_rows(ids: Mapping[str, Any] | None) -> list[Row]:
    if ids is None:
        return []
    moved, users = ids["counts"]["moved"] + ids["counts"]["suffix"], ids["histories"]["changed_users"]
    return [Row("IDs", f"{ids['shares']['kept']:.1%} kept", f"{moved:,} items have another, in the history of {users:,} users")]


def _setting_rows(material: Material) -> list[Row]:
    """The training settings that differ from the champion's, as its gate saw them."""
    found = None if material.gate is None else material.gate["metrics"].get("settings")
    if found is None:
        return []
    told = [f"{key.rpartition('.')[2].replace('_', ' ')} {_written(old)} → {_written(new)}" for key, (old, new) in found.items()]
    more = f", and {len(told) - MOST_SETTINGS} more" if len(told) > MOST_SETTINGS else ""
    taken = material.has("tokenizer") and material.inputs["tokenizer"].facts.get("taken_from")
    start = "continued from the champion" if taken else "trained from scratch"
    return [Row("training", start, "; ".join(told[:MOST_SETTINGS]) + more or "same settings")]


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else text.printable(value, 30)


def _documents(material: Material) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] | None:
    """diff.json and id_diff.json, each where it has a baseline; None where neither has."""
    diff = material.inputs["catalogue_diff"].json("diff.json") if material.has("catalogue_diff") else None
    ids = material.inputs["id_diff"].json("id_diff.json") if material.has("id_diff") else None
    diff, ids = (found if found is not None and found["baseline"] is not None else None for found in (diff, ids))
    return None if diff is None and ids is None else (diff, ids)


def change_part(material: Material) -> dict[str, Any] | None:
    """The page's section; None for a first training, or where the run had neither stage."""
    found = _documents(material)
    if found is None:
        return None
    diff, ids = found
    part: dict[str, Any] = {"catalogue": None, "ids": None, "panels": [*(catalogue_panels(diff) if diff else []), *(id_panels(ids) if ids else [])]}
    if diff:
        part["catalogue"] = {"decision": DECISIONS[diff["decision"]], "reasons": diff["reasons"]}
    if ids:
        rows = [
            (told, text.count(ids["counts"][key]), *(text.percent(ids[way][key]) for way in ("shares", "weighted"))) for key, told in CHANGES.items()
        ]
        levels = zip(ids["shares"]["level_differs"], ids["weighted"]["level_differs"], strict=True)
        rows += [(f"code {level} differs", "", text.percent(plain), text.percent(heavy)) for level, (plain, heavy) in enumerate(levels, start=1)]
        rows += [(name, text.count(ids["counts"][name]), "", "") for name in ("added", "removed")]
        part["ids"] = {"rows": rows, **ids["histories"]}
    return part
