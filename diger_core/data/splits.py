"""What is trained on, what is held out: the one place that says so (docs/method.md, section 3).

Temporal (`Sequences.boundaries` = T1, T2): training events lie at or before T1. A user's validation target is the first event in (T1, T2], the
test target the first one after T2, each with at least one event of that user before it. Histories of test targets reach up to T2.
Leave one out (no boundaries): the last event is the test target, the second-last the validation target, everything before is training, and so are
all events of users with fewer than three, who have no rows.

E events, U users, N items, R training rows, T evaluation rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from diger_core.data.sequences import Bool, Int32, Int64, Sequences
from diger_core.errors import DigerError

Split = Literal["validation", "test", "test_all"]
SPLITS = ("validation", "test", "test_all")
DAY = 86_400
PART = 1 << 22  # events that are looked at once, where all would take several arrays of their length


class NoTemporalSplit(DigerError):
    """The events do not allow the temporal split that was asked for."""


class Moments:
    """The times of all events, counted by day; within the few days that are asked for, by second. `blocks()` yields them (Unix seconds), again and
    again and in any order."""

    def __init__(self, blocks: Callable[[], Iterable[Int64]]):
        self._blocks = blocks
        days: dict[int, int] = {}
        for time_E in blocks():
            for day, many in zip(*np.unique(time_E // DAY, return_counts=True), strict=True):
                days[int(day)] = days.get(int(day), 0) + int(many)
        self._days = sorted(days)
        self._ends = np.cumsum([days[day] for day in self._days], dtype=np.int64)
        self._seconds: dict[int, Int64] = {}

    @classmethod
    def of(cls, seq: Sequences) -> Moments | None:
        """Of these sequences; None where they have no times."""
        return None if seq.timestamps_E is None else cls(lambda: (part.timestamps_E for part in parts(seq) if part.timestamps_E is not None))

    @property
    def events(self) -> int:
        return int(self._ends[-1])

    def ranked(self, place: int) -> int:
        """The time at `place` of the sorted times, 0 the first."""
        at = int(np.searchsorted(self._ends, place, side="right"))
        within = place - (int(self._ends[at - 1]) if at else 0)
        return self._days[at] * DAY + int(np.searchsorted(self._until(self._days[at]), within, side="right"))

    def up_to(self, moment: int) -> int:
        """How many events lie at or before the moment."""
        day, second = divmod(moment, DAY)
        at = int(np.searchsorted(self._days, day))
        before = int(self._ends[at - 1]) if at else 0
        return before + (int(self._until(day)[second]) if at < len(self._days) and self._days[at] == day else 0)

    def _until(self, day: int) -> Int64:
        """[86,400]: the events of the day up to and with each second."""
        if day not in self._seconds:
            counts = np.zeros(DAY, dtype=np.int64)
            for time_E in self._blocks():
                inside = time_E - day * DAY
                counts += np.bincount(inside[(inside >= 0) & (inside < DAY)], minlength=DAY)
            self._seconds[day] = np.cumsum(counts)
        return self._seconds[day]


def time_boundaries(moments: Moments | None, train: float | str, validation: float | str) -> tuple[int, int]:
    """(T1, T2), Unix seconds: shares of the events (0.8: their 80% quantile), or ISO dates (their last second, UTC). `moments`: None without times.

    Raises DigerError where there are no times, the boundaries do not follow each other, or one of the three parts would hold no event.
    """
    if moments is None:
        raise NoTemporalSplit(
            "sequences.split=temporal, but the interactions have no timestamp: add the column, or set sequences.split=leave_one_out"
        )
    first, second = (_moment(moments, end) for end in (train, validation))
    oldest, newest = moments.ranked(0), moments.ranked(moments.events - 1)
    told = f"training ends at {date_of(first)}, validation at {date_of(second)}; the events reach from {date_of(oldest)} to {date_of(newest)}"
    remedy = "give other shares or dates (sequences.train_until, sequences.validate_until), or set sequences.split=leave_one_out"
    if not first < second:
        raise NoTemporalSplit(f"sequences: the two boundaries of the temporal split leave no time between them: {told}: {remedy}")
    counts = np.diff([moments.up_to(moment) for moment in (first, second, newest)], prepend=0)
    if (counts == 0).any():
        part = ("training", "validation", "test")[int(np.argmax(counts == 0))]
        raise NoTemporalSplit(f"sequences: the temporal split leaves no event for {part}: {told}: {remedy}")
    return first, second


def _moment(moments: Moments, end: float | str) -> int:
    if isinstance(end, str):
        return int(np.datetime64(end, "s").astype(np.int64)) + (86_399 if len(end) == 10 else 0)
    return moments.ranked(max(0, int(np.ceil(end * moments.events)) - 1))


def date_of(seconds: int | np.integer) -> str:
    """The moment in UTC, as people write it."""
    return str(np.datetime64(int(seconds), "s")).replace("T", " ")


@dataclass(frozen=True)
class SplitCounts:
    """What a split comes to: counts that add up over parts of the users."""

    training_rows: int = 0
    validation_users: int = 0
    test_users: int = 0
    same_time: int | None = None  # test targets with the time of the event before them; None without times
    few_events: int = 0  # users with fewer than three
    nothing_after: int = 0  # users without an event after T2
    nothing_before: int = 0  # users without an event up to T2

    def __add__(self, other: SplitCounts) -> SplitCounts:
        tied = None if self.same_time is None or other.same_time is None else self.same_time + other.same_time
        numbers = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__ if name != "same_time"}
        return SplitCounts(**numbers, same_time=tied)

    def without_rows(self, boundaries: tuple[int, int] | None) -> dict[str, int]:
        """Users by why they have no test row: nothing after T2, or nothing before it; fewer than three events under leave one out."""
        if boundaries is None:
            return {"users_with_fewer_than_3_events": self.few_events}
        return {"users_without_events_after_validation": self.nothing_after, "users_new_after_validation": self.nothing_before}


def split_counts(seq: Sequences) -> SplitCounts:
    """The counts of these users, part by part."""
    return sum((_counts(part) for part in parts(seq)), SplitCounts(same_time=None if seq.timestamps_E is None else 0))


def _counts(seq: Sequences) -> SplitCounts:
    tied_T = same_time(seq, "test")
    known_U = seq.offsets_U1[1:] if seq.boundaries is None else _ends(seq, seq.boundaries[1])
    return SplitCounts(
        training_rows=len(training_rows(seq)[0]),
        validation_users=len(targets(seq, "validation")[0]),
        test_users=len(targets(seq, "test")[0]),
        same_time=None if tied_T is None else int(tied_T.sum()),
        few_events=int((np.diff(seq.offsets_U1) < 3).sum()),
        nothing_after=int((known_U == seq.offsets_U1[1:]).sum()),
        nothing_before=int((known_U == seq.offsets_U1[:-1]).sum()),
    )


def parts(seq: Sequences, events: int = PART) -> Iterator[Sequences]:
    """The same sequences as parts of whole users, each of about so many events: views, nothing is copied."""
    first = 0
    while first < seq.users:
        last = max(first + 1, int(np.searchsorted(seq.offsets_U1, seq.offsets_U1[first] + events, side="right")) - 1)
        begin, end = int(seq.offsets_U1[first]), int(seq.offsets_U1[last])
        yield replace(
            seq,
            events_E=seq.events_E[begin:end],
            offsets_U1=seq.offsets_U1[first : last + 1] - begin,
            timestamps_E=None if seq.timestamps_E is None else seq.timestamps_E[begin:end],
            weights_E=None if seq.weights_E is None else seq.weights_E[begin:end],
        )
        first = last


def require_rows(found: SplitCounts, boundaries: tuple[int, int] | None, fewest: int) -> None:
    """DigerError where a split leaves too few rows to train on or, of a temporal one, fewer than `fewest` users to judge by."""
    if not found.training_rows:
        refused = DigerError if boundaries is None else NoTemporalSplit
        least = "4 events" if boundaries is None else "two events up to the first boundary"
        raise refused(f"sequences: no user has the {least} that a training row needs: give a snapshot with longer histories")
    if boundaries is None and not found.test_users:
        raise DigerError("sequences: no user has the 3 events that a test target needs: give a snapshot with longer histories")
    if boundaries is not None and min(found.validation_users, found.test_users) < fewest:
        first, second = boundaries
        raise NoTemporalSplit(
            f"sequences: the temporal split (training to {date_of(first)}, validation to {date_of(second)}) leaves {found.validation_users} "
            f"validation and {found.test_users} test users, and at least {fewest} of each are wanted (sequences.min_test_users): give other shares "
            "or dates (sequences.train_until, sequences.validate_until), or set sequences.split=leave_one_out"
        )


def training_ends(seq: Sequences) -> Int64:
    """[U]: where each user's training events end (exclusive, absolute)."""
    if seq.boundaries is not None:
        return _ends(seq, seq.boundaries[0])
    lengths_U = np.diff(seq.offsets_U1)
    return seq.offsets_U1[1:] - np.where(lengths_U >= 3, seq.held_out, 0)


