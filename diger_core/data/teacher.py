"""The item-to-item tables as a teacher: targets for training rows, and synthetic histories for items that few have bought.

    score_i(history) = sum over its events h, a the number of events after h, of exp(-a / tau) (C + w T)_hi,      p_i ~ score_i^(1 / temperature)

C are the transitions, T the neighbours by text (neighbours.py). A training row is scored without the pairs from its history to what its own user did
then and later: otherwise the teacher would repeat the target that it has counted. Only what the row's own user adds to C is taken back, by the sums
before C's rows were cut; a pair of two later events stays (it counts only where its first item is in the history, too), and so do the row sums.

Synthetic histories are drawn anew in every epoch by (seed, epoch) alone: single items of the whole catalogue, and pieces of training histories with
one item exchanged for a neighbour by text. Their targets are drawn from the tables, so that an item which nobody has bought is seen in histories and
as a target. Shapes: R training rows, S synthetic rows, L history items, k candidates, N items, P stored pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diger_core.config import NeighboursConfig, TeacherConfig
from diger_core.data.distillation import DistillationTargets
from diger_core.data.neighbours import ItemTable, history_weights, outgoing, recency, scored
from diger_core.data.sequences import Float32, Int32, Int64, Sequences
from diger_core.data.splits import training_ends, training_rows
from diger_core.progress import Progress, Silent

CHUNK = 1 << 15  # rows scored at once
HISTORY = 50  # events of a history that are looked at
ROUNDING = 1e-6  # what subtracting equal numbers may leave
SINGLE = 0.5  # share of the synthetic histories that are one item
_STREAM = 0x5F17  # keeps these draws apart from others of the same seed and epoch
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TeacherTables:
    """Transitions of training events, neighbours by text, and how the transitions were counted."""

    transitions: ItemTable
    text: ItemTable
    counted: NeighboursConfig


def taught(seq: Sequences, tables: TeacherTables, config: TeacherConfig, progress: Progress | None = None) -> DistillationTargets:
    """Each training row's candidates with the teacher's probabilities; a row that the tables say nothing about keeps its own target."""
    user_R, position_R = training_rows(seq)
    count, window, told = config.candidates, tables.counted.window, progress or Silent()
    items_Rk, share_Rk = np.zeros((len(user_R), count), dtype=np.int32), np.zeros((len(user_R), count), dtype=np.float32)
    own = _OwnPairs(seq, tables.counted)
    for start in range(0, len(user_R), CHUNK):
        rows = slice(start, start + CHUNK)
        history_rL, weight_rL = history_weights(seq, user_R[rows].astype(np.int64), position_R[rows], HISTORY, config.tau)
        pair = [(tables.transitions, 1.0), (tables.text, config.text)]
        items_rx, score_rx = scored(pair, history_rL, weight_rL, count + window)  # what is taken back leaves enough
        own.take_back(user_R[rows], position_R[rows], history_rL, weight_rL, items_rx, score_rx)
        best_rk = np.argsort(-score_rx, axis=1, kind="stable")[:, :count]
        score_rk = np.take_along_axis(score_rx, best_rk, axis=1) ** (1 / config.temperature)
        items_Rk[rows] = np.maximum(np.take_along_axis(items_rx, best_rk, axis=1), 0)
        share_Rk[rows] = score_rk / np.maximum(score_rk.sum(axis=1, keepdims=True), 1e-30)
        told.update("teacher", min(start + CHUNK, len(user_R)), len(user_R))
    return DistillationTargets.of(items_Rk, share_Rk, config.share)


class _OwnPairs:
    """What a row's own user has added to the row's scores by events at and after its target."""

    def __init__(self, seq: Sequences, counted: NeighboursConfig) -> None:
        self.seq, self.counted = seq, counted
        self.scale_N = 1 / np.sqrt(np.maximum(outgoing(seq, counted), 1e-12))
        self.end_U, self.weight_E = training_ends(seq), recency(seq, counted)

    def take_back(self, user_r: Int32, position_r: Int64, history_rL: Int32, weight_rL: Float32, items_rx: Int32, score_rx: Float32) -> None:
        """Subtracts it from the candidates' scores, in place."""
        seq, end_r, last = self.seq, self.end_U[user_r], len(self.seq.events_E) - 1
        backs = min(history_rL.shape[1], self.counted.window)
        # what one occurrence of an item counts in a history that holds it more than once
        total_rB = np.stack([((history_rL == history_rL[:, [b]]) * weight_rL).sum(axis=1) for b in range(backs)], axis=1)
        for ahead in range(self.counted.window):
            later_r = position_r + ahead
            if not (later_r < end_r).any():
                return
            at_r = np.minimum(later_r, last)
            next_r, added_r = seq.events_E[at_r], np.zeros(len(user_r))
            for back in range(min(backs, self.counted.window - ahead)):
                first_r, from_r = history_rL[:, back], np.maximum(position_r - 1 - back, 0)
                counted_r = (first_r >= 0) & (first_r != next_r) & (later_r < end_r)
                share_r = np.exp(-(ahead + back) / self.counted.gap) * self.weight_E[from_r]
                if seq.timestamps_E is not None:
                    share_r = share_r * np.where(seq.timestamps_E[from_r] == seq.timestamps_E[at_r], 0.5, 1.0)
                added_r += counted_r * total_rB[:, back] * share_r * self.scale_N[np.maximum(first_r, 0)]
            score_rx -= ((items_rx == next_r[:, None]) * added_r[:, None]).astype(np.float32)
        score_rx[score_rx < ROUNDING] = 0.0


