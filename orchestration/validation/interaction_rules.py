"""The row rules of interactions.parquet: types exactly or refused, bad rows to quarantine, events by user and time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from diger_core.item_ids import index_of
from orchestration.engine.registry import Volume
from orchestration.params.data import ValidatedInteractionsConfig
from orchestration.validation import columns
from orchestration.validation.quarantine import Check, Quarantine, Validated, absent, check, look_alikes, too_long, volume, with_control

STAGE, FILE = "validated_interactions", "interactions.parquet"
COLUMNS = ("user_id", "item_id", "pos", "timestamp", "event_type", "weight")
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


@dataclass(frozen=True)
class _Columns:
    """The selected rows, column by column, in the pipeline's types. `rows` are their numbers in the file."""

    rows: np.ndarray
    users: pa.ChunkedArray
    items: pa.ChunkedArray
    pos: pa.ChunkedArray | None
    timestamp: pa.ChunkedArray | None  # int64 Unix seconds, or an Arrow timestamp without zone
    seconds: pa.ChunkedArray | None
    event_type: pa.ChunkedArray | None
    weight: np.ndarray | None


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
    given = _read(interactions, known_items, params)
    known = columns.decoded(known_items)
    item_E = index_of(given.items, known)
    quarantine = _quarantine(given, item_E, params, now)
    quarantined = quarantine.table(given.rows, given.items)
    table, user_E, item_E = _ordered(given, item_E, known, np.flatnonzero(quarantine.kept))
    counts, checks = _findings(table, user_E, item_E, len(known))
    unselected = interactions.num_rows - len(given.rows)
    ignored = [n for n in interactions.column_names if n not in COLUMNS]
    left = table.num_rows > 0
    remedy = "" if left else "; at least one is needed: fix the quarantined rows"
    message = f"{table.num_rows} of {len(given.rows)} selected events left after quarantine{remedy}"
    checks = [
        check("events_left", left, "critical", message, observed=table.num_rows, expected=">= 1"),
        *quarantine.checks(STAGE, params.max_quarantined, quarantined),
        volume(FILE, STAGE, interactions.num_rows, previous, params),
        *checks,
        check("events_not_selected", True, "info", f"{unselected} rows of {FILE} not selected by {STAGE}.event_types", observed=unselected),
        check("columns_ignored", True, "info", f"columns of {FILE} that are not used: {', '.join(ignored) or 'none'}", observed=len(ignored)),
    ]
    head = {"rows": interactions.num_rows, "not_selected": unselected, "events": table.num_rows, "quarantined": quarantine.count}
    return Validated(table, quarantined, checks, {**head, **quarantine.counts(), **counts})


def _read(interactions: pa.Table, known_items: pa.ChunkedArray, params: ValidatedInteractionsConfig) -> _Columns:
    rows = np.arange(interactions.num_rows)
    if params.event_types is not None:
        rows = np.flatnonzero(_selected(interactions, params.event_types))
        interactions = interactions.take(pa.array(rows)) if len(rows) < interactions.num_rows else interactions
    users = columns.exact_ids(columns.column_of(interactions, FILE, "user_id"), FILE, "user_id")
    items = columns.exact_ids(columns.column_of(interactions, FILE, "item_id"), FILE, "item_id")
    if columns.id_kind(items.type) != columns.id_kind(columns.decoded(known_items).type):
        kinds = columns.id_kind(items.type), columns.id_kind(columns.decoded(known_items).type)
        raise DigerError(f"{FILE}: column item_id holds {kinds[0]} but that of items.parquet holds {kinds[1]}; write both with one type")
    pos, times = _filled(interactions, "pos"), _filled(interactions, "timestamp")
    if pos is None and times is None:
        near = [n for n in (columns.nearest_column(c, _unused(interactions)) for c in ("timestamp", "pos")) if n]
        remedy = f"rename column {near[0]} to timestamp or pos" if near else "add pos (order inside the user) or timestamp (Unix seconds)"
        raise DigerError(f"{FILE}: has neither pos nor timestamp with values, so its events have no order; {remedy}")
    if pos is not None:
        pos = columns.integers(pos, FILE, "pos", "write the order inside the user as int64")
    seconds = columns.unix_seconds(times, FILE, "timestamp") if times is not None else None
    event_type = _filled(interactions, "event_type")
    weight = _filled(interactions, "weight")
    return _Columns(
        rows,
        users,
        items,
        pos,
        _exact_times(times, seconds) if times is not None and seconds is not None else None,
        seconds,
        columns.kinds(event_type, FILE, "event_type") if event_type is not None else None,
        columns.weights(weight, FILE, "weight") if weight is not None else None,
    )


