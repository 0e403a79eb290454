"""A batch put together on the device: histories, targets and unique items from row numbers, in fixed shapes and without a look at the host.

The same rows, in the same order, and the same ascending unique items as `batches.Batches.batch` makes on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diger_core.data.batches import Batches
from diger_core.training.distributed import Distributed


@dataclass
class DeviceRows:
    """item_BL int64 (0 on padding), present_BL bool, target_B int64, weight_B float32, length_B int64."""

    item_BL: Tensor
    present_BL: Tensor
    target_B: Tensor
    weight_B: Tensor
    length_B: Tensor


@dataclass
class UniqueItems:
    """items_V int64 (item 0 in unused places), mask_V bool: used, history_BL and target_B: places in items_V (0 on padding).

    Of several ranks each knows the items of its own rows. counted_V bool: the items that this rank counts, so that over all ranks each item of the
    batch is counted once; total []: how many those are."""

    items_V: Tensor
    mask_V: Tensor
    history_BL: Tensor
    target_B: Tensor
    counted_V: Tensor
    total: Tensor

    @property
    def share_V(self) -> Tensor:
        """float32: the items' shares in a mean over the batch's items; over all ranks they sum to 1."""
        return self.counted_V / self.total


class RowsOnDevice:
    """The events and one epoch's order of rows on the device; `cursor` counts the epoch's batches, on the device, too."""

    def __init__(self, batches: Batches, device: torch.device, ranks: Distributed | None = None) -> None:
        """`ranks`: whose share of each batch `gather` gives."""
        self.share = (ranks or Distributed()).share(batches.batch_size)
        self.batches, self.batch_size, self.device = batches, batches.batch_size, device
        self.event_X = torch.from_numpy(np.ascontiguousarray(batches.drawn(0).event_X, dtype=np.int64)).to(device)
        self.place_R = torch.from_numpy(np.ascontiguousarray(batches.place_R, dtype=np.int64)).to(device)
        self.length_R = torch.zeros(batches.rows, dtype=torch.int64, device=device)
        slots = len(batches) * self.batch_size
        self.order = torch.zeros(slots, dtype=torch.int64, device=device)
        self.target = torch.zeros(slots, dtype=torch.int64, device=device)
        self.weight = torch.zeros(slots, device=device)
        self.cursor = torch.zeros((), dtype=torch.int64, device=device)

    def start(self, epoch: int, first: int) -> list[tuple[int, int]]:
        """Uploads the epoch's order; returns (rows, longest history) of its batches. A short batch repeats its first row with weight 0."""
        drawn, real = self.batches.drawn(epoch), len(self.batches.events_E)
        order = self.batches.order(epoch, drawn.length_R)
        self.event_X[real:].copy_(torch.from_numpy(drawn.event_X[real:]), non_blocking=True)  # the synthetic histories
        size = self.batch_size
        rows = np.concatenate([np.concatenate([r, np.repeat(r[:1], size - len(r))]) for r in order])
        counts = np.array([len(r) for r in order])
        inside = np.arange(size) < counts[:, None]
        weight = np.where(inside, self.batches.weight_R[rows].reshape(inside.shape) / counts[:, None].astype(np.float32), np.float32(0))
        self.order.copy_(torch.from_numpy(rows), non_blocking=True)
        self.target.copy_(torch.from_numpy(drawn.item_R[rows]), non_blocking=True)
        self.weight.copy_(torch.from_numpy(weight.astype(np.float32).ravel()), non_blocking=True)
        self.cursor.fill_(first)
        self.length_R.copy_(torch.from_numpy(np.ascontiguousarray(drawn.length_R, dtype=np.int64)), non_blocking=True)
        longest = drawn.length_R[rows].reshape(inside.shape).max(axis=1)
        return list(zip(counts.tolist(), longest.tolist(), strict=True))

    def gather(self, length: int) -> DeviceRows:
        """This rank's rows of the batch at the cursor, histories padded to `length`."""
        return self._gather(self.share.start, self.share.stop, length)

    def count(self, mine: UniqueItems, length: int, items: int) -> None:
        """Of several ranks: sets which of its rows' items this one counts, those that no rank before it has, and how many the whole batch has."""
        if self.share.stop - self.share.start == self.batch_size:
            return
        mine.total = _sorted_items(self._gather(0, self.batch_size, length), items)[1].sum()
        if self.share.start:
            earlier_X = _sorted_items(self._gather(0, self.share.start, length), items)[0]
            place_V = torch.searchsorted(earlier_X, mine.items_V).clamp_max(len(earlier_X) - 1)
            mine.counted_V = mine.mask_V & (earlier_X[place_V] != mine.items_V)

    def _gather(self, first: int, last: int, length: int) -> DeviceRows:
        slot_B = self.cursor * self.batch_size + torch.arange(first, last, device=self.device)
        row_B = self.order[slot_B]
        place_B, length_B = self.place_R[row_B], self.length_R[row_B]
        time_L = torch.arange(length, device=self.device)
        present_BL = time_L < length_B[:, None]
        at_BL = torch.where(present_BL, (place_B - length_B)[:, None] + time_L, 0)
        return DeviceRows(self.event_X[at_BL] * present_BL, present_BL, self.target[slot_B], self.weight[slot_B], length_B)


