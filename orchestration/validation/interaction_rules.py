"""The row rules of interactions.parquet: types exactly or refused, bad rows to quarantine, events by user and time."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.item_ids import index_of
from orchestration.engine.registry import Volume
from orchestration.params.data import ValidatedInteractionsConfig
from orchestration.validation import columns
from orchestration.validation.interaction_columns import COLUMNS, FILE, STAGE, Columns, Survey, read, survey
from orchestration.validation.quarantine import Check, Quarantine, Quarantined, Validated, absent, check, look_alikes, too_long, volume, with_control

DAY = 86_400

REASONS = {
    "missing_user_id": "user_id is null or empty",
    "missing_item_id": "item_id is null or empty",
    "long_user_id": "user_id is longer than max_id_bytes",
    "unknown_item": "item_id is not among the validated items",
    "missing_pos": "pos is null",
    "missing_timestamp": "timestamp is null",
    "future_timestamp": "timestamp lies in the future",
    "early_timestamp": "timestamp lies before the earliest date",
    "invalid_weight": "weight is null, negative, NaN or infinite",
}
CHECKS = (
    "events_left",
    "quarantined_share",
    *(f"quarantined_{key}" for key in REASONS),
    "volume",
    "short_histories",
    "repeated_events",
    "items_never_seen",
    "look_alike_user_ids",
    "control_characters",
    "events_not_selected",
    "columns_ignored",
)


def validate_interactions(
    interactions: pa.Table,
    known_items: pa.ChunkedArray,
    params: ValidatedInteractionsConfig,
    previous: Volume | None = None,
    now: float | None = None,
) -> Validated:
    """Applies the rules to the events of `known_items` (the validated items' ids, unique).

    Returns user_id, item_id and those of pos, timestamp, event_type, weight that exist; by user id, then pos (else timestamp), then item
    id. `timestamp` is int64 Unix seconds, or an Arrow timestamp without zone (UTC) where some value has a fraction of a second.
    `now` (Unix seconds; default: the clock) counts only where `params.latest` is null. Raises DigerError for columns that are missing or
    mistyped, ids of another kind than the catalogue's, timestamps finer than seconds, event types that do not occur.
    """
    found = survey(interactions, known_items, params)
    found.refuse(interactions.column_names, params)
    known = columns.decoded(known_items)
    part = quarantined_part(read(interactions, params, found), known, params, now)
    table, user_E, item_E = ordered(part.given, part.item_E, known, part.kept)
    about = findings(table, user_E, item_E, len(known))
    counts, checks = rule_results(found, part.found, about, len(known), interactions.column_names, params, previous)
    return Validated(table, part.table, checks, counts)


@dataclass(frozen=True)
class Part:
    """Rows of the file that have met the rules: `item_E` places among the known items, -1 where unknown; `kept` numbers of the rows that passed."""

    given: Columns
    item_E: np.ndarray
    kept: np.ndarray
    table: pa.Table  # the quarantine
    found: Quarantined


def quarantined_part(given: Columns, known: pa.ChunkedArray, params: ValidatedInteractionsConfig, now: float | None = None) -> Part:
    """The row rules. `known`: the validated items' ids, decoded."""
    item_E = index_of(given.items, known)
    quarantine = _quarantine(given, item_E, params, now)
    table = quarantine.table(given.rows, given.items)
    return Part(given, item_E, np.flatnonzero(quarantine.kept), table, quarantine.found(table))


def rule_results(
    found: Survey,
    quarantined: Quarantined,
    findings: Findings,
    items: int,
    names: list[str],
    params: ValidatedInteractionsConfig,
    previous: Volume | None,
) -> tuple[dict[str, int], list[Check]]:
    """Counts and checks of the whole file. `items`: how many are known; `names`: the file's columns."""
    events, unselected = findings.events, found.rows - found.selected
    ignored = [n for n in names if n not in COLUMNS]
    remedy = "" if events else "; at least one is needed: fix the quarantined rows"
    message = f"{events} of {found.selected} selected events left after quarantine{remedy}"
    checks = [
        check("events_left", events > 0, "critical", message, observed=events, expected=">= 1"),
        *quarantined.checks(FILE, REASONS, STAGE, params.max_quarantined),
        volume(FILE, STAGE, found.rows, previous, params),
        *findings.checks(items),
        check("events_not_selected", True, "info", f"{unselected} rows of {FILE} not selected by {STAGE}.event_types", observed=unselected),
        check("columns_ignored", True, "info", f"columns of {FILE} that are not used: {', '.join(ignored) or 'none'}", observed=len(ignored)),
    ]
    head = {"rows": found.rows, "not_selected": unselected, "events": events, "quarantined": quarantined.count}
    return {**head, **quarantined.counts, **findings.counts(items)}, checks


def _quarantine(given: Columns, item_E: np.ndarray, params: ValidatedInteractionsConfig, now: float | None) -> Quarantine:
    quarantine = Quarantine(FILE, len(given.rows), REASONS)
    quarantine.mark("missing_user_id", absent(given.users))
    quarantine.mark("missing_item_id", absent(given.items))
    quarantine.mark("long_user_id", too_long(given.users, params.max_id_bytes))
    quarantine.mark("unknown_item", item_E < 0)
    if given.pos is not None:
        quarantine.mark("missing_pos", pc.is_null(given.pos))
    if given.seconds is not None:
        quarantine.mark("missing_timestamp", pc.is_null(given.seconds))
        low, high = time_limits(params, now)
        quarantine.mark("future_timestamp", pc.greater(given.seconds, high))
        if low is not None:
            quarantine.mark("early_timestamp", pc.less(given.seconds, low))
    if given.weight is not None:
        quarantine.mark("invalid_weight", ~(np.isfinite(given.weight) & (given.weight >= 0)))
    return quarantine


def time_limits(params: ValidatedInteractionsConfig, now: float | None = None) -> tuple[int | None, int]:
    """First (None: no limit) and last Unix second that an event may have: through the day `latest`, or until a day after `now` (None: the clock)."""
    clock = time.time() if now is None else now
    return _day(params.earliest) if params.earliest else None, int(clock) + DAY if params.latest is None else _day(params.latest) + DAY - 1


def _day(iso: str) -> int:
    return int(datetime.fromisoformat(iso).replace(tzinfo=UTC).timestamp())


def ordered(given: Columns, item_E: np.ndarray, known: pa.ChunkedArray, kept: np.ndarray) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The kept rows in canonical order, with the users' and items' ranks. Rows that agree in time and item order by their remaining values."""
    encoded = columns.combined(pc.dictionary_encode(given.users).combine_chunks())
    by_id = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(by_id), np.int64)
    rank[by_id] = np.arange(len(by_id))
    user_E = rank[pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)[kept]] if len(by_id) else np.zeros(0, np.int64)
    item_rank = np.empty(len(known), np.int64)
    item_rank[pc.sort_indices(known).to_numpy()] = np.arange(len(known))
    keys = {"user": user_E}
    rows = pa.array(kept)
    optional = {"pos": given.pos, "timestamp": given.timestamp, "event_type": given.event_type}
    taken = {name: columns.plain(column.take(rows)) for name, column in optional.items() if column is not None}
    keys |= {name: taken[name] for name in ("pos", "timestamp") if name in taken}
    keys["item"] = item_rank[item_E[kept]]
    if "event_type" in taken:
        keys["event_type"] = taken["event_type"]
    if given.weight is not None:
        keys["weight"] = taken["weight"] = pa.array(given.weight[kept])
    order = pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys])
    order_E = order.to_numpy()
    sorted_users = columns.combined(encoded.dictionary).take(pa.array(by_id))
    ids = {
        "user_id": columns.plain(pa.chunked_array([sorted_users.take(pa.array(user_E[order_E]))])),
        "item_id": columns.plain(known.take(pa.array(item_E[kept][order_E]))),
    }
    table = pa.table(
        {
            **ids,
            **{
                name: pa.chunked_array([column]).take(order) if isinstance(column, pa.Array) else column.take(order) for name, column in taken.items()
            },
        }
    )
    return table, user_E[order_E], item_E[kept][order_E]


@dataclass(frozen=True)
class Findings:
    """Counts of kept events."""

    events: int
    users: int
    short: int  # users with fewer than three events
    repeated: int
    control: int  # users' ids with control characters
    seen: int  # items with an event
    alike: int  # users' ids that look like another one

    def __add__(self, other: Findings) -> Findings:
        """Of parts that share no user; items and ids that look alike must be counted over all parts."""
        return Findings(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def counts(self, items: int) -> dict[str, int]:
        return {
            "users": self.users,
            "users_with_fewer_than_3_events": self.short,
            "repeated_events": self.repeated,
            "items_seen": self.seen,
            "items_never_seen": items - self.seen,
            "look_alike_user_ids": self.alike,
            "user_ids_with_control_characters": self.control,
        }

    def checks(self, items: int) -> list[Check]:
        """Warnings about kept events."""
        told = {
            "short_histories": (self.short, f"{self.short} of {self.users} users have fewer than 3 events; no training or test rows"),
            "repeated_events": (self.repeated, f"{self.repeated} events repeat an earlier (user, item); they are kept"),
            "items_never_seen": (items - self.seen, f"{items - self.seen} of {items} items have no event; they are kept"),
            "look_alike_user_ids": (self.alike, f"{self.alike} user ids look like another one (NFKC, spaces); kept apart"),
            "control_characters": (self.control, f"{self.control} user ids hold control or bidirectional characters; kept"),
        }
        return [check(name, many == 0, "warning", message, observed=many) for name, (many, message) in told.items()]


def findings(table: pa.Table, user_E: np.ndarray, item_E: np.ndarray, items: int) -> Findings:
    """Of kept events [E] in order; users and items by number, `items` of them known."""
    lengths = np.bincount(user_E)
    lengths = lengths[lengths > 0]
    pairs_E = np.sort(user_E * max(items, 1) + item_E)
    ids = distinct_ids(table["user_id"])
    return Findings(
        events=table.num_rows,
        users=len(lengths),
        short=int(np.count_nonzero(lengths < 3)),
        repeated=int(np.count_nonzero(pairs_E[1:] == pairs_E[:-1])),
        control=with_control(ids),
        seen=len(np.unique(item_E)),
        alike=look_alikes(ids),
    )


def distinct_ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Each id once, texts as large_string."""
    return pc.unique(column.cast(pa.large_string()) if columns.is_text(column.type) else column)
