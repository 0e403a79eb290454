"""How two snapshots' catalogues and events differ, and what that asks for: nothing, a cold start of the new items, or a retraining.

N1, N2 items of the old and the new catalogue. Everything here is column-wise: joins by look-ups in sorted ids, no loop over rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from diger_core.item_ids import index_of, plain

if TYPE_CHECKING:
    from orchestration.champion.bundle import Bundle
    from orchestration.engine.stage_run import StageRun
    from orchestration.params.data import CatalogueDiffConfig

Bool = npt.NDArray[np.bool_]
Decision = Literal["nothing", "cold_start", "retrain"]
STATUSES = ("added", "removed", "changed", "same")


# Items


def changed_items(old: pa.Table, new: pa.Table) -> pa.Table:
    """item_id (as text where the types differ), status (added, removed, changed, same), columns (those that differ; a list), of all items of both
    validated catalogues. A column that only one side has is told by `changed_columns` and changes no item."""
    old, new = _comparable(old, new)
    ids = pc.unique(pa.chunked_array([*old["item_id"].chunks, *new["item_id"].chunks], old.schema.field("item_id").type))
    ids = ids.take(pc.sort_indices(ids))
    rows = [index_of(ids, side["item_id"]) for side in (old, new)]
    in_old, in_new = (row >= 0 for row in rows)
    names = [name for name in old.column_names if name != "item_id" and name in new.column_names]
    taken = [pa.array(row[in_old & in_new]) for row in rows]
    differs = np.zeros((len(ids), len(names)), dtype=bool)
    for place, name in enumerate(names):
        differs[in_old & in_new, place] = _different(_text(old[name]).take(taken[0]), _text(new[name]).take(taken[1]))
    status = np.select([~in_old, ~in_new, differs.any(axis=1)], STATUSES[:3], default="same")
    offsets = np.append(0, np.cumsum(differs.sum(axis=1))).astype(np.int32)
    columns = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.array(names, dtype=object)[np.nonzero(differs)[1]], pa.string()))
    return pa.table({"item_id": ids, "status": pa.array(status, pa.string()), "columns": columns})


def changed_columns(old: pa.Table, new: pa.Table) -> dict[str, list[str]]:
    """Columns that only one of the catalogues has."""
    return {
        "added": [name for name in new.column_names if name not in old.column_names],
        "removed": [name for name in old.column_names if name not in new.column_names],
    }


def _comparable(old: pa.Table, new: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Both with ids of one type: numbers against strings become text, so that at least the diff can be told."""
    ids = [plain(side["item_id"]) for side in (old, new)]
    if ids[0].type != ids[1].type:
        ids = [column.cast(pa.large_string()) for column in ids]
    old, new = (side.set_column(side.column_names.index("item_id"), "item_id", column) for side, column in zip((old, new), ids, strict=True))
    return old, new


