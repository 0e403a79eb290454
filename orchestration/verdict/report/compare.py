"""Two reports side by side as one self-contained page: metrics, curves, code usage, IDs, parameters, inputs and cost of A and B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.verdict.models import NAMES, ordered
from orchestration.verdict.report import code_figures, drawing, figures, text
from orchestration.verdict.report.drawing import INK, JOINT, Panel, draw_lines, series, whole_epochs
from orchestration.verdict.report.found import Found
from orchestration.verdict.report.pictures import THIRD, asset, environment, pictures
from orchestration.verdict.report.verdict import verdict

if TYPE_CHECKING:
    from orchestration.verdict.report.material import Material

COLOURS = (INK, JOINT)
SIDES = ("A", "B")
RESAMPLES = 1000


def compare_page(a: Found, b: Found) -> str:
    """The whole HTML page of A beside B."""
    found = (a, b)
    metrics = [each.material.metrics for each in found]
    context = {
        "css": asset("style.css"),
        "text": text,
        "sides": [side(name, each) for name, each in zip(SIDES, found, strict=True)],
        "paired": paired(a.material, b.material),
        "metrics": metric_rows(*metrics),
        "columns": figures.headline_metrics(metrics[0]),
        "names": NAMES,
        "slices": slice_rows(*metrics),
        "curves": pictures(curve_panels(a.material, b.material), "curves", **THIRD),
        "usage": [(name, pictures(usage(each.material), f"usage{name}", **THIRD)) for name, each in zip(SIDES, found, strict=True)],
        "churn": churn(a.material, b.material),
        "params": differing(a.params, b.params),
        "inputs": [(s, a.made.inputs.get(s), b.made.inputs.get(s)) for s in dict.fromkeys([*a.material.stages, *b.material.stages])],
        "costs": cost_rows(a, b),
        "other_data": other_data(a, b),
    }
    return environment().get_template("compare.html.j2").render(context)


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


def paired(a: Material, b: Material) -> dict[str, Any] | None:
    """B minus A of the released lists on the users whose target is the same item in both; None where there are too few, or ranks were not stored."""
    from diger_core.evaluation.metrics import ndcg, paired_bootstrap, recall

    if not all(m.has("evaluation", "per_user.parquet") for m in (a, b)):
        return None
    left, right = (_targets(material) for material in (a, b))
    joined = left.join(right, ["user", "target"], join_type="inner", right_suffix="_b").combine_chunks()
    if joined.num_rows < 30:
        return None
    joined = joined.sort_by([("user", "ascending")])
    ranks = [joined[name].to_numpy() for name in ("rank", "rank_b")]
    rows = []
    for label, metric in (("Recall@10", recall), ("NDCG@10", ndcg)):
        values_a, values_b = (metric(rank, 10) for rank in ranks)
        mean, low, high = paired_bootstrap(values_b, values_a, RESAMPLES, 0)
        rows.append({"label": label, "a": float(values_a.mean()), "b": float(values_b.mean()), "mean": mean, "low": low, "high": high})
    return {"users": joined.num_rows, "rows": rows, "all_a": left.num_rows, "all_b": right.num_rows}


def _targets(material: Material) -> Any:
    """user, target item (as text) and its rank in the released lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from diger_core.data.splits import targets

    ranks = material.inputs["evaluation"].table("per_user.parquet", columns=["user_index", "lists"])
    users_T, _, target_T = targets(material.seq, "test")
    rows = np.searchsorted(users_T, ranks["user_index"].to_numpy())
    names = material.inputs["sequences"].table("users.parquet")["user_id"].take(pa.array(users_T[rows]))
    target = material.item_ids.take(pa.array(target_T[rows]))
    return pa.table({"user": pc.cast(names, pa.string()), "target": pc.cast(target, pa.string()), "rank": ranks["lists"]})


# ---- pictures ----


def curve_panels(a: Material, b: Material) -> list[Panel]:
    """Validation NDCG@10, noise and loss of both joint models over their epochs, and the perplexity of each level."""
    rows = [material.curves.get("joint_model", []) for material in (a, b)]
    if not any(rows):
        return []
    simple = (("validation_ndcg_10", "validation NDCG@10"), ("sigma", "noise scale σ"), ("loss_gen", "training loss (nats per token)"))
    depth = max(drawing.levels(each, "perplexity") for each in rows)
    panels = [_overlaid(rows, key, label, None) for key, label in simple]
    return panels + [_overlaid(rows, "perplexity", f"perplexity, level {level + 1}", level) for level in range(depth)]


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
    both = paired(a.material, b.material)
    models = [found.material.metrics["models"]["lists"] for found in (a, b)]
    names = figures.headline_metrics(a.material.metrics)
    return {
        "a": a.hash,
        "b": b.hash,
        "metrics": {name: [float(np.float64(model.get(name, np.nan))) for model in models] for name in names},
        "paired": both,
        "other_data": other_data(a, b),
        "params": differing(a.params, b.params),
    }
