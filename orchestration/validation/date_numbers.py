"""Numbers that are dates and no counts of seconds: 20240131, 202401311559, 20240131155900, and the day numbers of spreadsheets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
