"""Events, user by user, as plain arrays: canonical numbering and the order inside a user. What is trained on and what is held out: splits.py.

E events, U users, N items. Nothing here loops over rows: 10 million events take seconds.
Under a temporal split a user's events are ordered by time, then by `pos` where the table has it; under leave-one-out by `pos` first, as the
published data sets are. Events that agree in both are ordered by a hash of (user, item): an order by item id would be the same for all users, and
a model that counts directed pairs would learn it. The rows' order never matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from diger_core.item_ids import index_of, one_type, plain, require_all, require_unique

if TYPE_CHECKING:
    import torch  # seconds of start-up that questions about a store need not wait for

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sequences:
    """All events, user by user: user u owns `events_E[offsets_U1[u]:offsets_U1[u + 1]]`, oldest first.

    `timestamps_E` (Unix seconds) and `weights_E` (scales of the rows' losses, by the target's event) are None where the data have none.
    `boundaries` (T1, T2; Unix seconds) make the split temporal: training up to and with T1, validation up to and with T2, test after it. None: leave
    one out, where so many of each user's last events as `held_out` are no training events. No file holds it: `splits.up_to_test` alone sets it to 1.
    """

    events_E: Int32
    offsets_U1: Int64
    items: int
    timestamps_E: Int64 | None = None
    weights_E: Float32 | None = None
    boundaries: tuple[int, int] | None = None
    held_out: int = 2

    @property
    def users(self) -> int:
        return len(self.offsets_U1) - 1

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors for safetensors; `from_tensors` and `from_arrays` invert it exactly."""
        import torch

        arrays = {
            "events": self.events_E,
            "offsets": self.offsets_U1,
            "items": np.array([self.items], dtype=np.int64),
            "timestamps": self.timestamps_E,
            "weights": self.weights_E,
            "boundaries": None if self.boundaries is None else np.array(self.boundaries, dtype=np.int64),
        }
        return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items() if array is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> Sequences:
        """The sequences that `to_tensors` wrote; DigerError where a tensor is missing."""
        return cls.from_arrays({name: tensor.cpu().numpy() for name, tensor in tensors.items()})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Sequences:
        """The same from numpy arrays, as `Artefact.arrays` reads them without torch."""
        missing = [name for name in ("events", "offsets", "items") if name not in arrays]
        if missing:
            raise DigerError(f"sequences: tensor {missing[0]!r} is missing: the file was not written by the stage `sequences`; run that stage again")
        boundaries = (int(arrays["boundaries"][0]), int(arrays["boundaries"][1])) if "boundaries" in arrays else None
        return cls(arrays["events"], arrays["offsets"], int(arrays["items"][0]), arrays.get("timestamps"), arrays.get("weights"), boundaries)


def ranges(begin_T: Int64, many_T: Int64) -> Int64:
    """begin, begin + 1, ... of `many` places for each row, row after row."""
    return np.repeat(begin_T - (np.cumsum(many_T) - many_T), many_T) + np.arange(int(many_T.sum()))


def gathered(seq: Sequences, begin_T: Int64, end_T: Int64) -> tuple[Int32, Int64]:
    """(the events from `begin` to before `end` of every row, one row after the other; offsets [T + 1] of the rows in them)."""
    many_T = end_T - begin_T
    return seq.events_E[ranges(begin_T, many_T)], np.r_[0, np.cumsum(many_T)]


