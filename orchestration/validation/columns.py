"""Reading one column exactly, or refusing it by name: ids, timestamps, orders, weights, texts and vectors.

Every function takes a column of a snapshot's Parquet file, with the file's and the column's name for the message, and
returns it in the one type that the pipeline uses. Nothing is guessed: what cannot be taken exactly raises DigerError.
"""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from orchestration.validation.date_numbers import TIME_REMEDY, TimeNumbers

INT64_MAX = 2**63 - 1
STRING_BYTES = 2**31 - 1  # what one chunk of Arrow's `string` can hold

_ALIASES = {
    "user_id": ("user", "userid", "uid", "customer_id", "reviewerid", "visitorid", "visitor_id", "user_id:token"),
    "item_id": ("item", "itemid", "iid", "asin", "parent_asin", "product_id", "sku", "movie_id", "item_id:token"),
    "timestamp": ("time", "ts", "unixreviewtime", "event_time", "date", "timestamp:float"),
    "pos": ("position", "order", "rank"),
    "vector": ("vectors", "embedding", "embeddings", "emb"),
}
_TITLES = ("title", "name", "item_title", "product_name", "movie_title", "item_name")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def title_column(schema: pa.Schema) -> str | None:
    """The text column that reads like a title, or else the first one; None where an item has no text."""
    texts = [f.name for f in schema if f.name != "item_id" and (pa.types.is_string(f.type) or pa.types.is_large_string(f.type))]
    named = [text for wanted in _TITLES for text in texts if text.lower() == wanted]
    return next(iter(named or texts), None)


