"""A decay schedule of your own: one class, one line in the registry. This one halves sigma ten times over the run.

A schedule that should stay goes into a file of `diger_core/training/schedules/` and its line into `SCHEDULES` of `diger_core/config.py`; from then on
params.yaml, search, checkpoints and the report take it.
"""

from typing import Any

from torch import Tensor

from diger_core.config import SCHEDULES, ScheduleConfig
from diger_core.training.schedules.base import Schedule, State, filled
from examples import train_in_memory

HALVINGS = 10


class Halving(Schedule):
    """sigma_0, halved after every tenth of the run. Computed on the device from the step alone: no number is read back."""

    def sigma_level(self, state: State, level: int, det_Vj: Tensor) -> Tensor:
        return filled(self._sigma(state), det_Vj)

    def summary(self, state: State) -> dict[str, Any]:
        """What the report's curve of the noise shows."""
        return {**super().summary(state), "sigma": float(self._sigma(state))}

    def _sigma(self, state: State) -> Tensor:
        done = (state["step"] * HALVINGS / self.total_steps).floor()
        return self.config.sigma_0 * 0.5**done


def main() -> float:
    SCHEDULES["halving"] = "examples.new_schedule:Halving"
    return train_in_memory.main(ScheduleConfig(name="halving", sigma_0=1.0))


if __name__ == "__main__":
    main()
