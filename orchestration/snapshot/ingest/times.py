"""Numbers in a column, exactly or not at all: whole Unix seconds, and floats. The message names the first row at fault."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from orchestration.validation.columns import decoded, is_text

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
Int64 = npt.NDArray[np.int64]
Place = tuple[str, str, int]  # file, column, number of the first row


def place(path: Path, column: str, first: int) -> Place:
    return path.name, column, first


def whole_seconds(values: pa.ChunkedArray, unit: str, floor: bool, where: Place) -> Int64:
    """Integers, floats, numbers as text, ISO 8601 texts or Arrow timestamps as whole Unix seconds, int64.

    Numbers count `unit`s. A fraction of a second is refused unless `floor`: dropping it can change the order of a user's events.
    A unit finer than seconds is the caller's statement that it may be dropped.
    """
    column = decoded(values)
    if is_text(column.type):
        column = _parsed(column, where)
    _no_nulls(column, where)
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(column.type):
        instants = column.cast(pa.timestamp(column.type.unit)).cast(pa.int64()).to_numpy()
        return _divided(instants, PER_SECOND[column.type.unit], floor, where)
    if pa.types.is_floating(column.type):
        return _divided(_whole(column.cast(pa.float64()).to_numpy(), unit, floor, where), PER_SECOND[unit], True, where)
    if not pa.types.is_integer(column.type):
        raise DigerError(f"{where[0]}: column {where[1]} has type {column.type}; it must hold numbers or times")
    try:
        return _divided(column.cast(pa.int64()).to_numpy(), PER_SECOND[unit], True, where)
    except pa.ArrowInvalid as error:
        raise DigerError(f"{where[0]}: column {where[1]} holds values over 2^63 - 1, which are no times; check the column") from error


def floats(values: pa.ChunkedArray, where: Place) -> npt.NDArray[np.float64]:
    """Numbers, or numbers as text, as finite float64."""
    column = decoded(values)
    if is_text(column.type):
        try:
            column = column.cast(pa.float64())
        except pa.ArrowInvalid as error:
            raise _not_a_number(column, where) from error
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DigerError(f"{where[0]}: column {where[1]} has type {column.type}; it must hold numbers")
    _no_nulls(column, where)
    numbers: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    _refuse(~np.isfinite(numbers), "a number that is not finite", where)
    return numbers


def moment(text: str) -> int:
    """`--since`, `--until`: a date, an ISO 8601 time (UTC where it names no zone) or Unix seconds, as Unix seconds. ValueError otherwise."""
    try:
        return int(text)
    except ValueError:
        time = datetime.fromisoformat(text)
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def _parsed(column: pa.ChunkedArray, where: Place) -> pa.ChunkedArray:
    """Text as integers where all are, else as floats, else as ISO 8601 times, all without a zone (taken as UTC) or all with one."""
    for kind in (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    raise _not_a_number(column, where)


def _not_a_number(column: pa.ChunkedArray, where: Place) -> DigerError:
    file, name, first = where
    for row, text in enumerate(column.to_pylist(), start=first):
        try:
            float(text)
        except ValueError:
            return DigerError(f"{file}, row {row}: column {name} holds {text[:40]!r}, which is no number; fix or remove the row")
    return DigerError(f"{file}: column {name} cannot be read as numbers; check the column")


def _whole(numbers: npt.NDArray[np.float64], unit: str, floor: bool, where: Place) -> Int64:
    _refuse(~(np.abs(numbers) < 2.0**62), "a number that is no time", where)
    if not floor and unit == "s":
        _refuse(numbers != np.floor(numbers), "a fraction of a second (pass --floor-timestamps to drop it)", where)
    return np.floor(numbers).astype(np.int64)


def _divided(numbers: Int64, divisor: int, floor: bool, where: Place) -> Int64:
    if divisor == 1:
        return numbers
    seconds, rest = np.divmod(numbers, divisor)
    if not floor:
        _refuse(rest != 0, "a fraction of a second (pass --floor-timestamps to drop it)", where)
    return seconds


def _no_nulls(column: pa.ChunkedArray, where: Place) -> None:
    if column.null_count:
        _refuse(pc.is_null(column).to_numpy(), "no value", where)


def _refuse(bad: npt.NDArray[np.bool_], what: str, where: Place) -> None:
    if bad.any():
        file, name, first = where
        raise DigerError(f"{file}, row {first + int(np.argmax(bad))}: column {name} holds {what}; fix or remove the row")
