"""What the UI shows of an artefact: hashes, counts that plot over time, a table preview, a picture. Never user data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from diger_core.store import Artefact
from orchestration.runner import Result

Metadata = dict[str, Any]


def present(result: Result) -> Metadata:
    """Metadata of one materialisation."""
    artefact = result.artefact
    extra = _EXTRA.get(artefact.stage)
    files = [dg.TableRecord({"file": f["name"], "bytes": f["bytes"], "sha256": f["sha256"][:16]}) for f in artefact.manifest["files"]]
    # In the order of the page: what a person looks for first, then what the UI plots over time, then what identifies the artefact.
    return {
        **(extra(artefact) if extra else {}),
        "reused": result.reused,
        "seconds": round(result.seconds, 3),
        **{name: value for name, value in artefact.facts.items() if isinstance(value, str | int | float | bool)},
        "content_hash": artefact.hash,
        "record_key": result.key,
        "why": dg.MetadataValue.md(f"`diger why {artefact.hash[:16]} --store {artefact.root.url}`"),
        "location": dg.MetadataValue.path(artefact.directory),
        "files": dg.MetadataValue.table(files),
    }


def _validated(artefact: Artefact) -> Metadata:
    from orchestration.report.markdown import checks_markdown

    return {"checks": dg.MetadataValue.md(checks_markdown(artefact.json("checks.json")))}


def _model(artefact: Artefact) -> Metadata:
    from orchestration.report.markdown import curves_markdown

    curves = artefact.json("curves.json")
    return {"curves": dg.MetadataValue.md(curves_markdown(curves))} if curves else {}


def _semantic_ids(artefact: Artefact) -> Metadata:
    table = artefact.table("semantic_ids.parquet").slice(0, 10)
    rows: list[Mapping[str, Any]] = table.to_pylist()
    preview = [dg.TableRecord({key: str(value)[:80] for key, value in row.items()}) for row in rows]
    return {"preview": dg.MetadataValue.table(preview)}


def _evaluation(artefact: Artefact) -> Metadata:
    from orchestration.report.markdown import metrics_markdown

    return {"metrics": dg.MetadataValue.md(metrics_markdown(artefact.json("metrics.json")))}


def _change(text: str, picture: str, alt: str) -> Callable[[Artefact], Metadata]:
    """A stage's own Markdown, with its picture where there was a baseline to compare with."""

    def shown(artefact: Artefact) -> Metadata:
        from orchestration.report.markdown import picture_markdown

        told = artefact.path(text).read_text(encoding="utf-8")
        drawn = "\n" + picture_markdown(artefact.path(picture).read_bytes(), alt) if picture in artefact.names else ""
        return {"summary": dg.MetadataValue.md(told + drawn)}

    return shown


def _cold_start(artefact: Artefact) -> Metadata:
    if "new_items.parquet" not in artefact.names:
        return {}
    rows = artefact.table("new_items.parquet").slice(0, 10).to_pylist()
    return {"preview": dg.MetadataValue.table([dg.TableRecord({key: str(value)[:80] for key, value in row.items()}) for row in rows])} if rows else {}


def _gate(artefact: Artefact) -> Metadata:
    from orchestration.report.gate import conclusion
    from orchestration.report.markdown import picture_markdown

    picture = picture_markdown(artefact.path("gate.png").read_bytes(), conclusion(artefact.json("verdict.json")))
    return {"summary": dg.MetadataValue.md(artefact.path("verdict.md").read_text(encoding="utf-8") + "\n" + picture)}


def _report(artefact: Artefact) -> Metadata:
    """Of a retraining, or of a study: its summary in Markdown, and where the whole page is."""
    page = artefact.path("report.html")
    return {
        "report": dg.MetadataValue.md(artefact.path("report.md").read_text(encoding="utf-8")),
        "page": dg.MetadataValue.path(str(page)),
    }


_EXTRA: dict[str, Callable[[Artefact], Metadata]] = {
    "validated_items": _validated,
    "validated_interactions": _validated,
    "catalogue_diff": _change("diff.md", "catalogue.png", "Items by what became of them, and events before and now"),
    "cold_start": _cold_start,
    "tokenizer": _model,
    "frozen_model": _model,
    "joint_model": _model,
    "semantic_ids": _semantic_ids,
    "id_diff": _change("id_diff.md", "id_diff.png", "IDs kept, moved, added and removed, and the share that differs by level"),
    "evaluation": _evaluation,
    "gate": _gate,
    "report": _report,
    "decay_search": _report,
}
