"""A small valid snapshot, and a session of the raw and validated stages over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAY = 86_400
START = 1_600_000_000


def items(n: int = 40, **columns: Any) -> pa.Table:
    return pa.table({"item_id": pa.array(range(n)), "title": [f"Lamp number {i}" for i in range(n)], "brand": ["Aster"] * n, **columns})


def interactions(users: int = 25, each: int = 8, n_items: int = 40) -> pa.Table:
    rng = np.random.default_rng(1)
    rows = users * each
    return pa.table(
        {
            "user_id": pa.array(np.repeat(np.arange(users), each)),
            "item_id": pa.array(rng.integers(0, n_items, rows)),
            "timestamp": pa.array(START + rng.permutation(rows) * DAY // 8),
        }
    )


def replaced(table: pa.Table, column: str, row_values: dict[int, Any]) -> pa.Table:
    """The table with some values of one column changed."""
    values = table[column].to_pylist()
    for row, value in row_values.items():
        values[row] = value
    return table.set_column(table.column_names.index(column), column, pa.array(values, table.schema.field(column).type))


def write(directory: Path, interactions: pa.Table, items: pa.Table, vectors: pa.Table | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(interactions, directory / "interactions.parquet")
    pq.write_table(items, directory / "items.parquet")
    if vectors is not None:
        pq.write_table(vectors, directory / "vectors.parquet")
    return directory


def vectors(n: int = 40, width: int = 4) -> pa.Table:
    matrix = np.arange(n * width, dtype=np.float32).reshape(n, width)
    return pa.table({"item_id": pa.array(range(n)), "vector": pa.array(list(matrix), pa.list_(pa.float32()))})
