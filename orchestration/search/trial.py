"""One trial: the training of `joint_model` with the trial's values, watched epoch by epoch."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from diger_core.errors import DigerError
from diger_core.training.checkpoint import Checkpoint
from diger_core.training.inputs import TrainingInputs
from orchestration.search.journal import Row, State, Trial
from orchestration.search.space import applied
from orchestration.training.job import Job, training_inputs

if TYPE_CHECKING:
    from torch import Tensor

OnEpoch = Callable[[Row, float], None]  # (the epoch's row, CPU seconds since the last one)
KEPT = ("epoch", "loss_gen", "sigma", "noisy_share", "validation_recall_10", "validation_ndcg_10", "unique_prefixes", "largest_group", "perplexity")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_inputs: dict[str, TrainingInputs] = {}  # of this process: trials that follow each other on one worker read the store once


def run_trial(job: Job, trial: Trial, on_epoch: OnEpoch) -> tuple[State, str | None]:
    """Trains to the end, or until `on_epoch` raises; (how it ended, why). A collapse, a loss that is not finite and a fault of the
    configuration are ends like others: they cost their trial, not the study."""
    import torch

    from diger_core.training.loop import train

    if job.threads is not None:  # a worker's own process
        torch.set_num_threads(job.threads)
        keep_freed_memory()
    inputs, reference_NM = _opened(job)
    clock = time.process_time()

    def report(state: Checkpoint) -> None:
        nonlocal clock
        row = state.state["curves"][-1]
        now = time.process_time()
        kept = {name: row[name] for name in KEPT} | {"churn": churn(state.tensors["table"]["codes"], reference_NM)}
        on_epoch(kept, now - clock)
        clock = now

    try:
        trained = train(
            inputs,
            replace(
                job.model,
                training=replace(job.model.training, seed=trial.seed, evaluate_every=1, checkpoint_every=1),
                joint=applied(job.model.joint, trial.config),
            ),
            on_checkpoint=report,
        )
    except (DigerError, ValueError) as error:
        return "failed", str(error)
    if trained.alarm is None:
        return "finished", None
    return ("diverged" if "not finite" in trained.alarm else "collapsed"), trained.alarm


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed. By default each large tensor of a step goes back to the system when it is freed, and the next one costs
    its page faults again (5% of a training step on a CPU). The process holds its peak until it ends."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library has its own ways
    for option, most in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**30)):
        if mallopt is not None:
            mallopt(option, most)


def churn(codes_NM: Tensor, reference_NM: Tensor) -> float:
    """Share of the items whose prefix is not the reference's; items that the reference does not know (-1) do not count."""
    known = (reference_NM >= 0).all(1)
    return float((codes_NM.cpu() != reference_NM).any(1)[known].double().mean()) if bool(known.any()) else 0.0


def _opened(job: Job) -> tuple[TrainingInputs, Tensor]:
    """The inputs, and the table that churn is counted against: the champion's where there is one, else the warm-up's."""
    from diger_core.ids.id_table import argmin_codes

    name = "|".join([job.store, repr(job.retraining), *(hash_ for _, hash_ in job.inputs.values())])
    if name not in _inputs:
        _inputs.clear()
        _inputs[name] = training_inputs(job)
    inputs = _inputs[name]
    if inputs.previous is not None:
        return inputs, inputs.previous.codes_NM
    return inputs, argmin_codes(inputs.tokenizer, inputs.vectors_ND).cpu()
