"""`sdud`: one sigma, driven by the recommendation loss (docs/method.md, section 4).

    L_sigma = sg(L_gen) / (2 (sigma + lambda)^2) + log(sigma + lambda),   minimum at sigma* = max(0, sqrt(L_gen) - lambda)

Its gradient has a closed form, so sigma is no parameter of the model: nothing of L_sigma can reach another gradient. The step is AdamW's with
betas (0.9, 0.999), eps 1e-8 and no weight decay, then sigma is clamped to >= 0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diger_core.config import ScheduleConfig
from diger_core.training.schedules.base import Schedule, State, filled

_BETA_1, _BETA_2, _EPS = 0.9, 0.999, 1e-8


def sigma_loss(sigma: Tensor, lambda_: float, loss_gen: Tensor) -> Tensor:
    """L_sigma, elementwise."""
    return loss_gen.detach() / (2 * (sigma + lambda_) ** 2) + torch.log(sigma + lambda_)


def sigma_gradient(sigma: Tensor, lambda_: float, loss_gen: Tensor) -> Tensor:
    """dL_sigma / dsigma = 1 / (sigma + lambda) - L_gen / (sigma + lambda)^3."""
    total = sigma + lambda_
    return 1 / total - loss_gen.detach() / total**3


class SDUD(Schedule):
    """State: sigma and AdamW's two moments, 0-d. lambda_K = lambda sqrt(ln K / ln 256); learning rate max(1e-3, 4 sigma_0 / all steps)."""

    def __init__(self, config: ScheduleConfig, codes: int, total_steps: int) -> None:
        super().__init__(config, codes, total_steps)
        self.lambda_ = config.lambda_ * math.sqrt(math.log(codes) / math.log(256))
        rate = config.sigma_learning_rate
        self.learning_rate = max(1e-3, 4 * config.sigma_0 / self.total_steps) if rate is None else rate

    def initial(self, levels: int, codes: int, total_steps: int, device: torch.device | str = "cpu") -> State:
        zero = torch.zeros((), device=device)
        return {
            **super().initial(levels, codes, total_steps, device),
            "sigma": zero + self.config.sigma_0,
            "exp_avg": zero,
            "exp_avg_sq": zero.clone(),
        }

    def sigma_level(self, state: State, level: int, det_Vj: Tensor) -> Tensor:
        return filled(state["sigma"], det_Vj)

    def update(self, state: State, loss_gen: Tensor, observed: Tensor) -> State:
        state = super().update(state, loss_gen, observed)
        gradient = sigma_gradient(state["sigma"], self.lambda_, loss_gen.to(torch.float32))
        exp_avg = _BETA_1 * state["exp_avg"] + (1 - _BETA_1) * gradient
        exp_avg_sq = _BETA_2 * state["exp_avg_sq"] + (1 - _BETA_2) * gradient.square()
        step = state["step"].float()
        # expm1: 1 - 0.999^step in float32 would be wrong in its fifth digit at the first steps
        corrected = exp_avg / -torch.expm1(step * math.log(_BETA_1))
        scale = (exp_avg_sq / -torch.expm1(step * math.log(_BETA_2))).sqrt() + _EPS
        sigma = (state["sigma"] - self.learning_rate * corrected / scale).clamp(min=0)
        return {**state, "sigma": sigma, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}

    def summary(self, state: State) -> dict[str, Any]:
        return {**super().summary(state), "sigma": float(state["sigma"])}
