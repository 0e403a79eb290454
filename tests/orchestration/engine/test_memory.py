"""What a stage's record says of memory: the peak while it ran, not that of the process before."""

import numpy as np

from orchestration.engine.memory import PeakMemory


def test_the_peak_is_of_the_time_since_it_was_asked_for():
    memory = PeakMemory()
    before = memory.mebibytes()["peak_memory_mb"]
    held = np.ones(200 * 2**20, dtype=np.uint8)
    del held
    assert memory.mebibytes()["peak_memory_mb"] > before + 180, "what was held and given back counts"
    assert PeakMemory().mebibytes()["peak_memory_mb"] < before + 100, "and no longer for the next"


def test_without_a_gpu_in_use_nothing_is_said_of_one():
    assert set(PeakMemory().mebibytes()) == {"peak_memory_mb"}