def _unused(interactions: pa.Table) -> list[str]:
    return [n for n in interactions.column_names if n not in COLUMNS]


def _filled(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    """An optional column; None where it is absent or holds no value at all."""
    if name not in table.column_names:
        return None
    column = columns.column_of(table, FILE, name)
    return None if column.null_count == len(column) and len(column) else column


def _exact_times(times: pa.ChunkedArray, seconds: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole seconds, unless a fraction would be lost and with it the order of events within one second."""
    if not pa.types.is_timestamp(times.type) or times.type.unit == "s":
        return seconds
    instants = times.cast(pa.timestamp(times.type.unit))
    whole = seconds.cast(pa.timestamp("s"))
    same = pc.all(pc.equal(instants, whole)).as_py()
    return seconds if same else instants


def _selected(interactions: pa.Table, wanted: tuple[str, ...]) -> np.ndarray:
    column = columns.column_of(interactions, FILE, "event_type")
    if not columns.is_text(column.type):
        raise DigerError(f"{FILE}: column event_type has type {column.type}; write it as string to select by {STAGE}.event_types")
    column = columns.text(column, FILE, "event_type")
    there = pc.unique(pc.drop_null(column))
    unknown = [name for name in wanted if not pc.is_in(pa.scalar(name, pa.large_string()), value_set=columns.combined(there)).as_py()]
    if unknown:
        some = ", ".join(columns.shown(v, 30) for v in sorted(there.slice(0, 10).to_pylist())) or "none"
        raise DigerError(f"{FILE}: column event_type never holds {columns.shown(unknown[0])}; {STAGE}.event_types may name: {some}")
    chosen: np.ndarray = pc.is_in(column, value_set=pa.array(wanted, pa.large_string())).to_numpy()
    return chosen


def _quarantine(given: _Columns, item_E: np.ndarray, params: ValidatedInteractionsConfig, now: float | None) -> Quarantine:
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


def _ordered(given: _Columns, item_E: np.ndarray, known: pa.ChunkedArray, kept: np.ndarray) -> tuple[pa.Table, np.ndarray, np.ndarray]:
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


def _findings(table: pa.Table, user_E: np.ndarray, item_E: np.ndarray, items: int) -> tuple[dict[str, int], list[Check]]:
    """Counts and warnings about kept events."""
    users, lengths = np.unique(user_E, return_counts=True)
    short = int(np.count_nonzero(lengths < 3))
    pairs = np.sort(user_E * max(items, 1) + item_E)
    repeated = int(np.count_nonzero(pairs[1:] == pairs[:-1]))
    unseen = items - len(np.unique(item_E))
    ids = pc.unique(table["user_id"].cast(pa.large_string()) if columns.is_text(table["user_id"].type) else table["user_id"])
    alike, control = look_alikes(ids), with_control(ids)
    counts = {
        "users": len(users),
        "users_with_fewer_than_3_events": short,
        "repeated_events": repeated,
        "items_seen": items - unseen,
        "items_never_seen": unseen,
        "look_alike_user_ids": alike,
        "user_ids_with_control_characters": control,
    }
    checks = [
        check(
            "short_histories",
            short == 0,
            "warning",
            f"{short} of {len(users)} users have fewer than 3 events; no training or test rows",
            observed=short,
        ),
        check("repeated_events", repeated == 0, "warning", f"{repeated} events repeat an earlier (user, item); they are kept", observed=repeated),
        check("items_never_seen", unseen == 0, "warning", f"{unseen} of {items} items have no event; they are kept", observed=unseen),
        check("look_alike_user_ids", alike == 0, "warning", f"{alike} user ids look like another one (NFKC, spaces); kept apart", observed=alike),
        check("control_characters", control == 0, "warning", f"{control} user ids hold control or bidirectional characters; kept", observed=control),
    ]
    return counts, checks
