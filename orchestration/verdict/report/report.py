"""Stage `report`: one self-contained page, its Markdown summary and its pictures, from the stored artefacts of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.verdict.report import code_figures, figures
from orchestration.verdict.report.gate import verdict_markdown
from orchestration.verdict.report.identity import Identity
from orchestration.verdict.report.markdown import metrics_markdown
from orchestration.verdict.report.material import MODELS, Material
from orchestration.verdict.report.page import page
from orchestration.verdict.report.text import printable
from orchestration.verdict.report.verdict import facts, verdict

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun


def report(run: StageRun) -> None:
    """Reads every other stage's artefact; `frozen_model` may be absent. Writes report.html, report.md and three PNGs."""
    material = Material(run.inputs)
    config = run.params.report
    run.progress.message("writing the report")
    html = page(material, config, Identity(run.snapshot.key)).encode()
    run.out.bytes("report.html", html)
    found = verdict(material.metrics, material.gate)
    gate = f"\n\n{verdict_markdown(material.gate)}" if material.gate is not None else "\n"
    title = f"{printable(run.snapshot.key)}: {found.title}"
    run.out.bytes("report.md", f"# {title}\n\n{metrics_markdown(material.metrics, material.gate)}{gate}".encode())
    run.out.bytes("metrics.png", figures.metrics_bars(material.metrics))
    curves = {m: material.curves[m] for m in MODELS if material.curves.get(m)}
    if curves:
        run.out.bytes("learning_curves.png", figures.learning_curves(curves))
    if material.has("semantic_ids"):
        run.out.bytes("code_usage.png", code_figures.code_usage(material.semantic_ids[0], material.code_count))
    run.facts(**facts(found, material.gate), page_bytes=len(html))