def sequences(interactions: pa.Table, items: pa.Table, *, use_weights: bool = False, by_time: bool = False) -> tuple[Sequences, pa.Table, pa.Table]:
    """Number users and items canonically (integers by value, strings by UTF-8 bytes) and order each user's events.

    interactions: user_id, item_id, and `pos` or `timestamp` or both; `weight` where `use_weights`. items: item_id, each once.
    `by_time`: time comes before `pos` in the order, as a temporal split needs it.
    Returns (sequences, items table (item_index int32, item_id), users table (user_index int32, user_id)). Events are not selected here.
    Raises DigerError for missing columns, null or mistyped ids, repeated items and events of unknown items.
    """
    for name in ("user_id", "item_id"):
        _require(interactions, "interactions", name)
    _require(items, "items", "item_id")
    if interactions.num_rows == 0:
        raise DigerError("interactions: there are no rows; give at least one event")
    clash = "item_id holds {0} in items and {1} in interactions; store it with one type in both"
    item_ids, event_items = one_type(_ids(items, "items", "item_id"), _ids(interactions, "interactions", "item_id"), clash=clash)
    require_unique(item_ids, what="items", remedy="keep one row for each item")
    item_ids = item_ids.take(pc.sort_indices(item_ids))
    event_users = _ids(interactions, "interactions", "user_id")
    user_ids = pc.unique(event_users)
    user_ids = user_ids.take(pc.sort_indices(user_ids))
    remedy = "add the item or remove its events"
    item_E = require_all(event_items, item_ids, what="interactions", table="the items", remedy=remedy).astype(np.int32)
    user_E = index_of(event_users, user_ids).astype(np.int32)

    keys: list[npt.NDArray[np.integer]] = [user_E]
    times = _times(interactions)
    places = [_integers(interactions, "pos")] if "pos" in interactions.column_names else []
    moments = [times[0]] if times is not None else []
    keys += moments + places if by_time else places + moments
    if len(keys) == 1:
        raise DigerError("interactions: neither `pos` nor `timestamp` is there to order the events; add one of the columns")
    keys.append(_tie_order(keys, user_ids, item_ids, item_E))
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


def _tie_order(keys: list[npt.NDArray[np.integer]], user_ids: pa.Array, item_ids: pa.Array, item_E: Int32) -> Int64:
    """[E]: for each event 63 bits of a hash of its user's and item's ids; equal ids give equal places whatever else the tables hold."""
    user_U, item_N = id_hashes(user_ids), id_hashes(item_ids)
    return (mixed(user_U[keys[0]] ^ mixed(item_N[item_E])) >> np.uint64(1)).astype(np.int64)


def id_hashes(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """uint64 [n]: a hash of each id (int64, uint64 or large_string): SplitMix64 of the number, or of a polynomial in the UTF-8 bytes."""
    if pa.types.is_integer(ids.type):
        return mixed(ids.to_numpy(zero_copy_only=False).astype(np.uint64))
    ids = pa.concat_arrays([ids])  # without an offset
    offsets_n1 = np.frombuffer(ids.buffers()[1], dtype=np.int64)[: len(ids) + 1]
    data = np.frombuffer(ids.buffers()[2] or b"", dtype=np.uint8)[: offsets_n1[-1]]
    lengths_n = np.diff(offsets_n1)
    powers = np.cumprod(np.full(max(1, int(lengths_n.max(initial=0))), 0x100000001B3, dtype=np.uint64))
    value_b = (data.astype(np.uint64) + np.uint64(1)) * powers[np.arange(len(data)) - np.repeat(offsets_n1[:-1], lengths_n)]
    sums_b1 = np.r_[np.uint64(0), np.cumsum(value_b, dtype=np.uint64)]
    return mixed(sums_b1[offsets_n1[1:]] - sums_b1[offsets_n1[:-1]])


def mixed(value_n: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014)."""
    value_n = value_n + np.uint64(0x9E3779B97F4A7C15)
    value_n = (value_n ^ (value_n >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value_n = (value_n ^ (value_n >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value_n ^ (value_n >> np.uint64(31))


def _require(table: pa.Table, what: str, column: str) -> None:
    if column not in table.column_names:
        raise DigerError(f"{what}: column {column!r} is missing (there are: {', '.join(table.column_names)}); rename or add it")


def _ids(table: pa.Table, what: str, column: str) -> pa.Array:
    """The column as `plain` has it, without nulls."""
    values = table[column].combine_chunks()
    if values.null_count:
        raise DigerError(
            f"{what}: {column} is null in row {pc.index(values.is_null(), True).as_py()} ({values.null_count} rows); remove or fill them"
        )
    return plain(values, f"{what}: {column}")


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
