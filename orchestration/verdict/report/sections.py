"""What each section of the page is made from: the template gets plain values, figures as text and pictures as elements."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from orchestration.params.verdict import ReportConfig
from orchestration.verdict.leave_one_out import FILE as LEAVE_ONE_OUT
from orchestration.verdict.models import EARLIER, NAMES, ordered
from orchestration.verdict.report import code_figures, drawing, figures, listens, split, text
from orchestration.verdict.report.compared import lists_minus, over_the_period
from orchestration.verdict.report.material import MODELS, Material
from orchestration.verdict.report.pictures import THIRD, pictures
from orchestration.verdict.report.tree import TITLE_LIMIT, tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diger_core.evaluation.metrics import Metrics
    from orchestration.validation.quarantine import Checks

SLICES = ("head", "tail", "new_items", "same_time", "other_time")


def gate_part(material: Material) -> dict[str, Any] | None:
    """The gate's rules and slices; None where the run had no gate."""
    if material.gate is None:
        return None
    from orchestration.verdict.report import gate

    rules = [{**rule, "label": gate.RULES.get(rule["name"], rule["name"]), "met": gate.mark_of(rule)} for rule in material.gate["rules"]]
    slices, note = gate.slice_rows(material.gate), gate.freshness(material.gate)
    return {"rules": rules, "slices": slices, "note": note}


def change_section(material: Material) -> dict[str, Any] | None:
    """Catalogue and IDs against the baseline; None for a first training."""
    from orchestration.verdict.report.change import change_part

    part = change_part(material)
    return None if part is None else {**part, "pictures": pictures(part["panels"], "change")}


def evaluation_section(material: Material) -> dict[str, Any]:
    """The one table of models, the split in words, all cut-offs, the slices, and the two headline pictures."""
    metrics = material.metrics
    models, judged = ordered(metrics["models"]), figures.judged_metric(metrics)
    columns = sorted({k for m in models for k in metrics["models"][m] if "@" in k}, key=lambda k: (not k.startswith("recall"), int(k.split("@")[1])))
    headline = figures.headline_metrics(metrics)
    sizes_of = metrics.get("slice_users", {})
    slices = [
        {
            "name": name.replace("_", " "),
            "users": sizes_of.get(name),
            "rows": [(m, metrics["slices"][name][m]) for m in models if m in metrics["slices"][name] and m not in EARLIER],
        }
        for name in sorted(metrics.get("slices", {}), key=lambda name: (SLICES.index(name) if name in SLICES else len(SLICES), name))
    ]
    empty = [name.replace("_", " ") for name, users in sizes_of.items() if users == 0]
    return {
        "users": metrics["users"],
        "columns": columns,
        "headline": headline,
        "judged": judged,
        "split": split.sentences(material.inputs["sequences"].facts, metrics["users"]),
        "groups": [[(m, metrics["models"][m], lists_minus(metrics, m, judged)) for m in part] for part in _groups(models) if part],
        "rows": [(m, metrics["models"][m]) for m in models],
        "period": period_rows(metrics, headline, judged),
        "published": published_rows(material, headline),
        "best": {c: max((metrics["models"][m].get(c) or 0.0) for m in models if m not in EARLIER) for c in columns},
        "slices": slices,
        "empty": empty,
        "pictures": pictures(figures.metrics_panels(metrics), "metrics", height=figures.metrics_height(metrics)),
    }


def period_rows(metrics: Metrics, headline: Sequence[str], judged: str) -> dict[str, Any] | None:
    """Every event of the test period, with what the lists gain over each row; None without a temporal split."""
    period = metrics.get("period")
    if period is None:
        return None
    shown = [name for name in ordered(period["models"]) if name not in EARLIER]
    best = {column: max(period["models"][name].get(column) or 0.0 for name in shown) for column in headline}
    rows = [(name, period["models"][name], None if name == "lists" else over_the_period(metrics, "lists", name, judged)) for name in shown]
    return {"users": metrics["users"], "events": period["events"], "rows": rows, "best": best}


def published_rows(material: Material, headline: Sequence[str]) -> dict[str, Any] | None:
    """Counting on each user's last event, beside a temporal split; None where the evaluation has none."""
    if not material.has("evaluation", LEAVE_ONE_OUT):
        return None
    found: Metrics = material.inputs["evaluation"].json(LEAVE_ONE_OUT)
    best = {column: max(found["models"][name].get(column) or 0.0 for name in found["models"]) for column in headline}
    return {"users": found["users"], "rows": [(name, found["models"][name]) for name in ordered(found["models"])], "best": best}


def _groups(models: Sequence[str]) -> list[list[str]]:
    """Lists and models, what only counts, and the rows counted in training events alone."""
    alone = ("lists", *MODELS)
    return [[m for m in models if m in alone], [m for m in models if m not in alone and m not in EARLIER], [m for m in models if m in EARLIER]]


def listens_section(material: Material) -> dict[str, Any] | None:
    """The recipe's weights; None where the run had no such stage."""
    fitted = material.fusion
    if fitted is None:
        return None
    drawn = pictures([listens.panel(fitted)], "weights", width=6.4, height=2.6)
    return {"pictures": drawn, "rows": listens.rows(fitted), "sentences": listens.sentences(fitted), "halves": fitted.lists.mixes}


