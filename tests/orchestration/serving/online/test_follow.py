"""The champion log is followed: what loads takes over, what does not load changes nothing."""

from __future__ import annotations

import gc
import weakref

import pytest

from diger_core.errors import DigerError
from orchestration.champion import log as champion
from orchestration.cli.serve import stamp
from orchestration.params.rules import RulesConfig
from orchestration.serving.online.follow import Follower
from tests.support.serving_world import LIMITS, ServingWorld


@pytest.fixture
def world(tmp_path):
    return ServingWorld(tmp_path / "store")


def damage(world, made):
    path = world.store.root.at("artefacts", "bundle", made["bundle"].hash, "id_table.parquet")
    with open(path, "rb") as file:
        data = file.read()
    world.store.root.remove("artefacts", "bundle", made["bundle"].hash, "id_table.parquet")
    with open(path, "wb") as file:
        file.write(data[:-1] + b"?")


def test_a_release_and_a_rollback_take_over_and_the_old_one_goes_with_its_last_user(world):
    follower = world.follower()
    assert not follower.look()
    assert "nothing was released yet" in follower.problem
    first, second = world.candidate(seed=1), world.candidate(seed=2)
    world.promote(first)
    assert follower.look()
    assert (follower.live.bundle, follower.problem) == (first["bundle"].hash, None)
    assert not follower.look(), "the same entry is not loaded again"
    held = follower.live  # as a request does that is being answered
    world.promote(second)
    assert follower.look()
    assert follower.live.bundle == second["bundle"].hash
    assert held.bundle == first["bundle"].hash
    gone = weakref.ref(held)
    del held
    gc.collect()
    assert gone() is None, "nothing names it any more"
    champion.rollback(world.store, "it was better")
    assert follower.look()
    assert (follower.live.bundle, follower.live.entry.number, follower.changes) == (first["bundle"].hash, 3, 3)


def test_a_bundle_that_does_not_load_changes_nothing_and_is_told(world):
    first, second = world.candidate(seed=1), world.candidate(seed=2)
    world.promote(first)
    follower = world.follower()
    follower.look()
    before = follower.live
    world.promote(second)
    damage(world, second)
    assert not follower.look()
    assert follower.live is before
    told = f"entry 2 names bundle {second['bundle'].hash[:12]}, which does not load: "
    assert follower.problem.startswith(told)
    assert "id_table.parquet" in follower.problem
    assert follower.problem.endswith(f"bundle {first['bundle'].hash[:12]} (entry 1) serves on")
    assert not follower.look()
    assert follower.failures == 1, "it is not tried again at every look"
    champion.rollback(world.store, "the new one is damaged")
    assert follower.look(), "another entry is tried at once"
    assert (follower.live.entry.number, follower.problem) == (3, None)


def test_a_rules_file_that_changes_is_read_again(world, tmp_path, caplog):
    deny = tmp_path / "deny.txt"
    deny.write_text("item-001\n")
    world.promote(world.candidate(seed=1))
    rules = RulesConfig(deny=str(deny))
    entries = lambda: champion.current(world.store)  # noqa: E731
    follower = Follower(entries, lambda entry: world.open(entry, rules), LIMITS, lambda: stamp(rules))
    follower.look()
    assert not follower.look()
    assert [record for record in caplog.records if record.msg == "rules"] == []
    deny.write_text("item-001\nitem-002\n15591\n")
    assert follower.look()
    (told,) = [record.told["warning"] for record in caplog.records if record.msg == "rules"]
    assert f"rules.deny {deny}: 1 of 3 ids name no item of the catalogue, the first: '15591', line 3; " in told
    assert follower.live.rules == ({"rule": "deny deny.txt", "items": 2},)
    deny.unlink()
    assert not follower.look()
    assert "rules.deny" in follower.problem
    assert follower.live.rules[0]["items"] == 2, "what was read last holds on"


def test_the_remedy_of_a_long_message_is_told_whole(world):
    world.promote(world.candidate(seed=1))
    remedy = f"{'/very/long/path' * 40}: remove it and run stage bundle again"

    def problem(error):
        def fails(entry):
            raise error

        follower = Follower(lambda: champion.current(world.store), fails, LIMITS)
        follower.look()
        return follower.problem

    assert problem(DigerError(remedy)).endswith(f"which does not load: {remedy}; nothing serves")
    assert len(problem(ValueError("x" * 10_000))) < 1000, "what is not ours may be of any length"


def test_a_log_that_cannot_be_read_ends_nothing(world, monkeypatch):
    world.promote(world.candidate(seed=1))
    follower = world.follower()
    follower.look()

    def fails(store):
        raise OSError("no route to host")

    monkeypatch.setattr("tests.support.serving_world.champion.current", fails)
    assert not follower.look()
    assert "no route to host" in follower.problem
    assert follower.live is not None
    monkeypatch.undo()
    follower.look()
    assert follower.problem is None
