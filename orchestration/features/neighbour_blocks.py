"""Transitions of more events than one block holds: counted by ranges of items that share the training events evenly.

A worker maps the sequences from their file and keeps the events of its items: a row of a table needs no others. The driver holds one range, and the
neighbours by text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from diger_core.config import NeighboursConfig
from diger_core.data import splits
from diger_core.data.neighbours import training_events, transition_rows
from diger_core.data.sequences import Sequences
from diger_core.store.artefacts import Store
from diger_core.store.tensor_file import TensorFile, mapped, save
from orchestration.engine.blocks import Blocks, blocks_of

if TYPE_CHECKING:
    from diger_core.data.neighbours import ItemTable
    from orchestration.engine.stage_run import StageRun

FILE = "neighbours.safetensors"
PARTS = {"counts": np.int64, "items": np.int32, "weights": np.float32}


@dataclass(frozen=True)
class Sizes:
    """Of a table: its pairs, and the items that it says nothing about."""

    pairs: int
    without: int

    @classmethod
    def of(cls, table: ItemTable) -> Sizes:
        return cls(len(table.items_P), int((table.offsets_N1[1:] == table.offsets_N1[:-1]).sum()))


def counted_tables(seq: Sequences) -> dict[str, Sequences]:
    """The sequences that each table of transitions counts the training events of."""
    return {"transitions": seq, "transitions_eve": splits.up_to_test(seq), "transitions_end": splits.to_the_end(seq)}


@dataclass(frozen=True)
class Range:
    """The rows first..last - 1 of one table: one block. `boundaries`, `held_out` and `newest`: what its training events are, and
    the time of the newest."""

    table: str
    first: int
    last: int
    events: int
    boundaries: tuple[int, int] | None
    held_out: int
    newest: int | None


@dataclass(frozen=True)
class Request:
    """What a worker needs: the sequences, the ranges, and where the blocks' files go."""

    sequences: str
    config: NeighboursConfig
    ranges: tuple[Range, ...]
    blocks: Blocks


class Transitions:
    """Counts the transitions of one range of items; writes its rows."""

    def __init__(self, request: Request):
        self.request = request
        self.sequences = Sequences.from_arrays(Store(request.blocks.url).artefact("sequences", request.sequences).mapped("sequences.safetensors"))

    def __call__(self, block: int) -> pa.Table:
        """One row: the range's pairs, and its items without one."""
        request, part = self.request, self.request.ranges[block]
        seq = replace(self.sequences, boundaries=part.boundaries, held_out=part.held_out)
        found = list(transition_rows(seq, request.config, part.newest, part.first, part.last))
        arrays = {name: np.concatenate([rows[place] for rows in found]).astype(kind) for place, (name, kind) in enumerate(PARTS.items())}
        request.blocks.write(f"{block}.safetensors", partial(save, arrays))
        return pa.table({"pairs": [len(arrays["items"])], "without": [int((arrays["counts"] == 0).sum())]})


def write_in_blocks(run: StageRun, seq: Sequences, text: ItemTable) -> dict[str, Sizes]:
    """The same file as all items at once give; the sizes of each table."""
    from orchestration.on_ray.data import map_shards

    config, cluster, ranges = run.params.neighbours, run.params.cluster, list[Range]()
    for name, counted in counted_tables(seq).items():
        training = training_events(counted)
        for first, last in training.ranges(cluster.block_events):
            many = int(training.counts_N[first:last].sum())
            ranges.append(Range(name, first, last, many, counted.boundaries, counted.held_out, training.newest))
    found, total = dict[int, dict[str, int]](), sum(part.events for part in ranges)

    def keep(block: int, row: pa.Table) -> None:
        found[block] = row.to_pylist()[0]
        run.progress.update("neighbours", sum(ranges[done].events for done in found), total)

    with blocks_of(run) as blocks:
        request = Request(run.inputs["sequences"].hash, config, tuple(ranges), blocks)
        map_shards(Transitions, (request,), range(len(ranges)), cluster, keep, run.progress, "neighbours")
        run.note(blocks=len(ranges), workers=cluster.workers)
        sizes = dict[str, Sizes]()
        for name in dict.fromkeys(part.table for part in ranges):
            of_table = [found[block] for block, part in enumerate(ranges) if part.table == name]
            sizes[name] = Sizes(sum(row["pairs"] for row in of_table), sum(row["without"] for row in of_table))
        sizes["text"] = Sizes.of(text)
        _write(run, request, sizes, seq.items, text)
        return sizes


def _write(run: StageRun, request: Request, sizes: Mapping[str, Sizes], items: int, text: ItemTable) -> None:
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {}
    for name, size in sizes.items():
        shapes |= {
            f"{name}.offsets": (np.int64, (items + 1,)),
            f"{name}.items": (np.int32, (size.pairs,)),
            f"{name}.weights": (np.float32, (size.pairs,)),
        }
    pairs = dict.fromkeys(sizes, 0)
    with TensorFile(run.out.place(FILE), shapes) as file:
        for part, values in (("offsets", text.offsets_N1), ("items", text.items_P), ("weights", text.weights_P)):
            file.put(f"text.{part}", 0, values)
        for block, rows in enumerate(request.ranges):
            with request.blocks.file(f"{block}.safetensors") as path:
                arrays = mapped(path)
                at = pairs[rows.table]
                file.put(f"{rows.table}.offsets", rows.first, np.r_[at, at + np.cumsum(arrays["counts"])])
                for part in ("items", "weights"):
                    file.put(f"{rows.table}.{part}", at, arrays[part])
                pairs[rows.table] += len(arrays["items"])
