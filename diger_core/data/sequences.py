"""Events, user by user, as plain arrays: canonical numbering, order inside a user, leave-one-out splits (docs/method.md, section 3).

E events, U users, N items, R training rows, T evaluation rows. Nothing here loops over rows: 10 million events take seconds.
Events of a user are ordered by `pos` where the table has it, otherwise by `timestamp`; ties by item id; the rows' order never matters.
Last event: test target. Second-last: validation target. Everything before: training events, and so are all the events of users
with fewer than three, who have no training and no evaluation rows but tell something about popularity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from diger_core.errors import DigerError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Sequences:
    """All events, user by user: user u owns `events_E[offsets_U1[u]:offsets_U1[u + 1]]`, oldest first.

    `timestamps_E` (Unix seconds) and `weights_E` (scales of the rows' losses, by the target's event) are None where the data have none.
    """

    events_E: Int32
    offsets_U1: Int64
    items: int
    timestamps_E: Int64 | None = None
    weights_E: Float32 | None = None

    @property
    def users(self) -> int:
        return len(self.offsets_U1) - 1

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors for safetensors; `from_tensors` inverts it exactly."""
        arrays = {
            "events": self.events_E,
            "offsets": self.offsets_U1,
            "items": np.array([self.items], dtype=np.int64),
            "timestamps": self.timestamps_E,
            "weights": self.weights_E,
        }
        return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items() if array is not None}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Sequences:
        """The sequences that `to_tensors` wrote; DigerError where a tensor is missing."""
        missing = [name for name in ("events", "offsets", "items") if name not in tensors]
        if missing:
            raise DigerError(f"sequences: tensor {missing[0]!r} is missing: the file was not written by the stage `sequences`; run that stage again")
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        return cls(arrays["events"], arrays["offsets"], int(arrays["items"][0]), arrays.get("timestamps"), arrays.get("weights"))


def sequences(interactions: pa.Table, items: pa.Table, *, use_weights: bool = False) -> tuple[Sequences, pa.Table, pa.Table]:
    """Number users and items canonically (integers by value, strings by UTF-8 bytes) and order each user's events.

    interactions: user_id, item_id, and `pos` or `timestamp` or both; `weight` where `use_weights`. items: item_id, each once.
    Returns (sequences, items table (item_index int32, item_id), users table (user_index int32, user_id)). Events are not selected here.
    Raises DigerError for missing columns, null or mistyped ids, repeated items and events of unknown items.
    """
    for name in ("user_id", "item_id"):
        _require(interactions, "interactions", name)
    _require(items, "items", "item_id")
    if interactions.num_rows == 0:
        raise DigerError("interactions: there are no rows; give at least one event")
    item_ids, event_items = _same_type(_ids(items, "items", "item_id"), _ids(interactions, "interactions", "item_id"))
    item_ids = item_ids.take(pc.sort_indices(item_ids))
    repeated = pc.equal(item_ids[1:], item_ids[:-1])
    if pc.any(repeated).as_py():
        raise DigerError(f"items: item_id {item_ids[pc.index(repeated, True).as_py()].as_py()!r} occurs more than once; keep one row for each item")
    event_users = _ids(interactions, "interactions", "user_id")
    user_ids = pc.unique(event_users)
    user_ids = user_ids.take(pc.sort_indices(user_ids))
    item_E = _number(event_items, item_ids)
    user_E = pc.index_in(event_users, value_set=user_ids).to_numpy(zero_copy_only=False).astype(np.int32)

    keys = [user_E]
    times = _times(interactions)
    keys += [_integers(interactions, "pos")] if "pos" in interactions.column_names else []
    keys += [times[0]] if times is not None else []
    if len(keys) == 1:
        raise DigerError("interactions: neither `pos` nor `timestamp` is there to order the events; add one of the columns")
    keys.append(item_E)
    weight_E = _weights(interactions) if use_weights else None
    order_E = _order(keys, weight_E)
    offsets_U1 = np.zeros(len(user_ids) + 1, dtype=np.int64)
    np.cumsum(np.bincount(user_E, minlength=len(user_ids)), out=offsets_U1[1:])
    return (
        Sequences(
            item_E[order_E],
            offsets_U1,
            len(item_ids),
            times[1][order_E] if times is not None else None,
            weight_E[order_E] if weight_E is not None else None,
        ),
        pa.table({"item_index": np.arange(len(item_ids), dtype=np.int32), "item_id": item_ids}),
        pa.table({"user_index": np.arange(len(user_ids), dtype=np.int32), "user_id": user_ids}),
    )


def training_ends(seq: Sequences) -> Int64:
    """[U]: where each user's training events end (exclusive, absolute): before the last two, or all of them for users with fewer than three."""
    lengths_U = np.diff(seq.offsets_U1)
    return seq.offsets_U1[1:] - np.where(lengths_U >= 3, 2, 0)


def training_mask(seq: Sequences) -> Bool:
    """[E]: True for training events: what popularity, transitions and item factors may look at."""
    return np.arange(len(seq.events_E)) < np.repeat(training_ends(seq), np.diff(seq.offsets_U1))


def training_rows(seq: Sequences) -> tuple[Int32, Int64]:
    """(user_R, position_R): one row for each target e_2 .. e_{n-2} of a user of n events, so n - 3 rows (docs/method.md, section 3).

    `position_R` is the target's absolute index in `events_E`; its history are the user's events before it. Ordered by user, then time.
    """
    rows_U = np.maximum(np.diff(seq.offsets_U1) - 3, 0)
    user_R = np.repeat(np.arange(seq.users, dtype=np.int32), rows_U)
    rank_R = np.arange(len(user_R), dtype=np.int64) - np.repeat(np.cumsum(rows_U) - rows_U, rows_U)
    return user_R, seq.offsets_U1[user_R] + 1 + rank_R


