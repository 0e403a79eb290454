"""Bytes that the ranks of one training exchange in a step, against the formula of docs/cluster.md, and rows/s for 1 and 2 ranks (gloo, CPU).

    python -m benchmarks.traffic [--steps N] [--ranks 1 2 4]

`payload`: what is handed to the all-reduce of a step, on one rank. `loopback`: bytes that the kernel counted on `lo` beyond that of a pause of
equal length, all ranks together; other programs' traffic is in it. Appends one JSON line for each number of ranks to results/traffic.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.common import record
from benchmarks.cpu import RESULTS, shop
from diger_core.config import JointModelConfig, RecommenderConfig, TableConfig, TokenizerConfig, TrainingConfig
from diger_core.distributed import Distributed
from diger_core.progress import Silent
from diger_core.tokenizer import tokenizer
from diger_core.training import Loop

BATCH = 128


def loopback() -> int:
    """Bytes received on the loopback interface since the machine started."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.partition(":")[2].split()[0])


def rank_main(rank: int, world: int, steps: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    data, ranks, payload = shop(), Distributed.current(), [0]
    tok, _ = tokenizer(data.vectors_ND, TokenizerConfig(epochs=2))
    loop = Loop(
        data.vectors_ND, data.sequences, data.item_ids, tok, RecommenderConfig(), TrainingConfig(batch_size=BATCH, device="cpu"),
        JointModelConfig(), TableConfig(), None, None, ranks, torch.device("cpu"), Silent(), None, None,
    )  # fmt: skip
    original: Any = dist.all_reduce

    def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        payload[0] += tensor.numel() * tensor.element_size()
        return original(tensor, *args, **kwargs)

    dist.all_reduce = counted
    loop.recommender.train()
    loop.tokenizer.train()
    batches = [each for each, _ in zip(loop.batches.epoch(0, 0), range(steps + 3), strict=False)]
    for each in batches[:3]:
        loop.step(each.share(ranks))
    dist.barrier()
    payload[0], before, started = 0, loopback(), time.perf_counter()
    for each in batches[3:]:
        loop.step(each.share(ranks))
    dist.barrier()
    seconds, wire = time.perf_counter() - started, loopback() - before
    time.sleep(seconds if rank == 0 else 0)
    noise = loopback() - before - wire
    if rank == 0:
        learning = sum(p.numel() for p in loop.optimisation.parameters)
        rows = sum(len(each.target_B) for each in batches[3:])
        told = {"parameters": learning, "payload": payload[0] / steps, "loopback": (wire - noise) / steps, "rows_per_second": rows / seconds}
        (folder / "told.json").write_text(json.dumps(told))
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--as-rank", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_rank:
        rank_main(int(given.as_rank[0]), int(given.as_rank[1]), given.steps, Path(given.as_rank[2]))
        return
    for world in given.ranks:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.traffic", "--steps", str(given.steps), "--as-rank"]
            ranks = [subprocess.Popen([*command, str(rank), str(world), folder]) for rank in range(world)]
            if any([process.wait() for process in ranks]):
                sys.exit(1)
            told = json.loads((Path(folder) / "told.json").read_text())
        formula = 0 if world == 1 else 4 * (told["parameters"] + 2)
        ring = 2 * (world - 1) * formula  # over all ranks: w times 2 (w - 1) / w
        record("traffic", {"ranks": world, "batch": BATCH, **told, "formula_payload": formula, "formula_all_ranks": ring}, RESULTS)


if __name__ == "__main__":
    main()
