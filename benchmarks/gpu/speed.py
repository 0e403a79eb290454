"""Speed of this project's training, evaluation and tables on the device: one measurement each; `fast` and `scale` put them into tables."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from benchmarks.common import Data, device, seconds, wait
from diger_core.config import EvaluationConfig, ModelConfig, RecommenderConfig, TableConfig, TokenizerConfig
from diger_core.evaluation.metrics import ndcg, recall
from diger_core.evaluation.ranking import rank_targets
from diger_core.ids.id_table import IdTable, item_hash_order, refresh
from diger_core.presets import Preset
from diger_core.recommender.model import Recommender
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.tokenizer.warm_up import tokenizer
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import Loop
from diger_core.training.table_refresh import suffix_values


@lru_cache(maxsize=2)
def quick_tokenizer(data_name: str, holder: Any, config: TokenizerConfig, epochs: int = 20) -> Tokenizer:
    """A short warm-up: codes good enough to measure speed with."""
    found, _ = tokenizer(holder.data.vectors_ND.to(device()), replace(config, epochs=epochs), device=device())
    return found


class Holder:
    """Lets the cached warm-up take the data, which cannot be hashed."""

    def __init__(self, data: Data) -> None:
        self.data = data


def loop(data: Data, tok: Tokenizer, preset: Preset, variant: str, recommender: RecommenderConfig, **training: Any) -> Loop:
    """A training loop, ready to take steps."""
    config = replace(preset.training, deterministic=False, device=device().type, **training)
    inputs = TrainingInputs(data.vectors_ND, data.sequences, data.item_ids, tok)
    return Loop(inputs, ModelConfig(recommender, config, preset.variant(variant)), device=device())


def train(
    data: Data, tok: Tokenizer, preset: Preset, variant: str, recommender: RecommenderConfig, batch: int, compile: bool, steps: int
) -> dict[str, Any]:
    """Rows per second over one epoch's first `steps` steps (all of them: the epoch's mix of lengths), captures and warm-up apart."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    running = loop(data, tok, preset, variant, recommender, batch_size=batch, compile=compile)
    running.state.train()
    running.use_graphs()
    started = time.perf_counter()
    rows, taken = [], []
    for _, count in running._steps():
        if len(rows) == 0:
            wait()
            ready = time.perf_counter()
        rows.append(count)
        if len(rows) > steps:
            break
    wait()
    taken.append(time.perf_counter() - ready)
    return {
        "variant": variant, "batch": batch, "history": recommender.history, "compile": compile, "rows_per_second": sum(rows[1:]) / taken[0],
        "ms_per_step": 1000 * taken[0] / (len(rows) - 1), "steps": len(rows) - 1, "ready_after_s": ready - started,
        "peak_memory_gib": peak_memory(),
        "loss_gen": float(running.state.sums[1]) / len(rows),
    }  # fmt: skip


def peak_memory() -> float | None:
    """GiB allocated at most since the statistics were last reset; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


def evaluate(
    data: Data,
    tok: Tokenizer,
    table: IdTable,
    recommender: RecommenderConfig,
    beams: int,
    batch: int,
    constrained: bool,
    fused: bool,
    repeats: int = 3,
) -> dict[str, Any]:
    """Seconds for the evaluation of all test users: the trie's construction, the full ranking, the metrics."""
    torch.manual_seed(0)
    net = Recommender(recommender, tok.codes, tok.levels, suffix_values(tok)).to(device()).eval()
    config = EvaluationConfig(beams=beams, batch_size=batch, constrained=constrained, recall_at=(1, 5, 10), ndcg_at=(5, 10))

    def work() -> None:
        found = rank_targets(net, table.codes_NM, table.suffix_N, data.sequences, "test", config, device(), precision="bf16", fused=fused)
        for k in (5, 10):
            recall(found.rank_T, k).mean(), ndcg(found.rank_T, k).mean()

    taken = seconds(work, repeats)
    users = int((np.diff(data.sequences.offsets_U1) >= 3).sum())
    return {
        "seconds": taken,
        "users": users,
        "users_per_second": users / taken,
        "beams": beams,
        "batch": batch,
        "constrained": constrained,
        "fused": fused,
    }


def table(items: int, tok: Tokenizer) -> dict[str, Any]:
    """Seconds for the ID table of `items` random items: encoder, codes, suffixes; vectors on the device.

    The order of the items' hashes is made once per catalogue; it is timed apart, up to a million items, and replaced by a random one beyond."""
    generator = torch.Generator(device=device()).manual_seed(0)
    vectors = torch.randn(items, tok.dim, device=device(), generator=generator)
    started = time.perf_counter()
    order = item_hash_order(np.arange(items).tolist()) if items <= 10**6 else torch.randperm(items)
    hashing = time.perf_counter() - started if items <= 10**6 else None

    def work() -> None:
        with torch.no_grad():
            refresh(tok, vectors, order, suffixes=1 << 20, config=TableConfig(chunk=131072))

    taken = seconds(work)
    widths = [layer.weight.shape for layer in tok.encoder if hasattr(layer, "weight")]
    flops = 2 * items * (sum(a * b for a, b in widths) + tok.levels * tok.codes * tok.config.code_dim)
    moved = 4 * items * (tok.dim + tok.levels + 1)  # the vectors read, the table written
    return {"items": items, "seconds": taken, "order_seconds": hashing, "tflop": flops / 1e12, "gigabytes": moved / 1e9, "dim": tok.dim,
            "code_dim": tok.config.code_dim}  # fmt: skip
