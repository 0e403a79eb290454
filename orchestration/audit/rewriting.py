"""An artefact's files without one user: rows of tables by user_id or user_index, and their stretch of the sequences.

Later users move up by one number, in the sequences and in whatever is numbered like them, so that the result is what the stage itself makes of
events without the user.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from diger_core.store.artefact import Artefact
    from diger_core.store.artefact_writer import ArtefactWriter


@dataclass(frozen=True)
class Subject:
    """The user: the id as text, and the number in the artefact's own numbering, where it has one."""

    user: str
    number: int | None


def row_filter(artefact: Artefact, subject: Subject) -> bool:
    """Whether any file of the artefact holds the user."""
    return any(len(rows_of(artefact, name, subject.user, subject.number)) for name in artefact.names if name.endswith(".parquet"))


def counts_users(artefact: Artefact) -> bool:
    """Whether any of its tables names users by their number."""
    return any("user_index" in pq.read_schema(artefact.path(name)).names for name in artefact.names if name.endswith(".parquet"))


def rows_of(artefact: Artefact, name: str, user: str, number: int | None = None) -> np.ndarray:
    """Row numbers of the user in a table, int64 [rows]."""
    path = artefact.path(name)
    columns = pq.read_schema(path).names
    if "user_id" in columns:
        return np.flatnonzero(matching(pq.read_table(path, columns=["user_id"])["user_id"], user))
    if "user_index" in columns and number is not None:
        return np.flatnonzero(pq.read_table(path, columns=["user_index"])["user_index"].to_numpy() == number)
    return np.empty(0, dtype=np.int64)


def matching(column: pa.ChunkedArray, user: str) -> np.ndarray:
    """Mask of the rows whose id, as text, is `user`."""
    import pyarrow.compute as pc

    if pa.types.is_integer(column.type):
        if not re.fullmatch(r"-?[0-9]{1,20}", user) or str(int(user)) != user:
            return np.zeros(len(column), dtype=bool)
        column = column.cast(pa.string())
    equal = pc.equal(column.cast(pa.string()) if not pa.types.is_string(column.type) else column, user)
    mask: np.ndarray = pc.fill_null(equal, False).to_numpy(zero_copy_only=False)
    return mask


def without(artefact: Artefact, subject: Subject, out: ArtefactWriter) -> dict[str, Any]:
    """Writes all files to `out`, the user left out; returns the facts that change with that."""
    facts: dict[str, Any] = {}
    for name in artefact.names:
        keys = artefact.files[name]["sort_by"]
        if name == "sequences.safetensors" and subject.number is not None:
            tensors, counted = _sequences(artefact.tensors(name), subject.number)
            out.tensors(name, tensors, artefact.tensors_metadata(name))
            facts |= counted
        elif name.endswith(".parquet"):
            table = artefact.table(name)
            kept = _renumbered(_kept(table, rows_of(artefact, name, subject.user, subject.number)), subject.number)
            if len(kept) == len(table) and kept.equals(table):
                out.link(name, artefact.path(name), keys)
                continue
            out.table(name, kept, sort_by=keys or ())
            facts |= {"rows": len(kept)} if "rows" in artefact.facts and artefact.stage == "raw_interactions" else {}
        else:
            out.link(name, artefact.path(name), keys)
    return facts


def _kept(table: pa.Table, rows: np.ndarray) -> pa.Table:
    keep = np.ones(len(table), dtype=bool)
    keep[rows] = False
    return table.filter(pa.array(keep)) if len(rows) else table


def _renumbered(table: pa.Table, number: int | None) -> pa.Table:
    """Users behind the removed one have one number less."""
    if number is None or "user_index" not in table.column_names:
        return table
    index = table["user_index"].to_numpy()
    position = table.column_names.index("user_index")
    field = table.schema.field(position)
    return table.set_column(position, field, pa.array(index - (index > number), field.type))


def _sequences(tensors: dict[str, Any], number: int) -> tuple[dict[str, Any], dict[str, int]]:
    """events [E], offsets [U + 1], timestamps and weights [E] without the user's stretch."""
    import torch

    offsets = tensors["offsets"]
    start, end = int(offsets[number]), int(offsets[number + 1])
    total = len(tensors["events"])
    keep = torch.ones(total, dtype=torch.bool)
    keep[start:end] = False
    left = {name: value[keep] if name in ("events", "timestamps", "weights") else value for name, value in tensors.items()}
    later = offsets[number + 2 :] - (end - start)
    left["offsets"] = torch.cat([offsets[: number + 1], later])
    return left, {"users": len(left["offsets"]) - 1, "events": len(left["events"])}
