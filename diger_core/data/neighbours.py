"""Item-to-item tables: what follows what (transitions), and what reads like what (text), as sparse rows of the strongest neighbours.

    c_ij = sum over the pairs of one user's training events, i before j, g <= window events apart, of exp(-(g - 1) / gap) 2^(-age / half_life)
    C_ij = c_ij / sqrt(sum_j c_ij)
    score_j(history) = sum over its last `history` events h, a the number of events after h, of exp(-a / tau) C_hj

Two events of one moment have no order: such a pair counts half in each direction. An item does not follow itself: repeats are a term of their own.
N items, E events, P stored pairs, T rows to rank, L history items, k places. Time grows with E x window, memory with P and one block of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from diger_core.config import NeighboursConfig
from diger_core.data.sequences import Float32, Int32, Int64, Sequences, ranges
from diger_core.data.splits import DAY, PART, parts, training_ends, training_mask, trains
from diger_core.errors import DigerError
from diger_core.progress import Progress, Silent

BLOCK = 1 << 24  # pairs sorted at once: about 0.7 GB
VECTORS = 1024  # items whose nearest vectors are found at once
EXPANDED = 1 << 19  # (history item, neighbour) entries, or cells of rows x items, that are summed at once: about what a cache holds
DENSE = 1 << 16  # items up to which rows x items are summed in dense cells
FAINT = 0.01  # weight of a history item from which on it counts


@dataclass(frozen=True)
class ItemTable:
    """Row i holds its neighbours `items_P[offsets_N1[i]:offsets_N1[i + 1]]` by falling `weights_P`."""

    offsets_N1: Int64
    items_P: Int32
    weights_P: Float32

    @property
    def items(self) -> int:
        return len(self.offsets_N1) - 1

    def row(self, item: int) -> tuple[Int32, Float32]:
        """(items, weights) of one item, the strongest first."""
        part = slice(self.offsets_N1[item], self.offsets_N1[item + 1])
        return self.items_P[part], self.weights_P[part]

    def to_tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Tensors for safetensors under `name`; `from_tensors` inverts it exactly."""
        arrays = {"offsets": self.offsets_N1, "items": self.items_P, "weights": self.weights_P}
        return {f"{name}.{part}": torch.from_numpy(np.array(array)) for part, array in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], name: str) -> ItemTable:
        """The table that `to_tensors` wrote; DigerError where it is missing."""
        try:
            return cls(*(tensors[f"{name}.{part}"].cpu().numpy() for part in ("offsets", "items", "weights")))
        except KeyError as error:
            raise DigerError(
                f"neighbours: tensor {error} is missing: the file was not written by the stage `neighbours`; run that stage again"
            ) from error


def empty_table(items: int) -> ItemTable:
    """Nobody has a neighbour: what stands for texts where there are none."""
    return ItemTable(np.zeros(items + 1, dtype=np.int64), np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))


def transitions(seq: Sequences, config: NeighboursConfig, progress: Progress | None = None) -> ItemTable:
    """C of the training events, each row cut to its `keep` strongest neighbours."""
    found = list(transition_rows(seq, config, training_events(seq).newest, 0, seq.items, progress))
    counts_N = np.concatenate([counts for counts, _, _ in found])
    return ItemTable(np.r_[0, np.cumsum(counts_N)], np.concatenate([items for _, items, _ in found]), np.concatenate([w for _, _, w in found]))


@dataclass(frozen=True)
class TrainingEvents:
    """What a part of the table needs to know of all training events: how many each item has, and the time of the newest."""

    counts_N: Int64
    newest: int | None  # None without times, or without training events

    def ranges(self, events: int) -> list[tuple[int, int]]:
        """(first item, item after the last) of ranges with at most so many training events, or of one item."""
        bounds_N1, first, found = np.r_[0, np.cumsum(self.counts_N)], 0, list[tuple[int, int]]()
        while first < len(self.counts_N):
            last = max(first + 1, int(np.searchsorted(bounds_N1, bounds_N1[first] + events, side="right")) - 1)
            found.append((first, last))
            first = last
        return found


def training_events(seq: Sequences) -> TrainingEvents:
    """Counted part by part, so that sequences which are mapped from a file need not fit into memory."""
    counts_N, newest = np.zeros(seq.items, dtype=np.int64), None
    for part in parts(seq):
        mask_E = training_mask(part)
        counts_N += np.bincount(part.events_E[mask_E], minlength=seq.items)
        if part.timestamps_E is not None and mask_E.any():
            newest = max(int(part.timestamps_E[mask_E].max()), newest if newest is not None else -(2**63))
    return TrainingEvents(counts_N, newest)


