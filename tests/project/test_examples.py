"""The examples run as they stand, and learn."""

import pytest
import torch

from diger_core.config import SCHEDULES, JointModelConfig, ScheduleConfig
from diger_core.training.schedules import build_schedule
from examples import new_schedule, train_in_memory
from orchestration.search.space import applied, relevant

CHANCE = 10 / train_in_memory.ITEMS


def test_the_core_trains_in_memory_and_recommends(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_in_memory.main() > 2 * CHANCE
    assert "user 0: item-" in capsys.readouterr().out


def test_a_schedule_of_ones_own_is_one_line_in_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "halving", "examples.new_schedule:Halving")  # and taken out again afterwards
    schedule = build_schedule(ScheduleConfig(name="halving", sigma_0=2.0), 8, 100)
    assert isinstance(schedule, new_schedule.Halving)
    det_V1 = torch.zeros((3, 1), dtype=torch.int64)
    sigma = [float(schedule.sigma_level({"step": torch.tensor(step)}, 0, det_V1)[0]) for step in (0, 9, 10, 99)]
    assert sigma == [2.0, 2.0, 1.0, 2.0 / 2**9]
    assert schedule.summary({"step": torch.tensor(10)})["sigma"] == 1.0
    trial = relevant({"schedule": "halving", "sigma_0": 1.5}, "frqud")
    assert applied(JointModelConfig(), trial).schedule == ScheduleConfig(name="halving", sigma_0=1.5)
    assert new_schedule.main() > 2 * CHANCE
