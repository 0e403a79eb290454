"""`none`, `gumbel` and `gaussian`: a sigma that never changes (docs/method.md, section 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diger_core.training.schedules.base import Schedule, State


class NoNoise(Schedule):
    """`none`: sigma = 0, plain straight-through."""

    noise = "none"

    def sigma_level(self, state: State, level: int, det_Vj: Tensor) -> Tensor:
        return torch.zeros(det_Vj.shape[0], device=det_Vj.device)

    def summary(self, state: State) -> dict[str, Any]:
        return {**super().summary(state), "sigma": 0.0}


class Gumbel(Schedule):
    """`gumbel`: sigma = sigma_0 for every item and step."""

    def sigma_level(self, state: State, level: int, det_Vj: Tensor) -> Tensor:
        return torch.full((det_Vj.shape[0],), self.config.sigma_0, device=det_Vj.device)

    def summary(self, state: State) -> dict[str, Any]:
        return {**super().summary(state), "sigma": self.config.sigma_0}


class Gaussian(Gumbel):
    """`gaussian`: the ablation, N(0, sigma_0^2) in the place of Gumbel noise."""

    noise = "gaussian"
