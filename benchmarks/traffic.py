"""Bytes that the ranks of one training exchange in a step, against the formula of docs/cluster.md, and rows/s (gloo, CPU, the small model).

    python -m benchmarks.traffic [--steps N] [--rounds N] [--ranks 1 2 4]

Every number of ranks does the same `steps` batches, spread evenly over the epoch's lengths, one thread each; rows/s is the median of its rounds.
`payload`: what is handed to the all-reduce of a step, on one rank. `sent`: bytes that the kernel counted on the loopback interface, all ranks
together, with the headers of TCP and IP. The ranks run in a network namespace of their own, whose loopback nobody else uses; where the machine does
not allow one, what a pause of equal length counts is taken off. Appends one JSON line for each number of ranks to results/traffic.jsonl.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist

from benchmarks.common import record
from benchmarks.cpu import RESULTS, shop
from diger_core.config import ModelConfig, TokenizerConfig, TrainingConfig
from diger_core.tokenizer.warm_up import tokenizer
from diger_core.training.distributed import Distributed
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import Loop

BATCH, WARM = 128, 3
ALONE = "DIGER_BENCH_OWN_NETWORK"


def loopback() -> int:
    """Bytes received on the loopback interface since the namespace was made."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.partition(":")[2].split()[0])


def into_own_network() -> None:
    """Starts this command again in a network namespace of its own, where that is allowed."""
    if ALONE in os.environ or shutil.which("unshare") is None:
        return
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0:
        os.environ[ALONE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", "benchmarks.traffic", *sys.argv[1:]])


def loopback_up() -> None:
    """A new namespace's loopback interface is down: `ip link set lo up`."""
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        told = fcntl.ioctl(any_socket, get_flags, struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", struct.unpack("16sh22x", told)[1] | up))


class Exchange:
    """Counts what `all_reduce` is given, and the time in it."""

    def __init__(self) -> None:
        self.bytes, self.seconds, self.original = 0, 0.0, dist.all_reduce

    def __call__(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        done = self.original(tensor, *args, **kwargs)
        self.bytes, self.seconds = self.bytes + tensor.numel() * tensor.element_size(), self.seconds + time.perf_counter() - started
        return done


def rank_main(rank: int, world: int, steps: int, rounds: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    data, ranks, exchange = shop(), Distributed.current(), Exchange()
    tok, _ = tokenizer(data.vectors_ND, TokenizerConfig(epochs=2))
    inputs = TrainingInputs(data.vectors_ND, data.sequences, data.item_ids, tok)
    loop = Loop(inputs, ModelConfig(training=TrainingConfig(batch_size=BATCH, device="cpu")), ranks=ranks)
    dist.all_reduce = exchange  # type: ignore[assignment]
    loop.state.train()
    by_length = sorted(loop.context.batches.epoch(0), key=lambda each: each.history_BT.shape[1])
    batches = [by_length[(2 * i + 1) * len(by_length) // (2 * steps)] for i in range(steps)]
    for each in batches[:WARM]:
        loop.step(each.share(ranks))
    exchange.bytes, exchange.seconds, taken, sent = 0, 0.0, [], 0
    for _ in range(rounds):
        dist.barrier()
        before, started = loopback(), time.perf_counter()
        for each in batches:
            loop.step(each.share(ranks))
        dist.barrier()
        taken.append(time.perf_counter() - started)
        sent += loopback() - before
        if ALONE not in os.environ:  # what others send meanwhile
            before = loopback()
            time.sleep(taken[-1])
            sent -= loopback() - before
    if rank == 0:
        rows = sum(len(each.target_B) for each in batches)
        told = {
            "parameters": sum(p.numel() for p in loop.state.optimisation.parameters),
            "payload": exchange.bytes / steps / rounds,
            "sent": round(sent / steps / rounds),
            "exchange_ms": round(1000 * exchange.seconds / steps / rounds, 2),
            "ms_per_step": round(1000 * median(taken) / steps, 1),
            "rows_per_second": round(rows / median(taken), 1),
            "repeats": [round(rows / each, 1) for each in taken],
        }
        (folder / "told.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--as-rank", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_rank:
        rank_main(int(given.as_rank[0]), int(given.as_rank[1]), given.steps, given.rounds, Path(given.as_rank[2]))
        return
    into_own_network()
    if ALONE in os.environ:
        loopback_up()
    run, load = uuid4().hex[:12], round(os.getloadavg()[0], 1)
    for world in given.ranks:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.traffic", "--steps", str(given.steps), "--rounds", str(given.rounds), "--as-rank"]
            environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
            ranks = [subprocess.Popen([*command, str(rank), str(world), folder], env=environment) for rank in range(world)]
            if any([process.wait() for process in ranks]):
                sys.exit(1)
            told = json.loads((Path(folder) / "told.json").read_text())
        formula = 0 if world == 1 else 4 * (told["parameters"] + 2)
        wire = {"formula_payload": formula, "formula_all_ranks": 2 * (world - 1) * formula}  # a ring: w times 2 (w - 1) / w
        how = {"run": run, "load_before": load, "own_network": ALONE in os.environ, "batch": BATCH, "steps": given.steps}
        record("traffic", {"ranks": world, **how, **told, **wire}, RESULTS)


if __name__ == "__main__":
    main()