def _ends(seq: Sequences, until: int) -> Int64:
    """[U]: where each user's events at or before `until` end (exclusive, absolute): its events are in the order of time."""
    if seq.timestamps_E is None:
        return seq.offsets_U1[1:]  # of `to_the_end`, where all events are training
    before_E1 = np.r_[0, np.cumsum(seq.timestamps_E <= until)]
    ends_U: Int64 = seq.offsets_U1[:-1] + before_E1[seq.offsets_U1[1:]] - before_E1[seq.offsets_U1[:-1]]
    return ends_U


def training_mask(seq: Sequences) -> Bool:
    """[E]: True for training events: what anything that is fitted may look at (counts, factors, encoder, teacher, popularity)."""
    return np.arange(len(seq.events_E)) < np.repeat(training_ends(seq), np.diff(seq.offsets_U1))


def trains(seq: Sequences, at_e: Int64, user_e: Int64) -> Bool:
    """[e]: whether the events at these places, of these users, are training events: `training_mask` for a few."""
    if seq.boundaries is None:
        lengths_e = seq.offsets_U1[user_e + 1] - seq.offsets_U1[user_e]
        return at_e < seq.offsets_U1[user_e + 1] - np.where(lengths_e >= 3, seq.held_out, 0)
    if seq.timestamps_E is None:
        return np.ones(len(at_e), dtype=bool)  # of `to_the_end`
    found_e: Bool = seq.timestamps_E[at_e] <= seq.boundaries[0]
    return found_e