def _text(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        array = pc.binary_join(array.cast(pa.list_(pa.string())), "\x1f")
    return array.cast(pa.large_string())


def _different(old: pa.Array, new: pa.Array) -> Bool:
    """Null equals null and nothing else."""
    unequal = pc.fill_null(pc.not_equal(old, new), False)
    differs: Bool = pc.or_(unequal, pc.xor(old.is_null(), new.is_null())).to_numpy(zero_copy_only=False)
    return differs


# Ids that mean other items than before


def remapped(old: pa.Table, new: pa.Table, share: float) -> str | None:
    """Why the ids look re-mapped, or None. old, new: item_id, text_hash of the stage `embeddings`.

    Two signs: most items stand under ids that the old catalogue lacks, and yet most of those have a text that it has, under an id that is gone; or
    most common ids have another text, and most of those texts belonged to another id.
    """
    place_N = index_of(new["item_id"], old["item_id"])
    known = place_N >= 0
    old_hash, new_hash = (side["text_hash"].combine_chunks() for side in (old, new))
    gone = old_hash.filter(pa.array(index_of(old["item_id"], new["item_id"]) < 0))
    moved = ~known & pc.is_in(new_hash, value_set=gone).to_numpy(zero_copy_only=False)
    if len(new) and moved.sum() > share * len(new):
        return f"{int(moved.sum()):,} of {len(new):,} items have the text of an item that is gone and an id that is new"
    other = np.zeros(len(new), dtype=bool)
    before = old_hash.take(pa.array(place_N[known]))
    other[known] = pc.not_equal(before, new_hash.filter(pa.array(known))).to_numpy(zero_copy_only=False)
    elsewhere = other & pc.is_in(new_hash, value_set=old_hash).to_numpy(zero_copy_only=False)
    if known.any() and elsewhere.sum() > share * known.sum():
        return f"{int(elsewhere.sum()):,} of {int(known.sum()):,} known ids have the text that belonged to another id"
    return None


def refuse_remapped(run: StageRun, bundle: Bundle) -> None:
    """DigerError where this snapshot's ids mean other items than the bundle's: IDs, factors and histories would be attached to the wrong ones."""
    config = run.params.catalogue_diff
    old = run.store.artefact("embeddings", bundle.components["embeddings"]).table("texts.parquet")
    why = remapped(old, run.inputs["embeddings"].table("texts.parquet"), config.remapped)
    if why is None:
        return
    if not config.allow_remap:
        raise DigerError(
            f"the item ids look re-mapped: {why}. Nothing is taken over from bundle {bundle.hash[:12]}: restore the ids, start from scratch with "
            "retraining.baseline=none, or set catalogue_diff.allow_remap=true"
        )
    run.progress.message(f"warning: the item ids look re-mapped ({why}); continuing, as catalogue_diff.allow_remap says")


# Vectors, events, decision


def drift(old_ND: npt.NDArray[np.float32], new_ND: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Of common items, rows in one order: cosine between old and new vectors (mean, 5th percentile, lowest), and how far their mean moved,
    relative to the old vectors' spread. Empty where the widths differ or nothing is common."""
    if not len(old_ND) or old_ND.shape != new_ND.shape:
        return {}
    length = np.linalg.norm(old_ND, axis=1) * np.linalg.norm(new_ND, axis=1)
    cosine = np.where(length > 0, (old_ND * new_ND).sum(axis=1) / np.where(length > 0, length, 1), 1.0)
    spread = float(np.sqrt(old_ND.astype(np.float64).var(axis=0).sum()))
    shift = float(np.linalg.norm(new_ND.mean(axis=0, dtype=np.float64) - old_ND.mean(axis=0, dtype=np.float64)))
    return {
        "items": len(cosine), "cosine_mean": float(cosine.mean()), "cosine_p05": float(np.quantile(cosine, 0.05)), "cosine_min": float(cosine.min()),
        "mean_shift": shift / spread if spread > 0 else 0.0,
    }  # fmt: skip


def decide(diff: Mapping[str, Any], config: CatalogueDiffConfig) -> tuple[Decision, list[str]]:
    """What the change asks for, and why: each reason with its share and its threshold."""
    if diff["baseline"] is None:
        return "retrain", ["there is no champion yet: this is a first training"]
    if diff["remapped"]:
        return "retrain", [f"the item ids look re-mapped: {diff['remapped']}"]
    items, events = diff["items"], diff["events"]
    shares = {
        "retrain_events": ((events["new"] - events["old"]) / max(1, events["old"]), "more events"),
        "retrain_added": (items["added"] / max(1, items["old"]), "new items"),
        "retrain_removed": (items["removed"] / max(1, items["old"]), "items gone"),
        "retrain_changed": (items["changed"] / max(1, items["old"]), "items with another text"),
        "retrain_drift": (1 - diff["drift"].get("cosine_mean", 1.0), "mean distance of the vectors"),
    }
    reasons = [f"{share:.1%} {what} ({key}: {getattr(config, key):.1%})" for key, (share, what) in shares.items() if share > getattr(config, key)]
    if diff["encoder_changed"]:
        reasons.append("the encoder is another one")
    if config.drift.action == "retrain":
        reasons += diff["warnings"]
    if reasons:
        return "retrain", reasons
    if items["added"]:
        return "cold_start", [f"{items['added']:,} new items, and every change is below its threshold for a retraining"]
    return "nothing", ["no item is new, and every change is below its threshold"]
