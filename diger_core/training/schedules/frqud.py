"""`frqud`: noise only for items on codes that are used too often (docs/method.md, section 4).

Per level f <- 0.99 f + 0.01 f_hat, f_hat the usage of the deterministic codes, each unique item counted once; f starts at 1/K. A code is hot when
f_i > r / K, by f before this step's update; items on hot codes get sigma = 1 on all K logits of that level, the others 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diger_core.training.schedules.base import Schedule, State


def usage(det_VM: Tensor, codes: int, mask_V: Tensor | None = None) -> Tensor:
    """float32 [M K + 1]: how many of the real items are on each code, level by level, then how many there are."""
    items, levels = det_VM.shape
    weight_V = torch.ones(items, device=det_VM.device) if mask_V is None else mask_V.to(torch.float32)
    flat_VM = det_VM + torch.arange(levels, device=det_VM.device) * codes
    # sums of ones: exact in float32 up to 2^24 items, whatever the order of the additions
    counts = torch.zeros(levels * codes, device=det_VM.device).index_add_(0, flat_VM.flatten(), weight_V[:, None].expand(-1, levels).flatten())
    return torch.cat((counts, weight_V.sum()[None]))


class FrqUD(Schedule):
    """State: f, float32 [M, K]. r = 0 is plain Gumbel, r = inf is deterministic. `level1`: level 1 decides for all levels."""

    def initial(self, levels: int, codes: int, total_steps: int, device: torch.device | str = "cpu") -> State:
        f = torch.full((levels, codes), 1.0 / codes, device=device)
        return {**super().initial(levels, codes, total_steps, device), "f": f}

    def sigma_level(self, state: State, level: int, det_Vj: Tensor) -> Tensor:
        decider = 0 if self.config.level1 else level
        if self.config.r == 0:  # by definition, also where f has decayed to exactly 0
            return torch.ones(det_Vj.shape[0], device=det_Vj.device)
        hot_K = state["f"][decider] > self.config.r / self.codes
        return hot_K[det_Vj[:, decider]].to(torch.float32)

    def observe(self, det_VM: Tensor, mask_V: Tensor | None = None) -> Tensor:
        return usage(det_VM, self.codes, mask_V)

    def update(self, state: State, loss_gen: Tensor, observed: Tensor) -> State:
        counts_X, total = observed[:-1], observed[-1]
        f_hat, decay = counts_X.view_as(state["f"]) / total.clamp(min=1), self.config.usage_decay
        f = torch.where(total > 0, decay * state["f"] + (1 - decay) * f_hat, state["f"])
        return {**super().update(state, loss_gen, observed), "f": f}

    def summary(self, state: State) -> dict[str, Any]:
        hot_MK = state["f"] > self.config.r / self.codes
        return {**super().summary(state), "sigma": 1.0, "hot_codes": hot_MK.sum(1).tolist(), "largest_usage": state["f"].amax(1).tolist()}
