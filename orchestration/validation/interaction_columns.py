"""The columns of interactions.parquet in the pipeline's types. What decides a type is surveyed first: all parts of the file are read alike."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from orchestration.params.data import ValidatedInteractionsConfig
from orchestration.validation import columns
from orchestration.validation.date_numbers import TimeNumbers

STAGE, FILE = "validated_interactions", "interactions.parquet"
COLUMNS = ("user_id", "item_id", "pos", "timestamp", "event_type", "weight")
OPTIONAL = COLUMNS[2:]


@dataclass(frozen=True)
class Survey:
    """What the selected rows hold, as far as it decides how they are read. Those of a file's parts add up to the file's."""

    rows: int = 0
    selected: int = 0
    values: dict[str, int] = field(default_factory=dict)  # of each optional column that is there: how many are not null
    unsigned: frozenset[str] = frozenset()  # id columns with a value beyond int64
    whole: bool | None = None  # whether all times are whole seconds; None: there is no time
    times: TimeNumbers | None = None  # None: the column holds Arrow's timestamps, or is not there
    event_types: frozenset[str] = frozenset()  # those that occur, where rows are selected by them

    def __add__(self, other: Survey) -> Survey:
        values = {name: self.values.get(name, 0) + other.values.get(name, 0) for name in {**self.values, **other.values}}
        whole = other.whole if self.whole is None else self.whole if other.whole is None else self.whole and other.whole
        times = other.times if self.times is None else self.times if other.times is None else self.times + other.times
        return Survey(
            rows=self.rows + other.rows,
            selected=self.selected + other.selected,
            values=values,
            unsigned=self.unsigned | other.unsigned,
            whole=whole,
            times=times,
            event_types=self.event_types | other.event_types,
        )

    def filled(self, name: str) -> bool:
        """Whether an optional column is there and holds a value; one without rows passes."""
        return name in self.values and (self.values[name] > 0 or self.selected == 0)

    def refuse(self, names: list[str], params: ValidatedInteractionsConfig) -> None:
        """DigerError where the file as a whole cannot be read. `names`: its columns."""
        for wanted in params.event_types or ():
            if wanted not in self.event_types:
                some = ", ".join(columns.shown(v, 30) for v in sorted(self.event_types)[:10]) or "none"
                raise DigerError(f"{FILE}: column event_type never holds {columns.shown(wanted)}; {STAGE}.event_types may name: {some}")
        if not self.filled("pos") and not self.filled("timestamp"):
            unused = [name for name in names if name not in COLUMNS]
            near = [n for n in (columns.nearest_column(c, unused) for c in ("timestamp", "pos")) if n]
            remedy = f"rename column {near[0]} to timestamp or pos" if near else "add pos (order inside the user) or timestamp (Unix seconds)"
            raise DigerError(f"{FILE}: has neither pos nor timestamp with values, so its events have no order; {remedy}")
        if self.times is not None:
            self.times.refuse(FILE, "timestamp")


@dataclass(frozen=True)
class Columns:
    """The selected rows, column by column, in the pipeline's types. `rows` are their numbers in the file."""

    rows: np.ndarray
    users: pa.ChunkedArray
    items: pa.ChunkedArray
    pos: pa.ChunkedArray | None
    timestamp: pa.ChunkedArray | None  # int64 Unix seconds, or an Arrow timestamp without zone
    seconds: pa.ChunkedArray | None
    event_type: pa.ChunkedArray | None
    weight: np.ndarray | None