def transition_rows(
    seq: Sequences, config: NeighboursConfig, newest: int | None, first: int, last: int, progress: Progress | None = None
) -> Iterator[tuple[Int64, Int32, Float32]]:
    """(how many neighbours each item has, their items, their weights) of the items first..last - 1, a few items at a time.

    `newest`: the time of the newest training event. A row is the same whatever the range: pairs are summed by their distance, then in the order
    of the events.
    """
    order_e = _events_of(seq, first, last)
    bounds_n1 = np.searchsorted(seq.events_E[order_e], np.arange(first, last + 1))
    per_block = max(1, BLOCK // (2 * config.window))
    begin, told = 0, progress or Silent()
    while begin < last - first:
        end = max(begin + 1, int(np.searchsorted(bounds_n1, bounds_n1[begin] + per_block, side="right")) - 1)
        yield _block(seq, order_e[bounds_n1[begin] : bounds_n1[end]], newest, first + begin, first + end, config)
        begin = end
        told.update("neighbours", int(bounds_n1[begin]), len(order_e))


def _events_of(seq: Sequences, first: int, last: int) -> Int64:
    """The training events of the items first..last - 1, by item, then by place."""
    found = []
    for start in range(0, len(seq.events_E), PART):
        some_e = seq.events_E[start : start + PART]
        at_e = np.flatnonzero((some_e >= first) & (some_e < last)) + start
        found.append(at_e[trains(seq, at_e, np.searchsorted(seq.offsets_U1, at_e, side="right") - 1)])
    at_e = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    return at_e[np.argsort(seq.events_E[at_e], kind="stable")]


def _by_item(seq: Sequences, config: NeighboursConfig) -> tuple[Int64, Int64, Float32]:
    """(training events in the order of their items; for each event where its user's training events end; its weight)."""
    events = np.flatnonzero(training_mask(seq))
    order_e = events[np.argsort(seq.events_E[events], kind="stable")]
    end_E = np.repeat(training_ends(seq), np.diff(seq.offsets_U1))
    return order_e, end_E, recency(seq, config)


def recency(seq: Sequences, config: NeighboursConfig) -> Float32:
    """[E]: what a pair that begins with the event counts, by the half-life: 1 at the newest training event."""
    mask_E = training_mask(seq)
    newest = int(seq.timestamps_E[mask_E].max()) if seq.timestamps_E is not None and mask_E.any() else None
    return _recency(seq.timestamps_E, newest, config, len(mask_E))


def _recency(time_e: Int64 | None, newest: int | None, config: NeighboursConfig, events: int) -> Float32:
    if config.half_life_days is None or time_e is None or newest is None:
        return np.ones(events, dtype=np.float32)
    age_e = (newest - time_e) / (DAY * config.half_life_days)
    weight_e: Float32 = np.exp2(-np.maximum(age_e, 0)).astype(np.float32)
    return weight_e


def outgoing(seq: Sequences, config: NeighboursConfig) -> npt.NDArray[np.float64]:
    """[N]: sum_j c_ij of every item, before rows are cut."""
    order_e, end_E, weight_E = _by_item(seq, config)
    sums_N = np.zeros(seq.items)
    for gap in range(1, config.window + 1):
        here = order_e[order_e + gap < end_E[order_e]]
        here = here[seq.events_E[here] != seq.events_E[here + gap]]
        tied = np.zeros(len(here), dtype=bool) if seq.timestamps_E is None else seq.timestamps_E[here] == seq.timestamps_E[here + gap]
        share = np.exp(-(gap - 1) / config.gap)
        sums_N += share * np.bincount(seq.events_E[here], weight_E[here] * np.where(tied, 0.5, 1), minlength=seq.items)
        there = here[tied] + gap
        sums_N += share * np.bincount(seq.events_E[there], weight_E[there] * 0.5, minlength=seq.items)
    return sums_N


def _block(seq: Sequences, at_e: Int64, newest: int | None, first: int, last: int, config: NeighboursConfig) -> tuple[Int64, Int32, Float32]:
    """(neighbours of each item first..last - 1, their items, their weights) from the training events `at_e` of these items."""
    user_e = np.searchsorted(seq.offsets_U1, at_e, side="right") - 1
    begin_e, end_e = seq.offsets_U1[user_e], seq.offsets_U1[user_e + 1]
    weight_e = _recency(None if seq.timestamps_E is None else seq.timestamps_E[at_e], newest, config, len(at_e))
    keys: list[Int64] = []
    values: list[Float32] = []
    for gap in range(1, config.window + 1):
        share = np.float32(np.exp(-(gap - 1) / config.gap))
        for forward in (True, False):
            inside = np.flatnonzero(at_e + gap < end_e if forward else at_e - gap >= begin_e)
            there = at_e[inside] + (gap if forward else -gap)
            if forward:
                training = trains(seq, there, user_e[inside])
                inside, there = inside[training], there[training]
            here = at_e[inside]
            tied = np.zeros(len(here), dtype=bool) if seq.timestamps_E is None else seq.timestamps_E[here] == seq.timestamps_E[there]
            counted = (tied | forward) & (seq.events_E[here] != seq.events_E[there])
            inside, here, there, tied = inside[counted], here[counted], there[counted], tied[counted]
            keys.append((seq.events_E[here].astype(np.int64) - first) * seq.items + seq.events_E[there])
            values.append(share * weight_e[inside] * np.where(tied, np.float32(0.5), np.float32(1)))
    row_P, item_P, weight_P = _summed(np.concatenate(keys), np.concatenate(values), seq.items)
    sums = np.bincount(row_P, weight_P, minlength=last - first)
    return strongest(row_P, item_P, (weight_P / np.sqrt(np.maximum(sums[row_P], 1e-12))).astype(np.float32), last - first, config.keep)


def _summed(key_X: Int64, value_X: Float32, items: int) -> tuple[Int64, Int32, npt.NDArray[np.float64]]:
    """(row, item, sum) of the distinct keys row * N + item, ascending."""
    if not len(key_X):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32), np.empty(0)
    order_X = np.argsort(key_X, kind="stable")
    sorted_X = key_X[order_X]
    begin_P = np.flatnonzero(np.r_[True, sorted_X[1:] != sorted_X[:-1]])
    sums_P = np.add.reduceat(value_X[order_X].astype(np.float64), begin_P)
    return sorted_X[begin_P] // items, (sorted_X[begin_P] % items).astype(np.int32), sums_P


