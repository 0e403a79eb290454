"""Prepares a public data set for `benchmarks.lists`: sequences with their split, text vectors and text neighbours in one folder.

    python -m benchmarks.prepare_lists ../shared/data/amazon_beauty .device-inputs/beauty-temporal
    python -m benchmarks.prepare_lists ../shared/data/amazon_beauty .device-inputs/beauty-loo --leave-one-out [--hashed-ties]

The folder holds sequences.safetensors, items.parquet, vectors.safetensors (TF-IDF and SVD, as the default encoder gives them) and text.safetensors.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from diger_core.config import NeighboursConfig
from diger_core.data import splits
from diger_core.data.sequences import sequences
from orchestration.features import encoders
from orchestration.features.encoders import EmbeddingsConfig
from orchestration.features.encoders.text_neighbours import text_neighbours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with interactions.parquet and items.parquet")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--leave-one-out", action="store_true")
    parser.add_argument("--hashed-ties", action="store_true", help="leave out `pos`, so that events of one time are ordered by the hash")
    given = parser.parse_args()
    given.target.mkdir(parents=True, exist_ok=True)
    interactions, items = pq.read_table(given.source / "interactions.parquet"), pq.read_table(given.source / "items.parquet")
    if given.hashed_ties:
        interactions = interactions.drop_columns(["pos"])
    seq, numbered, _ = sequences(interactions, items, by_time=not given.leave_one_out)
    if not given.leave_one_out:
        seq = replace(seq, boundaries=splits.time_boundaries(splits.Moments.of(seq), 0.8, 0.9))
    save_file(seq.to_tensors(), given.target / "sequences.safetensors")
    pq.write_table(numbered, given.target / "items.parquet")
    order = pc.index_in(numbered["item_id"], value_set=items["item_id"].combine_chunks().cast(numbered.schema.field("item_id").type))
    ordered = items.take(pa.chunked_array(order.chunks) if isinstance(order, pa.ChunkedArray) else order)
    config = EmbeddingsConfig()
    texts = encoders.item_texts(ordered, config)
    save_file({"vectors": torch.from_numpy(encoders.fit(config, texts).encode(texts))}, given.target / "vectors.safetensors")
    save_file(text_neighbours(texts, NeighboursConfig()).to_tensors("text"), given.target / "text.safetensors")
    print(f"{given.target}: {seq.users:,} users, {seq.items:,} items, {len(seq.events_E):,} events")


if __name__ == "__main__":
    main()
