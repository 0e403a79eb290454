"""Resume as a property: whatever the schedule, the spacing of checkpoints and the step of the kill, the end is that of the unbroken run."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.config import SCHEDULES, ScheduleConfig
from diger_core.training.checkpoint import Checkpoint
from diger_core.training.resume import restore
from tests.support import small_setting as small

TRAINING = replace(small.TRAINING, epochs=2)
STEPS = 2 * len(small.loop().context.batches)


class Killed(BaseException):
    """Stands for the process's end."""


def joint(name: Any, forward: Any, tau_end: float | None) -> Any:
    return replace(small.JOINT, forward=forward, schedule=ScheduleConfig(name=name, r=1.0, tau_end=tau_end))


@lru_cache(maxsize=64)
def unbroken(*setting: Any) -> Checkpoint:
    return small.last_checkpoint(joint(*setting), TRAINING)


@settings(max_examples=12)
@given(
    name=st.sampled_from(tuple(SCHEDULES)), forward=st.sampled_from(["cached", "sampled"]), tau_end=st.sampled_from([None, 0.5]),
    every=st.integers(1, 6), killed_at=st.integers(1, STEPS - 1), generators=st.integers(0, 2**31),
)  # fmt: skip
def test_a_run_killed_anywhere_and_resumed_is_the_unbroken_one(name, forward, tau_end, every, killed_at, generators):
    kept: list[Checkpoint] = []

    def dies(checkpoint: Checkpoint) -> None:
        kept.append(checkpoint)
        if checkpoint.step >= killed_at:
            raise Killed

    with pytest.raises(Killed):
        small.run(joint(name, forward, tau_end), TRAINING, on_checkpoint=dies, checkpoint_steps=every)
    torch.manual_seed(generators)  # a new process has other generators
    ends = kept[-1:]  # killed at the very end: nothing is left to do
    small.run(joint(name, forward, tau_end), TRAINING, on_checkpoint=ends.append, resume=kept[-1])
    assert small.equal(ends[-1], unbroken(name, forward, tau_end)) == []


def test_a_resumed_run_stops_as_early_as_the_unbroken_one():
    still = replace(small.TRAINING, epochs=9, learning_rate=1e-12, weight_decay=0.0, patience=2)
    config = replace(small.JOINT, tokenizer="frozen")
    kept: list[Checkpoint] = []
    small.run(config, still, on_checkpoint=kept.append)
    assert [checkpoint.state["stale"] for checkpoint in kept] == [0, 1, 2], "after the first epoch nothing gets better"
    assert small.equal(small.last_checkpoint(config, still, resume=kept[1]), kept[2]) == []


def test_a_restored_state_lies_on_the_runs_device() -> None:
    """A device run once continued from its checkpoint with an ID table on the CPU, and died at the end of the epoch. `meta` stands for the device."""
    loop, checkpoint = small.loop(), small.last_checkpoint(training=replace(small.TRAINING, epochs=1))
    checkpoint.state["fingerprint"] = loop.state.fingerprint
    loop.state.sums = loop.state.sums.to("meta")
    restore(loop.state, checkpoint, small.item_ids())
    state = loop.state
    found = {"codes": state.table.codes_NM, "suffix": state.table.suffix_N, "best codes": state.best.table.codes_NM, **state.schedule}
    found |= state.best.recommender | state.best.tokenizer
    assert {name for name, tensor in found.items() if tensor.device.type != "meta"} == set()
