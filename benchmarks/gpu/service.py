"""The service's batching under load on one device: `python -m benchmarks.gpu service --data .device-inputs/beauty --out OUT`.

Closed-loop clients are tasks of this process and ask the batcher of `diger serve` (orchestration/serving/http/batches.py); there is no HTTP, which
would cost each side the same. Three sides answer with ten items for a random user of the data:

    kernels     beams over the fused kernels in bf16 and the trie, as `diger serve` ranks on an accelerator (without the lists' mixture)
    generate    a T5 of the same size: `generate` with the prefix function, as a plain Hugging Face service does
    item_item   exact item-to-item counts on the CPU

Weights are random: speed does not depend on them. Each load is measured once every client has had an answer, for `seconds` and until each could have
had another. With C clients that never pause, C / (requests per second) is the mean latency. One line a side and load in OUT/service.jsonl.
`--quick`: toy sizes, to try the code out; on a CPU the torch module stands for the kernels.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np
import torch

from benchmarks.common import Data, device, wait
from benchmarks.gpu import peer
from benchmarks.gpu.cells import Cells
from diger_core.config import NeighboursConfig, RecommenderConfig
from diger_core.data.neighbours import empty_table, transitions
from diger_core.data.sequences import Sequences
from diger_core.data.splits import to_the_end
from diger_core.evaluation.counts import Counts
from diger_core.evaluation.ranking import recommended
from diger_core.evaluation.recipes import Recipe, ranked
from diger_core.fast.inference import obstacle
from diger_core.ids.id_table import IdTable
from diger_core.recommender.model import Recommender
from diger_core.recommender.trie import Trie
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.table_refresh import suffix_values
from orchestration.params.serve import ServeConfig
from orchestration.serving.http.batches import Batches
from orchestration.serving.online.live import LiveChampion
from orchestration.serving.online.query import Answer, Query
from orchestration.serving.ranker import taken

TOP = 10
ITEM_ITEM = Recipe({"transitions": 1.0}, {"transitions": 5.0}, raw=True)


@dataclass(frozen=True)
class Sizes:
    """`max_batch`: requests that one pass of a side answers, at most; for each side the batch at which it is fastest alone."""

    clients: tuple[int, ...] = (8, 256, 4096)
    seconds: float = 10.0
    beams: int = 20
    max_batch: tuple[tuple[str, int], ...] = (("kernels", 4096), ("item_item", 4096), ("generate", 256))


FULL = Sizes()
QUICK = Sizes((2, 8), 0.3, 10, (("kernels", 8), ("item_item", 8), ("generate", 4)))


class Kernels:
    """Beams as `orchestration.serving.ranker` asks for them."""

    def __init__(self, tok: Tokenizer, table: IdTable, config: RecommenderConfig, beams: int) -> None:
        torch.manual_seed(0)
        self.net, self.table, self.beams = Recommender(config, tok.codes, tok.levels, suffix_values(tok)).to(device()).eval(), table, beams
        self.trie = Trie.from_table(table.codes_NM, table.suffix_N, tok.codes, self.net.suffixes, device())
        self.fused = device().type == "cuda" and obstacle(self.net) is None

    def __call__(self, asked: Sequences) -> np.ndarray:
        users_T = np.arange(asked.users)
        items_Tk, _ = recommended(
            self.net, self.table.codes_NM, self.table.suffix_N, asked, users_T, asked.offsets_U1[1:], TOP, beams=self.beams, device=device(),
            trie=self.trie, precision="bf16",
        )  # fmt: skip
        return items_Tk


class Generate:
    """The peer's `generate`."""

    fused = False

    def __init__(self, tok: Tokenizer, table: IdTable, config: RecommenderConfig, beams: int) -> None:
        token_NQ = peer.tokens(table.codes_NM, table.suffix_N, tok.codes)
        vocabulary = peer.SHIFT + tok.levels * tok.codes + suffix_values(tok)
        self.generated = peer.Generated(config, token_NQ, vocabulary, beams, TOP, bf16=device().type == "cuda")

    def __call__(self, asked: Sequences) -> np.ndarray:
        return self.generated(asked, asked.offsets_U1[:-1], asked.offsets_U1[1:])[0]


class ItemItem:
    """Transitions of all events, counted as stage `neighbours` counts them."""

    fused = False

    def __init__(self, seq: Sequences) -> None:
        self.counts = Counts.of(seq, transitions(seq, NeighboursConfig()), empty_table(seq.items))

    def __call__(self, asked: Sequences) -> np.ndarray:
        return ranked(ITEM_ITEM, self.counts, asked, np.arange(asked.users), asked.offsets_U1[1:], TOP)[0]