def survey(interactions: pa.Table, known_items: pa.ChunkedArray, params: ValidatedInteractionsConfig) -> Survey:
    """Of these rows. DigerError for columns that are missing or mistyped, and for ids of another kind than the catalogue's."""
    types: frozenset[str] = frozenset()
    if params.event_types is not None:
        types = frozenset(pc.unique(pc.drop_null(_event_types(interactions))).to_pylist())
    rows = _selected(interactions, params)
    chosen = interactions.take(pa.array(rows)) if len(rows) < interactions.num_rows else interactions
    ids = {name: columns.exact_ids(columns.column_of(chosen, FILE, name), FILE, name) for name in ("user_id", "item_id")}
    kinds = columns.id_kind(ids["item_id"].type), columns.id_kind(columns.decoded(known_items).type)
    if kinds[0] != kinds[1]:
        raise DigerError(f"{FILE}: column item_id holds {kinds[0]} but that of items.parquet holds {kinds[1]}; write both with one type")
    found = {name: columns.column_of(chosen, FILE, name) for name in OPTIONAL if name in chosen.column_names}
    values = {name: len(column) - column.null_count for name, column in found.items()}
    whole, numbers = None, None
    if values.get("timestamp"):
        seconds = columns.seconds(found["timestamp"], FILE, "timestamp")
        whole, numbers = _whole(found["timestamp"], seconds), columns.time_numbers(found["timestamp"], seconds)
    unsigned = frozenset(name for name, column in ids.items() if column.type == pa.uint64())
    return Survey(interactions.num_rows, len(rows), values, unsigned, whole, numbers, types)


def read(interactions: pa.Table, params: ValidatedInteractionsConfig, found: Survey, first: int = 0) -> Columns:
    """The selected rows as the survey of the whole file has it. `first`: the number of the first of these rows in the file."""
    rows = _selected(interactions, params)
    chosen = interactions.take(pa.array(rows)) if len(rows) < interactions.num_rows else interactions
    given = {name: columns.column_of(chosen, FILE, name) for name in COLUMNS[:2]} | {n: chosen[n] for n in OPTIONAL if found.filled(n)}
    users, items = (
        column.cast(pa.uint64()) if name in found.unsigned else column
        for name in COLUMNS[:2]
        for column in [columns.exact_ids(given[name], FILE, name)]
    )
    pos, times, event_type, weight = (given.get(name) for name in OPTIONAL)
    seconds = columns.seconds(times, FILE, "timestamp") if times is not None else None
    return Columns(
        rows + first,
        users,
        items,
        columns.integers(pos, FILE, "pos", "write the order inside the user as int64") if pos is not None else None,
        _exact_times(times, seconds, found.whole) if times is not None and seconds is not None else None,
        seconds,
        columns.kinds(event_type, FILE, "event_type") if event_type is not None else None,
        columns.weights(weight, FILE, "weight") if weight is not None else None,
    )


def _whole(times: pa.ChunkedArray, seconds: pa.ChunkedArray) -> bool:
    if not pa.types.is_timestamp(times.type) or times.type.unit == "s":
        return True
    instants = times.cast(pa.timestamp(times.type.unit))
    return bool(pc.all(pc.equal(instants, seconds.cast(pa.timestamp("s")))).as_py())


def _exact_times(times: pa.ChunkedArray, seconds: pa.ChunkedArray, whole: bool | None) -> pa.ChunkedArray:
    """Whole seconds, unless a fraction would be lost and with it the order of events within one second."""
    if whole or not pa.types.is_timestamp(times.type) or times.type.unit == "s":
        return seconds
    return times.cast(pa.timestamp(times.type.unit))


def _event_types(interactions: pa.Table) -> pa.ChunkedArray:
    column = columns.column_of(interactions, FILE, "event_type")
    if not columns.is_text(column.type):
        raise DigerError(f"{FILE}: column event_type has type {column.type}; write it as string to select by {STAGE}.event_types")
    return columns.text(column, FILE, "event_type")


def _selected(interactions: pa.Table, params: ValidatedInteractionsConfig) -> np.ndarray:
    """Numbers of the rows whose event type is wanted; of all where none is named."""
    if params.event_types is None:
        return np.arange(interactions.num_rows)
    return np.flatnonzero(pc.is_in(_event_types(interactions), value_set=pa.array(params.event_types, pa.large_string())).to_numpy())
