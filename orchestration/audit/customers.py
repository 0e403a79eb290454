"""Who was shown what: users in the stored tables of recommendations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.errors import DigerError
from orchestration.audit.index import Index

if TYPE_CHECKING:
    import pyarrow as pa


def recommended_to(index: Index, hashes: list[str], item: str) -> dict[str, list[str]]:
    """Artefact hash -> the ids, as text, of the users whose list holds `item`."""
    found = {}
    for hash_ in hashes:
        artefact = index.artefact(hash_)
        if artefact is None:
            continue
        users: list[str] = []
        for name in artefact.names:
            if name.endswith(".parquet"):
                users += _users(artefact.table(name), item, f"{artefact.directory}/{name}")
        found[hash_] = list(dict.fromkeys(users))
    return found


def _users(table: pa.Table, item: str, where: str) -> list[str]:
    """A row for a user with a list of items, or a row for each user and item."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "user_id" not in table.column_names:
        return []
    users = table["user_id"].combine_chunks()
    column = next((name for name in ("items", "item_ids", "item_id") if name in table.column_names), None)
    if column is None:
        raise DigerError(f"{where}: has users but no column of items (items, item_ids or item_id): run recommendations again")
    values = table[column].combine_chunks()
    nested = pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or pa.types.is_fixed_size_list(values.type)
    flat, parents = (pc.list_flatten(values), pc.list_parent_indices(values)) if nested else (values, pa.array(range(len(values))))
    hits = parents.filter(pc.equal(flat.cast(pa.string()), item))
    return [str(user) for user in users.take(hits.unique()).to_pylist()]
