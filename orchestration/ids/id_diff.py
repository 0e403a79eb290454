"""Stage `id_diff`: which IDs the new model's table kept, moved and added against the baseline's, and a migration from old to new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from diger_core.data.sequences import Sequences
from diger_core.data.splits import training_counts
from diger_core.ids.alignment import align, rename_codes
from diger_core.ids.id_diff import changed_histories, migration
from diger_core.ids.id_diff import id_diff as core_diff
from diger_core.ids.id_table import IdTable, from_arrow, to_arrow
from diger_core.item_ids import as_type
from orchestration.champion.baseline import BASELINE, CLASH, extra_inputs, released_table

if TYPE_CHECKING:
    from orchestration.champion.bundle import Bundle
    from orchestration.engine.stage_run import StageRun

__all__ = ["extra_inputs", "id_diff", "id_diff_markdown"]


def id_diff(run: StageRun) -> None:
    """Writes id_diff.json and id_diff.md and, where there is a baseline, migration.parquet and id_diff.png."""
    from orchestration.champion.bundle import load_bundle
    from orchestration.verdict.report import change as change_page
    from orchestration.verdict.report import drawing

    baseline = run.inputs.get(BASELINE)
    if baseline is None:
        report: dict[str, Any] = {"baseline": None}
        run.facts(baseline="none")
    else:
        bundle = load_bundle(run.store, baseline.hash)
        change, report = _compared(run, bundle)
        run.out.table("migration.parquet", change, sort_by=("item_id",))
        run.out.bytes("id_diff.png", drawing.png(change_page.id_panels(report)))
        counts = {f"items_{name}": count for name, count in report["counts"].items()}
        kept = {"kept": report["shares"]["kept"], "kept_weighted": report["weighted"]["kept"]}
        run.facts(baseline=bundle.hash, users_changed=report["histories"]["changed_users"], **kept, **counts)
        run.progress.message(f"id_diff: {kept['kept']:.1%} of the IDs are kept, {kept['kept_weighted']:.1%} weighted by traffic")
    run.out.json("id_diff.json", report)
    run.out.bytes("id_diff.md", id_diff_markdown(report).encode())


def _compared(run: StageRun, bundle: Bundle) -> tuple[pa.Table, dict[str, Any]]:
    seq = Sequences.from_tensors(run.inputs["sequences"].tensors("sequences.safetensors"))
    item_ids = run.inputs["sequences"].table("items.parquet")["item_id"]
    stored = run.inputs["semantic_ids"].table("semantic_ids.parquet")
    new_ids, new = from_arrow(stored)
    new_ids = as_type(new_ids, bundle.item_ids.type, clash=CLASH)
    change = migration(to_arrow(bundle.item_ids, bundle.table), to_arrow(new_ids, new))
    weights = pa.table({"item_id": item_ids, "weight": training_counts(seq).astype(float)})
    report = {
        "baseline": bundle.hash,
        "assignments": {"old": bundle.assignment_hash, "new": run.inputs["semantic_ids"].facts["assignment_hash"]},
        **core_diff(change, weights),
        "histories": changed_histories(change, seq, weights["item_id"]),
        "aligned": _aligned(bundle, new_ids, new),
    }
    return change, report


def _aligned(bundle: Bundle, new_ids: pa.Array, new: IdTable) -> dict[str, float] | None:
    """The share of common items whose codes are the old ones once the new codes are called by the best matching old names: what is left of the
    change when mere renumbering is taken out. None where the levels differ."""
    old = released_table(bundle, new_ids)
    if old.codes_NM.shape != new.codes_NM.shape:
        return None
    known = old.suffix_N >= 0
    if not bool(known.any()):
        return None
    codes = int(max(old.codes_NM.max(), new.codes_NM.max())) + 1
    renamed = rename_codes(new.codes_NM, align(old.codes_NM[known], new.codes_NM[known], codes))[known]
    return {"same_codes": float((renamed == old.codes_NM[known]).all(1).double().mean())}


def id_diff_markdown(report: dict[str, Any]) -> str:
    """Counts and shares as a table."""
    if report["baseline"] is None:
        return "No baseline: every ID is new.\n"
    from orchestration.verdict.report.change import CHANGES

    counts, histories = report["counts"], report["histories"]
    lines = ["| | items | of common items | by traffic |", "|---|---:|---:|---:|"]
    for name, told in CHANGES.items():
        lines.append(f"| {told} | {counts[name]:,} | {report['shares'][name]:.1%} | {report['weighted'][name]:.1%} |")
    for level, shares in enumerate(zip(report["shares"]["level_differs"], report["weighted"]["level_differs"], strict=True), start=1):
        lines.append(f"| code {level} differs | | {shares[0]:.1%} | {shares[1]:.1%} |")
    lines += [f"| added | {counts['added']:,} | | |", f"| removed | {counts['removed']:,} | | |", ""]
    lines.append(
        f"{histories['changed_users']:,} of {histories['users']:,} users ({histories['changed_users_share']:.1%}) have an item with another ID in "
        f"their history; {histories['changed_events_share']:.1%} of all events are of such items."
    )
    if report["aligned"] is not None:
        lines.append(f"With codes renamed to match the old ones, {report['aligned']['same_codes']:.1%} of the common items have their old codes.")
    return "\n".join(lines) + "\n"
