"""Release: only an accepted candidate, only over the champion that it was compared with, once, and whole at every crash."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from diger_core.store.files import Root
from orchestration.champion import log as champion
from orchestration.champion.log import append, current, history, rollback
from orchestration.engine import runner
from orchestration.engine.runner import MissingInput, Session
from orchestration.graph import BY_NAME
from orchestration.verdict.gate import gate as gate_stage
from tests.support.at_once import at_once
from tests.support.release_world import ReleaseWorld, easy, launched, random_table, released

pytestmark = pytest.mark.usefixtures("no_pictures")

LOOSE = easy(max_churn=1.0)


class Killed(BaseException):
    """The end of a process that the test itself survives: no handler of Exception sees it."""


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A world with three candidates over one snapshot; the second and third keep the first one's IDs."""
    world = ReleaseWorld(tmp_path_factory.mktemp("template") / "store")
    data = world.data()
    table = random_table(data["sequences"].table("items.parquet")["item_id"], 1)
    return world, [world.candidate(seed=seed, data=data, table=table) for seed in (1, 2, 3)]


@pytest.fixture
def world(template, tmp_path) -> ReleaseWorld:
    shutil.copytree(template[0].store.url, tmp_path / "store")
    copy = ReleaseWorld.__new__(ReleaseWorld)
    copy.store, copy.encoder = Store(tmp_path / "store"), template[0].encoder
    return copy


@pytest.fixture
def made(template):
    return template[1]


def names(world: ReleaseWorld) -> list[str]:
    return [entry.bundle for entry in history(Store(world.store.url))]


def test_an_accepted_candidate_becomes_champion_and_a_repeated_run_changes_nothing(world, made):
    first = released(world, made[0])
    assert (first.number, first.bundle, first.previous, first.action) == (1, made[0]["bundle"].hash, None, "release")
    assert world.store.artefact("gate", first.verdict).json("verdict.json")["verdict"] == "accept"
    assert world.store.artefact("release", first.release).json("release.json")["verdict"] == first.verdict
    session = launched(world, made[0])
    assert [session.materialise(BY_NAME[name]).reused for name in ("gate", "release")] == [True, True]
    assert names(world) == [first.bundle]


def test_the_next_candidate_replaces_the_champion_that_it_was_compared_with(world, made):
    released(world, made[0])
    second = released(world, made[1], LOOSE)
    verdict = world.store.artefact("gate", second.verdict).json("verdict.json")
    assert verdict["champion"] == second.previous == made[0]["bundle"].hash
    again = launched(world, made[1], LOOSE)
    assert [again.materialise(BY_NAME[name]).reused for name in ("gate", "release")] == [True, True]


def test_a_refused_candidate_is_not_released_however_it_is_launched(world, made):
    strict = easy(min_unique_prefixes=1.0)
    session = launched(world, made[0], strict)
    verdict = session.materialise(BY_NAME["gate"]).artefact
    assert verdict.json("verdict.json")["verdict"] == "refuse"
    for each in (session, launched(world, made[0], strict)):  # in the same run, and by a lone click
        with pytest.raises(DigerError, match=r"did not accept bundle .*unique_prefixes"):
            each.materialise(BY_NAME["release"])
    assert names(world) == []
    assert world.store.root.list("artefacts", "release") == []


def test_without_a_verdict_there_is_no_release(world, made):
    with pytest.raises(MissingInput, match="gate was never made"):
        launched(world, made[0]).materialise(BY_NAME["release"])
    assert names(world) == []


def test_a_gate_that_crashes_leaves_no_verdict_so_release_stays_closed(world, made, monkeypatch):
    released(world, made[0])

    def crash(*_):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr("orchestration.verdict.gate.rules.rules", crash)
        with pytest.raises(RuntimeError):
            launched(world, made[1]).materialise(BY_NAME["gate"])
    with pytest.raises(MissingInput, match="gate was never made"):
        launched(world, made[1]).materialise(BY_NAME["release"])
    assert names(world) == [made[0]["bundle"].hash]
    released(world, made[1])


def test_a_verdict_about_another_bundle_is_refused(world, made):
    session = launched(world, made[0])
    session.materialise(BY_NAME["gate"])
    verdict = session._known["gate"]
    other = launched(world, made[1])
    other._known["gate"] = verdict
    with pytest.raises(DigerError, match="the verdict is about bundle"):
        other.materialise(BY_NAME["release"])


