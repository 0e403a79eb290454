"""Item ids and user ids, joined by one rule wherever two tables meet.

Integers compare with integers of any width, by value. Strings compare with strings of any Arrow type, byte by byte. An integer and a string are never
the same id: a caller for whom that is a fault gives `clash`, the error's text with {0} and {1} for the two kinds of ids; without it nothing matches.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError

Ids: TypeAlias = pa.Array | pa.ChunkedArray
Int64 = npt.NDArray[np.int64]
INT64_MAX = 2**63 - 1


def plain(ids: Ids, what: str = "item_id") -> pa.Array:
    """One contiguous array of int64, of uint64 (only where a value needs it) or of large_string; nulls stay. DigerError for any other type."""
    values = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if pa.types.is_run_end_encoded(values.type):
        values = pc.run_end_decode(values)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_integer(kind):
        large = kind == pa.uint64() and (pc.max(values).as_py() or 0) > INT64_MAX
        return values if large else values.cast(pa.int64())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.large_string())
    if pa.types.is_null(kind):
        return values.cast(pa.int64())
    raise DigerError(f"{what} has type {kind}; ids are integers or strings: convert the column")


def one_type(first: Ids, second: Ids, *, clash: str) -> tuple[pa.Array, pa.Array]:
    """Both columns in one type, so that equal ids are equal. DigerError for integers beside strings, and where no integer type holds both."""
    a, b = plain(first), plain(second)
    if a.type == b.type:
        return a, b
    if not _comparable(a, b, clash):
        empty = pa.array([], (a if len(a) else b).type)
        return (a, empty) if len(a) else (empty, b)
    try:
        return a.cast(pa.uint64()), b.cast(pa.uint64())
    except pa.ArrowInvalid as error:
        raise DigerError("item_id: values of 2^63 and more in one table, negative ones in the other; store the ids as strings in both") from error


def as_type(ids: Ids, kind: pa.DataType, *, clash: str) -> pa.Array:
    """The ids as one array of another table's type. DigerError where they cannot be the same ids, or one does not fit."""
    values = plain(ids)
    _comparable(values, pa.nulls(1, kind), clash)
    try:
        return values.cast(kind)
    except pa.ArrowInvalid as error:
        raise DigerError(f"item_id: a value does not fit the other table's type {kind}; store the ids as strings in both") from error


def index_of(ids: Ids, among: Ids, *, clash: str | None = None) -> Int64:
    """int64 [n]: where each of `ids` stands in `among` (the first place), -1 where it is null or not there."""
    wanted, there = plain(ids), plain(among)
    if not _comparable(wanted, there, clash):
        return np.full(len(wanted), -1, dtype=np.int64)
    if wanted.type != there.type:  # int64 beside uint64: what only one of them can hold is not in the other
        fits = pc.greater_equal(wanted, 0) if there.type == pa.uint64() else pc.less_equal(wanted, pa.scalar(INT64_MAX, pa.uint64()))
        wanted = pc.if_else(fits, wanted, pa.scalar(None, wanted.type)).cast(there.type)
    found = pc.fill_null(pc.index_in(wanted, value_set=there, skip_nulls=True), -1)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int64)


class Places:
    """Where single ids stand in a column of distinct ids, for questions that come one at a time: a dictionary, built once."""

    def __init__(self, among: Ids) -> None:
        values = plain(among)
        self.integers: bool = pa.types.is_integer(values.type)
        self._place = {value: place for place, value in enumerate(values.to_pylist())}

    def of(self, value: int | str) -> int:
        """The place, or -1. An integer and a string are never the same id."""
        return self._place.get(value, -1)


def require_all(ids: Ids, among: Ids, *, what: str, table: str, remedy: str) -> Int64:
    """As `index_of`, where each id must be found: DigerError that names the first missing id of `what`, the table that lacks it and the remedy."""
    place_n = index_of(ids, among, clash=f"item_id is {{0}} in {what} and {{1}} in {table}; store it with one type in both")
    missing_n = place_n < 0
    if missing_n.any():
        row = int(missing_n.argmax())
        raise DigerError(f"{what}: item_id {ids[row].as_py()!r} (row {row}) is not in {table} ({int(missing_n.sum())} such rows): {remedy}")
    return place_n


def require_unique(ids: Ids, *, what: str, remedy: str) -> None:
    """DigerError that names the first id that occurs more than once."""
    values = plain(ids)
    if len(pc.unique(values)) == len(values):
        return
    counts = pc.value_counts(values)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    raise DigerError(f"{what}: item_id {repeated[0].as_py()!r} occurs more than once: {remedy}")


def _comparable(a: pa.Array, b: pa.Array, clash: str | None) -> bool:
    if pa.types.is_integer(a.type) == pa.types.is_integer(b.type):
        return True
    if clash is not None and len(a) and len(b):
        raise DigerError(clash.format(*("integers" if pa.types.is_integer(side.type) else "text" for side in (a, b))))
    return False
