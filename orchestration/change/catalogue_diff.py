"""Stage `catalogue_diff`: what changed since the baseline was made, and what that asks for: nothing, a cold start, or a retraining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.item_ids import index_of
from orchestration.champion import baseline, log
from orchestration.champion.baseline import BASELINE
from orchestration.change.differences import STATUSES, changed_columns, changed_items, decide, drift, remapped
from orchestration.change.drift_figures import figures, passed, told
from orchestration.engine.removal import present

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diger_core.store.artefact import Artefact
    from diger_core.store.artefacts import Store
    from orchestration.champion.bundle import Bundle
    from orchestration.change.drift_figures import Drift
    from orchestration.engine.registry import Registered
    from orchestration.engine.stage_run import StageRun
    from orchestration.params.data import DriftConfig
    from orchestration.params.sections import Params

RELEASED = "released"  # the input's name: the gate of the starting bundle's release, which says how good its lists were then


def catalogue_diff(run: StageRun) -> None:
    """Writes diff.json, items.parquet (item_id, status, columns), diff.md and, where there is a baseline, catalogue.png."""
    from orchestration.champion.bundle import load_bundle

    config, start = run.params.catalogue_diff, run.inputs.get(BASELINE)
    bundle = None if start is None else load_bundle(run.store, start.hash)
    old = {name: present(run.store, name, bundle.components[name]) for name in _COMPARED} if bundle is not None else None
    diff = _diff(run, bundle, old)
    diff["figures"] = None if bundle is None or old is None or diff["remapped"] else _figures(run, bundle, old, diff["drift"].get("cosine_mean"))
    diff["warnings"] = [] if diff["figures"] is None else list(passed(diff["figures"], config.drift).values())
    diff["drift_said"] = _said(diff, config.drift)
    diff["decision"], diff["reasons"] = decide(diff, config)
    diff["refused"] = bool(diff["remapped"]) and not config.allow_remap
    run.out.json("diff.json", diff)
    run.out.bytes("diff.md", catalogue_markdown(diff).encode())
    if bundle is not None:
        from orchestration.verdict.report import change, drawing

        run.out.bytes("catalogue.png", drawing.png(change.catalogue_panels(diff)))
    counts = {f"items_{name}": diff["items"][name] for name in STATUSES[:3]}
    events = diff["events"]["new"] - diff["events"]["old"]
    drifted: dict[str, Any] = {f"drift_{name}": value for name, value in (diff["figures"] or {}).items() if value is not None}
    drifted |= {"drift_warnings": len(diff["warnings"]), "drift": diff["drift_said"]}
    run.facts(decision=diff["decision"], reason="; ".join(diff["reasons"]), refused=diff["refused"], events_added=events, **counts, **drifted)
    run.progress.message(f"catalogue_diff: {diff['decision']}: {'; '.join(diff['reasons'])}")
    for warning in diff["warnings"]:
        run.progress.message(f"warning: drift: {warning}")


def extra_inputs(params: Params, store: Store, inputs: Mapping[str, Artefact], snapshot: Registered, fit: bool) -> dict[str, Artefact] | None:
    """The starting bundle, as other stages have it, and the verdict that released it, where it has one."""
    found = baseline.extra_inputs(params, store, inputs, snapshot, fit)
    entry = log.origin(store, found[BASELINE].hash) if found else None
    verdict = store.find("gate", entry.verdict) if entry is not None and entry.verdict is not None else None
    return found if found is None or verdict is None else {**found, RELEASED: verdict}


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


def _figures(run: StageRun, bundle: Bundle, old: dict[str, Artefact], cosine: float | None) -> Drift:
    from orchestration.change.fresh_lists import fresh_lists
    from orchestration.verdict.gate.document import VERDICT

    seq = Sequences.from_tensors(run.inputs["sequences"].tensors("sequences.safetensors"))
    item_ids = run.inputs["sequences"].table("items.parquet")["item_id"]
    own = {**old, "neighbours": present(run.store, "neighbours", bundle.components["neighbours"])}
    verdict = run.inputs[RELEASED].json(VERDICT) if RELEASED in run.inputs else None
    lists = fresh_lists(bundle, own, seq, item_ids, verdict, run.params.evaluation, run.params.catalogue_diff.drift.list_users)
    place_N = index_of(item_ids, bundle.item_ids)
    code_N = np.where(place_N >= 0, bundle.table.codes_NM.numpy()[place_N, 0], -1).astype(np.int64)
    newest, codes = bundle.document.get("last_event"), int(bundle.model.config["codes"])
    return figures(seq.events_E, seq.timestamps_E, newest, code_N, codes, cosine, lists)


def _said(diff: Mapping[str, Any], config: DriftConfig) -> str:
    """What the figures say, or why there are none."""
    if diff["baseline"] is None:
        return "not measured: there was no champion to compare with"
    return "not measured: the item ids look re-mapped" if diff["figures"] is None else told(diff["figures"], config)


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
    lines += [f"- drift: {said}" for said in diff["warnings"] or [diff["drift_said"]]]
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
