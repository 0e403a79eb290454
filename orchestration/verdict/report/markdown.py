"""Markdown for the Dagster UI and the terminal: tables and small pictures as data URIs. Never user data."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestration.verdict.report import drawing, figures
from orchestration.verdict.report.text import decimal, markdown_escape, printable
from orchestration.verdict.report.verdict import NAMES, verdict

if TYPE_CHECKING:
    from diger_core.evaluation.metrics import Metrics, ModelMetrics
    from orchestration.validation.quarantine import Checks

PICTURE_BYTES = 60_000  # the UI renders Markdown metadata whole
ORDER = ("joint_model", "frozen_model", "markov", "most_popular")


def metrics_markdown(metrics: Metrics) -> str:
    """The verdict and one row a model: every metric, and the interval of the headline metrics."""
    models = metrics["models"]
    names = [m for m in ORDER if m in models] + sorted(set(models) - set(ORDER))
    columns = sorted({k for m in names for k in models[m] if "@" in k}, key=lambda k: (not k.startswith("recall"), int(k.split("@")[1])))
    headline = set(figures.headline_metrics(metrics))
    lines = ["| model | " + " | ".join(map(figures.metric_label, columns)) + " |", "|---|" + "---:|" * len(columns)]
    for name in names:
        cells = [_cell(models[name], column, column in headline) for column in columns]
        lines.append(f"| {markdown_escape(printable(NAMES.get(name, name)))} | " + " | ".join(cells) + " |")
    users = f"{metrics['users']:,} users, full ranking, item-level; in brackets the 95% interval."
    return f"**{markdown_escape(verdict(metrics).sentence)}**\n\n" + "\n".join(lines) + f"\n\n{users}"


def _cell(model: ModelMetrics, metric: str, with_interval: bool) -> str:
    interval = model.get("intervals", {}).get(metric)
    ending = f" ({decimal(interval[0])} to {decimal(interval[1])})" if with_interval and interval else ""
    return decimal(model.get(metric)) + ending


def picture_markdown(png: bytes, description: str) -> str:
    """A PNG as an inline picture; only its description where it is too large for the UI."""
    alt = printable(description).replace("[", "(").replace("]", ")")
    if len(png) > PICTURE_BYTES:
        return markdown_escape(alt)
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})"


def curves_markdown(curves: drawing.Rows | Mapping[str, drawing.Rows]) -> str:
    """The curves of a model, of several by name, or of the tokenizer's warm-up as a picture, with the last epoch's numbers below."""
    rows = list(curves.get("joint_model", ()) if isinstance(curves, Mapping) else curves)
    if not isinstance(curves, Mapping) and not any("loss_gen" in row for row in curves):
        lines = [picture_markdown(figures.tokenizer_curves(curves), "Warm-up curves by epoch")]
    else:
        lines = [picture_markdown(figures.learning_curves(curves, columns=2), "Learning curves: NDCG@10, noise and loss by epoch")]
    if rows:
        numbers = {k: v for k, v in rows[-1].items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
        lines += ["", "| last epoch | |", "|---|---:|", *(f"| {markdown_escape(printable(k))} | {v:.4g} |" for k, v in numbers.items())]
    return "\n".join(lines)


def checks_markdown(checks: Checks) -> str:
    """checks.json as a table: what was checked, the result and the message; counts below."""
    lines = ["| check | result | severity | message |", "|---|---|---|---|"]
    for check in checks["checks"]:
        cells = (check["name"], "passed" if check["passed"] else "**not passed**", check["severity"], check.get("message", ""))
        shown = [cells[1] if i == 1 else markdown_escape(printable(cell, 200)) for i, cell in enumerate(cells)]
        lines.append("| " + " | ".join(shown) + " |")
    counts = ", ".join(f"{markdown_escape(printable(k))} {printable(v)}" for k, v in (checks.get("counts") or {}).items())
    return "\n".join(lines) + (f"\n\n{counts}" if counts else "")
