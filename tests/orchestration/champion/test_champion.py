"""The champion log: append-only, one winner of each race, never none, and no champion that cannot serve."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from diger_core.errors import DigerError
from diger_core.store import lease
from diger_core.store.artefacts import Store
from diger_core.store.files import Root
from orchestration.champion.log import Entry, append, current, history, origin, promote, rollback
from orchestration.cli import main
from orchestration.engine.removal import note, take_out
from tests.support.at_once import at_once
from tests.support.release_world import ReleaseWorld


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> tuple[Path, list[str]]:
    """A store with three bundles; each test works on a copy."""
    folder = tmp_path_factory.mktemp("template")
    world = ReleaseWorld(folder)
    data = world.data()
    return folder, [world.candidate(seed=seed, data=data)["bundle"].hash for seed in (1, 2, 3)]


@pytest.fixture
def store(template, tmp_path) -> Store:
    shutil.copytree(template[0], tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def bundles(template) -> list[str]:
    return template[1]


def accept(store: Store, candidate: str, champion: str | None, verdict: str = "accept") -> str:
    """Publishes a verdict as the gate would."""
    with store.writer("gate") as out:
        out.json("verdict.json", {"verdict": verdict, "candidate": candidate, "champion": champion, "rules": []})
        return store.publish(out).hash


def test_an_empty_store_has_no_champion(store):
    assert current(store) is None
    assert history(store) == []


def test_entries_name_what_came_before_and_are_never_rewritten(store, bundles):
    first = append(store, bundles[0], "release", "first", release="r1")
    before = store.root.read("champion", "000001.json")
    second = append(store, bundles[1], "release", "second", release="r2")
    assert (first.number, first.previous, second.number, second.previous) == (1, None, 2, bundles[0])
    assert store.root.read("champion", "000001.json") == before
    assert current(store) == second
    assert history(Store(store.url)) == [first, second]
    assert second.by.startswith(f"{os.environ.get('USER') or second.by.split('@')[0]}@")


def test_the_same_release_makes_one_entry_and_does_not_undo_a_rollback(store, bundles):
    append(store, bundles[0], "release", "first", release="r1")
    second = append(store, bundles[1], "release", "second", release="r2")
    rollback(store, "shop front is empty")
    assert append(store, bundles[1], "release", "again", release="r2") == second
    assert current(store).bundle == bundles[0]


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001])
def test_a_change_needs_a_reason(store, bundles, reason):
    with pytest.raises(DigerError, match="reason"):
        append(store, bundles[0], "promote", reason)
    assert current(store) is None


def test_a_bundle_that_is_missing_or_damaged_never_becomes_champion(store, bundles):
    append(store, bundles[0], "release", "first")
    with pytest.raises(DigerError, match="not in the store"):
        append(store, "f" * 64, "release", "gone")
    _damage(store, bundles[1])
    with pytest.raises(DigerError, match="SHA-256"):
        append(store, bundles[1], "release", "damaged")
    assert current(store).bundle == bundles[0]


@pytest.fixture
def unseen(monkeypatch) -> None:
    """As where one of two writers was taken for dead: the log itself must still hold."""
    monkeypatch.setattr(lease, "excludes", lambda *kinds: False)


@pytest.mark.usefixtures("unseen")
def test_the_loser_of_a_race_reads_again_and_checks_again(store, bundles, monkeypatch):
    append(store, bundles[0], "release", "first")
    seen: list[str | None] = []
    create = Root.create

    def raced(self, data, *names):
        if names[0] == "champion" and not seen[1:]:
            monkeypatch.setattr(Root, "create", create)
            append(store, bundles[1], "release", "faster")
        return create(self, data, *names)

    monkeypatch.setattr(Root, "create", raced)
    entry = append(store, bundles[2], "release", "slower", check=lambda before: seen.append(before.bundle))
    assert seen == [bundles[0], bundles[1]]
    assert (entry.number, entry.previous) == (3, bundles[1])


@pytest.mark.usefixtures("unseen")
def test_the_loser_of_a_race_is_refused_where_its_check_no_longer_holds(store, bundles, monkeypatch):
    create = Root.create

    def raced(self, data, *names):
        if names[0] == "champion":
            monkeypatch.setattr(Root, "create", create)
            append(store, bundles[1], "release", "faster")
        return create(self, data, *names)

    def only_the_first(before: Entry | None) -> None:
        if before is not None:
            raise DigerError("no longer the first")

    monkeypatch.setattr(Root, "create", raced)
    with pytest.raises(DigerError, match="no longer the first"):
        append(store, bundles[2], "release", "slower", check=only_the_first)
    assert [entry.bundle for entry in history(store)] == [bundles[1]]


def _release(arguments) -> int:
    url, bundle, name = arguments
    return append(Store(url), bundle, "release", "at once", release=name).number


def test_many_writers_at_once_get_one_number_each(store, bundles):
    with at_once().Pool(3) as pool:
        jobs = [(store.url, bundle, f"r{place}") for place, bundle in enumerate(bundles * 2)]
        numbers = pool.map(_release, jobs)
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
    known = history(store)
    assert [entry.previous for entry in known[1:]] == [entry.bundle for entry in known[:-1]]


def test_a_crash_before_during_or_after_the_entry_leaves_the_old_or_the_new_champion(store, bundles, monkeypatch):
    append(store, bundles[0], "release", "first")

    class Killed(BaseException):
        pass

    def dying(step: str):
        real = getattr(os, step)

        def act(what, *given, **named):
            place = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
            if "/champion/" in place:
                raise Killed
            return real(what, *given, **named)

        return act

    for step, expected in (("fsync", bundles[0]), ("link", bundles[0]), ("unlink", bundles[1])):
        with monkeypatch.context() as patched:
            patched.setattr(os, step, dying(step))
            with pytest.raises(Killed):
                append(store, bundles[1], "release", "cut off", release="r2")
        assert current(Store(store.url)).bundle == expected, step
    assert append(store, bundles[1], "release", "resumed", release="r2").number == 2
    assert len(history(store)) == 2


@pytest.mark.parametrize("fault", ["truncated", "edited", "missing"])
def test_a_damaged_log_is_refused_by_the_name_of_its_file(store, bundles, fault):
    for place, bundle in enumerate(bundles):
        append(store, bundle, "release", f"no. {place}")
    path = Path(store.url) / "champion" / "000002.json"
    if fault == "missing":
        path.unlink()
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[:50])
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), "bundle": bundles[0]}))
    with pytest.raises(DigerError, match=r"champion/000002\.json"):
        history(store)
    assert current(store).bundle == bundles[2]


# By hand


def test_promotion_needs_an_accepting_verdict_against_the_present_champion(store, bundles):
    append(store, bundles[0], "release", "first")
    with pytest.raises(DigerError, match="no accepting verdict against the present champion"):
        promote(store, bundles[1], "looks good")
    accept(store, bundles[1], None)  # of another champion's time
    accept(store, bundles[1], bundles[0], "refuse")
    with pytest.raises(DigerError, match="no accepting verdict"):
        promote(store, bundles[1], "looks good")
    verdict = accept(store, bundles[1], bundles[0])
    entry = promote(store, bundles[1], "looks good")
    assert (entry.bundle, entry.verdict, entry.action, entry.forced) == (bundles[1], verdict, "promote", False)


def test_a_forced_promotion_is_written_down_as_one(store, bundles):
    append(store, bundles[0], "release", "first")
    entry = promote(store, bundles[1], "the shop's new range must go out today", force=True)
    assert (entry.forced, entry.verdict, current(store)) == (True, None, entry)
    with pytest.raises(DigerError, match="champion already"):
        promote(store, bundles[1], "again", force=True)


def test_rollback_goes_one_back_or_to_an_entry_and_is_itself_reversible(store, bundles):
    for place, bundle in enumerate(bundles):
        append(store, bundle, "release", f"no. {place}", verdict=f"v{place}")
    back = rollback(store, "too many complaints")
    assert (back.number, back.bundle, back.previous, back.action, back.verdict) == (4, bundles[1], bundles[2], "rollback", "v1")
    assert rollback(store, "it was something else").bundle == bundles[2]
    assert rollback(store, "all the way", to=1).bundle == bundles[0]
    with pytest.raises(DigerError, match="champion already"):
        rollback(store, "again", to=1)
    with pytest.raises(DigerError, match="entries 1 to 6"):
        rollback(store, "nowhere", to=7)
    assert len(history(store)) == 6


def test_there_is_no_rollback_before_the_first(store, bundles):
    with pytest.raises(DigerError, match="no champion to roll back from"):
        rollback(store, "why not")
    append(store, bundles[0], "release", "first")
    with pytest.raises(DigerError, match="nothing to roll back to"):
        rollback(store, "why not")


@pytest.mark.parametrize("fault", ["deleted", "damaged", "no manifest"])
def test_rollback_to_a_bundle_that_is_gone_is_refused_and_the_champion_stays(store, bundles, fault):
    append(store, bundles[0], "release", "first")
    append(store, bundles[1], "release", "second")
    place = Path(store.url) / "artefacts" / "bundle" / bundles[0]
    if fault == "deleted":
        shutil.rmtree(place)
    elif fault == "damaged":
        _damage(store, bundles[0])
    else:
        (place / "manifest.json").unlink()
    with pytest.raises(DigerError, match=f"no rollback to entry 1, the champion stays {bundles[1][:12]}"):
        rollback(store, "it was better")
    assert current(store).bundle == bundles[1]


def test_rollback_to_a_bundle_that_gc_removed_says_so(store, bundles):
    append(store, bundles[0], "release", "first")
    append(store, bundles[1], "release", "second")
    note(store, "bundle", bundles[0], "gc", "nothing needs it")
    take_out(store.root, "artefacts", "bundle", bundles[0])
    with pytest.raises(DigerError, match=f"bundle {bundles[0][:12]} was removed by `diger gc`"):
        rollback(store, "it was better")


def test_origin_is_the_entry_that_released_a_bundle(store, bundles):
    released = append(store, bundles[0], "release", "first")
    append(store, bundles[1], "promote", "second")
    rollback(store, "back")
    assert origin(store, bundles[0]) == released
    assert origin(store, bundles[1]).number == 2
    assert origin(store, bundles[2]) is None


def _damage(store: Store, bundle: str) -> None:
    path = Path(store.url) / "artefacts" / "bundle" / bundle / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.s3
def test_the_log_on_s3(s3_bucket, monkeypatch):
    world = ReleaseWorld(s3_bucket)
    data = world.data()
    bundles = [world.candidate(seed=seed, data=data)["bundle"].hash for seed in (1, 2)]
    reader, writer = Store(s3_bucket), Store(s3_bucket)
    assert current(reader) is None
    append(writer, bundles[0], "release", "first", release="r1")
    assert current(reader).bundle == bundles[0]
    create = Root.create

    def raced(self, data, *names):
        monkeypatch.setattr(Root, "create", create)
        append(reader, bundles[1], "release", "faster", release="r2")
        return create(self, data, *names)

    monkeypatch.setattr(Root, "create", raced)
    assert append(writer, bundles[0], "promote", "slower").number == 3
    assert [entry.bundle for entry in history(reader)] == [bundles[0], bundles[1], bundles[0]]
    assert rollback(reader, "back").bundle == bundles[1]


# The commands


def call(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code)
    return 0


def test_the_commands_show_promote_and_roll_back(store, bundles, capsys):
    assert call("champion", "--store", store.url) == 1
    assert "there is no champion: run the flow" in capsys.readouterr().err
    append(store, bundles[0], "release", "first", verdict="v" * 64)
    assert call("promote", bundles[1][:10], "--reason", "the new range goes out today", "--store", store.url) == 1
    assert "no accepting verdict against the present champion" in capsys.readouterr().err
    assert call("promote", bundles[1][:10], "--reason", "the new range goes out today", "--force", "--store", store.url) == 0
    printed = capsys.readouterr().out
    assert f"bundle {bundles[1][:12]}" in printed
    assert "forced without an accepting verdict" in printed
    assert call("rollback", "--reason", "complaints", "--store", store.url) == 0
    capsys.readouterr()
    assert call("champion", "--store", store.url, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["bundle"], shown["action"], shown["reason"], shown["number"]) == (bundles[0], "rollback", "complaints", 3)
    assert call("champion", "--history", "--store", store.url, "--json") == 0
    assert [entry["action"] for entry in json.loads(capsys.readouterr().out)] == ["release", "promote", "rollback"]
    assert call("champion", "--history", "--store", store.url) == 0
    assert "promote (forced)" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["promote", "abc"], ["rollback"]])
def test_no_change_of_champion_without_a_reason(store, command, capsys):
    assert call(*command, "--store", store.url) == 2
    assert "--reason" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"", b"{", b"[]"])
def test_a_damaged_old_entry_is_named_and_stops_no_change_of_champion(store, bundles, data):
    for place, bundle in enumerate(bundles):
        append(store, bundle, "release", "next", release=f"r{place}")
    entry = Path(store.root.at("champion", "000001.json"))
    entry.chmod(0o644)
    entry.write_bytes(data)
    with pytest.raises(DigerError, match=r"champion/000001\.json: damaged.*restore it from a copy"):
        history(store)
    assert rollback(store, "bad lists").bundle == bundles[1]
    assert current(store).number == 4
    with pytest.raises(DigerError, match=r"champion/000001\.json: damaged"):
        rollback(store, "to the damaged one", to=1)


def test_a_damaged_newest_entry_stops_every_change_because_nobody_knows_what_serves(store, bundles):
    append(store, bundles[0], "release", "first")
    entry = Path(store.root.at("champion", "000001.json"))
    entry.chmod(0o644)
    entry.write_bytes(b"")
    for change in (lambda: rollback(store, "x"), lambda: promote(store, bundles[1], "x"), lambda: current(store)):
        with pytest.raises(DigerError, match=r"champion/000001\.json: damaged"):
            change()
