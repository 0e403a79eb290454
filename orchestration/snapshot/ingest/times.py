"""Numbers and times in a column, exactly or not at all: whole Unix seconds, and floats. The message names the first row at fault."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from orchestration.snapshot.ingest.notes import EXAMPLE, Mask, Notes, Place
from orchestration.validation.columns import decoded, is_text
from orchestration.validation.date_numbers import date_in

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

_INTEGER = r"^[+-]?\d{1,18}$"
_NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?$"
_DATE = r"\d{4}-\d{2}-\d{2}"
_CLOCK = r"[T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?"
_ZONE = r"( ?(Z|z|UTC|GMT| ?[+-]\d{2}(:?\d{2})?))"
_NAIVE_TIME = f"^{_DATE}({_CLOCK})?$"
_ZONED_TIME = f"^{_DATE}{_CLOCK}{_ZONE}$"
_KINDS = {"numbers": _NUMBER, "times without a zone": _NAIVE_TIME, "times with a zone": _ZONED_TIME}
_FLOOR = "pass --floor-timestamps to drop it"

_COMPACT = ("%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%S%z", "%Y%m%d%H%M%S", "%Y%m%d%H%M")
_DATES = ("%m/%d/%y", "%d/%m/%y", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d",
          "%d %b %Y", "%b %d %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y")  # fmt: skip
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", " %H:%M:%S.%f", " %H:%M:%S %z")
_FORMATS = (*_COMPACT, *(d + c for d, c in product(_DATES, _CLOCKS)), "%a %b %d %H:%M:%S %Y", "%a, %d %b %Y %H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y")


class Times:
    """A file's time column, batch by batch: all batches must hold one kind of value."""

    def __init__(self, unit: str = "s", floor: bool = False, format_: str | None = None, decimal_comma: bool = False, *, order: bool = False) -> None:
        self.unit, self.floor, self.format, self.decimal_comma = unit, floor, format_, decimal_comma
        self._kind: str | None = None
        self.order = order  # the numbers order events and are no times
        self._seen = False  # whether a batch with numbers was looked at

    def __call__(self, values: pa.ChunkedArray, where: Place, notes: Notes) -> tuple[Int64, Mask]:
        """Whole Unix seconds, int64 [n], and the rows that hold none (only where such rows are dropped).

        Integers and floats count `unit`s; texts are such numbers, ISO 8601 times (UTC where they name no zone), or follow `format`. A fraction
        of a second is refused unless `floor`; a unit finer than seconds is the caller's statement that it may be dropped. Both are counted.
        """
        column = decoded(values)
        if pa.types.is_decimal(column.type) or (self.format is not None and pa.types.is_integer(column.type)):
            column = column.cast(pa.string()).cast(pa.large_string())
        if is_text(column.type):
            return self._texts(pc.utf8_trim_whitespace(column), where, notes)
        bad = notes.at_fault(pc.is_null(column).to_numpy(), f"no {where.column}", "no value", where)
        if pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("s"))
        if pa.types.is_timestamp(column.type):
            instants = _filled(column.cast(pa.timestamp(column.type.unit)).cast(pa.int64()))
            return self._divided(instants, PER_SECOND[column.type.unit], self.floor, bad, where, notes), bad
        if pa.types.is_floating(column.type):
            return self._floats(_filled_floats(column), bad, where, notes)
        if not pa.types.is_integer(column.type):
            raise DigerError(f"{where.path.name}: column {where.column} has type {column.type}; it must hold numbers or times")
        try:
            numbers = _filled(column.cast(pa.int64()))
        except pa.ArrowInvalid as error:
            raise DigerError(f"{where.path.name}: column {where.column} holds values over 2^63 - 1, which are no times; check the column") from error
        self._refuse_dates(numbers, bad, where)
        return self._divided(numbers, PER_SECOND[self.unit], self.floor or self.unit != "s", bad, where, notes), bad

    def _texts(self, column: pa.ChunkedArray, where: Place, notes: Notes) -> tuple[Int64, Mask]:
        blank = notes.at_fault(pc.fill_null(pc.equal(column, ""), True).to_numpy(), f"no {where.column}", "no value", where)
        if self.format is not None:
            return self._formatted(column, blank, where, notes)
        if self.decimal_comma:
            column = pc.replace_substring_regex(column, r"^([+-]?\d+),(\d+)$", r"\1.\2")
        masks = {kind: pc.fill_null(pc.match_substring_regex(column, pattern), False).to_numpy() for kind, pattern in _KINDS.items()}
        if self._kind is None:
            self._kind = min(masks, key=lambda kind: int(np.argmax(masks[kind])) if masks[kind].any() else len(column))
        fits = masks[self._kind]
        self._refuse_others(column, masks, blank, where, notes)
        found, remedy = self._unread(column, ~fits & ~blank)
        bad = blank | notes.at_fault(~fits & ~blank, f"unreadable {where.column}", found, where, remedy)
        if self._kind == "numbers":
            return self._numbers(pc.if_else(pa.array(bad), "0", column), bad, where, notes)
        seconds, wrong = _instants(pc.if_else(pa.array(bad), _EPOCH[self._kind], column), self._kind)
        bad = bad | notes.at_fault(wrong, f"unreadable {where.column}", f"{_first(column, wrong)}, which is no time", where)
        cut = pc.match_substring_regex(column, r":\d{2}[.,]\d*[1-9]").fill_null(False).to_numpy() & ~bad
        return self._cut(seconds, cut, self.floor, where, notes), bad

    def _refuse_others(self, column: pa.ChunkedArray, masks: dict[str, Mask], blank: Mask, where: Place, notes: Notes) -> None:
        """A column that mixes readable kinds has no one meaning."""
        for kind, mask in masks.items():
            if kind != self._kind and mask.any() and not notes.drop_invalid:
                found = f"{_first(column, mask)}, but the rows before hold {self._kind}"
                notes.refuse(mask, found, where, "write all of them in one way, or pass --drop-invalid to leave the others out")

    def _numbers(self, column: pa.ChunkedArray, bad: Mask, where: Place, notes: Notes) -> tuple[Int64, Mask]:
        column = pc.utf8_ltrim(column, characters="+")
        if pc.all(pc.match_substring_regex(column, _INTEGER)).as_py():
            numbers = column.cast(pa.int64()).to_numpy()
            self._refuse_dates(numbers, bad, where)
            return self._divided(numbers, PER_SECOND[self.unit], self.floor or self.unit != "s", bad, where, notes), bad
        return self._floats(column.cast(pa.float64()).to_numpy(), bad, where, notes)

    def _floats(self, numbers: Float64, bad: Mask, where: Place, notes: Notes) -> tuple[Int64, Mask]:
        none = ~(np.abs(numbers) < 2.0**62)
        bad = bad | notes.at_fault(none & ~bad, f"unreadable {where.column}", "a number that is no time", where)
        numbers = np.where(bad, 0.0, numbers)
        whole = np.floor(numbers)
        self._refuse_dates(whole.astype(np.int64), bad, where)
        whole_units = self._cut(whole.astype(np.int64), (numbers != whole), self.floor or self.unit != "s", where, notes)
        return self._divided(whole_units, PER_SECOND[self.unit], True, bad | (numbers != whole), where, notes), bad

    def _formatted(self, column: pa.ChunkedArray, blank: Mask, where: Place, notes: Notes) -> tuple[Int64, Mask]:
        coded = column.combine_chunks().dictionary_encode()
        seconds, micros, wrong = [], [], []
        for text in coded.dictionary.to_pylist():
            try:
                time = datetime.strptime(text, str(self.format))
                time = time if time.tzinfo else time.replace(tzinfo=UTC)
                seconds.append(int(time.replace(microsecond=0).timestamp()))
                micros.append(time.microsecond)
                wrong.append(False)
            except (ValueError, OverflowError):
                seconds.append(0)
                micros.append(0)
                wrong.append(text != "")
        code = pc.fill_null(coded.indices, 0).to_numpy(zero_copy_only=False)
        at_fault = np.array(wrong, bool)[code] & ~blank
        bad = blank | notes.at_fault(
            at_fault, f"unreadable {where.column}", f"{_first(column, at_fault)}, which does not follow {self.format}", where
        )
        cut = (np.array(micros, np.int64)[code] > 0) & ~bad
        return self._cut(np.array(seconds, np.int64)[code], cut, self.floor, where, notes), bad

    def _unread(self, column: pa.ChunkedArray, bad: Mask) -> tuple[str, str]:
        """(what the first row at fault holds, the option that would read it)."""
        if not bad.any():
            return "", ""
        fitting = formats_of([text for text in column.filter(pa.array(bad)).slice(0, 1000).to_pylist() if text])
        remedy = f"pass --timestamp-format {' or '.join(repr(format_) for format_ in fitting[:2])}" if fitting else ""
        if not fitting and pc.any(pc.match_substring_regex(column.filter(pa.array(bad)).slice(0, 1), r"^[+-]?\d+,\d+$")).as_py():
            remedy = "pass --decimal-comma"
        if not remedy and not pc.any(pc.match_substring_regex(column.filter(pa.array(bad)).slice(0, 1), r"\d")).as_py():
            return f"{_first(column, bad)}, which is no time", ""
        return f"{_first(column, bad)}, which is no time that is known", remedy or "pass --timestamp-format with its parts, as in '%d.%m.%Y %H:%M'"

    def _divided(self, numbers: Int64, divisor: int, floor: bool, bad: Mask, where: Place, notes: Notes) -> Int64:
        if divisor == 1:
            return numbers
        seconds, rest = np.divmod(numbers, divisor)
        return self._cut(seconds, (rest != 0) & ~bad, floor, where, notes)

    def _refuse_dates(self, numbers: Int64, bad: Mask, where: Place) -> None:
        """By the first batch that has a number at all."""
        if self._seen or self.order or bad.all():
            return
        self._seen = True
        if found := date_in(numbers[~bad]):
            what, format_ = found
            remedy = (
                f"pass --timestamp-format '{format_}'" if format_ else "write it as a date (2024-01-31), or map it to pos where it is an order alone"
            )
            raise DigerError(f"{where.row(int(np.argmin(bad)))} holds {numbers[~bad][0]}, which reads like {what}: {remedy}")

    def _cut(self, seconds: Int64, cut: Mask, floor: bool, where: Place, notes: Notes) -> Int64:
        """Counts fractions of a second that are dropped, or refuses them."""
        if cut.any():
            if not floor:
                notes.refuse(cut, "a fraction of a second", where, _FLOOR)
            notes.floored += int(np.count_nonzero(cut))
        return seconds


