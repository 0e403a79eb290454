"""Interactions held as integer codes while they are filtered: a dozen or two bytes a row, whatever the ids look like.

E interactions, U users, N items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from diger_core.progress import Progress
from orchestration.engine.memory import installed
from orchestration.snapshot.ingest.kcore import Codes, k_core
from orchestration.validation.columns import INT64_MAX

MILLISECONDS = 10**11  # as seconds: the year 5138
_BYTES = 50  # of memory for an interaction, about, beside the distinct ids
_VALUES = ("pos", "timestamp", "rating", "weight")


@dataclass(frozen=True)
class Filters:
    """Which interactions stay: rating >= min_rating, since <= timestamp < until (Unix seconds), then the k-core (0: all)."""

    k_core: int = 0
    min_rating: float | None = None
    since: int | None = None
    until: int | None = None


@dataclass
class Events:
    """Codes of users and items with their dictionaries, and the value columns that exist; arrays [E]."""

    user_E: Codes
    user_ids: pa.Array
    item_E: Codes
    item_ids: pa.Array
    values: dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float64]] = field(default_factory=dict)
    event_type: tuple[Codes, pa.Array] | None = None
    read: int = 0
    filtered: int = 0

    def select(self, kept: npt.NDArray[np.bool_]) -> None:
        """Drops the other interactions, and the users and items that are left without any."""
        self.user_E, self.user_ids = _recoded(self.user_E[kept], self.user_ids)
        self.item_E, self.item_ids = _recoded(self.item_E[kept], self.item_ids)
        self.values = {name: values[kept] for name, values in self.values.items()}
        if self.event_type is not None:
            self.event_type = (self.event_type[0][kept], self.event_type[1])


def collect(batches: Iterator[pa.Table], filters: Filters, file: str = "the interactions") -> Events:
    """Reads all batches, filters by rating and time, and numbers the ids in the order of their first appearance."""
    coded: dict[str, list[pa.Array]] = {"user_id": [], "item_id": [], "event_type": []}
    values: dict[str, list[np.ndarray]] = {}
    read = kept = 0
    for batch in batches:
        read += len(batch)
        batch = _filtered(batch, filters)
        kept += len(batch)
        if kept * _BYTES > installed():
            raise DigerError(f"more than {kept:,} interactions do not fit into this machine's memory; keep fewer: --since, --until")
        for name in coded:
            if name in batch.column_names:
                coded[name].append(batch.column(name).combine_chunks().dictionary_encode())
        for name in _VALUES:
            if name in batch.column_names:
                values.setdefault(name, []).append(batch.column(name).to_numpy())
    if read == 0:
        raise DigerError(f"{file}: has no row that can be used; export it again, with the events")
    if kept == 0:
        raise DigerError(f"none of the {read:,} interactions is left after the filters; check --min-rating, --since and --until")
    columns = {name: np.concatenate(values.pop(name)) for name in list(values)}
    user_E, user_ids = _unified(coded.pop("user_id"))
    item_E, item_ids = _unified(coded.pop("item_id"))
    types = coded.pop("event_type")
    return Events(user_E, user_ids, item_E, item_ids, columns, _unified(types) if types else None, read, read - kept)


def _filtered(batch: pa.Table, filters: Filters) -> pa.Table:
    tests = []
    if filters.min_rating is not None:
        tests.append(pc.greater_equal(batch.column("rating"), filters.min_rating))
    if filters.since is not None:
        tests.append(pc.greater_equal(_time(batch), filters.since))
    if filters.until is not None:
        tests.append(pc.less(_time(batch), filters.until))
    for test in tests[1:]:
        tests[0] = pc.and_(tests[0], test)
    return batch.filter(tests[0]) if tests else batch


def _time(batch: pa.Table) -> pa.ChunkedArray:
    if "timestamp" not in batch.column_names:
        raise DigerError("--since and --until need a timestamp; map one with --map timestamp=COLUMN")
    return batch.column("timestamp")


def _unified(chunks: list[pa.Array]) -> tuple[Codes, pa.Array]:
    """One dictionary for all batches. Codes are int32: over 2^31 distinct ids do not fit."""
    while chunks and len(chunks[-1]) == 0 and len(chunks) > 1:
        chunks.pop()
    united = pa.chunked_array(chunks).unify_dictionaries()
    ids = united.chunk(0).dictionary
    codes = np.concatenate([pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in united.chunks]).astype(np.int32, copy=False)
    if ids.type == pa.uint64() and pc.max(ids).as_py() <= INT64_MAX:
        ids = ids.cast(pa.int64())
    return codes, ids


def _recoded(codes: Codes, ids: pa.Array) -> tuple[Codes, pa.Array]:
    """Only the ids in use, in their order, and the codes into them."""
    used = np.bincount(codes, minlength=len(ids)) > 0
    new = (np.cumsum(used) - 1).astype(np.int32)
    return new[codes], ids.filter(pa.array(used))


def refuse_milliseconds(events: Events, file: str) -> None:
    """A file whose times are mostly beyond the year 5138 counts something finer than seconds; the unit is the one that leads to this age."""
    times = events.values.get("timestamp")
    middle = 0 if times is None else float(np.median(times))
    if middle >= MILLISECONDS:
        unit = "ms" if middle < 1e14 else "us" if middle < 1e17 else "ns"
        raise DigerError(f"{file}: the timestamps are not Unix seconds (half of them are at least {MILLISECONDS}); pass --timestamp-unit {unit}")


def take_core(events: Events, k: int, progress: Progress) -> int:
    """Reduces `events` to its k-core and returns how many interactions that dropped. DigerError where nothing is left."""
    if k <= 1:
        return 0
    kept = k_core(events.user_E, events.item_E, k, progress)
    dropped = len(kept) - int(np.count_nonzero(kept))
    if dropped == len(kept):
        raise DigerError(f"the {k}-core of {len(kept):,} interactions is empty; lower --k-core")
    if dropped:
        events.select(kept)
    return dropped


def as_integers(events: Events) -> None:
    """Ids that were read as text, as int64 or, where one needs it, uint64. DigerError where one is not an integer in its shortest form."""
    events.user_ids = integer_ids(events.user_ids, "user_id")
    events.item_ids = integer_ids(events.item_ids, "item_id")


def integer_ids(ids: pa.Array, what: str) -> pa.Array:
    """Ids that were read as text, as int64 or, where one needs it, uint64. DigerError where one is not an integer in its shortest form."""
    if pa.types.is_integer(ids.type):
        return ids
    for kind in (pa.int64(), pa.uint64()):
        try:
            numbers = ids.cast(kind)
        except pa.ArrowInvalid:
            continue
        same = pc.equal(numbers.cast(ids.type), ids)
        if pc.all(same).as_py():
            return numbers
        raise DigerError(f"{what} {ids[pc.index(same, False).as_py()].as_py()!r:.80} would change as an integer; leave out --integer-ids")
    raise DigerError(f"{what}: not all ids are integers within 64 bits; leave out --integer-ids")
