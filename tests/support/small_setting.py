"""A training run small enough for tests: 48 items in 6 groups, users who walk from group to group, random vectors that tell the groups apart."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diger_core.config import JointModelConfig, ModelConfig, PathsConfig, RecommenderConfig, ScheduleConfig, TokenizerConfig, TrainingConfig
from diger_core.data.sequences import Sequences
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.checkpoint import Checkpoint
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import Loop, Trained, train

torch.set_num_threads(1)  # tensors this small only lose by sharing the work

ITEMS, GROUPS, LEVELS, CODES, DIM = 48, 6, 2, 8, 12
RECOMMENDER = RecommenderConfig(
    encoder_layers=1, decoder_layers=1, d_model=16, d_ff=32, heads=2, d_head=8, dropout=0.1, history=6, history_input="hard", item_tokens="all"
)
TRAINING = TrainingConfig(epochs=3, batch_size=15, learning_rate=3e-3, warmup_steps=4, beams=10, device="cpu")
JOINT = JointModelConfig(schedule=ScheduleConfig(name="frqud", r=1.0), codebook_learning_rate=1e-3)
NO_PATHS = PathsConfig(history=False, teacher=False, labels=False)


def sequences(users: int = 24, seed: int = 0) -> Sequences:
    random = np.random.default_rng(seed)
    lengths = random.integers(4, 12, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    group = (np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(random.integers(0, GROUPS, users), lengths)) % GROUPS
    events = group * (ITEMS // GROUPS) + random.integers(0, ITEMS // GROUPS, offsets[-1])
    return Sequences(events.astype(np.int32), offsets, ITEMS)


@lru_cache(maxsize=1)
def vectors() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(GROUPS, DIM, generator=generator)
    return centres.repeat_interleave(ITEMS // GROUPS, 0) + 0.5 * torch.randn(ITEMS, DIM, generator=generator)


def tokenizer(codes: int = CODES, levels: int = LEVELS) -> Tokenizer:
    """Not warmed up, but codebooks that lie among the residuals."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tok = Tokenizer(DIM, codes, TokenizerConfig(levels=levels, code_dim=6, hidden=(16,), suffixes=32))
        with torch.no_grad():
            residual = tok.encode(vectors())
            for level in range(levels):
                tok.codebooks[level].copy_(residual[torch.randperm(ITEMS)[torch.arange(codes) % ITEMS]])
                residual = residual - tok.codebooks[level][tok.scores(level, residual).argmax(1)]
            tok.alpha.fill_(20.0)
            tok.input_alpha_M.copy_(20.0 + 15.0 * torch.arange(levels))  # each level another, as measured ones are
    return tok.eval()


def item_ids() -> pa.Array:
    return pa.array([f"item {i:03d}" for i in range(ITEMS)])


def run(joint: JointModelConfig = JOINT, training: TrainingConfig = TRAINING, recommender: RecommenderConfig = RECOMMENDER, **more: Any) -> Trained:
    """A whole run; `more`: fields of TrainingInputs, and options of `train`."""
    given = {name: more.pop(name) for name in [f.name for f in fields(TrainingInputs)] if name in more}
    return train(inputs(**given), ModelConfig(recommender, training, joint), **more)


def inputs(**given: Any) -> TrainingInputs:
    """The small setting's data, but for what is `given`."""
    return TrainingInputs(**{"vectors_ND": vectors(), "sequences": sequences(), "item_ids": item_ids(), "tokenizer": tokenizer(), **given})


def loop(joint: JointModelConfig = JOINT, training: TrainingConfig = TRAINING, **more: Any) -> Loop:
    """A run that has not begun."""
    return Loop(inputs(), ModelConfig(RECOMMENDER, training, joint), **more)


def last_checkpoint(*args: Any, **more: Any) -> Checkpoint:
    """The state after the last epoch (`run` returns the best one)."""
    kept: list[Checkpoint] = []
    run(*args, on_checkpoint=kept.append, **more)
    return kept[-1]


def equal(left: Checkpoint, right: Checkpoint) -> list[str]:
    """What differs between two checkpoints, to the bit."""
    names = {(file, name) for side in (left, right) for file, tensors in side.tensors.items() for name in tensors}
    different = [
        f"{file}: {name}"
        for file, name in sorted(names)
        if name not in left.tensors[file] or name not in right.tensors[file] or not torch.equal(left.tensors[file][name], right.tensors[file][name])
    ]
    return different + [key for key in sorted(left.state.keys() | right.state.keys()) if left.state.get(key) != right.state.get(key)]


def without_dropout() -> RecommenderConfig:
    return replace(RECOMMENDER, dropout=0.0)
