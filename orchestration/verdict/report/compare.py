"""Two reports side by side as one self-contained page: metrics, curves, code usage, IDs, parameters, inputs and cost of A and B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from diger_core.config import EvaluationConfig
from orchestration.verdict.models import NAMES, ordered
from orchestration.verdict.report import code_figures, drawing, figures, forest, text
from orchestration.verdict.report.drawing import INK, JOINT, Panel, draw_lines, series, whole_epochs
from orchestration.verdict.report.found import Found
from orchestration.verdict.report.pictures import THIRD, asset, environment, pictures
from orchestration.verdict.report.reasons import Where
from orchestration.verdict.report.same_users import Paired, paired
from orchestration.verdict.report.verdict import verdict

if TYPE_CHECKING:
    from orchestration.verdict.report.material import Material

COLOURS = (INK, JOINT)
SIDES = ("A", "B")
MOST = 12  # rows of a table before the others fold away


def compare_page(a: Found, b: Found) -> str:
    """The whole HTML page of A beside B."""
    found = (a, b)
    metrics = [each.material.metrics for each in found]
    both = same_users(a, b)
    inputs = [(s, a.made.inputs.get(s), b.made.inputs.get(s)) for s in dict.fromkeys([*a.material.stages, *b.material.stages])]
    context = {
        "css": asset("style.css"),
        "text": text,
        "sides": [side(name, each) for name, each in zip(SIDES, found, strict=True)],
        "paired": both,
        "headline": headline(a, b, both),
        "by_target": forest.plot("A", where, "Difference in NDCG@10") if (where := by_target(a, b, both)) else None,
        "by_model": None if both is None else forest.plot("A", [row.difference for row in both.models], "Difference in NDCG@10"),
        "most": MOST,
        "metrics": metric_rows(*metrics),
        "columns": figures.headline_metrics(metrics[0]),
        "names": NAMES,
        "slices": slice_rows(*metrics),
        "curves": pictures(curve_panels(a.material, b.material), "curves", **THIRD),
        "usage": [(name, pictures(usage(each.material), f"usage{name}", **THIRD)) for name, each in zip(SIDES, found, strict=True)],
        "churn": churn(a.material, b.material),
        "params": differing(a.params, b.params),
        "inputs": [row for row in inputs if row[1] != row[2]],
        "equal_inputs": sum(row[1] == row[2] for row in inputs),
        "costs": cost_rows(a, b),
        "other_data": other_data(a, b),
    }
    return environment().get_template("compare.html.j2").render(context)


def same_users(a: Found, b: Found) -> Paired | None:
    """The two on the users that they share; head, tail and new are as B's evaluation was set."""
    keys = ("head_share", "new_item_events")
    given = {key: b.params[f"evaluation.{key}"] for key in keys if f"evaluation.{key}" in b.params}
    return paired(a.material, b.material, EvaluationConfig(**given))


def by_target(a: Found, b: Found, both: Paired | None) -> tuple[Where, ...]:
    """B minus A by kind of target: on the users that both judged, or else as B's gate found it, where A is the champion that it ranked beside B."""
    if both is not None:
        return both.where
    return verdict(b.material.metrics, b.material.gate).where[0].rows if _is_champion_of(a, b) else ()


def headline(a: Found, b: Found, both: Paired | None) -> str | None:
    """One sentence: whether B's lists are better, by the interval; None where nothing compares them."""
    words = {"better": "B is better than A", "worse": "B is worse than A", "open": "No difference between A and B is established"}
    if both is not None:
        row, gain = both.lists, both.lists.difference
        told = f"{words[gain.tone]}: NDCG@10 {row.b:.4f} against {row.a:.4f}, {gain.told.replace('(', '(95% interval ')}"
        return f"{told}, on the {both.users:,} users whose test target is the same event in both."
    found = verdict(b.material.metrics, b.material.gate).champion if _is_champion_of(a, b) else None
    return None if found is None else f"{words[found.tone]}: {found.told}. B's gate ranked A's bundle beside B's, for the users of B's test."


def _is_champion_of(a: Found, b: Found) -> bool:
    """Whether B's gate compared with the bundle that A's judged."""
    ours, theirs = a.material.gate, b.material.gate
    return ours is not None and theirs is not None and theirs["champion"] == ours["candidate"]


def other_data(a: Found, b: Found) -> bool:
    """Whether A and B were validated and tested on different sequences."""
    return a.made.inputs.get("sequences") != b.made.inputs.get("sequences")


def side(name: str, found: Found) -> dict[str, Any]:
    """What stands at the head of a column."""
    material = found.material
    return {
        "name": name,
        "hash": found.hash,
        "snapshot": found.made.snapshot or "unknown",
        "at": found.made.at[:16].replace("T", " "),
        "verdict": verdict(material.metrics, material.gate),
        "items": len(material.item_ids),
        "users": material.metrics["users"],
        "events": int(material.offsets[-1]),
    }


def usage(material: Material) -> list[Panel]:
    """Each level's codes over the epochs, where that was recorded; then the final table's."""
    over_time = code_figures.usage_map_panels(material.code_usage) if material.code_usage is not None else []
    return over_time + (code_figures.code_usage_panels(material.semantic_ids[0], material.code_count) if material.has("semantic_ids") else [])


