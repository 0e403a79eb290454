"""A large shop on one device: `python -m benchmarks.gpu catalogue --data .device-inputs/beauty-temporal --out OUT`.

Lists for a million users, the data's users many times over, to Parquet: beams over the fused kernels in bf16, mixed with what is counted in processes
of the CPU's cores, ten items a user. Weights are random and every part of the mixture counts: speed does not depend on what they are. Then the
warm-up of the tokenizer for a million items, whose vectors are the data's with noise. One line each in OUT/catalogue.jsonl.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from benchmarks.common import Data, device
from benchmarks.gpu.cells import Cells
from benchmarks.gpu.speed import peak_memory
from diger_core.config import NeighboursConfig, RecommenderConfig, TokenizerConfig
from diger_core.data.neighbours import ItemTable, transitions
from diger_core.data.sequences import Sequences
from diger_core.data.splits import to_the_end
from diger_core.evaluation.counts import Counts, Trend
from diger_core.evaluation.fusion import PARTS
from diger_core.evaluation.ranking import recommended
from diger_core.evaluation.recipes import Recipe, ranked
from diger_core.ids.id_table import IdTable
from diger_core.recommender.model import Recommender
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.tokenizer.warm_up import tokenizer
from diger_core.training.table_refresh import suffix_values


@dataclass(frozen=True)
class Sizes:
    items: int = 10**6
    users: int = 10**6
    shard: int = 20_000  # users
    beams: int = 20
    k: int = 10
    epochs: int | None = None  # of the warm-up; None: the default


FULL = Sizes()
QUICK = Sizes(600, 500, 100, 10, 5, 2)
_recipe = Recipe(dict.fromkeys(PARTS, 1 / len(PARTS)), dict.fromkeys(("transitions", "text", "repeat"), 5.0), trend=Trend(0.03, 0.4))
_counting: dict[str, Any] = {}  # of the worker processes, which inherit it


def run(data: Data, folder: Path, tok: Tokenizer, table: IdTable, recommender: RecommenderConfig, sizes: Sizes, out: Path) -> None:
    """Lists first: their processes are forked before the device is in use by more than the tokenizer."""
    cells = Cells("catalogue", {"run": uuid4().hex[:12], "quick": sizes is not FULL, "data": data.name}, out)
    lists = cells.cell("lists", lambda: made_lists(data, folder, tok, table, recommender, sizes))
    if lists is not None:
        cells.write(what="lists", **lists)
    warmed = cells.cell("tokenizer", lambda: warm_up(data, sizes))
    if warmed is not None:
        cells.write(what="tokenizer", **warmed)
    cells.close()


def warm_up(data: Data, sizes: Sizes) -> dict[str, Any]:
    """Seconds of the RQ-VAE's whole warm-up, vectors on the device."""
    config = TokenizerConfig() if sizes.epochs is None else TokenizerConfig(epochs=sizes.epochs)
    generator = torch.Generator(device=device()).manual_seed(0)
    source = data.vectors_ND.to(device())
    near = source[torch.randint(len(source), (sizes.items,), device=device(), generator=generator)]
    vectors = near + 0.5 * source.std(0) * torch.randn(near.shape, device=device(), generator=generator)
    started = time.perf_counter()
    tok, curves = tokenizer(vectors, config, device=device())
    taken = time.perf_counter() - started
    figures = {"items": sizes.items, "width": vectors.shape[1], "epochs": config.epochs, "batch": config.batch_size, "codes": tok.codes}
    return {
        **figures,
        "seconds": round(taken, 1),
        "loss": curves[-1]["loss"],
        "collisions": curves[-1]["collisions"],
        "peak_memory_gib": peak_memory(),
    }


def made_lists(data: Data, folder: Path, tok: Tokenizer, table: IdTable, config: RecommenderConfig, sizes: Sizes) -> dict[str, Any]:
    """Seconds from histories to the last Parquet file."""
    seq = repeated(to_the_end(data.sequences), sizes.users)
    own = to_the_end(data.sequences)
    text = ItemTable.from_tensors(load_file(folder / "text.safetensors"), "text")
    _counting.update(seq=seq, counts=Counts.of(own, transitions(own, NeighboursConfig()), text), k=sizes.k)
    workers = max(1, (os.cpu_count() or 2) - 1)
    torch.manual_seed(0)
    net = Recommender(config, tok.codes, tok.levels, suffix_values(tok)).to(device()).eval()
    beams_seconds = 0.0
    with tempfile.TemporaryDirectory() as out, ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer=_alone) as pool:
        pool.submit(os.getpid).result()  # the processes are there
        started, pending = time.perf_counter(), list[Future[int]]()
        for number, first in enumerate(range(0, sizes.users, sizes.shard)):
            rows = np.arange(first, min(first + sizes.shard, sizes.users))
            before = time.perf_counter()
            found = recommended(
                net,
                table.codes_NM,
                table.suffix_N,
                seq,
                rows,
                seq.offsets_U1[rows + 1],
                sizes.beams,
                beams=sizes.beams,
                device=device(),
                precision="bf16",
            )
            beams_seconds += time.perf_counter() - before
            pending.append(pool.submit(_written, f"{out}/part-{number:05d}.parquet", rows, found))
        written = sum(each.result() for each in pending)
        taken = time.perf_counter() - started
        size = sum(path.stat().st_size for path in Path(out).iterdir())
    return {
        "users": sizes.users, "items": seq.items, "rows": written, "seconds": round(taken, 1), "beams_seconds": round(beams_seconds, 1),
        "megabytes": round(size / 1e6, 1), "workers": workers, "beams": sizes.beams, "k": sizes.k, "history": config.history,
        "peak_memory_gib": peak_memory(),
    }  # fmt: skip


def repeated(seq: Sequences, users: int) -> Sequences:
    """The same users over and over, until there are so many."""
    times = -(-users // seq.users)
    lengths_U = np.tile(np.diff(seq.offsets_U1), times)[:users]
    offsets_U1 = np.r_[0, np.cumsum(lengths_U)].astype(np.int64)
    return Sequences(np.tile(seq.events_E, times)[: offsets_U1[-1]], offsets_U1, seq.items)


def _alone() -> None:
    torch.set_num_threads(1)


def _written(path: str, rows: np.ndarray, beams: tuple[np.ndarray, np.ndarray]) -> int:
    """A worker: mixes a shard's beams with the counts and writes (user, item, rank, score)."""
    seq, k = _counting["seq"], _counting["k"]
    items_Tk, scores_Tk = ranked(_recipe, _counting["counts"], seq, rows, seq.offsets_U1[rows + 1], k, beams)
    there = items_Tk.ravel() >= 0
    user_X, rank_X = np.repeat(rows, k)[there], np.tile(np.arange(1, k + 1, dtype=np.int32), len(rows))[there]
    table = pa.table({"user_id": user_X, "item_id": items_Tk.ravel()[there], "rank": rank_X, "score": scores_Tk.ravel()[there]})
    pq.write_table(table, path)
    return len(table)
