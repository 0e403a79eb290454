"""One device against several of one host: `python -m benchmarks.gpu ranks --data .device-inputs/beauty --batches 256 1024 4096`.

One process a device, NCCL. For each variant and batch, in turns, three times: rank 0 alone on the whole batch, all ranks together, and all ranks
without their exchange (whose models part; only the time is looked at). One line a cell in OUT/ranks.jsonl: rows/s, the share of a step that the
all-reduce takes, its bytes by the formula of docs/cluster.md, and what the all-reduce of as many bytes takes alone. NVLink multicast stays off.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.common import Data, record, wait
from benchmarks.gpu import speed
from diger_core.config import ModelConfig, RecommenderConfig
from diger_core.presets import Preset
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.distributed import Distributed
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import Loop

REPEATS, WARM, STEPS = 3, 3, 600
RANK = "DIGER_BENCH_RANK"


class Apart(Distributed):
    """Ranks that keep their gradients to themselves."""

    def sum_flat_(self, flat: Tensor) -> None:
        """Sums nothing."""


def launch() -> int:
    """This command once for each device, as a rank of its own; the first exit status that is not 0."""
    world, folder = max(1, torch.cuda.device_count()), tempfile.mkdtemp(prefix="ranks-")
    environment = {**os.environ, "NCCL_NVLS_ENABLE": "0", "DIGER_BENCH_WORLD": str(world), "DIGER_BENCH_MEET": folder}
    command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:]]
    started = [subprocess.Popen(command, env={**environment, RANK: str(rank)}) for rank in range(world)]
    return next((code for code in [process.wait() for process in started] if code), 0)


def joined() -> Distributed:
    """The process group of the launched ranks."""
    rank, world = int(os.environ[RANK]), int(os.environ["DIGER_BENCH_WORLD"])
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if cuda else "gloo", init_method=f"file://{os.environ['DIGER_BENCH_MEET']}/meet", rank=rank, world_size=world)
    return Distributed.current()


def run(data: Data, tok: Tokenizer, chosen: Preset, recommender: RecommenderConfig, given: Any) -> None:
    """Every cell of the command. The ranks start from one tokenizer, which rank 0's training is."""
    ranks, of = Distributed.current(), {"run": uuid4().hex[:12], "data": data.name, "real_vectors": data.real_vectors}
    for tensor in tok.state_dict().values():
        dist.broadcast(tensor, 0)
    for variant in given.variants:
        for batch in given.batches:
            told = _cell(_Cell(data, tok, chosen, recommender, variant, batch), ranks, given.steps)
            if ranks.main:
                record("ranks", {**of, "variant": variant, "batch": batch, "history": recommender.history, **told}, given.out)
    dist.barrier()
    dist.destroy_process_group()


class _Cell:
    """The three ways to train one variant at one batch size."""

    def __init__(self, data: Data, tok: Tokenizer, chosen: Preset, recommender: RecommenderConfig, variant: str, batch: int) -> None:
        self.given = (data, tok, chosen, recommender, variant, batch)

    def loop(self, ranks: Distributed) -> Loop:
        data, tok, chosen, recommender, variant, batch = self.given
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        changes = {"batch_size": batch, "compile": True, "deterministic": False, "device": device.type}
        config = replace(chosen.training, **changes)
        inputs = TrainingInputs(data.vectors_ND, data.sequences, data.item_ids, tok)
        loop = Loop(inputs, ModelConfig(recommender, config, chosen.variant(variant)), ranks=ranks, device=device)
        loop.state.train()
        loop.use_graphs()
        return loop


def _cell(cell: _Cell, ranks: Distributed, most: int) -> dict[str, Any]:
    ways = {"alone": Distributed(), "together": ranks, "apart": Apart(ranks.rank, ranks.world)}
    loops = {name: cell.loop(of) for name, of in ways.items() if ranks.main or name != "alone"}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    steps = 0
    for epoch in range(REPEATS):
        for name in ways:
            dist.barrier()
            if name in loops:
                steps, rate = _timed(loops[name], epoch, min(most, STEPS))
                rates[name].append(rate)
            wait()
    parameters = sum(p.numel() for p in loops["together"].state.optimisation.parameters)
    captured = loops["together"].captured
    payload = captured.step.flat.exchange if captured is not None else torch.zeros(parameters)
    found = {name: median(each) for name, each in rates.items() if each}
    return {
        "world": ranks.world, "parameters": parameters, "payload_bytes": payload.numel() * payload.element_size(), "steps": steps,
        "captured": captured is not None, **{f"{name}_rows_per_second": rate for name, rate in found.items()},
        **{f"{name}_repeats": each for name, each in rates.items() if each},
        "speedup": found["together"] / found.get("alone", found["together"]), "exchange_share": 1 - found["together"] / found["apart"],
        "all_reduce_ms": _all_reduce_ms(payload), "peak_memory_gib": speed.peak_memory(),
    }  # fmt: skip


def _timed(loop: Loop, epoch: int, steps: int) -> tuple[int, float]:
    """(steps, rows/s) of an epoch's first steps, after the first few."""
    taken: Iterator[tuple[int, int]] = _steps(loop, epoch)
    for _ in range(WARM):
        next(taken)
    wait()
    started, rows = time.perf_counter(), []
    for _, count in taken:
        rows.append(count)
        if len(rows) == steps:
            break
    wait()
    return len(rows), sum(rows) / (time.perf_counter() - started)


def _steps(loop: Loop, epoch: int) -> Iterator[tuple[int, int]]:
    loop.state.position.epoch = epoch
    yield from loop._steps()


def _all_reduce_ms(payload: Tensor, repeats: int = 50) -> float:
    """Of as many bytes, alone, one after the other."""
    buffer = torch.zeros_like(payload)
    for _ in range(5):
        dist.all_reduce(buffer)
    wait()
    started = time.perf_counter()
    for _ in range(repeats):
        dist.all_reduce(buffer)
    wait()
    return 1000 * (time.perf_counter() - started) / repeats
