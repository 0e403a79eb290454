"""What the UI shows of an asset and its artefacts: counts that plot over time, a table preview, a picture, hashes. Never user data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import dagster as dg

from diger_core.store.artefact import Artefact
from orchestration.engine.runner import Result
from orchestration.stage import GROUPS, Preview, Stage
from orchestration.verdict.gate.document import VERDICT
from orchestration.verdict.models import NAMES

if TYPE_CHECKING:
    from diger_core.evaluation.metrics import Metrics

Metadata = dict[str, Any]


def described(stage: Stage) -> str:
    """The asset's description: the stage's own, the parameters that the Launchpad can override, and when a stage on demand is asked for."""
    sections = ", ".join(f"`{name}.*`" for name in stage.params)
    told = f"{stage.description}\n\nParameters: {sections}: `diger params` lists them; in the Launchpad, `overrides` takes `section.key=value`."
    return told + (f"\n\nOn demand: {stage.on_demand}" if stage.on_demand else "")


def group_label(stage: Stage) -> str:
    """The group's name in the UI, whose list is alphabetical: the number makes it read as the flow."""
    return f"{GROUPS.index(stage.group) + 1}_{stage.group}"


def present(result: Result) -> Metadata:
    """Metadata of one materialisation."""
    artefact = result.artefact
    stage = result.stage
    files = [dg.TableRecord({"file": f["name"], "bytes": f["bytes"], "sha256": f["sha256"][:12]}) for f in artefact.manifest["files"]]
    # In the order of the page: what a person looks for first, then what the UI plots over time, then what identifies the artefact.
    return {
        **(stage.presented(artefact) if stage.presented else {}),
        **_table(artefact, stage.preview),
        **{name: _shown(value) for name, value in artefact.facts.items() if isinstance(value, str | int | float | bool) and _tells(name, value)},
        **_this_time(result),
        "why": dg.MetadataValue.md(f"`diger why {artefact.hash[:12]} --store {artefact.root.url}`"),
        "content_hash": artefact.hash,
        "record_key": result.key,
        "location": dg.MetadataValue.path(artefact.directory),
        "files": dg.MetadataValue.table(files),
    }


def _this_time(result: Result) -> Metadata:
    return {"seconds": round(result.seconds, 3), "reused": result.reused}


def shown(context: dg.AssetExecutionContext, result: Result) -> Metadata:
    """`present`, or what the partition's last materialisation showed where it was of this artefact: its pictures need not be drawn again."""
    if result.reused:
        asked = dg.AssetRecordsFilter(asset_key=context.asset_key, asset_partitions=[context.partition_key])
        for record in context.instance.fetch_materializations(asked, limit=1).records:
            before = dict(record.asset_materialization.metadata) if record.asset_materialization is not None else {}
            same = (("content_hash", result.artefact.hash), ("record_key", result.key))
            if all(name in before and before[name].value == value for name, value in same):
                return before | _this_time(result)
    return present(result)


def _tells(name: str, value: Any) -> bool:
    """Not a reason for which no row was quarantined, which its check plots over time; of the metrics those at 10: the Markdown has all."""
    return not (value == 0 and name.startswith("quarantined_")) and not _OTHER_CUTS.search(name)


