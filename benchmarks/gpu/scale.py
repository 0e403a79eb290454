"""Cost against items, history length, batch and beams: `python -m benchmarks.gpu scale --data .device-inputs/beauty --out OUT`.

One axis at a time from one middle point (joint training by FrqUD, 10,000 items, history 20, batch 256, 20 beams). Users have 100 events of random
items, so that most histories are full. Items are the data's vectors with noise; their vectors stay on the host in fp16, z is made of them in chunks.
Each cell is one line of kind "scale" in OUT/scale.jsonl; `benchmarks.report` makes the table and the plot.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from benchmarks.common import Data, device
from benchmarks.gpu import speed
from benchmarks.gpu.cells import Cells, free
from diger_core.config import RecommenderConfig
from diger_core.data.sequences import Sequences
from diger_core.ids.id_table import argmin_codes, item_hash_order, refresh
from diger_core.presets import Preset
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.monitors import prefix_counts

EVENTS = 100  # of a user


@dataclass(frozen=True)
class Sizes:
    """The middle point, the axes through it, and how long each cell runs."""

    items: int = 10**4
    history: int = 20
    batch: int = 256
    beams: int = 20
    items_axis: tuple[int, ...] = (10**4, 10**5, 10**6, 10**7)
    history_axis: tuple[int, ...] = (10, 20, 50)
    batch_axis: tuple[int, ...] = (256, 1024, 4096)
    beams_axis: tuple[int, ...] = (10, 20, 50)
    users: int = 16_384
    steps: int = 60
    search_batch: int = 2048


FULL = Sizes()
QUICK = Sizes(200, 4, 8, 10, (200, 400), (4, 6), (8, 16), (10, 12), 24, 2, 8)


class Scale(Cells):
    """One run over all axes."""

    def __init__(self, data: Data, tok: Tokenizer, chosen: Preset, recommender: RecommenderConfig, sizes: Sizes, out: Path) -> None:
        super().__init__("scale", {"run": uuid4().hex[:12], "quick": sizes is not FULL, "data": data.name}, out)
        self.data, self.tok, self.chosen, self.sizes = data, tok, chosen, sizes
        self.recommender = replace(recommender, history=sizes.history)

    def __call__(self) -> None:
        sizes = self.sizes
        for items in sizes.items_axis:
            self.cell(f"items {items}", lambda n=items: self.write(axis="items", value=n, **self.train(self.catalogue(n))))
        made = self.catalogue(sizes.items)
        for history in sizes.history_axis:
            self.cell(f"history {history}", lambda n=history: self.write(axis="history", value=n, **self.train(made, history=n)))
        for batch in sizes.batch_axis:
            self.cell(f"batch {batch}", lambda n=batch: self.write(axis="batch", value=n, **self.train(made, batch=n)))
        for beams in sizes.beams_axis:
            self.cell(f"beams {beams}", lambda n=beams: self.write(axis="beams", value=n, **self.search(made, n)))

    def catalogue(self, items: int) -> tuple[Data, Tokenizer, dict[str, Any]]:
        """Data of so many items, a tokenizer with enough suffixes for them, and what making their table took."""
        free()
        vectors, figures = self.vectors(items), {"items": items}
        codes_NM = argmin_codes(self.tok, vectors)
        fullest = int(prefix_counts(codes_NM, self.tok.codes).max())
        many = copy.deepcopy(self.tok)
        many.config = replace(self.tok.config, suffixes=max(256, 1 << (fullest - 1).bit_length()))
        random = np.random.default_rng(0)
        events = random.integers(0, items, self.sizes.users * EVENTS).astype(np.int32)
        seq = Sequences(events, np.arange(self.sizes.users + 1, dtype=np.int64) * EVENTS, items)
        made = Data(f"{items} items", seq, pa.array(np.arange(items)), vectors, False)
        return made, many, {**figures, "suffixes": many.config.suffixes, "largest_group": fullest}

    def vectors(self, items: int) -> Tensor:
        """fp16 [items, D] on the host: vectors of the data, each with noise of half their spread."""
        source = self.data.vectors_ND.to(device())
        generator, spread = torch.Generator(device=device()).manual_seed(0), 0.5 * source.std(0)
        found = torch.empty(items, source.shape[1], dtype=torch.float16)
        for start in range(0, items, 1 << 18):
            rows = found[start : start + (1 << 18)]
            near = source[torch.randint(len(source), (len(rows),), device=device(), generator=generator)]
            rows.copy_(near + spread * torch.randn(near.shape, device=device(), generator=generator))
        return found

    def train(self, made: tuple[Data, Tokenizer, dict[str, Any]], history: int | None = None, batch: int | None = None) -> dict[str, Any]:
        """Milliseconds a joint step, peak memory of set-up and steps, seconds until the loop stood (hash order, z, first table)."""
        data, tok, figures = made
        recommender = replace(self.recommender, history=history or self.sizes.history)
        started = time.perf_counter()
        found = speed.train(data, tok, self.chosen, "frqud", recommender, batch or self.sizes.batch, True, self.sizes.steps)
        return {**figures, **found, "whole_seconds": time.perf_counter() - started}

    def search(self, made: tuple[Data, Tokenizer, dict[str, Any]], beams: int) -> dict[str, Any]:
        """Users a second of the trie-constrained search over the fused kernels, every user's test event."""
        data, tok, figures = made
        with torch.no_grad():
            table, _ = refresh(tok, data.vectors_ND, item_hash_order(data.item_ids), suffixes=tok.config.suffixes or 256)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        found = speed.evaluate(data, tok, table, self.recommender, beams, self.sizes.search_batch, True, True)
        return {**figures, **found, "peak_memory_gib": speed.peak_memory()}
