"""Titles beside item ids, from the validated items of a snapshot."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from diger_core.item_ids import Ids, index_of
from diger_core.store.artefact import Artefact
from orchestration.engine.console import visible
from orchestration.validation.columns import title_column
from orchestration.verdict.report.text import printable

LONGEST = 60


@dataclass(frozen=True)
class Titles:
    """item_id -> title of one catalogue; None everywhere where it has no texts."""

    item_ids: pa.ChunkedArray
    column: pa.ChunkedArray | None

    @classmethod
    def of(cls, validated_items: Artefact) -> Titles:
        name = title_column(pq.read_schema(validated_items.path("items.parquet")))
        return cls.of_table(validated_items.table("items.parquet", ["item_id", *([name] if name else [])]))

    @classmethod
    def of_table(cls, items: pa.Table) -> Titles:
        """From a table with item_id and, where items have texts, their columns."""
        name = title_column(items.schema)
        return cls(items["item_id"], items[name] if name else None)

    def __call__(self, ids: Ids) -> list[str | None]:
        """The title of each id, None where it has none."""
        found = self.beside(ids)
        return [None] * len(ids) if found is None else [None if title is None else str(title) for title in found.to_pylist()]

    def beside(self, ids: Ids) -> pa.ChunkedArray | None:
        """The column of titles in the order of `ids`; None where the catalogue has no texts."""
        if self.column is None:
            return None
        place = index_of(ids, self.item_ids)
        return self.column.take(pa.array(place, mask=place < 0))


def short(title: str | None) -> str:
    """A title fit for a table, or nothing."""
    return printable(title, LONGEST) if title else ""


def named(item_id: int | str, title: str | None) -> str:
    """The item's id with its title behind it; what a terminal would obey is escaped."""
    item = visible(str(item_id))
    return f"{item} ({short(title)})" if short(title) else item
