"""Where a run trains, and what makes it reproducible there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from diger_core.config import TrainingConfig
from diger_core.errors import DigerError
from diger_core.training.distributed import Distributed

RANK_STRIDE = 1_000_003  # keeps the dropout streams of (seed, rank) apart for neighbouring seeds


def training_device(config: TrainingConfig) -> torch.device:
    """`auto`: the accelerator where there is one."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise DigerError("training.device = 'cuda', but no CUDA device is available; set training.device to auto or cpu")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def reproducible(config: TrainingConfig, device: torch.device, ranks: Distributed) -> Iterator[None]:
    """Seeds dropout by (seed, rank), switches deterministic algorithms on where wanted, and gives the process back as it was."""
    before = torch.get_deterministic_debug_mode()
    filling: Any = torch.utils.deterministic
    filled = filling.fill_uninitialized_memory
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(config.seed * RANK_STRIDE + ranks.rank)
        try:
            # not use_deterministic_algorithms: it imports torch's compiler, which takes a second
            torch.set_deterministic_debug_mode("error" if config.deterministic else "default")
            filling.fill_uninitialized_memory = False  # it would write every new tensor twice
            yield
        finally:
            torch.set_deterministic_debug_mode(before)
            filling.fill_uninitialized_memory = filled
