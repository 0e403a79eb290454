"""A user who was forgotten is gone from the lists: of a service that starts later, and of one that runs."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.audit.forget import forget
from orchestration.audit.index import Index
from orchestration.champion import log as champion
from orchestration.cli.serve import following
from orchestration.engine import removal
from orchestration.params.load import build_params
from orchestration.serving.online.follow import Follower
from orchestration.serving.online.live import Sources
from orchestration.serving.online.newest import newest_sources
from orchestration.serving.online.query import Answer, Query
from tests.support.audit_world import LENIENT, SMALL


@pytest.fixture
def store(audit_world, tmp_path) -> Store:
    return audit_world.copy(tmp_path)


def followed(store: Store, snapshot: str | None = None, **rules: Any) -> Follower:
    return following(Store(store.url), build_params(SMALL | LENIENT | {"rules": rules}), snapshot)


def forgotten(store: Store, user: int) -> dict[str, str]:
    return forget(Index(Store(store.url), cached=False), str(user))[1]


def asked(follower: Follower, user: int) -> Answer:
    assert follower.live is not None, follower.problem
    (answer,) = follower.live.answers([Query(user=user, k=5)])
    assert isinstance(answer, Answer)
    return answer


def test_a_service_that_starts_after_a_forgetting_serves_what_is_left(store, audit_world):
    own = audit_world.runs[1]["sequences"]
    replaced = forgotten(store, 5)
    follower = followed(store)
    assert follower.look(), follower.problem
    assert follower.live.sources.sequences == replaced[own], "/version names the bytes that are used, not those that the bundle was made from"
    assert not asked(follower, 5).known_user
    assert asked(follower, 6).known_user
    second = forgotten(store, 6)
    assert Sources.own(Store(store.url), follower.live.bundle).sequences == second[replaced[own]], "through both"


@pytest.mark.parametrize("of", ["the champion's own data", "a newer snapshot", "a named snapshot"])
def test_a_running_service_drops_the_user_at_its_next_look(store, audit_world, of):
    if of == "a newer snapshot":
        champion.rollback(store, "the second snapshot was prepared for the first champion")
    follower = followed(store, audit_world.snapshots[1].url if of == "a named snapshot" else None)
    assert follower.look(), follower.problem
    before = follower.live.sources
    assert before.sequences == audit_world.runs[1]["sequences"]
    for user in (5, 6):
        kept, old = asked(follower, 8), weakref.ref(follower.live)
        assert asked(follower, user).known_user
        held = follower.live.sources.sequences
        replaced = forgotten(store, user)
        assert follower.look(), follower.problem
        assert (follower.problem, follower.live.sources.sequences) == (None, replaced[held])
        assert (follower.live.sources.neighbours, follower.live.sources.cold_start) == (before.neighbours, before.cold_start)
        assert not asked(follower, user).known_user
        assert (asked(follower, 8).known_user, asked(follower, 8).events) == (True, kept.events)
        gc.collect()
        assert old() is None, "nothing holds the user's history any more"
        assert not follower.look(), "nothing is loaded twice"


def test_a_forgetting_that_was_cut_off_after_its_notes_counts(store, audit_world, monkeypatch):
    follower = followed(store)
    follower.look()
    with monkeypatch.context() as patched:
        patched.setattr(removal, "take_out", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forgotten(store, 5)
    assert store.find("sequences", audit_world.runs[1]["sequences"]) is not None
    assert follower.look()
    assert not asked(follower, 5).known_user


def test_what_cannot_be_loaded_again_serves_on_without_histories(store, tmp_path):
    deny = tmp_path / "deny.txt"
    deny.write_text("1\n")
    follower = followed(store, deny=str(deny))
    follower.look()
    deny.unlink()
    assert not follower.look()
    assert asked(follower, 5).known_user, "a file that is missing alone takes no history away"
    forgotten(store, 5)
    assert not follower.look()
    assert follower.problem.endswith("serves on without users' histories, as one of them was forgotten")
    assert [asked(follower, user).known_user for user in (5, 6)] == [False, False]
    deny.write_text("1\n")
    assert follower.look()
    assert [asked(follower, user).known_user for user in (5, 6)] == [False, True]


def test_what_cannot_be_asked_is_said(store, tmp_path, monkeypatch):
    deny = tmp_path / "deny.txt"
    deny.write_text("1\n")
    follower = followed(store, deny=str(deny))
    follower.look()
    deny.unlink()

    def unread(live):
        raise DigerError("the object store does not answer")

    monkeypatch.setattr(follower, "_outdated", unread)
    assert not follower.look()
    assert follower.problem.endswith("serves on; whether a user was forgotten cannot be read (the object store does not answer)")


def test_what_is_really_missing_is_named(store, audit_world):
    own = audit_world.runs[1]["sequences"]
    left = forgotten(store, 5)[own]
    removal.take_out(store.root, "artefacts", "sequences", left)
    bundle = audit_world.runs[1]["bundle"]
    with pytest.raises(DigerError, match=rf"sequences/{left}: not in the store, and it is what `diger forget` left of {own[:12]}: restore it"):
        Sources.own(Store(store.url), bundle)
    neighbours = audit_world.runs[0]["neighbours"]
    removal.take_out(store.root, "artefacts", "neighbours", neighbours)
    with pytest.raises(DigerError, match=rf"neighbours/{neighbours}: not in the store: restore it"):
        newest_sources(Store(store.url), build_params(SMALL | LENIENT), audit_world.runs[0]["bundle"])
