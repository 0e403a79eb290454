"""Training on Ray with a device for each worker: captured steps over NCCL give what one device gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestration.params.cluster import ClusterConfig
from orchestration.training.joint_model import joint_model
from tests.support.training_world import Recorder, World, params

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")]


def test_two_devices_on_ray_train_give_the_table_of_one(tmp_path: Path) -> None:
    small = params()
    given = params(
        recommender=replace(small.recommender, d_model=64, d_ff=128, d_head=32),
        training=replace(small.training, device="cuda", compile=True, epochs=3),
    )
    world = World(tmp_path, given)
    one, _ = world.compute("joint_model", joint_model, given, key="a" * 64)
    recorder = Recorder()
    given.cluster = ClusterConfig(workers=2)
    two, notes = world.compute("joint_model", joint_model, given, key="b" * 64, progress=recorder)
    assert notes["starts"] == 1
    assert not [text for text in recorder.messages if "training.compile is ignored" in text]
    assert two.facts["assignment_hash"] == one.facts["assignment_hash"]
    losses = [[row["loss"] for row in each.json("curves.json")] for each in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=5e-4)
