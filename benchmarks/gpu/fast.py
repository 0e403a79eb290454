"""The whole table "fast" of this project in one process on one accelerator: `python -m benchmarks.gpu fast --data .device-inputs/beauty --out OUT`.

Parts, in this order: the device's own limits, training (ours and the peer in turns, three times: the peer is bound by its host), beams (ours and
`generate` in turns), ID tables. Each cell is one line of kind "fast" in OUT/fast.jsonl as soon as it is measured, with the id of the run, so that a
table is always of one run; `benchmarks.report` makes the table "Against the aims" of the last one. A cell that fails is named at the end and spoils
no other. `--quick`: the same code at toy sizes, for trying it out on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import torch

from benchmarks.common import Data, device, seconds
from benchmarks.gpu import peer, speed
from benchmarks.gpu.cells import Cells
from diger_core.config import RecommenderConfig
from diger_core.ids.id_table import IdTable
from diger_core.presets import Preset
from diger_core.tokenizer.rqvae import Tokenizer

PARTS = ("device", "train", "beams", "table")


@dataclass(frozen=True)
class Sizes:
    """What is measured. `generate`: (with the prefix function, batch, batches a repetition)."""

    repeats: int = 3
    batches: tuple[int, ...] = (256, 1024, 4096)
    peer_batches: tuple[int, ...] = (256, 1024, 4096, 8192)
    steps: int = 10**6  # of ours: the epoch has fewer
    peer_steps: int = 30
    beams: int = 20
    beam_batches: tuple[int, ...] = (2048, 4096, 8192)
    generate: tuple[tuple[bool, int, int], ...] = ((False, 512, 3), (False, 1024, 2), (False, 2048, 2), (True, 64, 2), (True, 256, 1))
    items: tuple[int, ...] = (10**4, 10**5, 10**6, 10**7)
    matrix: int = 8192
    copied: int = 1 << 29  # floats


FULL = Sizes()
QUICK = Sizes(2, (8, 16), (8, 16), 3, 2, 10, (8, 16), ((False, 4, 1), (True, 4, 1)), (100, 1000), 64, 1 << 12)


class Fast(Cells):
    """One run of the table."""

    def __init__(self, data: Data, tok: Tokenizer, table: IdTable, chosen: Preset, recommender: RecommenderConfig, sizes: Sizes, out: Path) -> None:
        of = {"data": data.name, "real_vectors": data.real_vectors, "history": recommender.history}
        super().__init__("fast", {"run": uuid4().hex[:12], "quick": sizes is not FULL, **of}, out)
        self.data, self.tok, self.ids, self.chosen, self.recommender, self.sizes = data, tok, table, chosen, recommender, sizes
        self.token_NQ = peer.tokens(table.codes_NM, table.suffix_N, tok.codes)
        self.vocabulary = peer.SHIFT + tok.levels * tok.codes + 256

    def __call__(self, names: Sequence[str]) -> None:
        for name in PARTS:
            if name in names:
                getattr(self, f"part_{name}")()

    # The parts

    def part_device(self) -> None:
        found = self.cell("device", lambda: limits(self.sizes))
        if found is not None:
            self.write(part="device", **found)

    def part_train(self) -> None:
        """Batch by batch: the peer, frozen, joint, and again; a line holds all repetitions."""
        for batch in sorted({*self.sizes.batches, *self.sizes.peer_batches}):
            works: dict[str, Callable[[], dict[str, Any]]] = {}
            if batch in self.sizes.peer_batches:
                works["peer"] = lambda b=batch: peer.train(
                    self.data, self.recommender, self.token_NQ, self.vocabulary, b, self.sizes.peer_steps, bf16=device().type == "cuda"
                )
            if batch in self.sizes.batches:
                for variant in ("frozen", "frqud"):
                    works[variant] = lambda v=variant, b=batch: speed.train(
                        self.data, self.tok, self.chosen, v, self.recommender, b, True, self.sizes.steps
                    )
            for name, rows in self.in_turns("train", batch, works).items():
                rates = [row["rows_per_second"] for row in rows]
                told = {**rows[-1], "rows_per_second": median(rates), "ms_per_step": median(row["ms_per_step"] for row in rows)}
                self.write(part="train", side=name, repeats=rates, **told)

    def part_beams(self) -> None:
        """Ours by batch and mode, the peer's `generate` by batch, in turns."""
        works: dict[str, Callable[[], dict[str, Any]]] = {}
        for batch in self.sizes.beam_batches:
            for constrained, fused in ((True, True), (True, False), (False, True)):
                works[f"ours {batch} {constrained} {fused}"] = lambda b=batch, c=constrained, f=fused: {
                    "side": "ours", **speed.evaluate(self.data, self.tok, self.ids, self.recommender, self.sizes.beams, b, c, f, repeats=1)
                }  # fmt: skip
        for constrained, batch, batches in self.sizes.generate:
            works[f"generate {batch} {constrained}"] = lambda c=constrained, b=batch, n=batches: {
                "side": "peer",
                **peer.generate(self.data, self.recommender, self.token_NQ, self.vocabulary, b, n, self.sizes.beams, c, bf16=device().type == "cuda"),
            }
        for rows in self.in_turns("beams", "", works).values():
            rates = [row["users_per_second"] for row in rows]
            told = {**rows[-1], "users_per_second": median(rates), "repeats": rates}
            if "seconds" in told:
                told["seconds"] = median(row["seconds"] for row in rows)
            self.write(part="beams", **told)

    def in_turns(self, part: str, batch: Any, works: dict[str, Callable[[], dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
        """Each work once, and again: what slows the machine for a while slows all of them. A work that fails is not tried again."""
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in works}
        for repeat in range(self.sizes.repeats):
            for name, work in works.items():
                if len(found[name]) == repeat and (figures := self.cell(f"{part} {name} {batch}", work)) is not None:
                    found[name].append(figures)
        return {name: rows for name, rows in found.items() if rows}

    def part_table(self) -> None:
        """ID tables by catalogue size."""
        for items in self.sizes.items:
            found = self.cell(f"table {items}", lambda n=items: speed.table(n, self.tok))
            if found is not None:
                self.write(part="table", **found)


def limits(sizes: Sizes) -> dict[str, Any]:
    """The device's own speed, as lower bound of the tables: a copy (bytes read and written) and an fp32 product, in torch's present settings."""
    source = torch.ones(sizes.copied, device=device())
    target = torch.empty_like(source)
    copying = seconds(lambda: target.copy_(source), repeats=5)
    left = torch.randn(sizes.matrix, sizes.matrix, device=device())
    multiplying = seconds(lambda: left @ left, repeats=5)
    return {
        "gigabytes_per_second": 2 * source.numel() * 4 / copying / 1e9, "fp32_tflops": 2 * sizes.matrix**3 / multiplying / 1e12,
        "fp32_matmul": torch.get_float32_matmul_precision(),
    }  # fmt: skip
