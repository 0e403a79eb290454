"""Stages that work in blocks of events: files of the blocks lie beside the checkpoints, under the record's key, where every worker sees them.

A stage with more than `cluster.block_events` events makes one file a block, on Ray Data's workers or one after the other in this process
(`cluster.workers` = 0), and puts the artefact together from them in the blocks' order. What comes out does not depend on the blocks.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from diger_core.store.durable import make_directories
from diger_core.store.files import Root

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun


@dataclass(frozen=True)
class Blocks:
    """The files of one computation's blocks in the store at `url`."""

    url: str
    key: str

    @cached_property
    def _root(self) -> Root:
        return Root(self.url)

    def write(self, name: str, fill: Callable[[Path], None]) -> None:
        """Stores what `fill` writes to a path, in place of what a lost worker may have left under the name."""
        if self._root.is_local:
            path = self._root.at("checkpoints", self.key, name)
            make_directories(os.path.dirname(path))
            temporary = Path(f"{os.path.dirname(path)}/.{uuid.uuid4().hex}.tmp")
            with self._root.faults("checkpoints", self.key, name):
                fill(temporary)
                os.replace(temporary, path)
            return
        with tempfile.TemporaryDirectory(prefix="diger-block-") as folder:
            fill(Path(folder) / name)
            self._root.upload(Path(folder) / name, "checkpoints", self.key, name)

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A local path of a block's file; from an object store, a copy that is gone afterwards."""
        if self._root.is_local:
            yield Path(self._root.at("checkpoints", self.key, name))
            return
        with tempfile.TemporaryDirectory(prefix="diger-block-") as folder:
            self._root.download(Path(folder) / name, "checkpoints", self.key, name)
            yield Path(folder) / name

    @contextlib.contextmanager
    def parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        """A block's Parquet file, of which only what is asked for is read."""
        with self._root.faults("checkpoints", self.key, name), self._root.fs.open(self._root.at("checkpoints", self.key, name), "rb") as file:
            yield pq.ParquetFile(file)

    def remove(self) -> None:
        self._root.remove_directory("checkpoints", self.key)


@contextlib.contextmanager
def blocks_of(run: StageRun) -> Iterator[Blocks]:
    """The run's blocks; their files are removed when it is done, or has failed."""
    blocks = Blocks(run.store.root.base if run.store.root.is_local else run.store.url, run.key)
    try:
        yield blocks
    finally:
        blocks.remove()


def in_blocks(run: StageRun, events: int) -> bool:
    """Whether so many events are worked on in blocks."""
    return events > run.params.cluster.block_events
