"""`linear`, `cosine`, `exponential`: sigma as a function of the step, from sigma_0 to sigma_min (docs/method.md, section 4)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diger_core.training.schedules.base import Schedule, State, anneal, filled


class Annealed(Schedule):
    """sigma_0 at the first step, sigma_min at the last; the shape is the configuration's name."""

    def _sigma(self, state: State) -> Tensor:
        progress = state["step"].float() / max(self.total_steps - 1, 1)
        return anneal(self.config.name, self.config.sigma_0, self.config.sigma_min, progress)

    def sigma_level(self, state: State, level: int, det_Vj: Tensor) -> Tensor:
        return filled(self._sigma(state), det_Vj)

    def summary(self, state: State) -> dict[str, Any]:
        return {**super().summary(state), "sigma": float(self._sigma(state))}
