"""Directed transitions between items: a sparse item-level model of what follows what, to stand beside SASRec as a teacher.

    c_ij = sum of 1/t over the pairs of one user's training events, i before j, at distance t <= window
    score_j(history) = sum_k decay^k c_{h_k j} / r_{h_k}^row,   p_j = score_j / sum of scores

h_k is the history's k-th newest item (k = 0 the newest, k < 2 window), r the row sums of c. A row of the training set is scored without the
pairs from its history to what its own user did then and later: otherwise the model would repeat the target that it has counted. (c is a
leave-one-out estimate there; r is not, which moves a score by a factor near 1.) Validation and test events are never counted.
Shapes: C rows, L history items, N items.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from diger_core.config import STRICT
from diger_core.data.item_factors import co_occurrences
from diger_core.data.sequences import Int64, Sequences
from diger_core.data.splits import training_ends


@dataclass(frozen=True)
class TransitionsConfig:
    """window, in events; `row` tempers how much more an item says that was often followed. Chosen on Beauty's validation events."""

    __pydantic_config__: ClassVar = STRICT
    window: int = 5
    decay: float = 0.3
    row: float = 0.3


class Transitions:
    """Counted once; `probabilities` for any rows. Memory grows with the distinct pairs and C x N, never with N x N."""

    def __init__(self, seq: Sequences, config: TransitionsConfig, device: torch.device | str = "cpu") -> None:
        self.seq, self.config, self.device = seq, config, torch.device(device)
        keys_P, weight_P = co_occurrences(seq, config.window, directed=True)
        first_P, second_P = keys_P // seq.items, keys_P % seq.items
        scale_N = np.maximum(np.bincount(first_P, weight_P, minlength=seq.items), 1e-9) ** -config.row
        self.scale_N = torch.from_numpy(scale_N).float().to(device)
        order_P = np.lexsort((first_P, second_P))  # transposed: rows are what follows
        bounds_N1 = np.searchsorted(second_P[order_P], np.arange(seq.items + 1))
        value_P = (weight_P * scale_N[first_P])[order_P]
        parts = (torch.from_numpy(bounds_N1), torch.from_numpy(first_P[order_P]), torch.from_numpy(value_P).float())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            self.followers_NN = torch.sparse_csr_tensor(*parts, size=(seq.items, seq.items), check_invariants=True).to(device)

    def probabilities(self, begin_C: Int64, end_C: Int64) -> Tensor:
        """float32 [C, N] of the items that follow events begin..end (absolute, the end exclusive); zeros where nothing of the history is known."""
        window = self.config.window
        at_CL = end_C[:, None] - 1 - np.arange(window * 2)
        item_CL = torch.from_numpy(np.where(at_CL >= begin_C[:, None], self.seq.events_E[np.maximum(at_CL, 0)].astype(np.int64), -1)).to(self.device)
        share_L = self.config.decay ** torch.arange(item_CL.shape[1], device=self.device, dtype=torch.float32)
        present_CL = item_CL >= 0
        history_CN = torch.zeros(len(end_C), self.seq.items, device=self.device)
        history_CN.scatter_add_(1, item_CL.clamp_min(0), present_CL * share_L)
        score_CN = torch.sparse.mm(self.followers_NN, history_CN.T.contiguous()).T.contiguous()
        self._without_own(score_CN, item_CL, history_CN, begin_C, end_C)
        share_CN: Tensor = score_CN / score_CN.sum(1, keepdim=True).clamp_min(1e-12)
        return share_CN

    def _without_own(self, score_CN: Tensor, item_CL: Tensor, history_CN: Tensor, begin_C: Int64, end_C: Int64) -> None:
        """Takes back what this user's own events at and after `end` have added to the scores; sets all below 1e-6, what rounding leaves, to zero."""
        user_C = np.searchsorted(self.seq.offsets_U1, begin_C, side="right") - 1
        last_C = training_ends(self.seq)[user_C]
        for ahead in range(self.config.window):
            counted_C = torch.from_numpy(end_C + ahead < last_C).to(self.device)
            place_C = np.minimum(end_C + ahead, len(self.seq.events_E) - 1)
            next_C = torch.from_numpy(self.seq.events_E[place_C].astype(np.int64)).to(self.device)
            for back in range(self.config.window - ahead):
                known_C = counted_C & (item_CL[:, back] >= 0) & (item_CL[:, back] != next_C)
                first_C = item_CL[:, back].clamp_min(0)
                share_C = history_CN.gather(1, first_C[:, None])[:, 0]  # of all places of an item that occurs more than once
                added_C = share_C / (1 + back + ahead) * self.scale_N[first_C]
                score_CN.scatter_add_(1, next_C[:, None], -(added_C * known_C)[:, None])
        score_CN[score_CN < 1e-6] = 0.0