# ---- metrics ----


def metric_rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each model that either side measured."""
    names = ordered({*a["models"], *b["models"]})
    return [{"model": name, "a": a["models"].get(name), "b": b["models"].get(name)} for name in names]


def slice_rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The released lists on each slice of either side."""
    names = sorted({*a.get("slices", {}), *b.get("slices", {})})
    return [
        {"name": name.replace("_", " "), **{key: side.get("slices", {}).get(name, {}).get("lists") for key, side in (("a", a), ("b", b))}}
        for name in names
    ]


# ---- pictures ----


def curve_panels(a: Material, b: Material) -> list[Panel]:
    """Validation NDCG@10, noise and loss of both joint models over their epochs, and the perplexity of each level."""
    rows = [material.curves.get("joint_model", []) for material in (a, b)]
    if not any(rows):
        return []
    simple = (
        ("validation_ndcg_10", "validation NDCG@10"),
        ("sigma", "noise scale σ, mean over items"),
        ("loss_gen", "training loss (nats per token)"),
    )
    depth = max(drawing.levels(each, "perplexity") for each in rows)
    panels = [_overlaid(rows, key, label, None) for key, label in simple]
    return panels + [_overlaid(rows, "perplexity", f"perplexity (codes), level {level + 1}", level) for level in range(depth)]


def _overlaid(rows: list[Any], key: str, label: str, level: int | None) -> Panel:
    def draw(ax: Any) -> str:
        lines = [(name, colour, *series(each, key, level)) for name, colour, each in zip(SIDES, COLOURS, rows, strict=True)]
        draw_lines(ax, lines, from_zero=key in ("sigma", "perplexity"))
        whole_epochs(ax)
        ax.set_ylabel(label)
        ends = [f"{name} {y[-1]:.4g}" for name, _, _, y in lines if len(y)]
        return f"{label[0].upper()}{label[1:]} at the end: {', '.join(ends) or 'not recorded'}"

    return draw


# ---- what differs ----


def churn(a: Material, b: Material) -> dict[str, Any] | None:
    """IDs from A's table to B's, weighted by B's events; None where a side has no table or the item ids are of two kinds."""
    from diger_core.errors import DigerError
    from diger_core.ids.id_diff import id_diff, migration

    if not (a.has("semantic_ids") and b.has("semantic_ids")):
        return None
    import pyarrow as pa

    tables = [_id_table(material) for material in (a, b)]
    try:
        change = migration(*tables)
    except DigerError as fault:
        return {"told": str(fault), "rows": []}
    found = id_diff(change, pa.table({"item_id": b.item_ids.combine_chunks(), "weight": b.visits.astype(float)}))
    counts, shares, heavy = found["counts"], found["shares"], found["weighted"]
    told = {"kept": "whole ID kept", "suffix": "only the suffix differs", "moved": "a code differs"}
    rows = [(words, text.count(counts[key]), text.percent(shares[key]), text.percent(heavy[key])) for key, words in told.items()]
    rows += [
        (f"code {level} differs", "", text.percent(plain), text.percent(weighted))
        for level, (plain, weighted) in enumerate(zip(shares["level_differs"], heavy["level_differs"], strict=True), start=1)
    ]
    rows += [(f"only in {name}", text.count(counts[key]), "", "") for name, key in (("B", "added"), ("A", "removed"))]
    return {"told": None, "rows": rows}


def _id_table(material: Material) -> Any:
    table = material.inputs["semantic_ids"].table("semantic_ids.parquet")
    return table.select([name for name in table.column_names if name == "item_id" or name.startswith("code_") or name == "suffix"])


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key, A's value, B's value) of every parameter that differs; "not used" where a side's stages do not read it."""
    names = sorted(key for key in {*a, *b} if a.get(key, ...) != b.get(key, ...))
    return [(key, _written(a, key), _written(b, key)) for key in names]


def _written(values: Mapping[str, Any], key: str) -> str:
    """A parameter as params.yaml has it."""
    if key not in values:
        return "not used"
    return "null" if values[key] is None else str(values[key]).lower() if isinstance(values[key], bool) else text.printable(values[key], 60)


def cost_rows(a: Found, b: Found) -> list[dict[str, Any]]:
    """Seconds and rows per second of each stage on both sides."""
    by_stage = [{cost.stage: cost for cost in found.costs} for found in (a, b)]
    return [{"stage": stage, "a": by_stage[0].get(stage), "b": by_stage[1].get(stage)} for stage in dict.fromkeys([*by_stage[0], *by_stage[1]])]


def summary(a: Found, b: Found) -> dict[str, Any]:
    """The comparison in plain values, for the terminal and for scripts."""
    both = same_users(a, b)
    models = [found.material.metrics["models"]["lists"] for found in (a, b)]
    names = figures.headline_metrics(a.material.metrics)
    return {
        "a": a.hash,
        "b": b.hash,
        "metrics": {name: [float(np.float64(model.get(name, np.nan))) for model in models] for name in names},
        "headline": headline(a, b, both),
        "where": [asdict(row) for row in by_target(a, b, both)],
        "paired": None if both is None else asdict(both),
        "other_data": other_data(a, b),
        "params": differing(a.params, b.params),
    }