def synthetic_rows(rows: int, config: TeacherConfig) -> int:
    """S: how many synthetic histories an epoch of `rows` training rows has."""
    return round(config.synthetic * rows)


class SyntheticHistories:
    """Draws of S histories with their targets."""

    def __init__(self, tables: TeacherTables, config: TeacherConfig, rows: int) -> None:
        self.tables, self.config, self.rows = tables, config, rows
        self.follows, self.reads = _Draws(tables.transitions, config.temperature), _Draws(tables.text, config.temperature)
        self.known_N = self.follows.total_N + config.text * self.reads.total_N > 0
        self.known = np.flatnonzero(self.known_N)

    def draw(self, event_E: Int64, target_R: Int64, length_R: Int64, history: int, seed: int, epoch: int) -> tuple[Int64, Int64, Int64]:
        """(items [S, L], the newest last, 0 where there is none; lengths [S]; targets [S]). target_R: places in event_E, length_R: events before."""
        random = np.random.Generator(np.random.Philox(key=np.array([seed ^ (_STREAM << 32), epoch], dtype=np.uint64)))
        row_S = random.integers(0, len(target_R), self.rows)
        single_S = (random.random(self.rows) < SINGLE) & bool(len(self.known))
        length_S = np.where(single_S, 1, random.integers(1, length_R[row_S] + 1))
        age_L = np.arange(history)[::-1]
        items_SL = np.where(age_L < length_S[:, None], event_E[np.maximum(target_R[row_S][:, None] - 1 - age_L, 0)], -1)
        if len(self.known):
            items_SL[single_S, -1] = random.choice(self.known, int(single_S.sum()))
        self._exchange(items_SL, length_S, single_S, random)
        target_S = self._targets(items_SL, event_E[target_R[row_S]], age_L, random)
        return np.maximum(items_SL, 0), length_S, target_S

    def _exchange(self, items_SL: Int64, length_S: Int64, single_S: npt.NDArray[np.bool_], random: np.random.Generator) -> None:
        """One item of each piece becomes one that reads alike, where there is any."""
        place_S = items_SL.shape[1] - 1 - random.integers(0, length_S)
        row_S = np.arange(self.rows)
        old_S = items_SL[row_S, place_S]
        alike_S = self.reads(old_S, random.random(self.rows))
        items_SL[row_S, place_S] = np.where(single_S | (alike_S < 0), old_S, alike_S)

    def _targets(self, items_SL: Int64, real_S: Int64, age_L: Int64, random: np.random.Generator) -> Int64:
        """An event of the history by its weight, then one of its neighbours; the item that really followed where nothing of it is known."""
        weight_SL = np.exp(-age_L / self.config.tau) * ((items_SL >= 0) & self.known_N[np.maximum(items_SL, 0)])
        sums_SL = np.cumsum(weight_SL, axis=1)
        place_S = (sums_SL <= (random.random(self.rows) * sums_SL[:, -1])[:, None]).sum(axis=1).clip(max=items_SL.shape[1] - 1)
        from_S = np.maximum(items_SL[np.arange(self.rows), place_S], 0)
        text_S = self.config.text * self.reads.total_N[from_S]
        both_S = np.maximum(text_S + self.follows.total_N[from_S], 1e-30)
        read_S, drawn_S = random.random(self.rows) * both_S < text_S, random.random(self.rows)
        found_S = np.where(read_S, self.reads(from_S, drawn_S), self.follows(from_S, drawn_S))
        return np.where((sums_SL[:, -1] > 0) & (found_S >= 0), found_S, real_S)


class _Draws:
    """Neighbours of items, drawn by their weights^(1 / temperature); `total_N`: the sums of those, 0 without neighbours."""

    def __init__(self, table: ItemTable, temperature: float) -> None:
        self.table = table
        self.sums_P1: Floats = np.r_[0.0, np.cumsum(table.weights_P.astype(np.float64) ** (1 / temperature))]
        self.total_N: Floats = np.diff(self.sums_P1[table.offsets_N1])

    def __call__(self, items_S: Int64, drawn_S: Floats) -> Int64:
        """int64 [S]: a neighbour of each item, -1 where it has none."""
        begin_S, end_S = self.table.offsets_N1[items_S], self.table.offsets_N1[items_S + 1]
        place_S = np.searchsorted(self.sums_P1, self.sums_P1[begin_S] + drawn_S * self.total_N[items_S], side="right") - 1
        found = np.append(self.table.items_P, np.int32(-1))[np.clip(place_S, begin_S, np.maximum(end_S - 1, begin_S))]
        return np.where(end_S > begin_S, found, -1).astype(np.int64)