def test_an_edited_verdict_is_refused(world, made):
    strict = easy(min_unique_prefixes=1.0)
    hash_ = launched(world, made[0], strict).materialise(BY_NAME["gate"]).artefact.hash
    path = Path(world.store.url) / "artefacts" / "gate" / hash_ / "verdict.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"refuse"', '"accept"'))
    with pytest.raises(DigerError, match=r"verdict\.json: its bytes are not those of the manifest"):
        launched(world, made[0], strict).materialise(BY_NAME["release"])
    assert names(world) == []


def test_a_verdict_against_an_older_champion_does_not_count(world, made):
    released(world, made[0])
    session = launched(world, made[1])
    session.materialise(BY_NAME["gate"])
    released(world, made[2])
    with pytest.raises(DigerError, match=r"the verdict is against champion .* but the champion now is .*run gate again"):
        session.materialise(BY_NAME["release"])
    with pytest.raises(MissingInput, match="the verdict is against champion .* but the champion now is .*run gate again"):  # so is a lone click
        launched(world, made[1]).materialise(BY_NAME["release"])
    assert names(world) == [made[0]["bundle"].hash, made[2]["bundle"].hash]
    released(world, made[1])


def test_repeating_a_run_does_not_undo_a_rollback(world, made):
    released(world, made[0])
    released(world, made[1])
    rollback(world.store, "complaints")
    session = launched(world, made[1])
    assert [session.materialise(BY_NAME[name]).reused for name in ("gate", "release")] == [True, True]
    assert current(world.store).bundle == made[0]["bundle"].hash


def test_the_repeated_run_of_a_replaced_champion_does_not_take_over_from_the_later_one(world, made):
    released(world, made[0])
    released(world, made[1])
    again = launched(world, made[0])
    assert [again.materialise(BY_NAME[name]).reused for name in ("gate", "release")] == [True, True]
    stricter = launched(world, made[0], easy(min_unique_prefixes=0.01))
    assert stricter.materialise(BY_NAME["gate"]).artefact.facts["verdict"] == "accept"
    with pytest.raises(DigerError, match=r"was champion before \(entry 1 .*diger rollback --to 1"):
        stricter.materialise(BY_NAME["release"])
    assert current(world.store).bundle == made[1]["bundle"].hash


# Killed at each named step

STEPS = ("before the artefact", "while the artefact is named", "after the artefact, before its record", "after the record, before the entry",
         "while the entry is written", "after the entry")  # fmt: skip


def cut_off(*_, **__):
    raise Killed


def sigkill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_at(step: str, patched: pytest.MonkeyPatch, killed) -> None:
    create = Root.create

    def create_entry(self, data, *where):
        if where[0] != "champion":
            return create(self, data, *where)
        if step == "after the entry":
            create(self, data, *where)
            killed()
        patched.setattr(os, "link", killed)
        return create(self, data, *where)

    if step == "before the artefact":
        patched.setattr("orchestration.serving.release.release", killed)
    elif step == "while the artefact is named":
        patched.setattr(Root, "adopt_directory", killed)
    elif step == "after the artefact, before its record":
        patched.setattr(Session, "_record", killed)
    elif step == "after the record, before the entry":
        patched.setattr(champion, "append", killed)
    else:
        patched.setattr(Root, "create", create_entry)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_there_is_the_old_champion_or_the_new_one_and_the_same_run_goes_on(world, made, step, first):
    if not first:
        released(world, made[0])
    old = [] if first else [made[0]["bundle"].hash]
    launched(world, made[1]).materialise(BY_NAME["gate"])
    child = os.fork()
    if child == 0:
        try:
            _kill_at(step, pytest.MonkeyPatch(), sigkill)
            launched(world, made[1]).materialise(BY_NAME["release"])
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    new = [*old, made[1]["bundle"].hash]
    assert names(world) == (new if step == "after the entry" else old)
    launched(world, made[1]).materialise(BY_NAME["release"])
    assert names(world) == new
    assert all(name.endswith(".json") and len(name) == 11 for name in world.store.root.list("champion") if not name.startswith("."))


