"""What an uncertainty decay is: a small pure object (docs/method.md, section 4).

A schedule holds constants only. What changes lives in its state, a flat dict of tensors that the checkpoint saves as it is. In a training step

1. `assign` asks for sigma level by level, because FrqUD decides by the deterministic codes and those of level j+1 follow from what level j fed
   forward: `sigma_level(state, level, det_Vj)` -> [V], from the state *before* this step's update;
2. after the forward, in training only, `update(state, loss_gen, observed)` -> the next state. `observed = observe(det_VM, mask_V)` is what it needs
   to know of the batch's items, as sums over them: several ranks add theirs up.

None changes its arguments, reads a number back to the host or branches on one, so all can live in a CUDA graph. Shapes: V unique items, M levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from diger_core.config import ScheduleConfig

State = dict[str, Tensor]
Noise = Literal["none", "gumbel", "gaussian"]


def anneal(shape: str, start: float, end: float, progress: Tensor) -> Tensor:
    """From `start` at progress 0 to `end` at progress 1, linearly, along half a cosine, or by a constant factor (exponential).

    No constant factor reaches 0: the exponential shape then heads for start / 1000, and is 0 from progress 1 on."""
    p = progress.clamp(0, 1)
    if shape == "linear":
        return start + (end - start) * p
    if shape == "cosine":
        return end + (start - end) * 0.5 * (1 + torch.cos(math.pi * p))
    if start <= 0:
        return torch.full_like(p, end)
    value = start * torch.exp(p * math.log(max(end, start * 1e-3) / start))
    return torch.where(p >= 1, torch.full_like(value, end), value)


class Schedule:
    """The protocol, and what all schedules share: the count of steps and tau. `noise` says which distribution sigma multiplies."""

    noise: Noise = "gumbel"

    def __init__(self, config: ScheduleConfig, codes: int, total_steps: int) -> None:
        self.config, self.codes, self.total_steps = config, codes, max(total_steps, 1)

    def initial(self, levels: int, codes: int, total_steps: int, device: torch.device | str = "cpu") -> State:
        """The state before the first step. `codes` and `total_steps` as given to `build_schedule`."""
        return {"step": torch.zeros((), dtype=torch.int64, device=device)}

    def sigma_level(self, state: State, level: int, det_Vj: Tensor) -> Tensor:
        """sigma of each item at `level` (from 0), float32 [V]. det_Vj int64 [V, level + 1]: the deterministic codes up to this level."""
        raise TypeError(f"{type(self).__name__} does not say its sigma")

    def observe(self, det_VM: Tensor, mask_V: Tensor | None = None) -> Tensor:
        """float32 [n]: sums over the batch's unique items, of one size for one schedule; here none. mask_V: 1 for items that count, 0 for padding
        and for items that another rank counts."""
        return torch.zeros(0, device=det_VM.device)

    def update(self, state: State, loss_gen: Tensor, observed: Tensor) -> State:
        """The state after a training step. loss_gen []: L_gen of the whole batch, detached by the schedule; observed [n]: what `observe` gave, summed
        over the ranks."""
        return {**state, "step": state["step"] + 1}

    def bind(self, state: State) -> Callable[[int, Tensor], Tensor]:
        """sigma as `assign` takes it."""
        return lambda level, det_Vj: self.sigma_level(state, level, det_Vj)

    def tau(self, step: Tensor) -> Tensor:
        """The temperature at `step` (int64 []), float32 []: constant, or annealed to tau_end over all steps."""
        config = self.config
        if config.tau_end is None:
            return torch.full((), config.tau, device=step.device)
        return anneal(config.tau_shape, config.tau, config.tau_end, step.float() / max(self.total_steps - 1, 1))

    def summary(self, state: State) -> dict[str, Any]:
        """Figures for the monitors. Reads from the device: between steps only."""
        return {"step": int(state["step"])}


def filled(value: Tensor, det_Vj: Tensor) -> Tensor:
    """One sigma for all V items."""
    return value.to(torch.float32).expand(det_Vj.shape[0])
