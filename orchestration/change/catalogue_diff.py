"""Stage `catalogue_diff`: what changed since the baseline was made, and what that asks for: nothing, a cold start, or a retraining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from diger_core.item_ids import index_of
from orchestration.champion.baseline import BASELINE, extra_inputs
from orchestration.change.differences import STATUSES, changed_columns, changed_items, decide, drift, remapped
from orchestration.engine.removal import present

if TYPE_CHECKING:
    from diger_core.store.artefacts import Artefact
    from orchestration.champion.bundle import Bundle
    from orchestration.engine.stage_run import StageRun

__all__ = ["catalogue_diff", "catalogue_markdown", "extra_inputs", "refuse"]


def catalogue_diff(run: StageRun) -> None:
    """Writes diff.json, items.parquet (item_id, status, columns), diff.md and, where there is a baseline, catalogue.png."""
    from orchestration.champion.bundle import load_bundle

    config, baseline = run.params.catalogue_diff, run.inputs.get(BASELINE)
    bundle = None if baseline is None else load_bundle(run.store, baseline.hash)
    old = {name: present(run.store, name, bundle.components[name]) for name in _COMPARED} if bundle is not None else None
    diff = _diff(run, bundle, old)
    diff["decision"], diff["reasons"] = decide(diff, config)
    diff["refused"] = bool(diff["remapped"]) and not config.allow_remap
    run.out.json("diff.json", diff)
    run.out.bytes("diff.md", catalogue_markdown(diff).encode())
    if bundle is not None:
        from orchestration.verdict.report import change, drawing

        run.out.bytes("catalogue.png", drawing.png(change.catalogue_panels(diff)))
    counts = {f"items_{name}": diff["items"][name] for name in STATUSES[:3]}
    events = diff["events"]["new"] - diff["events"]["old"]
    run.facts(decision=diff["decision"], reason="; ".join(diff["reasons"]), refused=diff["refused"], events_added=events, **counts)
    run.progress.message(f"catalogue_diff: {diff['decision']}: {'; '.join(diff['reasons'])}")


def refuse(artefact: Artefact) -> None:
    """Raises where the ids look re-mapped and that was not allowed."""
    if artefact.facts["refused"]:
        raise DigerError(
            f"catalogue_diff: {artefact.facts['reason']}: restore the ids, start from scratch with retraining.baseline=none, "
            "or set catalogue_diff.allow_remap=true"
        )


_COMPARED = ("validated_items", "sequences", "embeddings")


def _diff(run: StageRun, bundle: Bundle | None, old: dict[str, Artefact] | None) -> dict[str, Any]:
    new = {name: run.inputs[name] for name in _COMPARED}
    items = _items(new)
    events, users = new["sequences"].facts["events"], new["sequences"].facts["users"]
    if bundle is None or old is None:
        changes = pa.table({"item_id": items["item_id"], "status": ["added"] * len(items), "columns": pa.nulls(len(items), pa.list_(pa.string()))})
        run.out.table("items.parquet", changes, sort_by=("item_id",))
        return {
            "baseline": None, "items": {"old": 0, "new": len(items), "added": len(items), "removed": 0, "changed": 0, "same": 0}, "columns": {},
            "events": {"old": 0, "new": events}, "users": {"old": 0, "new": users, "added": users}, "drift": {}, "encoder_changed": False,
            "remapped": None,
        }  # fmt: skip
    before = _items(old)
    changes = changed_items(before, items)
    run.out.table("items.parquet", changes, sort_by=("item_id",))
    counts = {name: int(pc.sum(pc.equal(changes["status"], name)).as_py() or 0) for name in STATUSES}
    listed = pc.value_counts(pc.list_flatten(changes["columns"])).to_pylist()
    texts = [side["embeddings"].table("texts.parquet") for side in (old, new)]
    return {
        "baseline": bundle.hash,
        "items": {"old": len(before), "new": len(items), **counts},
        "columns": {**changed_columns(before, items), "changed": {row["values"]: row["counts"] for row in listed}},
        "events": {"old": old["sequences"].facts["events"], "new": events},
        "users": {"old": old["sequences"].facts["users"], "new": users, "added": _new_users(old["sequences"], new["sequences"])},
        "drift": _drift(texts, old["embeddings"], new["embeddings"]),
        "encoder_changed": old["embeddings"].facts["encoder_hash"] != new["embeddings"].facts["encoder_hash"],
        "remapped": remapped(texts[0], texts[1], run.params.catalogue_diff.remapped),
    }


def _items(side: dict[str, Artefact]) -> pa.Table:
    return side["validated_items"].table("items.parquet")


def _new_users(old: Artefact, new: Artefact) -> int:
    ids = [side.table("users.parquet")["user_id"] for side in (old, new)]
    return int((index_of(ids[1], ids[0]) < 0).sum())


def _drift(texts: list[pa.Table], old: Artefact, new: Artefact) -> dict[str, Any]:
    old_N = index_of(texts[1]["item_id"], texts[0]["item_id"])
    known_N = old_N >= 0
    vectors = [side.tensors("vectors.safetensors")["vectors"].numpy() for side in (old, new)]
    return drift(vectors[0][old_N[known_N]], vectors[1][known_N])


# What people see


def catalogue_markdown(diff: dict[str, Any]) -> str:
    """The decision with its reasons, and the counts."""
    from orchestration.verdict.report.change import DECISIONS
    from orchestration.verdict.report.text import markdown_escape, printable

    items, events, users = diff["items"], diff["events"], diff["users"]
    lines = [f"**{DECISIONS[diff['decision']]}**" + (" (refused)" if diff["refused"] else ""), ""]
    lines += [f"- {markdown_escape(printable(reason, 300))}" for reason in diff["reasons"]]
    lines += ["", "| | before | now | |", "|---|---:|---:|---|"]
    lines += [
        f"| items | {items['old']:,} | {items['new']:,} | {items['added']:,} added, {items['removed']:,} removed, {items['changed']:,} changed |"
    ]
    lines += [f"| events | {events['old']:,} | {events['new']:,} | {events['new'] - events['old']:+,} |"]
    lines += [f"| users | {users['old']:,} | {users['new']:,} | {users['added']:,} new |"]
    for name, count in sorted(diff["columns"].get("changed", {}).items()):
        lines.append(f"| column {markdown_escape(printable(name))} | | | differs for {count:,} items |")
    for what in ("added", "removed"):
        lines += [f"| column {markdown_escape(printable(name))} | | | {what} |" for name in diff["columns"].get(what, [])]
    if diff["drift"]:
        found = diff["drift"]
        told = f"mean {found['cosine_mean']:.4f}, 5th percentile {found['cosine_p05']:.4f}; the mean moved by {found['mean_shift']:.2%} of the spread"
        lines.append(f"| cosine of old and new vectors | | | {told} |")
    return "\n".join(lines) + "\n"
