"""Blocks of events on Ray Data: the artefacts of one process, to the byte. test_two_nodes.py runs this file on two nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.params.cluster import ClusterConfig
from orchestration.params.data import SequencesConfig
from tests.support.block_shops import WHOLE, differences, made, shop


@pytest.mark.slow  # a cluster, and new workers for each stage: 30 s
@pytest.mark.timeout(300)
def test_two_workers_give_the_artefacts_of_one_process(tmp_path: Path) -> None:
    sequences = SequencesConfig(min_test_users=20)
    whole = made(tmp_path / "whole", shop("texts"), WHOLE, sequences=sequences)
    shared = made(tmp_path / "shared", shop("texts"), ClusterConfig(workers=2, block_events=400), sequences=sequences)
    assert differences(whole, shared) == []
    assert not list((tmp_path / "shared" / "store" / "checkpoints").iterdir())
