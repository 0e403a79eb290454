"""Memory grows with the batch and not with the catalogue: what a step allocates is the same for a few items and for very many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diger_core.config import ModelConfig, ScheduleConfig
from diger_core.data.sequences import Sequences
from diger_core.fast.captured import FastStep
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import Loop
from tests.support import small_setting as small

MANY, CODES = 60_000, 32


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation has made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.name = 0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {value.untyped_storage().data_ptr() for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(found):
            new = isinstance(value, Tensor) and value.untyped_storage().data_ptr() not in given  # no view, nothing changed in place
            if new and value.numel() > self.elements:
                self.elements, self.name = value.numel(), str(func)
        return found


def loop(joint: Any) -> Loop:
    """A run over MANY items, a batch of which sees a handful."""
    random = np.random.default_rng(0)
    events = random.integers(0, MANY, 24 * 9).astype(np.int32)
    seq = Sequences(events, np.arange(25, dtype=np.int64) * 9, MANY)
    tok = small.tokenizer(codes=CODES)
    tok.config = replace(tok.config, suffixes=1 << 10)
    vectors = small.vectors()[torch.arange(MANY) % small.ITEMS] + 2 * torch.randn(MANY, small.DIM, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # codebooks among these items' residuals: full groups have a few hundred
        residual = tok.encode(vectors)
        for level in range(small.LEVELS):
            tok.codebooks[level].copy_(residual[1000 * level :][:CODES])
            residual = residual - tok.codebooks[level][tok.scores(level, residual).argmax(1)]
    inputs = TrainingInputs(vectors, seq, pa.array(np.arange(MANY)), tok)
    return Loop(inputs, ModelConfig(small.RECOMMENDER, small.TRAINING, joint))


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", ["frozen", "frqud", "sdud"])
def test_no_tensor_of_a_step_has_the_catalogue_s_size(name: Any, fast: bool) -> None:
    joint = replace(small.JOINT, tokenizer="frozen") if name == "frozen" else replace(small.JOINT, schedule=ScheduleConfig(name=name, r=1.0))
    made = loop(joint)
    made.state.train()
    if fast:
        step = FastStep(made.state, made.context)
        length = step.start(0, 0, 0)[0][1]
    batch = next(made.context.batches.epoch(0))
    with Largest() as largest:
        step.run(length) if fast else made.step(batch)
    assert 0 < largest.elements < MANY, largest.name
