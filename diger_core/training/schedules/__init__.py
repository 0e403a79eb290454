"""The uncertainty decays by name. Adding one is one new file and one line in `SCHEDULES`."""

from __future__ import annotations

from diger_core.config import ScheduleConfig
from diger_core.training.schedules.annealed import Annealed
from diger_core.training.schedules.base import Noise, Schedule, State, anneal
from diger_core.training.schedules.constant import Gaussian, Gumbel, NoNoise
from diger_core.training.schedules.frqud import FrqUD
from diger_core.training.schedules.product import SDUDFrqUD
from diger_core.training.schedules.sdud import SDUD

SCHEDULES: dict[str, type[Schedule]] = {
    "none": NoNoise,
    "gumbel": Gumbel,
    "gaussian": Gaussian,
    "linear": Annealed,
    "cosine": Annealed,
    "exponential": Annealed,
    "sdud": SDUD,
    "frqud": FrqUD,
    "sdud+frqud": SDUDFrqUD,
}


def build_schedule(config: ScheduleConfig, codes: int, total_steps: int) -> Schedule:
    """The schedule that `config.name` names, for K codes and a run of `total_steps` steps."""
    return SCHEDULES[config.name](config, codes, total_steps)


__all__ = ["SCHEDULES", "Noise", "Schedule", "State", "anneal", "build_schedule"]
