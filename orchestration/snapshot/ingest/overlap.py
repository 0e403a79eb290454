"""A day's events beside those of the snapshot before: which come late, and which it has already.

Only row groups whose times, by the statistics in the footer, include a time of the day are read: none or one, where the day follows the snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from orchestration.snapshot.parts import reading_of

Mask = npt.NDArray[np.bool_]
Rule = Literal["keep", "drop", "refuse"]
Parts = Mapping[Path, pq.FileMetaData]


@dataclass(frozen=True)
class Policy:
    """What is done with an event older than the snapshot's newest, and with one that the snapshot has already, equal in every column. `late` None: as
    `keep`, but a day that is older as a whole is refused."""

    late: Rule | None = None
    duplicates: Rule = "drop"


@dataclass(frozen=True)
class Findings:
    """Events of the day. `kept` [day's events]; the counts are of all, whatever is done with them, each event in one of them at most."""

    kept: Mask
    late: int
    duplicates: int


def judge(day: pa.Table, parts: Parts, policy: Policy, file: str, previous: Path) -> Findings:
    """Applies the policy. DigerError, by file and event, where it says refuse, where the day is older as a whole, and where nothing is left."""
    if policy.late is not None and "timestamp" not in day.column_names:
        raise DigerError(f"--late needs timestamps, and the events of {previous} have none, only pos; leave --late out")
    late, newest = np.zeros(len(day), bool), _newest(parts)
    if newest is not None and "timestamp" in day.column_names:
        late = pc.less(day["timestamp"], newest).to_numpy(zero_copy_only=False)
    first = _event(day, late)
    if late.any() and policy.late == "refuse":
        raise DigerError(
            f"{file}: {late.sum():,} events are older than the newest of {previous} ({_time(newest)}), the first is {first}; take them out, or "
            "pass --late keep or --late drop"
        )
    known = already(day, parts)
    if known.any() and policy.duplicates == "refuse":
        raise DigerError(
            f"{file}: {known.sum():,} events are in {previous} already, the first is {_event(day, known)}; take them out, or pass "
            "--duplicates drop or --duplicates keep"
        )
    if late.all() and policy.late is None:
        raise DigerError(
            f"{file}: is older than {previous}, whose newest event is of {_time(newest)}: all its {len(day):,} events are, the first is {first}; "
            "give the file of a later day, or pass --late keep to add it all the same"
        )
    kept = ~(late & (policy.late == "drop") | known & (policy.duplicates == "drop"))
    # One that is both is told by what leaves it out, and as known where both rules do the same with it.
    if policy.late == "drop" and policy.duplicates == "keep":
        known = known & ~late
    else:
        late = late & ~known
    if not kept.any():
        raise DigerError(
            f"{file}: none of its {len(day):,} events is new ({known.sum():,} are in {previous} already, {late.sum():,} are late); give the file of "
            "the next day, or pass --duplicates keep or --late keep"
        )
    return Findings(kept, int(late.sum()), int(known.sum()))


def _event(day: pa.Table, mask: Mask) -> str:
    row = int(np.argmax(mask))
    when = f" ({_time(day['timestamp'][row].as_py())})" if "timestamp" in day.column_names else ""
    return f"event {row + 1:,}{when}"


def _time(seconds: Any) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _newest(parts: Parts) -> int | None:
    ranges = [found for footer in parts.values() for found in _ranges(footer, "timestamp")]
    return max((high for _, high in ranges), default=None)


def _ranges(footer: pq.FileMetaData, column: str) -> list[tuple[int, int]]:
    """(smallest, largest) value of the column in each row group; none where the file has no such column."""
    names = [footer.schema.column(leaf).path for leaf in range(footer.num_columns)]
    if column not in names:
        return []
    found = [footer.row_group(group).column(names.index(column)).statistics for group in range(footer.num_row_groups)]
    if any(each is None or not each.has_min_max for each in found):
        raise DigerError(f"the snapshot's events have no statistics of {column}: another tool wrote them; make the snapshot again with diger ingest")
    return [(each.min, each.max) for each in found]


def already(day: pa.Table, parts: Parts) -> Mask:
    """[day's events] bool: whether the snapshot has an event that is equal in every column. What a day repeats within itself is not told."""
    there = pa.concat_tables([day.schema.empty_table(), *_near(day, parts)])
    code = np.zeros(len(there) + len(day), np.int64)
    for name in day.column_names:
        column = pa.chunked_array([*there[name].cast(day.schema.field(name).type).chunks, *day[name].chunks])
        own = column.combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
        code = np.unique(code * (int(own.max(initial=0)) + 1) + own, return_inverse=True)[1].astype(np.int64)
    return np.isin(code[len(there) :], code[: len(there)])


def _near(day: pa.Table, parts: Parts) -> Iterator[pa.Table]:
    """The snapshot's events at the day's times (its places, where there are no times)."""
    column = "timestamp" if "timestamp" in day.column_names else "pos"
    times = pc.unique(day[column])
    ordered = np.sort(times.to_numpy())
    for part, footer in parts.items():
        for group, (low, high) in enumerate(_ranges(footer, column)):
            at = int(np.searchsorted(ordered, low))
            if at < len(ordered) and ordered[at] <= high:
                with reading_of(part), pq.ParquetFile(part) as file:
                    table = file.read_row_group(group)
                yield table.filter(pc.is_in(table[column], times)).cast(day.schema)
