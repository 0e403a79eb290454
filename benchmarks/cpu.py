"""The CPU part of the benchmarks: training rows/s of the small model beside a Hugging Face T5 of the same size, in one process and one run.

    make bench            (python -m benchmarks.cpu [--rounds N] [--steps N] [--batch B] [--threads N])

Both sides see the embedded shop's histories at history 20 and batch 256, fp32, dropout 0.1, on two threads. The peer is eager and its batches, of
random rows, are padded to their longest; ours are `steps` batches spread evenly over the epoch's lengths. The sides go in turns, round by round, and
a figure is the median of its rounds: on a machine with other work that slows all of them. Random vectors stand in for texts: speed does not depend
on them. OMP_WAIT_POLICY=passive, for both sides: a thread that spins while another process has its partner's core makes either side ten times slower.
Appends one JSON line per side to benchmarks/results/cpu_train.jsonl.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from uuid import uuid4

import pyarrow.parquet as pq
import torch

from benchmarks.common import Data, record
from benchmarks.gpu import peer
from diger_core.config import JointModelConfig, ModelConfig, RecommenderConfig, TokenizerConfig, TrainingConfig
from diger_core.data.sequences import sequences
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.tokenizer.warm_up import tokenizer
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import Loop
from orchestration.snapshot.demo_shop import write_demo_snapshots

RESULTS = Path(__file__).parent / "results"
WARM = 3  # steps


def shop() -> Data:
    """The embedded shop's first snapshot with random vectors."""
    with tempfile.TemporaryDirectory() as directory:
        snapshot = write_demo_snapshots(Path(directory))[0]
        seq, items, _ = sequences(pq.read_table(snapshot / "interactions.parquet"), pq.read_table(snapshot / "items.parquet"))
    vectors_ND = torch.randn(seq.items, 128, generator=torch.Generator().manual_seed(0))
    return Data("demo-1", seq, items["item_id"].combine_chunks(), vectors_ND, False)


class Ours:
    """A training loop and the batches that it is timed on."""

    def __init__(self, data: Data, tok: Tokenizer, config: RecommenderConfig, joint: JointModelConfig, batch: int, steps: int) -> None:
        inputs = TrainingInputs(data.vectors_ND, data.sequences, data.item_ids, tok)
        self.loop = Loop(inputs, ModelConfig(config, TrainingConfig(batch_size=batch, device="cpu"), joint))
        self.loop.state.train()
        by_length = sorted(self.loop.context.batches.epoch(0), key=lambda each: each.history_BT.shape[1])
        self.batches = [by_length[(2 * i + 1) * len(by_length) // (2 * steps)] for i in range(steps)]
        for each in self.batches[:: max(1, steps // WARM)]:
            self.loop.step(each)

    def __call__(self) -> tuple[float, float]:
        """(rows a second, processor seconds for 1,000 rows) of one round."""
        started, used = time.perf_counter(), time.process_time()
        for each in self.batches:
            self.loop.step(each)
        rows = sum(len(each.target_B) for each in self.batches)
        return rows / (time.perf_counter() - started), 1000 * (time.process_time() - used) / rows


class Peer:
    """The T5 of the same size, as `benchmarks.gpu.peer` trains it."""

    def __init__(self, data: Data, loop: Loop, config: RecommenderConfig, batch: int, steps: int) -> None:
        codes, levels = loop.state.tokenizer.codes, loop.state.tokenizer.levels
        token_NQ = peer.tokens(loop.state.table.codes_NM, loop.state.table.suffix_N, codes)
        vocabulary = peer.SHIFT + codes * levels + int(loop.state.table.suffix_N.max()) + 1
        self.trainer, self.batch, self.steps = peer.Trainer(data, config, token_NQ, vocabulary, batch, bf16=False), batch, steps
        self.trainer.run(WARM)

    def __call__(self) -> tuple[float, float]:
        started, used = time.perf_counter(), time.process_time()
        self.trainer.run(self.steps)
        rows = self.steps * self.batch
        return rows / (time.perf_counter() - started), 1000 * (time.process_time() - used) / rows


def measured(sides: dict[str, Callable[[], tuple[float, float]]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Every side once, and again."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for index in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
        print(f"round {index + 1}: " + ", ".join(f"{name} {values[-1][0]:,.0f}" for name, values in found.items()) + " rows/s", flush=True)
    return found


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=16, help="of each side in a round")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    data, config, load = shop(), RecommenderConfig(history_input="hard", item_tokens="all"), os.getloadavg()[0]  # as the other side reads
    tok, _ = tokenizer(data.vectors_ND, TokenizerConfig(epochs=4))
    frozen, joint = (
        Ours(data, tok, config, JointModelConfig(tokenizer=kind), given.batch, given.steps)
        for kind in ("frozen", "joint")  # type: ignore[arg-type]
    )
    found = measured({"peer": Peer(data, joint.loop, config, given.batch, given.steps), "frozen": frozen, "joint": joint}, given.rounds)
    of = {"run": uuid4().hex[:12], "batch": given.batch, "threads": given.threads, "load_before": round(load, 1),
          "wait_policy": os.environ.get("OMP_WAIT_POLICY", "")}  # fmt: skip
    rates = {name: median(rate for rate, _ in rounds) for name, rounds in found.items()}
    for name, rounds in found.items():
        cost = round(median(cost for _, cost in rounds), 3)
        repeats = [round(rate, 1) for rate, _ in rounds]
        figures = {"side": name, "rows_per_second": round(rates[name], 1), "repeats": repeats, "processor_seconds_per_1000_rows": cost}
        record("cpu_train", {**of, **figures}, results)
        print(f"{name:>8}: {rates[name]:8,.0f} rows/s  {rates[name] / rates['peer']:.2f} x the peer")


if __name__ == "__main__":
    main()
