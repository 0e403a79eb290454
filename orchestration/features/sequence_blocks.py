"""The sequences of more events than one block holds: ordered block by block of users, put together in the users' order.

Validated events are sorted by user, so a block is a range of rows that parts no user, and its sequences are those of the whole. The driver holds
one block, and 16 bytes a user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diger_core.data import splits
from diger_core.data.sequences import Int64, Sequences, sequences
from diger_core.store.artefacts import Store
from diger_core.store.row_groups import RowGroupWriter, read_rows, value_ranges
from diger_core.store.tensor_file import TensorFile, mapped, save
from orchestration.engine.blocks import Blocks, blocks_of

if TYPE_CHECKING:
    from pathlib import Path

    from orchestration.engine.stage_run import StageRun


FILE = "sequences.safetensors"


@dataclass(frozen=True)
class Split:
    """What was written: sizes, counts and boundaries (None: leave one out)."""

    users: int
    items: int
    events: int
    counts: splits.SplitCounts
    boundaries: tuple[int, int] | None


@dataclass(frozen=True)
class Request:
    """What a worker needs: the two artefacts, the ranges of rows, the order, and where the blocks' files go."""

    interactions: str
    items: str
    rows: tuple[tuple[int, int], ...]
    use_weights: bool
    by_time: bool
    blocks: Blocks


class Ordered:
    """Orders the events of one block of users; writes its sequences and its users' ids."""

    def __init__(self, request: Request):
        store = Store(request.blocks.url)
        self.request = request
        self.file = pq.ParquetFile(store.artefact("validated_interactions", request.interactions).path("interactions.parquet"))
        self.known = store.artefact("validated_items", request.items).table("items.parquet", ["item_id"])

    def __call__(self, block: int) -> pa.Table:
        """One row: the block's users, events, items, the type of its users' ids."""
        request = self.request
        rows = read_rows(self.file, *request.rows[block])
        seq, items, users = sequences(rows, self.known, use_weights=request.use_weights, by_time=request.by_time)
        arrays: dict[str, np.ndarray] = {"events": seq.events_E, "offsets": seq.offsets_U1}
        arrays |= {} if seq.timestamps_E is None else {"timestamps": seq.timestamps_E}
        arrays |= {} if seq.weights_E is None else {"weights": seq.weights_E}
        request.blocks.write(f"{block}.safetensors", partial(save, arrays))
        request.blocks.write(f"{block}.parquet", partial(pq.write_table, users.select(["user_id"])))
        if block == 0:
            request.blocks.write("items.parquet", partial(pq.write_table, items))
        kind = str(users.schema.field("user_id").type)
        return pa.table({"users": [seq.users], "events": [len(seq.events_E)], "items": [len(items)], "kind": [kind]})


def write_in_blocks(run: StageRun, temporal: bool) -> Split:
    """The same files as all events at once give."""
    from orchestration.on_ray.data import map_shards

    config, cluster = run.params.sequences, run.params.cluster
    interactions, items = run.inputs["validated_interactions"], run.inputs["validated_items"]
    with pq.ParquetFile(interactions.path("interactions.parquet")) as file:
        rows = tuple(value_ranges(file, "user_id", cluster.block_events))
    found: dict[int, dict[str, Any]] = {}

    def keep(block: int, row: pa.Table) -> None:
        found[block] = row.to_pylist()[0]
        run.progress.update("sequences", len(found), len(rows))

    with blocks_of(run) as blocks:
        request = Request(interactions.hash, items.hash, rows, config.use_weights, temporal, blocks)
        map_shards(Ordered, (request,), range(len(rows)), cluster, keep, run.progress, "sequences")
        run.note(blocks=len(rows), workers=cluster.workers)
        return _Together(run, blocks, [found[block] for block in range(len(rows))], config.use_weights).written(temporal)


class _Together:
    """Puts the blocks' files together, one block at a time."""

    def __init__(self, run: StageRun, blocks: Blocks, found: list[dict[str, Any]], use_weights: bool):
        self.run, self.blocks, self.found, self.use_weights = run, blocks, found, use_weights
        self.users, self.events = (sum(block[name] for block in found) for name in ("users", "events"))
        self.items = int(found[0]["items"])
        self.times = "timestamp" in pq.read_schema(run.inputs["validated_interactions"].path("interactions.parquet")).names

    def written(self, temporal: bool) -> Split:
        config, boundaries = self.run.params.sequences, None
        if temporal:
            moments = splits.Moments(self._times) if self.times else None
            boundaries = splits.time_boundaries(moments, config.train_until, config.validate_until)
        path = self.run.out.place(FILE)
        counts = self._sequences(path, boundaries)
        try:
            splits.require_rows(counts, boundaries, config.min_test_users)
        except splits.NoTemporalSplit:
            path.unlink()  # leave-one-out may follow
            raise
        self._tables()
        return Split(self.users, self.items, self.events, counts, boundaries)

    def _arrays(self) -> Iterator[dict[str, np.ndarray]]:
        for block in range(len(self.found)):
            with self.blocks.file(f"{block}.safetensors") as path:
                yield mapped(path)

    def _times(self) -> Iterator[Int64]:
        for arrays in self._arrays():
            yield arrays["timestamps"]

    def _sequences(self, path: Path, boundaries: tuple[int, int] | None) -> splits.SplitCounts:
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {"events": (np.int32, (self.events,)), "offsets": (np.int64, (self.users + 1,))}
        shapes |= {"items": (np.int64, (1,))} | ({"timestamps": (np.int64, (self.events,))} if self.times else {})
        shapes |= {"weights": (np.float32, (self.events,))} if self.use_weights else {}
        shapes |= {} if boundaries is None else {"boundaries": (np.int64, (2,))}
        counts = splits.SplitCounts(same_time=0 if self.times else None)
        users = events = 0
        with TensorFile(path, shapes) as file:
            file.put("items", 0, np.array([self.items]))
            if boundaries is not None:
                file.put("boundaries", 0, np.array(boundaries))
            for arrays in self._arrays():
                part = Sequences(arrays["events"], arrays["offsets"], self.items, arrays.get("timestamps"), arrays.get("weights"))
                counts += splits.split_counts(replace(part, boundaries=boundaries))
                file.put("offsets", users, part.offsets_U1 + events)
                for name in arrays.keys() - {"offsets"}:
                    file.put(name, events, arrays[name])
                users, events = users + part.users, events + len(part.events_E)
        return counts

    def _tables(self) -> None:
        """items.parquet and users.parquet. Users' ids are unsigned only where one needs it, of whichever block."""
        with self.blocks.parquet("items.parquet") as file:
            self.run.out.table("items.parquet", file.read())
        kinds = {"int64": pa.int64(), "uint64": pa.uint64(), "large_string": pa.large_string()}
        kind = kinds[max((block["kind"] for block in self.found), key=list(kinds).index)]
        schema, first = pa.schema([("user_index", pa.int32()), ("user_id", kind)]), 0
        with RowGroupWriter(self.run.out.place("users.parquet"), schema) as out:
            for block in range(len(self.found)):
                with self.blocks.parquet(f"{block}.parquet") as file:
                    ids = file.read()["user_id"].cast(kind)
                index = np.arange(first, first + len(ids), dtype=np.int32)
                out.write(pa.table([pa.chunked_array([index]), ids], schema=schema))
                first += len(ids)