def strongest(row_P: Int64, item_P: Int32, weight_P: Float32, rows: int, keep: int) -> tuple[Int64, Int32, Float32]:
    """(how many of each row are kept, items, weights): each row's `keep` strongest entries, strongest first, equal ones by item. Entries come by row
    and item; weights are not negative."""
    falling_P = ~weight_P.view(np.uint32)  # floats that are not negative are ordered as their bits are
    order_P = np.argsort(row_P.astype(np.uint64) << np.uint64(32) | falling_P, kind="stable")
    row_P, item_P, weight_P = row_P[order_P], item_P[order_P], weight_P[order_P]
    begin = np.searchsorted(row_P, np.arange(rows))
    kept_P = np.arange(len(row_P)) - begin[row_P] < keep
    return np.bincount(row_P[kept_P], minlength=rows), item_P[kept_P], weight_P[kept_P]


def vector_neighbours(vectors_ND: torch.Tensor, keep: int) -> ItemTable:
    """The `keep` nearest items of each by cosine, exactly, in blocks: time grows with N x N x D, memory with one block."""
    unit_ND = torch.nn.functional.normalize(vectors_ND.float(), dim=1)
    items, keep = len(unit_ND), min(keep, len(unit_ND) - 1)
    if keep < 1:
        return empty_table(items)
    counts, found, weights = [], [], []
    for start in range(0, items, VECTORS):
        near_vN = unit_ND[start : start + VECTORS] @ unit_ND.T
        near_vN[torch.arange(len(near_vN)), torch.arange(start, start + len(near_vN))] = -1.0
        top = near_vN.topk(keep, dim=1)
        positive = top.values > 0
        counts.append(positive.sum(dim=1).numpy())
        found.append(top.indices[positive].int().numpy())
        weights.append(top.values[positive].numpy())
    return ItemTable(np.r_[0, np.cumsum(np.concatenate(counts))].astype(np.int64), np.concatenate(found), np.concatenate(weights))


# Scores of histories


def history_weights(seq: Sequences, users_T: Int64, end_T: Int64, length: int, tau: float) -> tuple[Int32, Float32]:
    """(items [T, L], -1 where there is none; weights [T, L], exp(-a / tau), 0 there): each user's last `length` events before `end_T`; L is
    less where no user has so many, or the older ones would weigh less than `FAINT`."""
    begin_T = seq.offsets_U1[users_T]
    longest = int((end_T - begin_T).max(initial=1))
    length = max(1, min(length, longest, int(-tau * np.log(FAINT)) + 1))
    at_TL = end_T[:, None] - 1 - np.arange(length)
    real_TL = at_TL >= begin_T[:, None]
    items_TL = np.where(real_TL, seq.events_E[np.maximum(at_TL, 0)], np.int32(-1))
    return items_TL.astype(np.int32), (np.exp(-np.arange(length) / tau) * real_TL).astype(np.float32)