def _shown(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


_OTHER_CUTS = re.compile(r"(recall|ndcg)_(?!10(_|$))\d+")
PREVIEW_ROWS, PREVIEW_TEXT = 10, 80
_COLUMNS = {
    "item_id": "The item, as the snapshot names it.",
    "user_id": "The user, as the snapshot names it.",
    "user_index": "The user's number; users.parquet of `sequences` has the ids.",
    "suffix": "Tells apart items whose codes are equal.",
    "status": "What became of it since the starting bundle.",
    "columns": "Text columns that changed.",
    "timestamp": "When it happened.",
    "pos": "Its place in the user's history.",
    "rank": "1 is the best.",
    "score": "The model's log-probability; null where the most popular items fill a list.",
    **{name: f"The test item's rank by {told}; 0: not found." for name, told in NAMES.items()},
}


def _table(artefact: Artefact, preview: Preview | None) -> Metadata:
    """Rows and columns of the artefact's table where Dagster looks for them, and its first rows. On object stores nothing is fetched for the columns
    alone."""
    if preview is None or preview.file not in artefact.names or not (preview.rows or artefact.root.is_local):
        return {}
    import pyarrow.parquet as pq

    with pq.ParquetFile(artefact.path(preview.file)) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
        first = next(file.iter_batches(PREVIEW_ROWS), None) if preview.rows else None
    columns = [dg.TableColumn(field.name, str(field.type), description=_column(field.name)) for field in schema]
    found: Metadata = {"dagster/row_count": count} if preview.counted else {}
    if first is not None and first.num_rows:
        records = [dg.TableRecord({key: str(value)[:PREVIEW_TEXT] for key, value in row.items()}) for row in first.to_pylist()]
        found = {"preview": dg.MetadataValue.table(records), **found}
    return {**found, "dagster/column_schema": dg.TableSchema(columns=columns)}


def _column(name: str) -> str | None:
    code = re.fullmatch(r"(old_|new_|)(code_(\d+)|suffix)", name)
    if code is None:
        return _COLUMNS.get(name)
    told = f"The semantic ID's code at level {code[3]}." if code[3] else _COLUMNS["suffix"]
    return {"old_": "Before: ", "new_": "Now: ", "": ""}[code[1]] + told


def validated(artefact: Artefact) -> Metadata:
    from orchestration.verdict.report.markdown import checks_markdown

    return {"checks": dg.MetadataValue.md(checks_markdown(artefact.json("checks.json")))}


def model(artefact: Artefact) -> Metadata:
    from orchestration.verdict.report.markdown import curves_markdown

    curves = artefact.json("curves.json")
    return {"curves": dg.MetadataValue.md(curves_markdown(curves))} if curves else {}


def semantic_ids(artefact: Artefact) -> Metadata:
    import numpy as np

    from orchestration.verdict.report import code_figures, drawing
    from orchestration.verdict.report.markdown import picture_markdown

    table = artefact.table("semantic_ids.parquet")
    codes_NM = np.stack([table[name].to_numpy() for name in table.column_names if name.startswith("code_")], axis=1)
    used = ", ".join(str(len(np.unique(codes_NM[:, level]))) for level in range(codes_NM.shape[1]))
    panels = code_figures.code_usage_panels(codes_NM, int(codes_NM.max()) + 1)
    alt = f"Items on each code, a map a level: {used} codes are in use"
    return {"code_usage": dg.MetadataValue.md(f"{alt}.\n\n" + picture_markdown(drawing.png(panels), alt))}


def evaluation(artefact: Artefact) -> Metadata:
    from orchestration.verdict.report import figures
    from orchestration.verdict.report.markdown import metrics_markdown, picture_markdown

    metrics: Metrics = artefact.json("metrics.json")
    picture = picture_markdown(figures.metrics_bars(metrics), "The models' headline metrics with their 95% intervals")
    return {"metrics": dg.MetadataValue.md(f"{metrics_markdown(metrics)}\n\n{picture}")}


def fusion(artefact: Artefact) -> Metadata:
    from orchestration.champion.bundle import FUSION
    from orchestration.verdict.report.listens import markdown

    return {"weights": dg.MetadataValue.md(markdown(artefact.json(FUSION)))}


def _change(artefact: Artefact, text: str, picture: str, alt: str) -> Metadata:
    """A stage's own Markdown, with its picture where there was a baseline to compare with."""
    from orchestration.verdict.report.markdown import picture_markdown

    told = artefact.path(text).read_text(encoding="utf-8")
    drawn = "\n" + picture_markdown(artefact.path(picture).read_bytes(), alt) if picture in artefact.names else ""
    return {"summary": dg.MetadataValue.md(told + drawn)}


def catalogue_diff(artefact: Artefact) -> Metadata:
    return _change(artefact, "diff.md", "catalogue.png", "Items by what became of them, and events before and now")


def id_diff(artefact: Artefact) -> Metadata:
    return _change(artefact, "id_diff.md", "id_diff.png", "IDs kept, moved, added and removed, and the share that differs by level")


def gate(artefact: Artefact) -> Metadata:
    from orchestration.verdict.report.gate import conclusion
    from orchestration.verdict.report.markdown import picture_markdown

    picture = picture_markdown(artefact.path("gate.png").read_bytes(), conclusion(artefact.json(VERDICT)))
    told = dg.MetadataValue.md(artefact.path("verdict.md").read_text(encoding="utf-8") + "\n" + picture)
    return {"summary": told, "report": _page(artefact.hash)}


def release(artefact: Artefact) -> Metadata:
    return {"report": _page(str(artefact.facts["verdict"]))}


def _page(name: str) -> dg.MetadataValue:
    """The report that belongs to an artefact, where `diger ui` serves it."""
    return dg.MetadataValue.url(f"/diger/report/{name}")


def study(artefact: Artefact) -> Metadata:
    """A page's summary in Markdown, and where the whole page is."""
    return {
        "report": dg.MetadataValue.md(artefact.path("report.md").read_text(encoding="utf-8")),
        "open": _page(artefact.hash),
        "page": dg.MetadataValue.path(str(artefact.path("report.html"))),
    }


def report(artefact: Artefact) -> Metadata:
    command = f"diger report show {artefact.hash[:12]} --store {artefact.root.url}"
    return {**study(artefact), "costs": dg.MetadataValue.md(f"`{command}` writes the page with what its run cost.")}
