"""`sdud+frqud`: the product of both sigmas: SDUD's size on FrqUD's items (docs/method.md, section 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diger_core.config import ScheduleConfig
from diger_core.training.schedules.base import Schedule, State
from diger_core.training.schedules.frqud import FrqUD
from diger_core.training.schedules.sdud import SDUD


class SDUDFrqUD(Schedule):
    """State: both parts' tensors side by side; they share no name but the step."""

    def __init__(self, config: ScheduleConfig, codes: int, total_steps: int) -> None:
        super().__init__(config, codes, total_steps)
        self.sdud, self.frqud = SDUD(config, codes, total_steps), FrqUD(config, codes, total_steps)

    def initial(self, levels: int, codes: int, total_steps: int, device: torch.device | str = "cpu") -> State:
        return {**self.sdud.initial(levels, codes, total_steps, device), **self.frqud.initial(levels, codes, total_steps, device)}

    def sigma_level(self, state: State, level: int, det_Vj: Tensor) -> Tensor:
        return self.sdud.sigma_level(state, level, det_Vj) * self.frqud.sigma_level(state, level, det_Vj)

    def observe(self, det_VM: Tensor, mask_V: Tensor | None = None) -> Tensor:
        return self.frqud.observe(det_VM, mask_V)

    def update(self, state: State, loss_gen: Tensor, observed: Tensor) -> State:
        return {**self.sdud.update(state, loss_gen, observed), "f": self.frqud.update(state, loss_gen, observed)["f"]}

    def summary(self, state: State) -> dict[str, Any]:
        return {**self.frqud.summary(state), **self.sdud.summary(state)}
