"""Several ranks taking fast steps, a process each: gloo ranks on the CPU, uncaptured, or NCCL ranks with a device each, captured.

    python -m tests.support.fast_ranks BACKEND RANK WORLD FOLDER

Every case runs to its end; one also continues from a checkpoint of a single rank (FOLDER/one) and leaves one for a single rank (FOLDER/two).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from diger_core.config import JointModelConfig, RecommenderConfig, ScheduleConfig, TrainingConfig
from diger_core.training.checkpoint import Checkpoint, newest_valid
from diger_core.training.distributed import Distributed
from diger_core.training.loop import Loop
from tests.support import small_setting as small
from tests.support.fast_steps import fast_steps

ROOT = Path(__file__).resolve().parents[2]
RESUMED = "frqud"
CHECKPOINT_STEPS = 3

SOFT: dict[str, Any] = {"history_input": "soft", "history_tau": 0.7}
CASES: dict[str, tuple[JointModelConfig, dict[str, Any]]] = {
    "frozen": (replace(small.JOINT, tokenizer="frozen"), {}),
    "frozen, soft": (replace(small.JOINT, tokenizer="frozen"), SOFT),
    "frqud": (small.JOINT, {}),
    "sampled": (replace(small.JOINT, forward="sampled"), {}),
    "sdud, soft": (replace(small.JOINT, schedule=ScheduleConfig(name="sdud")), SOFT),
    "sdud+frqud, soft, one token": (replace(small.JOINT, schedule=ScheduleConfig(name="sdud+frqud")), {**SOFT, "item_tokens": "one"}),
}


@dataclass(frozen=True)
class Setting:
    training: TrainingConfig
    recommender: RecommenderConfig
    users: int


def setting(backend: str) -> Setting:
    """Of the CPU's ranks, or of the devices': widths that the kernels take. The last batch of an epoch is a short one in both."""
    if backend == "gloo":
        return Setting(replace(small.TRAINING, epochs=2), small.without_dropout(), 24)
    wide = replace(
        small.without_dropout(), encoder_layers=2, decoder_layers=2, d_model=64, d_ff=128, heads=2, d_head=32, history_input="hard", item_tokens="all"
    )
    training = replace(small.TRAINING, device="cuda", compile=True, epochs=2, evaluate_every=2, batch_size=31, learning_rate=1e-3)
    return Setting(training, wide, 120)


def checkpoints(name: str, of: Setting, **more: Any) -> list[Checkpoint]:
    """All checkpoints of a run of a case."""
    joint, changes = CASES[name]
    kept: list[Checkpoint] = []
    small.run(joint, of.training, replace(of.recommender, **changes), sequences=small.sequences(users=of.users), on_checkpoint=kept.append, **more)
    return kept


def ranks_of(backend: str, folder: Path, world: int = 2) -> None:
    """Starts the ranks and waits. AssertionError with what they printed where one fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-m", "tests.support.fast_ranks", backend, str(rank), str(world), str(folder)] for rank in range(world)]
    workers = [subprocess.Popen(c, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    outputs = [process.communicate(timeout=280)[0] for process in workers]
    assert [process.returncode for process in workers] == [0] * world, "\n".join(outputs)


def worker(backend: str, rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if backend == "gloo":
        Loop._steps = fast_steps  # type: ignore[method-assign]
    else:
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    ranks, of = Distributed.current(), setting(backend)
    for name in CASES:
        checkpoints(name, of, distributed=ranks)[-1].save(folder / f"{name}.{rank}")
    start = newest_valid(folder / "one")
    assert start is not None
    continued = checkpoints(RESUMED, of, distributed=ranks, resume=start, checkpoint_steps=CHECKPOINT_STEPS)
    if rank == 0:
        continued[0].save(folder / "two")
    dist.destroy_process_group()


if __name__ == "__main__":
    worker(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