def nearest_column(name: str, names: list[str]) -> str | None:
    """The existing column that the missing one was most probably meant to be."""
    lowered = {n.lower(): n for n in names}
    for alias in _ALIASES.get(name, ()):
        if alias in lowered:
            return lowered[alias]
    close = difflib.get_close_matches(name, list(lowered), n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def column_of(table: pa.Table, file: str, name: str) -> pa.ChunkedArray:
    """The column `name`, which must be there once."""
    found = table.schema.get_all_field_indices(name)
    if len(found) == 1:
        return table.column(found[0])
    if found:
        raise DigerError(f"{file}: column {name} exists {len(found)} times; keep one of them")
    near = nearest_column(name, [n for n in table.column_names if n])
    there = ", ".join(table.column_names[:20]) or "none"
    remedy = f"rename column {near} to {name}" if near else f"add it (diger ingest table maps columns); the file has: {there}"
    raise DigerError(f"{file}: column {name} is missing; {remedy}")


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionary-encoded and run-end-encoded columns as plain ones; all strings as large_string, so that no take overflows at 2 GB."""
    if pa.types.is_run_end_encoded(column.type):
        column = pa.chunked_array([pc.run_end_decode(c) for c in column.chunks], type=column.type.value_type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text(column.type) and column.type != pa.large_string():
        column = column.cast(pa.large_string())
    return column


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type is text, dictionary-encoded or not."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text: bool = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return text


def text(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """A text column, unchanged, as large_string. Bytes that are not UTF-8 are refused: two readers would read two texts."""
    column = decoded(column)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DigerError(f"{file}: column {name} holds bytes that are not UTF-8 ({error}); write it again as UTF-8 text") from error
    return column


def exact_ids(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """Ids as int64, as uint64 where a value needs it, or as large_string; nulls stay.

    Floats, decimals, bools, times and bytes are refused: none of them holds every id exactly.
    """
    column = decoded(column)
    kind = column.type
    if pa.types.is_null(kind):
        raise DigerError(f"{file}: column {name} holds no values; write the ids as integers or as text")
    if is_text(kind):
        return text(column, file, name)
    if not pa.types.is_integer(kind):
        why = " (a float cannot tell 9007199254740993 from 9007199254740992)" if pa.types.is_floating(kind) else ""
        raise DigerError(f"{file}: column {name} has type {kind}, ids must be integers or text{why}; write it as int64 or as string")
    if kind == pa.uint64() and (pc.max(column).as_py() or 0) > INT64_MAX:
        return column
    return column.cast(pa.int64())


def id_kind(kind: pa.DataType) -> str:
    """'integers' or 'text', for messages and for comparing two files."""
    return "integers" if pa.types.is_integer(kind) else "text"


def combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One contiguous array (also for no chunks at all)."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def integers(column: pa.ChunkedArray, file: str, name: str, remedy: str) -> pa.ChunkedArray:
    """An integer column as int64; nulls stay."""
    column = decoded(column)
    if not pa.types.is_integer(column.type):
        raise DigerError(f"{file}: column {name} has type {column.type}, it must hold integers; {remedy}")
    if column.type == pa.uint64() and (pc.max(column).as_py() or 0) > INT64_MAX:
        raise DigerError(f"{file}: column {name} holds values over 2^63 - 1; {remedy}")
    return column.cast(pa.int64())


def unix_seconds(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """Timestamps as whole Unix seconds, int64; nulls stay.

    Arrow timestamps of any unit are floored to seconds (instants; a zone does not matter). Integers must be seconds already: a column
    of which most values are at least 10^11 (the year 5138) is milliseconds or finer, and is refused instead of guessed.
    """
    found = seconds(column, file, name)
    if (numbers := time_numbers(column, found)) is not None:
        numbers.refuse(file, name)
    return found


def seconds(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """As `unix_seconds`, but integers are taken as they are: of a part of a column, which does not tell what the whole holds."""
    column = decoded(column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        instants = column.cast(pa.timestamp(kind.unit)).cast(pa.int64())
        return _floor_divided(instants, _PER_SECOND[kind.unit])
    if not pa.types.is_integer(kind):
        raise DigerError(f"{file}: column {name} has type {kind}; {TIME_REMEDY}")
    if kind == pa.uint64():
        column = pc.min_element_wise(column, pa.scalar(INT64_MAX, pa.uint64()), skip_nulls=False)
    return column.cast(pa.int64())


def time_numbers(column: pa.ChunkedArray, found: pa.ChunkedArray) -> TimeNumbers | None:
    """What the integers of a column count, from what `seconds` made of it; None for Arrow's own timestamps."""
    return None if pa.types.is_timestamp(decoded(column.slice(0, 0)).type) else TimeNumbers.of(pc.drop_null(found).to_numpy())


def _floor_divided(column: pa.ChunkedArray, divisor: int) -> pa.ChunkedArray:
    if divisor == 1:
        return column
    valid = pc.is_valid(column).to_numpy()
    floored = np.floor_divide(pc.fill_null(column, 0).to_numpy(), divisor)
    return pa.chunked_array([pa.array(floored, pa.int64(), mask=~valid)])


def weights(column: pa.ChunkedArray, file: str, name: str) -> np.ndarray:
    """Weights as float64 [n]; NaN where null."""
    column = decoded(column)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DigerError(f"{file}: column {name} has type {column.type}, it must hold numbers; write it as float or integer")
    weight_N: np.ndarray = pc.fill_null(column.cast(pa.float64(), safe=False), float("nan")).to_numpy()
    return weight_N


def kinds(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """Event types: texts as large_string, integers and truth values as they are."""
    column = decoded(column)
    if is_text(column.type):
        return text(column, file, name)
    if not (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
        raise DigerError(f"{file}: column {name} has type {column.type}, event types must be texts or integers; write it as string or leave it out")
    return column


def vectors(column: pa.ChunkedArray, file: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Vectors as float32 [n, D] and a bool [n]: whether the row has one. Null elements become NaN; rows of differing widths are refused."""
    if pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
        column = column.cast(pa.large_list(column.type.value_type))
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise DigerError(f"{file}: column {name} has type {kind}; write it as a list of floats, all of one width")
    present = pc.is_valid(column).to_numpy().astype(bool)
    widths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()[present]
    if len(widths) == 0:
        raise DigerError(f"{file}: column {name} holds no vectors; fill it in, or leave the file out")
    values, counts = np.unique(widths, return_counts=True)
    width = int(values[np.argmax(counts)])
    if len(values) > 1:
        odd = int(np.flatnonzero(widths != width)[0])
        row = int(np.flatnonzero(present)[odd])
        raise DigerError(
            f"{file}: column {name} has {int(widths[odd])} values in row {row} but {width} in most rows; write all vectors with one width"
        )
    if width == 0:
        raise DigerError(f"{file}: column {name} holds empty vectors; fill them in, or leave the file out")
    flat = pc.list_flatten(column.filter(pa.array(present))).cast(pa.float64() if kind.value_type == pa.float64() else pa.float32())
    matrix = np.full((len(column), width), np.nan, np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is quarantined as such
        matrix[present] = flat.to_numpy().reshape(-1, width).astype(np.float32)
    return matrix, present


def vector_column(matrix_ND: np.ndarray) -> pa.Array:
    """float32 [N, D] as an Arrow column of fixed-size lists."""
    width = matrix_ND.shape[1]
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix_ND).reshape(-1), pa.float32()), width)


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """large_string as Arrow's ordinary string, cut into chunks that hold less than 2 GB; other types unchanged."""
    if column.type != pa.large_string():
        return column
    return pa.chunked_array([part.cast(pa.string()) for chunk in column.chunks for part in _halved(chunk)], type=pa.string())


def _halved(chunk: pa.Array) -> list[pa.Array]:
    if len(chunk) <= 1 or (pc.sum(pc.binary_length(chunk)).as_py() or 0) <= STRING_BYTES:
        return [chunk]
    middle = len(chunk) // 2
    return [*_halved(chunk.slice(0, middle)), *_halved(chunk.slice(middle))]


def shortened(column: pa.ChunkedArray | pa.Array, characters: int = 80) -> pa.ChunkedArray | pa.Array:
    """Ids as text for a table that people read: at most `characters`, an ellipsis marks a cut."""
    strings = column.cast(pa.large_string())
    cut = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(strings, 0, characters - 1), pa.scalar("…", pa.large_string()), pa.scalar("", pa.large_string())
    )
    return pc.if_else(pc.greater(pc.utf8_length(strings), characters), cut, strings).cast(pa.string())


def shown(value: Any, characters: int = 60) -> str:
    """One id in a message: quoted, cut, control and bidirectional characters escaped."""
    if value is None:
        return "null"
    return repr(value) if isinstance(value, int) else repr(value if len(value) <= characters else value[:characters] + "…")
