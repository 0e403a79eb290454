"""Sequences and neighbours block by block are the artefacts that all events at once give, to the byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diger_core.config import NeighboursConfig
from orchestration.params.data import SequencesConfig
from tests.support.block_shops import STAGES, WHOLE, differences, made, shop


@pytest.mark.parametrize(
    ("kind", "split"), [("integers", "temporal"), ("texts", "temporal"), ("large", "temporal"), ("positions", "leave_one_out"), ("both", "temporal")]
)
def test_artefacts_do_not_depend_on_the_blocks(tmp_path, kind, split):
    sequences = SequencesConfig(min_test_users=20)
    whole = made(tmp_path / "whole", shop(kind), WHOLE, sequences=sequences)
    blocks = made(tmp_path / "blocks", shop(kind), replace(WHOLE, block_events=900), sequences=sequences)
    assert differences(whole, blocks) == []
    assert blocks["sequences"].facts["split"] == split
    assert not list((tmp_path / "blocks" / "store" / "checkpoints").iterdir()), "the blocks' files are gone"


def test_weights_and_half_lives_do_not_depend_on_the_blocks(tmp_path):
    sections = {"sequences": SequencesConfig(min_test_users=20, use_weights=True), "neighbours": NeighboursConfig(half_life_days=20, keep=7)}
    whole, blocks = (made(tmp_path / str(events), shop("weights"), replace(WHOLE, block_events=events), **sections) for events in (3000, 900))
    assert differences(whole, blocks) == []


def test_blocks_of_a_single_user_give_the_same_also_where_a_temporal_split_is_given_up(tmp_path):
    snapshot = shop("few", events=500, users=60)
    whole, blocks = (made(tmp_path / str(size), snapshot, replace(WHOLE, block_events=size), whole=STAGES[:4]) for size in (500, 1))
    assert differences(whole, blocks) == []
    assert "why_leave_one_out" in blocks["sequences"].facts
