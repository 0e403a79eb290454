"""The service takes over a snapshot that was prepared for the champion, with its new items, and loads nothing twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from diger_core.store.artefacts import Store
from orchestration.champion.log import current
from orchestration.cli import main
from orchestration.cli.serve import following
from orchestration.graph import BY_NAME
from orchestration.serving.champion_snapshot import made_from, newer_than
from orchestration.serving.online.newest import newest_sources
from orchestration.serving.online.query import Query
from tests.support.retraining_world import SECOND, SMALL, RetrainingWorld, parameters, shop

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


# The command line on the same world: without --snapshot it answers from what the service answers from, whatever params.yaml names


@pytest.fixture
def asked(world, tmp_path, capsys):
    """Runs a command with parameters that name the first snapshot: (exit code, standard output, standard error)."""
    sections = {**SMALL, **{name: SMALL.get(name, {}) | value for name, value in CHEAP.items()}, "snapshot": str(world.folder / "first")}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))

    def call(*arguments):
        code = 0
        try:
            main([*map(str, arguments), "--params", str(tmp_path / "params.yaml"), "--store", world.store.url])
        except SystemExit as stop:
            code = stop.code
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def test_recommend_answers_from_the_snapshot_that_serves_unless_one_is_named(world, asked):
    code, out, err = asked("recommend", "--users", 3, "--json")
    assert code == 0, err
    assert json.loads(out)["snapshot"].startswith("second-"), "as the service, not as params.yaml"
    assert "snapshot second-" in err
    assert "that of the champion #1; --snapshot names another" in err
    for named in (("--snapshot", world.folder / "first"), ("--set", f"snapshot={world.folder / 'first'}")):
        code, out, err = asked("recommend", "--users", 3, *named)
        assert "snapshot first-" in out, err
        assert f"--out DIR --snapshot {world.folder / 'first'}" in " ".join(err.split())


def test_similar_knows_the_new_items_that_recommend_lists_and_lookup_the_champions_own_ids(asked):
    code, out, err = asked("similar", 65)
    assert (code, "Like 65" in out) == (0, True), err
    code, out, err = asked("lookup", "--item", 3)
    assert (code, "IDs of snapshot first-" in err) == (0, True), err


def test_a_snapshot_older_than_the_champions_own_is_told_by_its_name(world):
    bundle = current(world.store).bundle
    own = made_from(world.store, bundle)
    assert own.key.startswith("first-")
    assert newer_than(world.store, bundle, own) is None
    assert newer_than(world.store, bundle, SimpleNamespace(number=own.number - 1)) == own.key
    assert made_from(world.store, "0" * 64) is None


def test_files_that_are_gone_are_needed_only_where_nothing_is_stored(world, asked):
    for name in ("first", "second"):
        (world.folder / name).rename(world.folder / f"{name}-moved")
    assert asked("recommend", "--users", 3)[0] == 0
    shutil.rmtree(Path(world.store.url) / "records" / "raw_items")
    code, _, err = asked("recommend", "--users", 3)
    assert code == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("diger: snapshot first-")
    assert "first: no such directory" in last
    assert last.endswith("(--snapshot DIR_OR_URL)")
