"""The uncertainty decays: one file each. `diger_core.config.SCHEDULES` names them."""

from __future__ import annotations

from importlib import import_module

from diger_core.config import SCHEDULES, ScheduleConfig
from diger_core.training.schedules.base import Noise, Schedule, State, anneal


def build_schedule(config: ScheduleConfig, codes: int, total_steps: int) -> Schedule:
    """The schedule that `config.name` names, for K codes and a run of `total_steps` steps."""
    module, name = SCHEDULES[config.name].split(":")
    kind: type[Schedule] = getattr(import_module(module), name)
    return kind(config, codes, total_steps)


__all__ = ["SCHEDULES", "Noise", "Schedule", "State", "anneal", "build_schedule"]