class Answering:
    """Stands in the champion's place behind the batcher: a query names a user's row."""

    def __init__(self, seq: Sequences, lists: Kernels | Generate | ItemItem) -> None:
        self.seq, self.lists = seq, lists

    def answers(self, queries: Sequence[Query]) -> list[Answer]:
        users_Q = np.array([query.user for query in queries], dtype=np.int64)
        asked = taken(self.seq, users_Q)
        found = self.lists(asked).tolist()
        lengths = np.diff(asked.offsets_U1).tolist()
        return [
            Answer([{"item_id": item, "rank": place + 1, "score": None} for place, item in enumerate(listed) if item >= 0], events, 0, True, False)
            for listed, events in zip(found, lengths, strict=True)
        ]


async def loaded(answering: Answering, clients: int, max_batch: int, seconds: float) -> dict[str, Any]:
    """One load: closed loops until the time is over and every client could have had two answers."""
    taken_at: list[tuple[float, float]] = []  # (when the answer came, seconds since it was asked for)
    passes: list[tuple[int, float]] = []
    config = ServeConfig(max_batch=max_batch, max_waiting=2 * clients, timeout_seconds=600.0)
    batches = Batches(lambda: cast(LiveChampion, answering), config, lambda size, took: passes.append((size, took)))
    running = asyncio.create_task(batches.run())
    order, over = random.Random(0), False

    async def client() -> None:
        while not over:  # wait_for of Python 3.11 forgets a cancellation that comes together with the answer
            started = time.perf_counter()
            await batches.ask(Query(user=order.randrange(answering.seq.users)))
            ended = time.perf_counter()
            taken_at.append((ended, ended - started))

    async def until(answers: int, least: float) -> float:
        started = time.perf_counter()
        while len(taken_at) < answers or time.perf_counter() - started < least:
            for task in asking:
                if task.done():
                    task.result()  # a client ends by its fault alone
            await asyncio.sleep(0.02)
        return time.perf_counter()

    for _ in range(2):  # kernels are compiled and buffers allocated
        await asyncio.gather(*(batches.ask(Query(user=user % answering.seq.users)) for user in range(min(clients, max_batch))))
    asking = [asyncio.create_task(client()) for _ in range(clients)]
    begun = await until(clients, 0.0)
    before, passed = len(taken_at), len(passes)
    ended = await until(before + clients, seconds)
    over = True
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    found, measured = [took for at, took in taken_at[before:] if at <= ended], passes[passed:]
    await batches.ask(Query(user=0))  # the pass in flight ends first
    running.cancel()
    batches.close()
    rate, (p50, p99) = len(found) / (ended - begun), 1000 * np.percentile(found, (50, 99))
    return {
        "clients": clients, "max_batch": max_batch, "seconds": round(ended - begun, 2), "answers": len(found), "requests_per_second": round(rate, 1),
        "p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "mean_batch": round(float(np.mean([size for size, _ in measured])), 1),
        "ranking_share": round(sum(took for _, took in measured) / (ended - begun), 3),
    }  # fmt: skip


def run(data: Data, tok: Tokenizer, table: IdTable, config: RecommenderConfig, sizes: Sizes, out: Path) -> None:
    """Every side at every load, one side after the other."""
    seq = to_the_end(data.sequences)
    of = {"data": data.name, "real_vectors": data.real_vectors, "history": config.history, "items": seq.items, "users": seq.users}
    cells = Cells("service", {"run": uuid4().hex[:12], "quick": sizes is not FULL, **of, "beams": sizes.beams}, out)
    for side, max_batch in sizes.max_batch:
        made = cells.cell(side, lambda s=side: answering(s, seq, tok, table, config, sizes.beams))
        if made is None:
            continue
        for clients in sizes.clients:
            found = cells.cell(f"{side} {clients}", lambda m=made, c=clients, b=max_batch: asyncio.run(loaded(m, c, min(b, c), sizes.seconds)))
            if found is not None:
                cells.write(side=side, fused=made.lists.fused, **found)
        wait()
    cells.close()


def answering(side: str, seq: Sequences, tok: Tokenizer, table: IdTable, config: RecommenderConfig, beams: int) -> Answering:
    """A side over the whole histories of `seq`."""
    if side == "item_item":
        return Answering(seq, ItemItem(seq))
    return Answering(seq, (Kernels if side == "kernels" else Generate)(tok, table, config, beams))
