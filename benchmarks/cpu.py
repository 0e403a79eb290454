"""The CPU part of the benchmarks: training rows/s of the small model beside a Hugging Face T5 of the same size, in one process and one run.

    make bench            (python -m benchmarks.cpu [--steps N] [--batch B])

Both sides see the embedded shop's histories at history 20 and batch 256, fp32, dropout 0.1, all cores. The peer is eager and padded to the batch.
Random vectors stand in for texts: speed does not depend on them. Appends one JSON line per figure to benchmarks/results/cpu_train.jsonl.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch

from benchmarks.common import Data, record
from benchmarks.gpu import peer
from diger_core.config import JointModelConfig, RecommenderConfig, TableConfig, TokenizerConfig, TrainingConfig
from diger_core.distributed import Distributed
from diger_core.progress import Silent
from diger_core.sequences import sequences
from diger_core.tokenizer import Tokenizer, tokenizer
from diger_core.training import Loop
from orchestration.demo_shop import write_demo_snapshots

RESULTS = Path(__file__).parent / "results"


def shop() -> Data:
    """The embedded shop's first snapshot with random vectors."""
    with tempfile.TemporaryDirectory() as directory:
        snapshot = write_demo_snapshots(Path(directory))[0]
        seq, items, _ = sequences(pq.read_table(snapshot / "interactions.parquet"), pq.read_table(snapshot / "items.parquet"))
    vectors_ND = torch.randn(seq.items, 128, generator=torch.Generator().manual_seed(0))
    return Data("demo-1", seq, items["item_id"].combine_chunks(), vectors_ND, False)


def rows_per_second(data: Data, tok: Tokenizer, config: RecommenderConfig, joint: JointModelConfig, batch: int, steps: int) -> tuple[float, Loop]:
    """Our loop's steps, after five for warming up."""
    training = TrainingConfig(batch_size=batch, device="cpu")
    loop = Loop(
        data.vectors_ND, data.sequences, data.item_ids, tok, config, training, joint, TableConfig(),
        None, None, Distributed(), torch.device("cpu"), Silent(), None, None,
    )  # fmt: skip
    loop.recommender.train()
    loop.tokenizer.train()
    batches = [each for each, _ in zip(loop.batches.epoch(0, 0), range(steps + 5), strict=False)]
    for each in batches[:5]:
        loop.step(each)
    started = time.perf_counter()
    for each in batches[5:]:
        loop.step(each)
    return sum(len(each.target_B) for each in batches[5:]) / (time.perf_counter() - started), loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=256)
    given = parser.parse_args()
    data, config = shop(), RecommenderConfig()
    tok, _ = tokenizer(data.vectors_ND, TokenizerConfig(epochs=4))
    figures: dict[str, float] = {}
    for name, joint in {"frozen": JointModelConfig(tokenizer="frozen"), "joint": JointModelConfig()}.items():
        figures[name], loop = rows_per_second(data, tok, config, joint, given.batch, given.steps)
    token_NQ = peer.tokens(loop.table.codes_NM, loop.table.suffix_N, tok.codes)
    vocabulary = peer.SHIFT + tok.codes * tok.levels + int(loop.table.suffix_N.max()) + 1
    figures["peer"] = peer.train(data, config, token_NQ, vocabulary, given.batch, given.steps, bf16=False)["rows_per_second"]
    for name, value in figures.items():
        figure = {"model": name, "batch": given.batch, "threads": torch.get_num_threads(), "rows_per_second": round(value)}
        record("cpu_train", figure, RESULTS)
        print(f"{name:>8}: {value:8,.0f} rows/s  {value / figures['peer']:.2f} x the peer")


if __name__ == "__main__":
    main()
