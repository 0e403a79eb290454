"""Markdown for the Dagster UI and the terminal: tables and small pictures as data URIs. Never user data."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestration.verdict.models import NAMES, ordered
from orchestration.verdict.report import drawing, figures
from orchestration.verdict.report.compared import lists_minus
from orchestration.verdict.report.figures import headline_metrics, judged_metric, metric_label
from orchestration.verdict.report.text import decimal, markdown_escape, printable
from orchestration.verdict.report.verdict import verdict

if TYPE_CHECKING:
    from diger_core.evaluation.metrics import Metrics, ModelMetrics
    from orchestration.validation.quarantine import Checks
    from orchestration.verdict.gate.document import GateVerdict

PICTURE_BYTES = 60_000  # the UI renders Markdown metadata whole


def metrics_markdown(metrics: Metrics, stored: GateVerdict | None = None) -> str:
    """The verdict's sentences and one row a model: the headline metrics with their intervals, and what the lists gain over it."""
    models, judged, headline = metrics["models"], judged_metric(metrics), headline_metrics(metrics)
    titles = [*map(metric_label, headline), f"lists minus this, {metric_label(judged)}"]
    lines = ["| model | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for name in ordered(models):
        cells = [*(_cell(models[name], column) for column in headline), gain(metrics, name, judged)]
        lines.append(f"| {markdown_escape(printable(NAMES.get(name, name)))} | " + " | ".join(cells) + " |")
    found = verdict(metrics, stored)
    told = [f"- **{part.label}: {markdown_escape(part.word)}**: {markdown_escape(part.sentence)}" for part in found.parts]
    told += [f"- {markdown_escape(warning)}" for warning in found.warnings]
    users = f"{metrics['users']:,} users, full ranking, item-level; in brackets the 95% interval."
    return f"**{markdown_escape(found.title)}**\n\n" + "\n".join(told) + "\n\n" + "\n".join(lines) + f"\n\n{users}"


def gain(metrics: Metrics, name: str, metric: str) -> str:
    """The lists minus this model, with the interval; an en dash for the lists themselves."""
    row = lists_minus(metrics, name, metric)
    return "–" if row is None else f"{row.mean:+.4f} ({row.low:+.4f} to {row.high:+.4f})"


def _cell(model: ModelMetrics, metric: str) -> str:
    interval = model.get("intervals", {}).get(metric)
    return decimal(model.get(metric)) + (f" ({decimal(interval[0])} to {decimal(interval[1])})" if interval else "")


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
