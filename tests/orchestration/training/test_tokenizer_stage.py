"""The tokenizer warms up where the models train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from diger_core.config import TrainingConfig
from diger_core.errors import DigerError
from orchestration.training import tokenizer as stage
from tests.support.training_world import World, params


def test_the_warm_up_runs_on_the_training_s_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    warm_up = stage.warm_up
    monkeypatch.setattr(stage, "warm_up", lambda *given, **options: asked.append(given[3]) or warm_up(*given, **options))
    world = World(tmp_path)
    assert asked == [torch.device("cpu")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DigerError, match="no CUDA device is available; set training.device to auto or cpu"):
        world.compute("tokenizer", stage.tokenizer, params(training=TrainingConfig(device="cuda")))
