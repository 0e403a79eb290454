"""Distillation by drawn targets: with probability `share` a training row's target is not the item that followed but one drawn from a teacher.

In expectation over the epochs this is the cross-entropy with (1 - share) onehot(target) + share p_teacher, at the price of a plain target: nothing in
the step knows of it, and one more item never costs one more row. A teacher has seen training events only: `teacher.py`, or SASRec (`sasrec.py`).
Shapes: R training rows, k candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diger_core.data.sequences import Int32, Int64

_STREAM = 0x7EAC  # keeps these draws apart from the order of the rows, which has the same seed and epoch


@dataclass(frozen=True)
class DistillationTargets:
    """items_Rk: the teacher's candidates for each row; cumulative_Rk float32: their probabilities, summed along a row, 1 at its end, or 0 where the
    teacher knows nothing: such a row keeps its target."""

    items_Rk: Int32
    cumulative_Rk: npt.NDArray[np.float32]
    share: float

    @classmethod
    def of(cls, items_Rk: Int32, probability_Rk: npt.NDArray[np.float32], share: float) -> DistillationTargets:
        """From probabilities that sum to 1 in each row, or are all 0; `share` in [0, 1]."""
        if not 0 <= share <= 1:
            raise ValueError(f"share = {share!r}: must be in [0, 1]")
        cumulative_Rk = np.cumsum(probability_Rk, axis=1, dtype=np.float64)
        total_R1 = cumulative_Rk[:, -1:]
        if not (np.isclose(total_R1, 1, atol=1e-3) | (total_R1 == 0)).all():
            raise ValueError("DistillationTargets: a row's probabilities do not sum to 1")
        return cls(items_Rk, (cumulative_Rk / np.where(total_R1 > 0, total_R1, 1)).astype(np.float32), share)

    def draw(self, target_R: Int64, seed: int, epoch: int) -> Int64:
        """The epoch's target of every row; depends on (seed, epoch) alone, so that a resumed run draws the same."""
        random = np.random.Generator(np.random.Philox(key=np.array([seed ^ (_STREAM << 32), epoch], dtype=np.uint64)))
        taught_R = (random.random(len(target_R)) < self.share) & (self.cumulative_Rk[:, -1] > 0)
        drawn_R = random.random(len(target_R), dtype=np.float32)
        place_R = (self.cumulative_Rk < drawn_R[:, None]).sum(axis=1).clip(max=self.items_Rk.shape[1] - 1)
        return np.where(taught_R, self.items_Rk[np.arange(len(target_R)), place_R], target_R)