SPARSE = 64  # a catalogue of more than so many items for each place in the batch: sorting the batch beats flags for all items


def unique_items(rows: DeviceRows, items: int) -> UniqueItems:
    """The batch's items once each, ascending, in V = min(N, B (L + 1)) places: the largest number that can occur."""
    batch, length = rows.item_BL.shape
    places = min(items, batch * (length + 1))
    return _by_sorting(rows, items, places) if items > SPARSE * places else _by_flags(rows, items, places)


def _by_flags(rows: DeviceRows, items: int, places: int) -> UniqueItems:
    """Work on N flags, no sorting."""
    device = rows.item_BL.device
    used = torch.zeros(items + 1, dtype=torch.int32, device=device)
    used.index_fill_(0, torch.where(rows.present_BL, rows.item_BL, items).flatten(), 1)
    used.index_fill_(0, rows.target_B, 1)
    used = used[:items]
    rank_N = used.cumsum(0) - 1
    items_V = torch.zeros(places + 1, dtype=torch.int64, device=device)
    # the unused share the last place, which is cut off
    items_V.scatter_(0, torch.where(used > 0, rank_N, places), torch.arange(items, device=device))
    mask_V = torch.arange(places, device=device) <= rank_N[-1]
    history_BL = rank_N[rows.item_BL].clamp_min(0) * rows.present_BL
    return UniqueItems(items_V[:places].masked_fill(~mask_V, 0), mask_V, history_BL, rank_N[rows.target_B], mask_V, mask_V.sum())


def _by_sorting(rows: DeviceRows, items: int, places: int) -> UniqueItems:
    """Work on the batch's B (L + 1) numbers X, whatever N is; padding counts as item N and sorts behind all others."""
    batch, length = rows.item_BL.shape
    item_X = torch.cat((torch.where(rows.present_BL, rows.item_BL, items).flatten(), rows.target_B))
    sorted_X, place_X = item_X.sort()
    new_X = torch.cat((torch.ones_like(sorted_X[:1]), (sorted_X[1:] != sorted_X[:-1]).long()))
    rank_sorted_X = new_X.cumsum(0) - 1
    rank_X = torch.empty_like(rank_sorted_X).scatter_(0, place_X, rank_sorted_X)
    items_V = torch.full((places + 1,), items, device=item_X.device).scatter_(0, rank_sorted_X, sorted_X)[:places]
    mask_V = items_V < items
    history_BL = rank_X[: batch * length].view(batch, length) * rows.present_BL
    return UniqueItems(items_V.masked_fill(~mask_V, 0), mask_V, history_BL, rank_X[batch * length :], mask_V, mask_V.sum())


def _sorted_items(rows: DeviceRows, items: int) -> tuple[Tensor, Tensor]:
    """(the rows' items ascending, padding as item N behind them [X]; bool: the first of each item [X])."""
    sorted_X = torch.cat((torch.where(rows.present_BL, rows.item_BL, items).flatten(), rows.target_B)).sort()[0]
    first_X = torch.cat((torch.ones_like(sorted_X[:1], dtype=torch.bool), sorted_X[1:] != sorted_X[:-1]))
    return sorted_X, first_X & (sorted_X < items)
