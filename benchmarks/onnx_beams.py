"""The champion's beams over its ONNX graphs beside the torch module, on the CPU: equal ranks, differences, lists a second.

    python -m benchmarks.onnx_beams --store store [--batches 1 32] [--threads 1 2] [--users 2000] [--seconds 5]

Exports the present champion of the store with `--onnx` into a temporary folder. Both sides walk the same trie with the same search and read the same
histories, all events of a user; onnxruntime answers `encode` and each step in the module's place. The sides go in turns, three rounds; a figure is
the median. OMP_WAIT_POLICY=passive is for both sides: a thread that spins while another process has its partner's core makes either side ten times
slower. Appends one JSON line for each side, batch and number of threads to <out>/onnx.jsonl.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import record
from benchmarks.cpu import RESULTS
from diger_core.data.sequences import Sequences
from diger_core.data.splits import to_the_end
from diger_core.evaluation.ranking import recommended
from diger_core.recommender.model import Recommender
from diger_core.recommender.trie import Trie
from diger_core.store.artefacts import Store
from orchestration.champion.bundle import load_bundle
from orchestration.champion.log import current
from orchestration.serving.export.on_onnx import Graphs
from orchestration.serving.export.write import write_export
from orchestration.serving.online.live import Sources
from orchestration.serving.ranker import projected, taken

ROUNDS = 3


@dataclass
class OnnxCache:
    """Memory [B, T, d] and mask [B, T] of a batch; past [layers, 2, B, W, p, H, e] of its beams."""

    memory_BTd: np.ndarray
    mask_BT: np.ndarray
    past: Tensor | None

    def select(self, parent_BW: Tensor) -> OnnxCache:
        assert self.past is not None
        index = parent_BW[None, None, :, :, None, None, None].expand(*self.past.shape[:2], -1, -1, *self.past.shape[4:])
        return replace(self, past=self.past.gather(3, index))


class OnnxRecommender:
    """What `recommended` and `beam_search` ask of a recommender, answered by the graphs. A token is its number, one float wide."""

    def __init__(self, recommender: Recommender, graphs: Graphs) -> None:
        self.module, self.graphs, self.config, self.training = recommender, graphs, recommender.config, False
        self.codes, self.levels, self.suffixes = recommender.codes, recommender.levels, recommender.suffixes
        numbers = torch.arange(self.levels * self.codes, dtype=torch.float32) + 1
        self.token_tables = [*numbers.view(self.levels, self.codes, 1)]

    def embed_codes(self, codes: Tensor) -> Tensor:
        return self.module.embed_codes(codes)

    def merged(self, tokens_VQd: Tensor) -> Tensor:
        return self.module.merged(tokens_VQd)

    def start_B1d(self, rows: int) -> Tensor:
        return torch.zeros(rows, 1, 1)

    def encode(self, history_BTd: Tensor, mask_BT: Tensor) -> Tensor:
        return torch.from_numpy(self.graphs.encode(history_BTd.numpy(), mask_BT.numpy()))

    def cross_keys_values(self, memory_BTd: Tensor, mask_BT: Tensor) -> OnnxCache:
        return OnnxCache(memory_BTd.numpy(), mask_BT.numpy(), None)

    def decode_step(self, token_BW1: Tensor, position: int, cache: OnnxCache) -> tuple[Tensor, OnnxCache]:
        rows, beams, _ = token_BW1.shape
        shape = (self.config.decoder_layers, 2, rows, beams, 0, self.config.heads, self.config.d_head)
        past = np.zeros(shape, dtype=np.float32) if cache.past is None else cache.past.numpy()
        scores_BWC, present = self.graphs.step(token_BW1[:, :, 0].long().numpy(), cache.memory_BTd, cache.mask_BT, past)
        return torch.from_numpy(scores_BWC), replace(cache, past=torch.from_numpy(present))

    def level_logits(self, scores_BWC: Tensor, level: int) -> Tensor:
        return scores_BWC[..., : self.codes if level < self.levels else self.suffixes]


class Sides:
    """Both ways to rank, over the champion's own data."""

    def __init__(self, url: str, beams: int) -> None:
        store = Store(url)
        entry = current(store)
        assert entry is not None, f"{url}: no champion: run diger demo first"
        bundle = load_bundle(store, entry.bundle)
        self.model, self.beams, self.module = bundle.model, beams, bundle.model.recommender.eval()
        with TemporaryDirectory() as folder:
            write_export(bundle, Path(folder) / "exported", onnx=True)
            self.graphs = {threads: Graphs(Path(folder) / "exported", threads) for threads in (1, 2)}
        seq = to_the_end(
            Sequences.from_tensors(store.artefact("sequences", Sources.own(store, entry.bundle).sequences).tensors("sequences.safetensors"))
        )
        self.seq, _ = projected(seq, np.arange(seq.items), seq.items)
        table = self.model.table
        self.trie = Trie.from_table(table.codes_NM, table.suffix_N, self.module.codes, self.module.suffixes)
        self.tokens = self.model.history_tokens()

    def recommender(self, side: str, threads: int) -> nn.Module | OnnxRecommender:
        return self.module if side == "module" else OnnxRecommender(self.module, self.graphs[threads])

    def lists(self, recommender: Any, users: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
        asked, table = taken(self.seq, users), self.model.table
        return recommended(
            recommender, table.codes_NM, table.suffix_N, asked, np.arange(asked.users), asked.offsets_U1[1:], self.beams, beams=self.beams,
            batch_size=batch, trie=self.trie, tokens_NTd=self.tokens,
        )  # fmt: skip


def rate(sides: Sides, side: str, batch: int, threads: int, users: np.ndarray, seconds: float) -> float:
    """Lists a second, one batch after the other, as the service asks."""
    recommender, done, started = sides.recommender(side, threads), 0, 0.0
    while not done or time.perf_counter() - started < seconds:
        if done == 0:
            sides.lists(recommender, users[:batch], batch)
            started = time.perf_counter()
        first = done % (len(users) - batch + 1)
        sides.lists(recommender, users[first : first + batch], batch)
        done += batch
    return done / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="store")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, nargs="+", choices=(1, 2), default=[1, 2])
    parser.add_argument("--users", type=int, default=2000, help="whose ranks are compared")
    parser.add_argument("--beams", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each figure, in each of three rounds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    sides = Sides(given.store, given.beams)
    users = np.random.default_rng(0).permutation(np.flatnonzero(np.diff(sides.seq.offsets_U1) > 0))[: given.users]
    (module_TW, scores_TW), (onnx_TW, onnx_scores_TW) = (sides.lists(sides.recommender(side, 1), users, 32) for side in ("module", "onnx"))
    finite_TW = np.isfinite(scores_TW) & np.isfinite(onnx_scores_TW)
    same_TW, apart_TW = module_TW == onnx_TW, np.abs(np.where(finite_TW, scores_TW, 0) - np.where(finite_TW, onnx_scores_TW, 0))
    equal = {"equal_lists": float(same_TW.all(axis=1).mean()), "equal_first_10": float(same_TW[:, :10].all(axis=1).mean())}
    equal["furthest"] = float(apart_TW.max())
    of = {"users": len(users), "items": sides.seq.items, "beams": given.beams, "load_before": round(os.getloadavg()[0], 1), **equal}
    for threads in given.threads:
        torch.set_num_threads(threads)
        for batch in given.batches:
            found: dict[str, list[float]] = {"module": [], "onnx": []}
            for _ in range(ROUNDS):
                for side, rates in found.items():
                    rates.append(rate(sides, side, batch, threads, users, given.seconds))
            for side, rates in found.items():
                told = {"side": side, "batch": batch, "threads": threads, "lists_per_second": round(median(rates), 1)}
                record("onnx", {**of, **told, "repeats": [round(each, 1) for each in rates]}, given.out)


if __name__ == "__main__":
    main()
