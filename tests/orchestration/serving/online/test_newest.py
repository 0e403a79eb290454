"""The service takes over a snapshot that was prepared for the champion, with its new items, and loads nothing twice."""

from __future__ import annotations

import pytest

from diger_core.store.artefacts import Store
from orchestration.cli.serve import following
from orchestration.graph import BY_NAME
from orchestration.serving.online.newest import newest_sources
from orchestration.serving.online.query import Query
from tests.support.retraining_world import SECOND, RetrainingWorld, parameters, shop

PREPARE = ("raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences", "embeddings", "neighbours", "cold_start")

CHEAP = {"tokenizer": {"epochs": 1}, "training": {"epochs": 1}, "frozen_model": {"enabled": False}}  # what is learnt says nothing here


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return RetrainingWorld(tmp_path_factory.mktemp("world"))


def test_a_snapshot_that_was_prepared_serves_with_its_new_items(world):
    first = world.first()
    bundle = world.release(world.run(first, **CHEAP))
    params = parameters(**CHEAP)
    follower = following(Store(world.store.url), params, None)
    assert follower.look()
    before = follower.live
    own = bundle.components["sequences"]
    assert before.sources.sequences == own
    second = world.second()
    session = world.session(second, **CHEAP)
    for name in PREPARE[:-1]:
        session.materialise(BY_NAME[name])
    assert not follower.look(), "without cold start the new snapshot is not ready"
    assert follower.live is before
    session.materialise(BY_NAME["cold_start"])
    assert follower.look()
    assert follower.live.sources == newest_sources(Store(world.store.url), params, bundle.hash)
    assert follower.live.sources.sequences == session.find(BY_NAME["sequences"]).hash
    assert follower.live.ranker.child, "the new items have IDs by cold start"
    (answer,) = follower.live.answers([Query(history=(65, 5, 65), k=20)])
    assert (answer.events, answer.unknown_items) == (3, 0)
    serving = follower.live
    session.materialise(BY_NAME["catalogue_diff"])
    world.snapshot("third", *shop([*SECOND, 66], 70, 9))
    assert not follower.look(), "another snapshot is registered, but not prepared"
    assert follower.live is serving