_EPOCH = {"times without a zone": "1970-01-01", "times with a zone": "1970-01-01T00:00:00Z"}


def _instants(column: pa.ChunkedArray, kind: str) -> tuple[Int64, Mask]:
    """ISO 8601 texts without their fractions as Unix seconds, and which are none after all (the 31st of February)."""
    column = pc.replace_substring_regex(column, r"(:\d{2})[.,]\d+", r"\1")
    type_ = pa.timestamp("s")
    if kind == "times with a zone":
        column = pc.replace_substring_regex(pc.replace_substring_regex(column, r" ?(UTC|GMT|Z|z)$", "Z"), r" +([+-])(\d{2})", r"\1\2")
        type_ = pa.timestamp("s", "UTC")
    try:
        return column.cast(type_).cast(pa.int64()).to_numpy(), np.zeros(len(column), bool)
    except pa.ArrowInvalid:
        wrong = np.array([not _is_time(text) for text in column.to_pylist()])
        column = pc.if_else(pa.array(wrong), _EPOCH[kind], column)
        return column.cast(type_).cast(pa.int64()).to_numpy(), wrong


def _is_time(text: str) -> bool:
    try:
        return bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def formats_of(texts: list[str]) -> list[str]:
    """The usual formats that read all of `texts`; several where day and month cannot be told apart."""
    return [format_ for format_ in _FORMATS if texts and all(_follows(text, format_) for text in texts)]


