"""How a semantic ID is written for people, and its table's columns read and checked. Questions about IDs must not wait for torch, nor those
about names for numpy and pyarrow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from diger_core.errors import DigerError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

_WRITTEN = re.compile(r"[0-9]{1,9}(?:-[0-9]{1,9})*")


def written(numbers: Iterable[Any]) -> str:
    """`17-203-88-0`: codes and suffix, or the beginning of them."""
    return "-".join(str(int(number)) for number in numbers)


def read(text: str) -> tuple[int, ...] | None:
    """The numbers of an ID, or of its beginning, as `written` writes it; None for any other text."""
    return tuple(int(part) for part in text.split("-")) if _WRITTEN.fullmatch(text) else None


def code_columns(names: Iterable[str]) -> list[str]:
    """code_1 .. code_M of a table's columns, in the order of the levels."""
    return [f"code_{level + 1}" for level in range(sum(name.startswith("code_") for name in names))]


def id_of(row: Mapping[str, Any], side: str = "") -> str | None:
    """The ID in a row with code_1.., suffix (or with these behind `side`: old_, new_); None where the row has none."""
    levels = sum(name.startswith(f"{side}code_") for name in row)
    numbers = [row[f"{side}{name}"] for name in (*(f"code_{level + 1}" for level in range(levels)), "suffix")]
    return None if None in numbers else written(numbers)


def checked(table: pa.Table) -> tuple[pa.ChunkedArray, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """(item ids, codes [N, M], suffix [N]) of an ID table, rows in the file's order. DigerError where a column is missing or holds a null, and for an
    item that stands in it twice."""
    import numpy as np

    from diger_core.item_ids import require_unique

    names = ["item_id", *code_columns(table.column_names), "suffix"]
    for name in names:
        if name not in table.column_names or table.column(name).null_count or len(names) < 3:
            raise DigerError(f"ID table: column {name} is missing or holds nulls: make the table again with the stage semantic_ids")
    require_unique(table.column("item_id"), what="ID table", remedy="make the table again with the stage semantic_ids")
    codes_NM = np.stack([table.column(name).to_numpy() for name in names[1:-1]], 1).astype(np.int32)
    return table.column("item_id"), codes_NM, table.column("suffix").to_numpy().astype(np.int32)
