"""Single rows of stored tables: an item's ID, the item of an ID, an item's title. Nothing else of a table is kept in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diger_core.ids.notation import code_columns
from orchestration.audit.index import Index

if TYPE_CHECKING:
    import pyarrow as pa

    from diger_core.store.artefact import Artefact

TABLES = ("semantic_ids.parquet", "id_table.parquet")


def table_of(artefact: Artefact) -> str | None:
    """The artefact's file that holds IDs, or else its first table."""
    return next((name for name in (*TABLES, *artefact.names) if name in artefact.names and name.endswith(".parquet")), None)


def id_in(artefact: Artefact, item: str) -> tuple[int, ...] | None:
    """(code_1, .., code_M, suffix) of the item, or None."""
    name = table_of(artefact)
    if name is None:
        return None
    row = row_of(artefact, name, item)
    if row is None or "suffix" not in row:
        return None
    levels = sum(column.startswith("code_") for column in row)
    return (*(int(row[f"code_{level + 1}"]) for level in range(levels)), int(row["suffix"]))


def row_of(artefact: Artefact, name: str, item: str) -> dict[str, Any] | None:
    """The item's row of a table with a column item_id; the item is given as text."""
    import pyarrow.parquet as pq

    path = artefact.path(name)
    value = _typed(pq.read_schema(path), item)
    if value is None:
        return None
    rows = pq.read_table(path, filters=[("item_id", "=", value)]).to_pylist()
    return rows[0] if rows else None


def _typed(schema: pa.Schema, item: str) -> int | str | None:
    import pyarrow as pa

    if "item_id" not in schema.names:
        return None
    if not pa.types.is_integer(schema.field("item_id").type):
        return item
    try:
        return int(item) if str(int(item)) == item else None
    except ValueError:
        return None


def item_of(artefact: Artefact, numbers: tuple[int, ...]) -> int | str | None:
    """The item with this whole ID, or None."""
    import pyarrow.parquet as pq

    name = table_of(artefact)
    columns = [] if name is None else pq.read_schema(artefact.path(name)).names
    wanted = [*code_columns(columns), "suffix"]
    if name is None or "suffix" not in columns or len(wanted) != len(numbers):
        return None
    found = pq.read_table(artefact.path(name), columns=["item_id"], filters=[(c, "=", n) for c, n in zip(wanted, numbers, strict=True)])
    return found["item_id"][0].as_py() if len(found) else None


def title_in(index: Index, item: str) -> str | None:
    """The item's title by the newest catalogue of the store that has it."""
    import pyarrow.parquet as pq

    from orchestration.validation.columns import title_column

    for made in reversed(index.made):
        artefact = index.artefact(made.artefact) if made.stage == "validated_items" else None
        row = row_of(artefact, "items.parquet", item) if artefact is not None else None
        if artefact is not None and row is not None:
            column = title_column(pq.read_schema(artefact.path("items.parquet")))
            return None if column is None or row[column] is None else str(row[column])
    return None
