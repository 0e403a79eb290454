"""Numbers that are dates and no counts of seconds: 20240131, 202401311559, 20240131155900, and the day numbers of spreadsheets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diger_core.errors import DigerError

TIME_REMEDY = "write Unix seconds as int64, or an Arrow timestamp"
_UNITS = ((10**17, "nanoseconds", 10**9), (10**14, "microseconds", 10**6), (10**11, "milliseconds", 10**3))
_FORMATS = ((10**13, "%Y%m%d%H%M%S"), (10**11, "%Y%m%d%H%M"), (10**7, "%Y%m%d"))
_SHEET_DAYS = (20_000, 80_000)  # 1954 to 2119; as seconds the first day of 1970


def date_in(numbers: npt.NDArray[np.int64]) -> tuple[str, str | None] | None:
    """(what they read like, the format that reads them, if one does) where every one of the numbers [n] is a date; None where one is not."""
    if not len(numbers):
        return None
    for least, format_ in _FORMATS:
        if bool(np.all((numbers >= least) & (numbers < 10 * least))) and _dates(numbers // (least // 10**7), numbers % (least // 10**7), least):
            return "a date", format_
    if bool(np.all((numbers >= _SHEET_DAYS[0]) & (numbers < _SHEET_DAYS[1]))):
        return "the day number of a spreadsheet", None
    return None


def _dates(day: npt.NDArray[np.int64], clock: npt.NDArray[np.int64], least: int) -> bool:
    """Whether all days are yyyymmdd within 1970 to 2100, and all clocks hhmm or hhmmss."""
    year, month, day_of_month = day // 10_000, day // 100 % 100, day % 100
    good = (year >= 1970) & (year <= 2100) & (month >= 1) & (month <= 12) & (day_of_month >= 1) & (day_of_month <= 31)
    if least > 10**7:
        hour_minute = clock // 100 if least == 10**13 else clock
        good &= (hour_minute // 100 < 24) & (hour_minute % 100 < 60)
        good &= clock % 100 < 60
    return bool(good.all())


@dataclass(frozen=True)
class TimeNumbers:
    """What a column of integers seems to count, if not seconds. Those of a column's parts add up to the column's."""

    known: int = 0
    least: int | None = None
    over: tuple[int, ...] = (0,) * len(_UNITS)  # how many values are at least as large as each unit's
    date: tuple[str, str | None] | None = None  # what every one of them reads like

    @classmethod
    def of(cls, numbers: npt.NDArray[np.int64]) -> TimeNumbers:
        """Of the values [n] that are not null."""
        over = tuple(int(np.count_nonzero(numbers >= least)) for least, _, _ in _UNITS)
        return cls(len(numbers), int(numbers.min()) if len(numbers) else None, over, date_in(numbers))

    def __add__(self, other: TimeNumbers) -> TimeNumbers:
        if self.least is None or other.least is None:
            return other if self.least is None else self
        over = tuple(mine + others for mine, others in zip(self.over, other.over, strict=True))
        return TimeNumbers(self.known + other.known, min(self.least, other.least), over, self.date if self.date == other.date else None)

    def refuse(self, file: str, name: str) -> None:
        """DigerError where the values are dates, or mostly finer than seconds."""
        if self.date is not None:
            what, format_ = self.date
            convert = f", or convert it (diger ingest table --timestamp-format '{format_}')" if format_ else ""
            raise DigerError(f"{file}: column {name} holds values that read like {what}, such as {self.least}; {TIME_REMEDY}{convert}")
        for many, (least, unit, factor) in zip(self.over, _UNITS, strict=True):
            if self.known and many * 2 > self.known:
                raise DigerError(f"{file}: column {name} holds {unit} (most values are at least {least}), not Unix seconds; divide it by {factor}")