def training_rows(seq: Sequences) -> tuple[Int32, Int64]:
    """(user_R, position_R): temporal: every training event that has a predecessor. Leave one out: targets e_2 .. e_{n-2} of a user of n events.

    `position_R` is the target's absolute index in `events_E`; its history are the user's events before it. Ordered by user, then time.
    """
    fewer = 1 + seq.held_out if seq.boundaries is None else 1  # rows than events (leave one out) or than training events
    ends_U = seq.offsets_U1[1:] if seq.boundaries is None else training_ends(seq)
    rows_U = np.maximum(ends_U - seq.offsets_U1[:-1] - fewer, 0)
    user_R = np.repeat(np.arange(seq.users, dtype=np.int32), rows_U)
    rank_R = np.arange(len(user_R), dtype=np.int64) - np.repeat(np.cumsum(rows_U) - rows_U, rows_U)
    return user_R, seq.offsets_U1[user_R] + 1 + rank_R


def targets(seq: Sequences, split: Split) -> tuple[Int64, Int64, Int32]:
    """(users_T, end_T, target_T): history of row t is `events_E[offsets_U1[users_T[t]]:end_T[t]]`, its target the item `target_T[t]`.

    `test_all` (temporal only): every event after T2, each with the history up to T2, which is what a list made at T2 can serve; users repeat.
    Leave one out: validation is the second-last event after all before it, test the last one; users with fewer than three events have no row.
    """
    if split not in SPLITS:
        raise ValueError(f"split = {split!r}: must be one of {', '.join(SPLITS)}")
    if seq.boundaries is None:
        if split == "test_all":
            raise ValueError("split = 'test_all': only a temporal split has it")
        users_T = np.flatnonzero(np.diff(seq.offsets_U1) >= 3)
        if split == "validation" and seq.held_out < 2:
            users_T = users_T[:0]  # of `up_to_test`, where these events are training
        end_T = seq.offsets_U1[users_T + 1] - (2 if split == "validation" else 1)
        return users_T, end_T, seq.events_E[end_T]
    first, second = seq.boundaries
    begin_U = _ends(seq, first if split == "validation" else second)
    end_U = _ends(seq, second) if split == "validation" else seq.offsets_U1[1:]
    users_T = np.flatnonzero((begin_U > seq.offsets_U1[:-1]) & (begin_U < end_U))
    if split != "test_all":
        return users_T, begin_U[users_T], seq.events_E[begin_U[users_T]]
    many_T = end_U[users_T] - begin_U[users_T]
    place = np.arange(int(many_T.sum())) - np.repeat(np.cumsum(many_T) - many_T, many_T) + np.repeat(begin_U[users_T], many_T)
    return np.repeat(users_T, many_T), np.repeat(begin_U[users_T], many_T), seq.events_E[place]


def same_time(seq: Sequences, split: Split) -> Bool | None:
    """[T]: True where a target has the time of the event before it, so that their order is not known. None without times."""
    if seq.timestamps_E is None:
        return None
    _, end_T, _ = targets(seq, split)
    if split == "test_all":
        return None  # rows share their history; the order among targets does not count
    tied_T: Bool = seq.timestamps_E[end_T] == seq.timestamps_E[end_T - 1]
    return tied_T


def training_counts(seq: Sequences) -> Int64:
    """[N]: how often each item occurs in training events."""
    return np.bincount(seq.events_E[training_mask(seq)], minlength=seq.items).astype(np.int64)


def to_the_end(seq: Sequences) -> Sequences:
    """The same events, all of them training: what is refitted before a release. It has no held-out targets."""
    end = int(np.iinfo(np.int64).max)
    return replace(seq, boundaries=(end, end))


def up_to_test(seq: Sequences) -> Sequences:
    """The same events with all before the test as training: what may be counted on the eve of it. Leave one out: all but each user's last event."""
    if seq.boundaries is None:
        return replace(seq, held_out=1)
    return replace(seq, boundaries=(seq.boundaries[1], seq.boundaries[1]))
