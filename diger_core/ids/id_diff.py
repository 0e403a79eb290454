"""What changed between two tables of semantic IDs: per item, per level, weighted by traffic, and for whose histories.

A migration is a table with one row per item of either side: item_id, status, old_code_1.., old_suffix, new_code_1.., new_suffix (null where the side
lacks the item), in the order of item_id. It says all that a consumer needs to carry stored IDs over, and it is an arrow: migrations A -> B
and B -> C compose to A -> C, and each inverts.

Status: kept (the whole tuple is equal), suffix (the codes are, the suffix is not), moved (a code differs), added, removed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.ids.notation import checked, code_columns
from diger_core.item_ids import Ids, index_of, one_type

_CLASH = "item_id: {0} in the old table, {1} in the new one: these are other ids, not other IDs of one catalogue; compare tables of one catalogue"
STATUSES = ("kept", "suffix", "moved", "added", "removed")


def migration(old: pa.Table, new: pa.Table) -> pa.Table:
    """The migration from one ID table (item_id, code_1..code_M, suffix) to another; the numbers of levels may differ. DigerError for tables
    whose item ids are not of one type, and for an item that stands twice in a table."""
    sides = [_prefixed(table, side) for table, side in ((old, "old"), (new, "new"))]
    ids = one_type(sides[0]["item_id"], sides[1]["item_id"], clash=_CLASH)
    return _joined([side.set_column(0, "item_id", column) for side, column in zip(sides, ids, strict=True)])


def invert(change: pa.Table) -> pa.Table:
    """The migration back."""
    swap = {"old": "new", "new": "old"}
    names = [swap[name[:3]] + name[3:] if name[:4] in ("old_", "new_") else name for name in change.column_names]
    renamed = change.rename_columns(names)
    ordered = ["item_id", *_columns(renamed, "old"), *_columns(renamed, "new")]
    return _with_status(renamed.select(ordered))


def compose(first: pa.Table, second: pa.Table) -> pa.Table:
    """A -> C of A -> B and B -> C. DigerError where the two do not meet in one table B; an item that only B had is gone."""
    middle, start = _side(first, "new"), _side(second, "old")
    if middle.column_names != start.column_names or not middle.equals(start.cast(middle.schema)):
        raise DigerError("migrations: the first does not end in the table that the second starts from: compose neighbours of one history")
    return _joined([_side(first, "old", "old"), _side(second, "new", "new")])


def apply(change: pa.Table, table: pa.Table) -> pa.Table:
    """The new ID table that a migration makes of its old one. DigerError where `table` is not the one that it starts from."""
    start = _side(change, "old")
    ids, _, _ = checked(table)
    ordered = table.select(start.column_names).take(pc.sort_indices(ids))
    if not ordered.cast(start.schema).equals(start):
        raise DigerError("migration: the given ID table is not the one that it starts from: use the table named by its assignment hash")
    return _side(change, "new")


def statuses(change: pa.Table) -> npt.NDArray[np.object_]:
    """The status column as strings [rows]."""
    return np.asarray(change["status"].to_numpy(zero_copy_only=False))


def id_diff(change: pa.Table, weights: pa.Table | None = None) -> dict[str, Any]:
    """Counts and shares of a migration.

    weights: item_id, weight (traffic); items it lacks weigh 0. Shares are of the items in both tables: "kept", "suffix", "moved" by item and, under
    "weighted", by traffic; "levels": the share of items whose code of that level differs, and of those whose first difference lies there.
    """
    status = statuses(change)
    counts = {name: int((status == name).sum()) for name in STATUSES}
    common = np.isin(status, ("kept", "suffix", "moved"))
    weight = _weights(change, weights)
    differs = level_changes(change)[common]
    first = differs & (np.cumsum(differs, axis=1) == 1)
    report: dict[str, Any] = {"counts": counts, "items_old": int((status != "added").sum()), "items_new": int((status != "removed").sum())}
    for name, value in (("shares", np.ones(len(status))), ("weighted", weight)):
        total = float(value[common].sum())
        share = {s: float(value[status == s].sum()) / total if total else 0.0 for s in STATUSES[:3]}
        levels = [[float(value[common][rows].sum()) / total if total else 0.0 for rows in part.T] for part in (differs, first)]
        report[name] = {**share, "level_differs": levels[0], "level_differs_first": levels[1]}
    report["weighted"]["added"] = float(weight[status == "added"].sum() / weight.sum()) if weight.sum() else 0.0
    return report


def level_changes(change: pa.Table) -> npt.NDArray[np.bool_]:
    """[rows, M]: the code of that level differs, or only one side has it; False in the rows of added and removed items."""
    old, new = (_matrix(change, side) for side in ("old", "new"))
    levels = max(old.shape[1], new.shape[1])
    padded = [np.pad(codes, ((0, 0), (0, levels - codes.shape[1])), constant_values=-1) for codes in (old, new)]
    both = (old[:, 0] >= 0) & (new[:, 0] >= 0)
    differs: npt.NDArray[np.bool_] = (padded[0] != padded[1]) & both[:, None]
    return differs


def changed_histories(change: pa.Table, seq: Sequences, item_ids: Ids) -> dict[str, Any]:
    """How many users' histories hold an item whose ID changed (moved or another suffix), and how many of all events such items are.

    `seq` numbers items in the order of `item_ids`, as the new side's catalogue does.
    """
    status_N = np.append(statuses(change), "removed")[index_of(item_ids, change["item_id"])]  # -1: the last
    changed_E = np.isin(status_N, ("moved", "suffix"))[seq.events_E]
    user_E = np.repeat(np.arange(seq.users), np.diff(seq.offsets_U1))
    users = len(np.unique(user_E[changed_E]))
    events = int(changed_E.sum())
    return {
        "users": seq.users, "changed_users": users, "changed_users_share": users / max(1, seq.users),
        "events": len(changed_E), "changed_events": events, "changed_events_share": events / max(1, len(changed_E)),
    }  # fmt: skip


def _columns(change: pa.Table, side: str) -> list[str]:
    codes = sorted((name for name in change.column_names if name.startswith(f"{side}_code_")), key=lambda name: int(name.rsplit("_", 1)[1]))
    return [*codes, f"{side}_suffix"]


def _matrix(change: pa.Table, side: str) -> npt.NDArray[np.int64]:
    """[rows, M] codes of a side, -1 where it lacks the item."""
    return np.stack([change[name].fill_null(-1).to_numpy().astype(np.int64) for name in _columns(change, side)[:-1]], axis=1)


def _prefixed(table: pa.Table, side: str) -> pa.Table:
    ids, _, _ = checked(table)
    names = [*code_columns(table.column_names), "suffix"]
    columns = {f"{side}_{name}": table[name].cast(pa.int32()) for name in names}
    return pa.table({"item_id": ids, **columns})


def _side(change: pa.Table, side: str, prefix: str = "") -> pa.Table:
    """One side of a migration as an ID table, or with its columns prefixed; the rows of items that it has."""
    names = _columns(change, side)
    rows = change.filter(pc.is_valid(change[names[0]])).select(["item_id", *names])
    return rows.rename_columns(["item_id", *(name.replace(f"{side}_", f"{prefix}_" if prefix else "", 1) for name in names)])


def _joined(sides: list[pa.Table]) -> pa.Table:
    """Full outer join of both sides on item_id, by look-ups in the sorted union of the ids."""
    ids = pc.unique(pa.chunked_array([chunk for side in sides for chunk in side["item_id"].chunks], sides[0].schema.field("item_id").type))
    ids = ids.take(pc.sort_indices(ids))
    columns: dict[str, Any] = {"item_id": ids}
    for side in sides:
        place = index_of(ids, side["item_id"])
        rows = pa.array(place, mask=place < 0)
        columns |= {name: side[name].combine_chunks().take(rows) for name in side.column_names[1:]}
    return _with_status(pa.table(columns))


def _with_status(joined: pa.Table) -> pa.Table:
    old, new = _matrix(joined, "old"), _matrix(joined, "new")
    suffixes = [joined[f"{side}_suffix"].fill_null(-1).to_numpy() for side in ("old", "new")]
    moved = np.ones(len(joined), dtype=bool) if old.shape[1] != new.shape[1] else (old != new).any(axis=1)
    chosen = np.select([new[:, 0] < 0, old[:, 0] < 0, moved, suffixes[0] != suffixes[1]], ["removed", "added", "moved", "suffix"], default="kept")
    rest = joined.drop_columns([name for name in ("item_id", "status") if name in joined.column_names])
    return pa.table({"item_id": joined["item_id"], "status": pa.array(chosen, pa.string()), **{name: rest[name] for name in rest.column_names}})


def _weights(change: pa.Table, weights: pa.Table | None) -> npt.NDArray[np.float64]:
    if weights is None:
        return np.ones(len(change))
    values: npt.NDArray[np.float64] = np.append(weights["weight"].to_numpy().astype(np.float64), 0.0)
    return values[index_of(change["item_id"], weights["item_id"])]  # -1: the last
