"""What is trained on, what is held out: the one place that says so (docs/method.md, section 3).

Temporal (`Sequences.boundaries` = T1, T2): training events lie at or before T1. A user's validation target is the first event in (T1, T2], the
test target the first one after T2, each with at least one event of that user before it. Histories of test targets reach up to T2.
Leave one out (no boundaries): the last event is the test target, the second-last the validation target, everything before is training, and so are
all events of users with fewer than three, who have no rows.

E events, U users, N items, R training rows, T evaluation rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from diger_core.data.sequences import Bool, Int32, Int64, Sequences
from diger_core.errors import DigerError

Split = Literal["validation", "test", "test_all"]
SPLITS = ("validation", "test", "test_all")


class NoTemporalSplit(DigerError):
    """The events do not allow the temporal split that was asked for."""


def time_boundaries(seq: Sequences, train: float | str, validation: float | str) -> tuple[int, int]:
    """(T1, T2), Unix seconds: shares of the events (0.8: their 80% quantile), or ISO dates (their last second, UTC).

    Raises DigerError where there are no times, the boundaries do not follow each other, or one of the three parts would hold no event.
    """
    if seq.timestamps_E is None:
        raise NoTemporalSplit(
            "sequences.split=temporal, but the interactions have no timestamp: add the column, or set sequences.split=leave_one_out"
        )
    sorted_E = np.sort(seq.timestamps_E)
    first, second = (_moment(sorted_E, end) for end in (train, validation))
    told = (
        f"training ends at {date_of(first)}, validation at {date_of(second)}; the events reach from {date_of(sorted_E[0])} to {date_of(sorted_E[-1])}"
    )
    remedy = "give other shares or dates (sequences.train_until, sequences.validate_until), or set sequences.split=leave_one_out"
    if not first < second:
        raise NoTemporalSplit(f"sequences: the two boundaries of the temporal split leave no time between them: {told}: {remedy}")
    counts = np.diff(np.searchsorted(sorted_E, [first, second, sorted_E[-1]], side="right"), prepend=0)
    if (counts == 0).any():
        part = ("training", "validation", "test")[int(np.argmax(counts == 0))]
        raise NoTemporalSplit(f"sequences: the temporal split leaves no event for {part}: {told}: {remedy}")
    return first, second


def _moment(sorted_E: Int64, end: float | str) -> int:
    if isinstance(end, str):
        return int(np.datetime64(end, "s").astype(np.int64)) + (86_399 if len(end) == 10 else 0)
    return int(sorted_E[max(0, int(np.ceil(end * len(sorted_E))) - 1)])


def date_of(seconds: int | np.integer) -> str:
    """The moment in UTC, as people write it."""
    return str(np.datetime64(int(seconds), "s")).replace("T", " ")


def require_rows(seq: Sequences, fewest: int) -> None:
    """DigerError where a split leaves too few rows to train on or, of a temporal one, fewer than `fewest` users to judge by."""
    if not len(training_rows(seq)[0]):
        refused = DigerError if seq.boundaries is None else NoTemporalSplit
        least = "4 events" if seq.boundaries is None else "two events up to the first boundary"
        raise refused(f"sequences: no user has the {least} that a training row needs: give a snapshot with longer histories")
    users = {split: len(targets(seq, split)[0]) for split in ("validation", "test")}
    if seq.boundaries is None and not users["test"]:
        raise DigerError("sequences: no user has the 3 events that a test target needs: give a snapshot with longer histories")
    if seq.boundaries is not None and min(users.values()) < fewest:
        first, second = seq.boundaries
        raise NoTemporalSplit(
            f"sequences: the temporal split (training to {date_of(first)}, validation to {date_of(second)}) leaves {users['validation']} validation "
            f"and {users['test']} test users, and at least {fewest} of each are wanted (sequences.min_test_users): give other shares or dates "
            "(sequences.train_until, sequences.validate_until), or set sequences.split=leave_one_out"
        )


def training_ends(seq: Sequences) -> Int64:
    """[U]: where each user's training events end (exclusive, absolute)."""
    if seq.boundaries is not None:
        return _ends(seq, seq.boundaries[0])
    lengths_U = np.diff(seq.offsets_U1)
    return seq.offsets_U1[1:] - np.where(lengths_U >= 3, 2, 0)


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


def training_rows(seq: Sequences) -> tuple[Int32, Int64]:
    """(user_R, position_R): temporal: every training event that has a predecessor. Leave one out: targets e_2 .. e_{n-2} of a user of n events.

    `position_R` is the target's absolute index in `events_E`; its history are the user's events before it. Ordered by user, then time.
    """
    fewer = 3 if seq.boundaries is None else 1  # rows than events (leave one out) or than training events
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


def without_rows(seq: Sequences) -> dict[str, int]:
    """Users by why they have no test row: nothing after T2, or nothing before it; fewer than three events under leave one out."""
    if seq.boundaries is None:
        return {"users_with_fewer_than_3_events": int((np.diff(seq.offsets_U1) < 3).sum())}
    known_U = _ends(seq, seq.boundaries[1])
    return {
        "users_without_events_after_validation": int((known_U == seq.offsets_U1[1:]).sum()),
        "users_new_after_validation": int((known_U == seq.offsets_U1[:-1]).sum()),
    }


def training_counts(seq: Sequences) -> Int64:
    """[N]: how often each item occurs in training events."""
    return np.bincount(seq.events_E[training_mask(seq)], minlength=seq.items).astype(np.int64)


def to_the_end(seq: Sequences) -> Sequences:
    """The same events, all of them training: what is refitted before a release. It has no held-out targets."""
    end = int(np.iinfo(np.int64).max)
    return replace(seq, boundaries=(end, end))


def up_to(seq: Sequences, split: Literal["test"] = "test") -> Sequences:
    """The same events with all that lie before the test period as training: counts made anew on the eve of the test."""
    if seq.boundaries is None:
        raise ValueError("only a temporal split has an eve of its test")
    return replace(seq, boundaries=(seq.boundaries[1], seq.boundaries[1]))
