"""What is counted for recipes: the two item-to-item tables, popularities, what sells now, and what is new.

N items, e events of the newest share, k items that a popularity names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from diger_core.data.neighbours import ItemTable
from diger_core.data.sequences import Float32, Int32, Sequences
from diger_core.data.splits import training_mask

LISTED = 100  # candidates that each table, and each popularity, names
RECENT = 0.1  # share of the training events that are recent


@dataclass(frozen=True)
class Trend:
    """What sells now: (1 + events of an item among the newest `share` of the training events) ^ `power`. No trend: power 0."""

    share: float = 0.0
    power: float = 0.0


NO_TREND = Trend()


@dataclass(frozen=True)
class Counts:
    """What is counted: the two tables and the two popularities (float32 [N], sums 1), with the items that each names. `newest_e`: the items of the
    newest training events, a share `RECENT` of all, oldest first. `tau`: of each part that ages a history."""

    transitions: ItemTable
    text: ItemTable
    recent_N: Float32
    popular_N: Float32
    recent_k: Int32
    popular_k: Int32
    newest_e: Int32
    tau: Mapping[str, float] = field(default_factory=lambda: {"transitions": 5.0, "text": 5.0, "repeat": 5.0})
    _factors: dict[tuple[Trend, float], Float32] = field(default_factory=dict, repr=False, compare=False)  # once, not for every chunk of rows

    @classmethod
    def of(cls, seq: Sequences, transitions: ItemTable, text: ItemTable, tau: Mapping[str, float] | None = None) -> Counts:
        """With the popularities of the training events of `seq`."""
        newest_e = newest(seq)
        recent_N, popular_N = (_shares(items_e, seq.items) for items_e in (newest_e, seq.events_E[training_mask(seq)]))
        counts = cls(transitions, text, recent_N, popular_N, _leading(recent_N), _leading(popular_N), newest_e)
        return counts if tau is None else replace(counts, tau=tau)

    @property
    def new_N(self) -> npt.NDArray[np.bool_]:
        """[N]: True for items without a training event."""
        new_N: npt.NDArray[np.bool_] = self.popular_N == 0
        return new_N

    def factor_N(self, trend: Trend, new_items: float = 1.0) -> Float32:
        """[N]: what each item's score is multiplied by. ValueError for a share beyond `RECENT`."""
        if trend.share > RECENT:
            raise ValueError(f"trend.share = {trend.share}: at most {RECENT}")
        if (trend, new_items) not in self._factors:
            events = max(1, round(trend.share / RECENT * len(self.newest_e)))
            sold_N = np.bincount(self.newest_e[-events:], minlength=len(self.popular_N))
            self._factors[trend, new_items] = np.where(self.new_N, new_items, (1 + sold_N) ** trend.power).astype(np.float32)
        return self._factors[trend, new_items]


def _leading(share_N: Float32) -> Int32:
    """The items that a popularity names: once, not for every chunk of rows."""
    return np.argsort(-share_N, kind="stable")[:LISTED].astype(np.int32)


def _shares(items_e: Int32, items: int) -> Float32:
    return np.bincount(items_e, minlength=items).astype(np.float32) / np.float32(max(1, len(items_e)))


def newest(seq: Sequences) -> Int32:
    """The items of the newest tenth of the training events, oldest first. Without times the newest are each user's last."""
    mask_E = training_mask(seq)
    events_e = seq.events_E[mask_E]
    if seq.timestamps_E is not None:
        order_e = np.argsort(seq.timestamps_E[mask_E], kind="stable")
    else:
        order_e = np.argsort(np.arange(len(mask_E))[mask_E] - np.repeat(seq.offsets_U1[1:], np.diff(seq.offsets_U1))[mask_E], kind="stable")
    return events_e[order_e[-max(1, round(RECENT * len(order_e))) :]]
