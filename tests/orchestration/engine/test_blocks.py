"""Files of blocks on a disk and on an object store, and the artefacts that are put together from them there."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diger_core.store.artefacts import Store
from diger_core.store.files import Root
from orchestration.engine.blocks import Blocks, blocks_of
from orchestration.params.data import SequencesConfig
from tests.support.block_shops import WHOLE, differences, made, shop


def filled(values):
    return lambda path: pq.write_table(pa.table({"row": values}), path)


def check(url):
    """Writes, writes over, reads, and removes the blocks of one key alone."""
    blocks, other = Blocks(url, "k" * 64), Blocks(url, "o" * 64)
    other.write("0.parquet", filled([9]))
    blocks.write("0.parquet", filled([1]))
    blocks.write("0.parquet", filled([1, 2]))  # the worker before was lost
    with blocks.file("0.parquet") as path:
        assert pq.read_table(path)["row"].to_pylist() == [1, 2]
    with blocks.parquet("0.parquet") as file:
        assert file.read()["row"].to_pylist() == [1, 2]
    assert Root(url).list("checkpoints", "k" * 64) == ["0.parquet"]
    blocks.remove()
    assert Root(url).list("checkpoints") == ["o" * 64]


def test_blocks_on_a_disk(tmp_path):
    check(str(tmp_path / "store"))


@pytest.mark.s3
def test_blocks_on_an_object_store_give_the_artefacts_of_a_disk(s3_bucket, tmp_path):
    check(f"{s3_bucket}/blocks")
    sections = {"sequences": SequencesConfig(min_test_users=20)}
    whole = made(tmp_path / "whole", shop("texts"), WHOLE, **sections)
    there = made(tmp_path / "there", shop("texts"), replace(WHOLE, block_events=1500), store=f"{s3_bucket}/store", **sections)
    assert differences(whole, there) == []
    assert Root(f"{s3_bucket}/store").list("checkpoints") == []


def test_the_files_of_a_computation_that_fails_are_removed(tmp_path):
    run = SimpleNamespace(store=Store(tmp_path / "store"), key="k" * 64)

    def fails():
        with blocks_of(run) as blocks:
            blocks.write("0.parquet", filled([1]))
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert Root(tmp_path / "store").list("checkpoints") == []