def targets(seq: Sequences, split: Split) -> tuple[Int64, Int64, Int32]:
    """(users_T, end_T, target_T): history of row t is `events_E[offsets_U1[users_T[t]]:end_T[t]]`, its target the item `target_T[t]`.

    Validation: the second-last event after all before it; test: the last one. Users with fewer than three events have no row.
    """
    if split not in ("validation", "test"):
        raise ValueError(f"split = {split!r}: must be 'validation' or 'test'")
    users_T = np.flatnonzero(np.diff(seq.offsets_U1) >= 3)
    end_T = seq.offsets_U1[users_T + 1] - (2 if split == "validation" else 1)
    return users_T, end_T, seq.events_E[end_T]


def training_counts(seq: Sequences) -> Int64:
    """[N]: how often each item occurs in training events."""
    return np.bincount(seq.events_E[training_mask(seq)], minlength=seq.items).astype(np.int64)


def _require(table: pa.Table, what: str, column: str) -> None:
    if column not in table.column_names:
        raise DigerError(f"{what}: column {column!r} is missing (there are: {', '.join(table.column_names)}); rename or add it")


def _ids(table: pa.Table, what: str, column: str) -> pa.Array:
    """The column as one array of int64, uint64 (only where a value needs it) or large_string."""
    values = table[column].combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.null_count:
        raise DigerError(
            f"{what}: {column} is null in row {pc.index(values.is_null(), True).as_py()} ({values.null_count} rows); remove or fill them"
        )
    if pa.types.is_integer(values.type):
        if values.type == pa.uint64() and len(values) and pc.max(values).as_py() >= 2**63:
            return values
        return values.cast(pa.int64())
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        return values.cast(pa.large_string())
    raise DigerError(f"{what}: {column} has type {values.type}; ids are integers or strings: convert the column")


def _same_type(items: pa.Array, events: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Both id columns in one type, so that equal ids are equal; DigerError where one holds integers and the other strings."""
    if items.type == events.type:
        return items, events
    if pa.large_string() in (items.type, events.type):
        raise DigerError(f"item_id is {items.type} in items and {events.type} in interactions; store it with one type in both")
    try:
        return items.cast(pa.uint64()), events.cast(pa.uint64())
    except pa.ArrowInvalid as error:
        raise DigerError("item_id: values of 2^63 and more in one table, negative ones in the other; store the ids as strings in both") from error


def _number(event_items: pa.Array, item_ids: pa.Array) -> Int32:
    index = pc.index_in(event_items, value_set=item_ids)
    if index.null_count:
        row = pc.index(index.is_null(), True).as_py()
        raise DigerError(
            f"interactions: item_id {event_items[row].as_py()!r} (row {row}) is not among the items ({index.null_count} such events); "
            "add the item or remove its events"
        )
    row_E: Int32 = index.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    return row_E


def _integers(table: pa.Table, column: str) -> Int64:
    values = table[column].combine_chunks()
    if values.null_count:
        raise DigerError(f"interactions: {column} is null in row {pc.index(values.is_null(), True).as_py()}; fill it or drop the column")
    if not pa.types.is_integer(values.type):
        raise DigerError(f"interactions: {column} has type {values.type}; give whole numbers")
    number_E: Int64 = values.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return number_E


def _times(table: pa.Table) -> tuple[Int64, Int64] | None:
    """(sorting key in the column's own unit, Unix seconds), or None where there is no `timestamp`."""
    if "timestamp" not in table.column_names:
        return None
    field = table.schema.field("timestamp")
    if not pa.types.is_timestamp(field.type):
        key_E = _integers(table, "timestamp")
        return key_E, key_E
    key_E = _integers(pa.table({"timestamp": table["timestamp"].cast(pa.int64())}), "timestamp")
    return key_E, key_E // {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[field.type.unit]


def _weights(table: pa.Table) -> Float32:
    _require(table, "interactions", "weight")
    weight_E: Float32 = table["weight"].combine_chunks().cast(pa.float32()).to_numpy(zero_copy_only=False)
    bad_E = ~(np.isfinite(weight_E) & (weight_E >= 0))
    if bad_E.any():
        raise DigerError(f"interactions: weight is {weight_E[bad_E][0]} in row {int(bad_E.argmax())}; weights are finite and at least 0")
    return weight_E


def _order(keys: list[npt.NDArray[np.integer]], weight_E: Float32 | None) -> Int64:
    """The order by the keys, the first one deciding; packed into one integer where the ranges fit, which sorts several times faster.

    Events that agree in all keys are told apart only by their weight, so that the rows' order never shows.
    """
    ranges = [(int(key.min()), int(key.max())) for key in keys]
    bits = [(high - low).bit_length() for low, high in ranges]
    if weight_E is not None or sum(bits) > 63:
        return np.lexsort(([weight_E] if weight_E is not None else []) + keys[::-1])
    packed_E = np.zeros(len(keys[0]), dtype=np.int64)
    for key, (low, _), width in zip(keys, ranges, bits, strict=True):
        packed_E <<= width
        packed_E |= key.astype(np.int64) - low
    return np.argsort(packed_E)