def scored(tables: Ordered[tuple[ItemTable, float]], items_TL: Int32, weights_TL: Float32, top: int) -> tuple[Int32, Float32]:
    """(items [T, top] int32, scores [T, top] float32) by falling score of sum_l weight_l sum_t w_t table_t[item_l]; -1 and 0 where there is none.

    Rows are ranked in chunks of bounded size; equal scores are ordered by item. Rows x items are summed in dense cells where the catalogue is small
    enough for that to be faster than sorting the entries.
    """
    found_Tk, score_Tk = np.full((len(items_TL), top), -1, dtype=np.int32), np.zeros((len(items_TL), top), dtype=np.float32)
    items, sizes_T = tables[0][0].items, np.zeros(len(items_TL), dtype=np.int64)
    for table, _ in tables:
        at_TL = np.maximum(items_TL, 0)
        sizes_T += ((table.offsets_N1[at_TL + 1] - table.offsets_N1[at_TL]) * (items_TL >= 0)).sum(axis=1)
    dense = items <= DENSE
    ends_T = np.cumsum(np.maximum(sizes_T, items) if dense else sizes_T)
    start = 0
    while start < len(items_TL):
        stop = max(start + 1, int(np.searchsorted(ends_T, (ends_T[start - 1] if start else 0) + EXPANDED, side="right")))
        key_X, value_X = _expanded(tables, items_TL[start:stop], weights_TL[start:stop])
        chunk = (found_Tk[start:stop], score_Tk[start:stop])
        if dense:
            _rank_dense(np.bincount(key_X, value_X, minlength=(stop - start) * items).astype(np.float32).reshape(stop - start, items), *chunk)
        else:
            _rank_sorted(*_summed(key_X, value_X, items), *chunk)
        start = stop
    return found_Tk, score_Tk


def similar(tables: Ordered[tuple[ItemTable, float]], items_Q: Int32, top: int) -> tuple[Int32, Float32]:
    """(items [Q, top] int32, scores [Q, top] float32): the neighbours of each single item by falling sum_t w_t table_t; -1 and 0 behind the last."""
    return scored(tables, items_Q[:, None].astype(np.int32), np.ones((len(items_Q), 1), dtype=np.float32), top)


def _expanded(tables: Ordered[tuple[ItemTable, float]], items_TL: Int32, weights_TL: Float32) -> tuple[Int64, Float32]:
    """(row * N + neighbour, what it adds) for every neighbour of every history item."""
    row_X, column_X = np.nonzero(items_TL >= 0)
    item_X, weight_X = items_TL[row_X, column_X], weights_TL[row_X, column_X]
    keys: list[Int64] = []
    values: list[Float32] = []
    for table, strength in tables:
        begin_X = table.offsets_N1[item_X]
        many_X = table.offsets_N1[item_X + 1] - begin_X
        place = ranges(begin_X, many_X)
        keys.append(np.repeat(row_X, many_X) * table.items + table.items_P[place])
        values.append(np.repeat(weight_X * np.float32(strength), many_X) * table.weights_P[place])
    return np.concatenate(keys), np.concatenate(values)


def _rank_dense(score_tN: Float32, found_tk: Int32, score_tk: Float32) -> None:
    k = min(found_tk.shape[1], score_tN.shape[1])
    # The k-th best score of each row first. All that equal it stay until they are ordered by item, so that the cut does not depend on the machine.
    least_t1 = torch.from_numpy(score_tN).topk(k, dim=1, sorted=False).values.amin(1, keepdim=True).numpy()
    key_p = np.flatnonzero((score_tN >= least_t1) & (score_tN > 0))
    row_p, item_p = key_p // score_tN.shape[1], (key_p % score_tN.shape[1]).astype(np.int32)
    _rank_sorted(row_p, item_p, score_tN.ravel()[key_p], found_tk, score_tk)


def _rank_sorted(row_P: Int64, item_P: Int32, sum_P: npt.NDArray[np.float64] | Float32, found_tk: Int32, score_tk: Float32) -> None:
    many, item_P, weight_P = strongest(row_P, item_P, sum_P.astype(np.float32), len(found_tk), found_tk.shape[1])
    row_P = np.repeat(np.arange(len(found_tk)), many)
    column_P = np.arange(len(item_P)) - np.repeat(np.cumsum(many) - many, many)
    found_tk[row_P, column_P], score_tk[row_P, column_P] = item_P, weight_P
