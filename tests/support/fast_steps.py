"""Lets the loop take fast steps, uncaptured, where it would take reference ones: the kernels' arithmetic on a CPU, also on several gloo ranks."""

from __future__ import annotations

from collections.abc import Iterator

from diger_core.fast.captured import FastStep
from diger_core.training.loop import Loop


def fast_steps(self: Loop) -> Iterator[tuple[int, int]]:
    """What `Loop._steps` does on an accelerator, without a graph."""
    fast = self.__dict__.get("fast")
    if fast is None or fast.context is not self.context:
        fast = self.__dict__["fast"] = FastStep(self.state, self.context, self.ranks)
    at = self.state.position
    batches = fast.start(at.epoch, at.batch, at.step)
    for index in range(at.batch, len(batches)):
        rows, length = batches[index]
        fast.run(length)
        yield index, rows