def _follows(text: str, format_: str) -> bool:
    try:
        return bool(datetime.strptime(text, format_))
    except ValueError:
        return False


def floats(values: pa.ChunkedArray, where: Place, notes: Notes, decimal_comma: bool = False) -> tuple[Float64, Mask]:
    """Numbers, or numbers as text, as finite float64 [n], and the rows that hold none (only where such rows are dropped)."""
    column, reason = decoded(values), f"unreadable {where.column}"
    if is_text(column.type):
        column = pc.utf8_trim_whitespace(column)
        if decimal_comma:
            column = pc.replace_substring_regex(column, r"^([+-]?\d+),(\d+)$", r"\1.\2")
        bad = ~pc.fill_null(pc.match_substring_regex(column, _NUMBER), False).to_numpy()
        comma = bad.any() and pc.match_substring_regex(column, r"^[+-]?\d+,\d+$").fill_null(False).to_numpy()[int(np.argmax(bad))]
        bad = notes.at_fault(bad, reason, f"{_first(column, bad)}, which is no number", where, "pass --decimal-comma" if comma else "")
        column = pc.if_else(pa.array(bad), "0", column).cast(pa.float64())
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        bad = notes.at_fault(pc.is_null(column).to_numpy(), reason, "no value", where)
    else:
        raise DigerError(f"{where.path.name}: column {where.column} has type {column.type}; it must hold numbers")
    numbers = pc.fill_null(column.cast(pa.float64(), safe=False), 0.0).to_numpy()
    infinite = notes.at_fault(~np.isfinite(numbers) & ~bad, reason, "a number that is not finite", where)
    return np.where(infinite, 0.0, numbers), bad | infinite


def moment(text: str) -> int:
    """`--since`, `--until`: a date, an ISO 8601 time (UTC where it names no zone) or Unix seconds, as Unix seconds. ValueError otherwise."""
    try:
        seconds = int(text)
    except ValueError:
        time = datetime.fromisoformat(text)
        seconds = int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    if not -(2**62) < seconds < 2**62:
        raise ValueError(text)
    return seconds


def _first(column: pa.ChunkedArray, bad: Mask) -> str:
    """The first value at fault, quoted and cut."""
    return repr((column[int(np.argmax(bad))].as_py() or "")[:EXAMPLE]) if bad.any() else ""


def _filled(column: pa.ChunkedArray) -> Int64:
    numbers: Int64 = pc.fill_null(column, 0).to_numpy()
    return numbers


def _filled_floats(column: pa.ChunkedArray) -> Float64:
    numbers: Float64 = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy()
    return numbers
