"""Blocks of events on Ray Data: the artefacts of one process, to the byte. test_two_nodes.py runs this file on two nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.params.cluster import ClusterConfig
from orchestration.params.data import SequencesConfig, ValidatedInteractionsConfig
from tests.support.block_shops import WHOLE, differences, made, shop


@pytest.mark.slow  # a cluster, and new workers for each pass of each stage: a minute
@pytest.mark.timeout(400)
def test_two_workers_give_the_artefacts_of_one_process(tmp_path: Path) -> None:
    sections = {"sequences": SequencesConfig(min_test_users=5), "validated_interactions": ValidatedInteractionsConfig(max_quarantined=0.5)}
    whole = made(tmp_path / "whole", shop("faulty"), WHOLE, **sections)
    shared = made(tmp_path / "shared", shop("faulty"), ClusterConfig(workers=2, block_events=900), whole=("embeddings",), **sections)
    assert differences(whole, shared) == []
    assert not list((tmp_path / "shared" / "store" / "checkpoints").iterdir())
