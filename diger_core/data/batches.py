"""Training batches: the rows of an epoch in a reproducible order, grouped so that little is padding.

A batch says which rows, which items they hold once each, and where in those unique items every history slot and target lies; the step
computes on the unique items and gathers. Order and content depend on (seed, epoch) alone: never on ranks, hosts or earlier epochs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from diger_core.data.distillation import DistillationTargets
from diger_core.data.sequences import Sequences
from diger_core.data.splits import training_rows
from diger_core.data.teacher import SyntheticHistories
from diger_core.errors import DigerError
from diger_core.training.distributed import Distributed

WINDOW = 50  # batches whose rows are sorted by length together: large enough for even lengths, small enough to keep the order random
_CROP = 0xC409  # keeps the draws of cropped histories apart from the order of the rows, which has the same seed and epoch
LENGTHS = (2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True)
class Batch:
    """One step's rows. `history_BT` and `target_B` index `items_V`, the batch's unique items over all ranks, ascending.

    history_BT int64, -1 where there is no item (at the end); target_B int64; weight_B float32: the row's weight divided by the rows of the whole
    batch, so that L_gen = sum_b weight_b loss_b over all ranks; items_V int64 catalogue indices; index: the batch's place in its epoch.
    """

    history_BT: Tensor
    target_B: Tensor
    weight_B: Tensor
    items_V: Tensor
    index: int

    def share(self, ranks: Distributed) -> Batch:
        """This rank's rows; the items stay those of the whole batch. A rank without rows gets one of weight 0."""
        if ranks.world == 1:
            return self
        mine = ranks.share(len(self.target_B))
        if mine.start == mine.stop:
            return replace(self, history_BT=self.history_BT[:1], target_B=self.target_B[:1], weight_B=torch.zeros(1))
        return replace(self, history_BT=self.history_BT[mine], target_B=self.target_B[mine], weight_B=self.weight_B[mine])

    def to(self, device: torch.device) -> Batch:
        """Copied to the device without waiting for it."""
        if device.type == "cpu":
            return self
        names = ("history_BT", "target_B", "weight_B", "items_V")
        return replace(self, **{name: getattr(self, name).pin_memory().to(device, non_blocking=True) for name in names})


def padded_length(longest: int, history: int) -> int:
    """The smallest of a few lengths that holds `longest` items, at most `history`: few shapes, so that captured graphs can be kept."""
    return min(history, next((length for length in LENGTHS if length >= longest), history))


@dataclass(frozen=True)
class EpochRows:
    """What one epoch shows. event_X int64: the events, then the synthetic histories; length_R: items of each row's history, which end before its
    place; item_R: what the row is to predict."""

    event_X: np.ndarray
    length_R: np.ndarray
    item_R: np.ndarray


