"""Blocks of events on Ray Data: the artefacts of one process, to the byte. test_two_nodes.py runs this file on two nodes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.params.cluster import ClusterConfig
from orchestration.params.data import SequencesConfig, ValidatedInteractionsConfig
from tests.support.block_shops import STAGES, WHOLE, differences, made, shop
from tests.support.ray_processes import workers


@pytest.mark.slow  # a cluster, and new workers for each pass of each stage: a minute
@pytest.mark.timeout(400)
def test_two_workers_give_the_artefacts_of_one_process(tmp_path: Path) -> None:
    sections = {"sequences": SequencesConfig(min_test_users=5), "validated_interactions": ValidatedInteractionsConfig(max_quarantined=0.5)}
    whole = made(tmp_path / "whole", shop("faulty"), WHOLE, **sections)
    shared = made(tmp_path / "shared", shop("faulty"), ClusterConfig(workers=2, block_events=900), whole=("embeddings",), **sections)
    assert differences(whole, shared) == []
    assert not list((tmp_path / "shared" / "store" / "checkpoints").iterdir())


@contextlib.contextmanager
def killing(title: str) -> Iterator[list[int]]:
    """Kills the first worker with this title as soon as it is there; yields the process ids of those killed."""
    killed: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not killed and not done.wait(0.05):
            for pid in workers(title)[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_worker_costs_its_blocks_and_no_byte(tmp_path: Path) -> None:
    """Of each stage that works in blocks one worker is killed; the blocks that it had not given back are computed again."""
    sections = {"sequences": SequencesConfig(min_test_users=5), "validated_interactions": ValidatedInteractionsConfig(max_quarantined=0.5)}
    whole = made(tmp_path / "whole", shop("faulty"), WHOLE, **sections)
    cluster = ClusterConfig(workers=2, block_events=900, max_failures=3)
    for stages in (STAGES[:4], ("sequences",), ("embeddings", "neighbours")):
        with killing("_ShardActor") as killed:
            found = made(tmp_path / "shared", shop("faulty"), cluster, stages, whole=("embeddings",), **sections)
        assert killed, f"{stages}: no worker was there to kill"
        assert differences({name: whole[name] for name in found}, found) == []
    assert not list((tmp_path / "shared" / "store" / "checkpoints").iterdir())