def test_a_cut_off_release_does_not_overtake_a_later_one(world, made):
    released(world, made[0])
    launched(world, made[1]).materialise(BY_NAME["gate"])
    interrupted = launched(world, made[1])
    with pytest.MonkeyPatch.context() as patched:
        _kill_at("after the record, before the entry", patched, cut_off)
        with pytest.raises(Killed):
            interrupted.materialise(BY_NAME["release"])
    released(world, made[2])
    resumed = launched(world, made[1])
    resumed._known["gate"] = interrupted._known["gate"]
    with pytest.raises(DigerError, match="run gate again"):
        resumed.materialise(BY_NAME["release"])
    assert names(world) == [made[0]["bundle"].hash, made[2]["bundle"].hash]


# At once


def _launch(arguments) -> str:
    """One process: judge against the champion of the start, wait for the others, release."""
    world, made, barrier = arguments
    session = launched(world, made)
    session.materialise(BY_NAME["gate"])
    barrier.wait()
    try:
        session.materialise(BY_NAME["release"])
    except DigerError as error:
        return str(error)
    return "released"


def test_of_two_releases_at_once_exactly_one_wins_and_the_other_is_told_to_judge_again(world, made):
    released(world, made[0])
    context = at_once()
    with context.Manager() as manager, context.Pool(2) as pool:
        barrier = manager.Barrier(2)
        said = sorted(pool.map(_launch, [(world, made[1], barrier), (world, made[2], barrier)]), key=len)
    assert said[0] == "released"
    assert "run gate again" in said[1]
    assert len(names(world)) == 2


def test_the_same_release_launched_twice_at_once_makes_one_entry(world, made):
    context = at_once()
    with context.Manager() as manager, context.Pool(2) as pool:
        barrier = manager.Barrier(2)
        assert pool.map(_launch, [(world, made[1], barrier)] * 2) == ["released", "released"]
    assert names(world) == [made[1]["bundle"].hash]


def test_a_champion_whose_bundle_is_gone_stops_the_gate_with_its_name(world, made):
    released(world, made[0])
    shutil.rmtree(Path(world.store.url) / "artefacts" / "bundle" / made[0]["bundle"].hash)
    with pytest.raises(DigerError, match=f"bundle/{made[0]['bundle'].hash}: not in the store"):
        launched(world, made[1]).materialise(BY_NAME["gate"])


def test_a_lone_click_asks_the_stored_verdict_and_not_the_process(world, made, monkeypatch):
    """The hook that other stages' failed verdicts use stays out of it: the report must read a refused verdict."""
    assert not hasattr(gate_stage, "refuse")
    strict = easy(min_unique_prefixes=1.0)
    session = launched(world, made[0], strict)
    refused = session.materialise(BY_NAME["gate"]).artefact
    runner.refuse_failed(refused)
    assert append(world.store, made[0]["bundle"].hash, "promote", "by hand", forced=True).forced


@pytest.mark.slow
@pytest.mark.s3
def test_gate_and_release_on_s3(s3_bucket, template):
    world = ReleaseWorld(s3_bucket)
    data = world.data()
    table = random_table(data["sequences"].table("items.parquet")["item_id"], 1)
    first, second = (world.candidate(seed=seed, data=data, table=table) for seed in (1, 2))
    released(world, first)
    entry = released(world, second)
    assert (entry.number, entry.previous) == (2, first["bundle"].hash)
    again = launched(world, second)
    assert [again.materialise(BY_NAME[name]).reused for name in ("gate", "release")] == [True, True]
    assert names(world) == [first["bundle"].hash, second["bundle"].hash]


def test_a_report_written_anew_releases_nothing_a_second_time(world, made):
    """Not while its bundle serves, and not after a rollback."""
    released(world, made[0])
    released(world, made[1])
    for expected in (made[1], made[0]):
        session = launched(world, made[1])
        rewritten = world.publish("report", lambda out: out.json("report.json", {"edition": expected["bundle"].hash}))  # noqa: B023
        session._known["report"] = ("k" * 64, rewritten)
        session.materialise(BY_NAME["gate"])
        assert not session.materialise(BY_NAME["release"]).reused
        assert current(world.store).bundle == expected["bundle"].hash
        if expected is made[1]:
            rollback(world.store, "complaints")
    assert len(history(world.store)) == 3