def training_section(material: Material) -> dict[str, Any]:
    curves = {m: material.curves[m] for m in MODELS if material.curves.get(m)}
    joint, usage = curves.get("joint_model", []), material.code_usage
    return {
        "curves": pictures(figures.learning_panels(curves), "learning", **THIRD) if curves else [],
        "usage": pictures(code_figures.usage_curve_panels(joint), "usage") if drawing.levels(joint, "perplexity") else [],
        "usage_map": pictures(code_figures.usage_map_panels(usage), "usagemap", **THIRD | {"height": 3.0}) if usage is not None else [],
        "rows": joint,
        "best_epoch": material.configs.get("joint_model", {}).get("best_epoch"),
        "alarms": [(m, str(material.configs[m]["alarm"])) for m in MODELS if material.configs.get(m, {}).get("alarm")],
        "levels": drawing.levels(joint, "perplexity"),
        "tokenizer": pictures(figures.tokenizer_panels(material.curves["tokenizer"]), "warmup", **THIRD) if material.curves.get("tokenizer") else [],
        "taken_over": material.inputs["tokenizer"].facts.get("taken_from") if material.has("tokenizer") else None,
    }


def ids_section(material: Material, config: ReportConfig) -> dict[str, Any] | None:
    """Heat maps, the tree and the exact counts that the look-up box reads."""
    if not material.has("semantic_ids"):
        return None
    from markupsafe import Markup

    codes_NM, suffix_N = material.semantic_ids
    grown = tree(codes_NM, material.visits, lambda item: material.title(item, TITLE_LIMIT), config.tree_items_per_prefix)
    return {
        "items": len(codes_NM),
        "levels": codes_NM.shape[1],
        "codes": material.code_count,
        "shared": int((suffix_N > 0).sum()),
        "heat": pictures(code_figures.code_usage_panels(codes_NM, material.code_count), "heat", **THIRD),
        "tree": grown,
        "icicle": Markup(grown.icicle),
        "counts": Markup(json.dumps(grown.counts, separators=(",", ":"))),  # integers only
    }


def data_section(material: Material) -> dict[str, Any]:
    validated = [
        {"stage": stage, "rows": checks, "zeros": _zeros(checks), "quarantine": material.quarantine(stage)}
        for stage in ("validated_items", "validated_interactions")
        if (checks := material.checks(stage)) is not None
    ]
    panels = [figures.popularity_panel(material.visits), figures.sequence_lengths_panel(material.offsets)]
    return {
        "validated": validated,
        "sequences": pictures(panels, "sequences"),
        "embeddings": pictures([figures.embedding_panel(material.vectors)], "embeddings") if material.has("embeddings") else [],
    }


def _zeros(checks: Checks) -> list[str]:
    """Names of the counts that are zero: told in one line instead of a row each."""
    return sorted(text.printable(key).replace("_", " ") for key, number in (checks.get("counts") or {}).items() if number == 0)


def commands(material: Material, overrides: Sequence[str] = ()) -> list[tuple[str, str]]:
    """What to type to see, verify and repeat what this page tells, with the hashes filled in: (what it does, the command)."""
    run = " ".join(["diger run --snapshot DIR_OR_URL --params params.yaml", *(f"--set {shlex.quote(override)}" for override in overrides)])
    lines = [("Build the same results from the same snapshot; what exists is reused:", run)]
    if material.has("joint_model"):
        lines.append(("Train the joint model again from its stored inputs, and compare:", f"diger reproduce {material.inputs['joint_model'].hash}"))
    if material.has("evaluation"):
        lines.append(("Rank and count again:", f"diger reproduce {material.inputs['evaluation'].hash}"))
    if material.gate is not None:
        lines.append(("Everything that the judged bundle was made from, verified file by file:", f"diger why {material.gate['candidate']} --verify"))
    return lines


def sizes(material: Material) -> list[tuple[str, str]]:
    """What the run cost in sizes that the content determines; times are in the records, not in the content."""
    import numpy as np

    from diger_core.data.splits import training_rows

    lengths = np.diff(material.offsets)
    rows = [
        ("Items", text.count(len(material.item_ids))),
        ("Users", text.count(len(lengths))),
        ("Events", text.count(int(lengths.sum()))),
        ("Training rows for each epoch", text.count(len(training_rows(material.seq)[0]))),
    ]
    for model in MODELS:
        if not material.has(model):
            continue
        epochs = material.curves.get(model, [])
        if epochs:
            rows.append((f"Epochs, {NAMES[model]}", text.count(len(epochs))))
            if epochs[-1].get("step") is not None:
                rows.append((f"Optimiser steps, {NAMES[model]}", text.count(epochs[-1]["step"])))
        if material.has(model, "model.safetensors"):
            tensors = material.inputs[model].tensors("model.safetensors")
            for part in ("recommender", "tokenizer"):
                rows.append(
                    (f"Parameters of the {part}, {NAMES[model]}", text.count(sum(t.numel() for k, t in tensors.items() if k.startswith(part))))
                )
    return rows