class Batches:
    """The training rows of `sequences` in batches of `batch_size` (over all ranks), histories cut to their last `history` items.

    `distillation`: draws some of an epoch's targets instead of the items that followed. `synthetic`: rows of their own behind the training rows, with
    other histories in every epoch. `crop`: the share of an epoch's rows whose history is cut to
    a random length, its newest items: what came long before is then not always there to be remembered by heart.
    """

    def __init__(
        self,
        sequences: Sequences,
        batch_size: int,
        history: int,
        seed: int,
        distillation: DistillationTargets | None = None,
        crop: float = 0.0,
        synthetic: SyntheticHistories | None = None,
    ) -> None:
        self.batch_size, self.history, self.seed = batch_size, history, seed
        user_R, position_R = training_rows(sequences)
        if len(user_R) == 0:
            raise DigerError("sequences: no user has the 4 events that give a training row; add interactions or lower the k-core filter")
        self.events_E = np.asarray(sequences.events_E, dtype=np.int64)
        self.target_R = position_R  # the target's place in events_E
        self.length_R: np.ndarray = np.minimum(position_R - sequences.offsets_U1[user_R], history)
        self.weight_R = self._weights(sequences)
        if distillation is not None and len(distillation.items_Rk) != len(position_R):
            raise DigerError(
                f"distillation: candidates of {len(distillation.items_Rk)} rows for {len(position_R)} training rows; make them again from these"
            )
        self.distillation, self.crop, self.synthetic, self.real = distillation, crop, synthetic, len(position_R)
        self.place_R = self.target_R  # of all rows: where the history ends
        if synthetic is not None:
            self.place_R = np.r_[self.target_R, len(self.events_E) + history * np.arange(1, synthetic.rows + 1)]
            self.weight_R = np.r_[self.weight_R, np.ones(synthetic.rows, dtype=np.float32)]

    def _weights(self, sequences: Sequences) -> np.ndarray:
        """float32 [R], mean 1: L_gen stays in nats (SDUD compares it with lambda^2) while rows keep their proportions across batches."""
        if sequences.weights_E is None:
            return np.ones(len(self.target_R), dtype=np.float32)
        weights = np.asarray(sequences.weights_E, dtype=np.float64)[self.target_R]
        if not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
            raise DigerError("interactions, column weight: weights must be finite, not negative and not all 0; correct them or drop the column")
        weight_R: np.ndarray = (weights / weights.mean()).astype(np.float32)
        return weight_R

    @property
    def rows(self) -> int:
        """Of an epoch: training rows, then synthetic ones."""
        return len(self.place_R)

    def __len__(self) -> int:
        """Batches of one epoch; the last partial one counts."""
        return -(-self.rows // self.batch_size)

    def order(self, epoch: int, length_R: np.ndarray | None = None) -> list[np.ndarray]:
        """The epoch's batches as row numbers: a permutation keyed by (seed, epoch), sorted by length in windows, batches shuffled again."""
        random = np.random.Generator(np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64)))
        length_R = self.drawn(epoch).length_R if length_R is None else length_R
        rows = random.permutation(self.rows)
        window = np.arange(self.rows) // (WINDOW * self.batch_size)
        rows = rows[np.lexsort((length_R[rows], window))]  # stable: equal lengths keep their random order
        batches = [rows[start : start + self.batch_size] for start in range(0, self.rows, self.batch_size)]
        return [batches[b] for b in random.permutation(len(batches))]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from batch `start` on: the same ones, whether or not those before were asked for."""
        drawn = self.drawn(epoch)
        order = self.order(epoch, drawn.length_R)
        for index in range(start, len(order)):
            yield self.batch(order[index], drawn, index)

    def drawn(self, epoch: int) -> EpochRows:
        """The epoch's histories and targets."""
        item_R, length_R = self.events_E[self.target_R], self._lengths(epoch)
        if self.distillation is not None:
            item_R = self.distillation.draw(item_R, self.seed, epoch)
        if self.synthetic is None:
            return EpochRows(self.events_E, length_R, item_R)
        items_SL, length_S, item_S = self.synthetic.draw(self.events_E, self.target_R, self.length_R, self.history, self.seed, epoch)
        return EpochRows(np.r_[self.events_E, items_SL.ravel()], np.r_[length_R, length_S], np.r_[item_R, item_S])

    def _lengths(self, epoch: int) -> np.ndarray:
        """int64: how many items of its history each training row shows in this epoch."""
        if not self.crop:
            return self.length_R
        random = np.random.Generator(np.random.Philox(key=np.array([self.seed ^ (_CROP << 32), epoch], dtype=np.uint64)))
        cropped_R = random.random(self.real) < self.crop
        length_R: np.ndarray = np.where(cropped_R, random.integers(1, self.length_R + 1), self.length_R)
        return length_R

    def batch(self, rows: np.ndarray, drawn: EpochRows, index: int = 0) -> Batch:
        """The rows with these numbers, as the epoch shows them, in one batch."""
        count, length_B, place_B = len(rows), drawn.length_R[rows], self.place_R[rows]
        time_T = np.arange(padded_length(int(length_B.max()), self.history))
        present_BT = time_T < length_B[:, None]
        history_BT = drawn.event_X[np.where(present_BT, (place_B - length_B)[:, None] + time_T, 0)]
        items_V, inverse = np.unique(np.concatenate([history_BT[present_BT], drawn.item_R[rows]]), return_inverse=True)
        history_BT[present_BT] = inverse[:-count]
        history_BT[~present_BT] = -1
        arrays = (history_BT, inverse[-count:], self.weight_R[rows] / np.float32(count), items_V)
        history, target, weight, items = (torch.from_numpy(array) for array in arrays)
        return Batch(history, target, weight, items, index)
