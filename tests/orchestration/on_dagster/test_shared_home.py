"""Several processes on one DAGSTER_HOME: partitions that all of them add, slots of dead ones, and the demo beside a shop of one's own."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from diger_core.store.artefacts import Store
from diger_core.store.owner import identity
from orchestration.cli.demo import demo_may_come
from orchestration.engine.registry import register, registered
from orchestration.on_dagster import lost_runs
from orchestration.on_dagster.instance import dagster_home
from orchestration.on_dagster.lost_runs import OWNER, freeing_slots
from orchestration.on_dagster.partitions import show_snapshots
from tests.support.snapshot_material import interactions, items, write
from tests.support.ui_server import Ui, free_port, start, tiny_demo, wait_for


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / ".dagster"))
    dagster_home()


def _add(barrier: Any, keys: list[str], out: Any) -> None:
    barrier.wait()
    try:
        show_snapshots(keys)
        out.put("")
    except Exception as error:  # noqa: BLE001 - shown by the test
        out.put(f"{type(error).__name__}: {error}")


@pytest.mark.slow
def test_many_processes_add_the_same_partition_at_once():
    show_snapshots(["first"])
    fork = multiprocessing.get_context("fork")
    for turn in range(6):
        barrier, out = fork.Barrier(6), fork.Queue()
        processes = [fork.Process(target=_add, args=(barrier, [f"monday-{turn}", f"own-{turn}"], out)) for _ in range(6)]
        for process in processes:
            process.start()
        assert [out.get() for _ in processes] == [""] * 6
        for process in processes:
            process.join()
    with dg.DagsterInstance.get() as instance:
        assert len(instance.get_dynamic_partitions("snapshots")) == 13


def test_a_partition_that_another_process_adds_between_the_look_and_the_insertion_is_no_fault(monkeypatch):
    show_snapshots(["first"])
    add = dg.DagsterInstance.add_dynamic_partitions
    turns = []

    def slower(self, name, keys):
        if not turns:
            turns.append(1)
            from sqlalchemy.exc import IntegrityError

            add(self, name, keys)  # the other one
            raise IntegrityError("insert", {}, Exception("UNIQUE constraint failed"))
        add(self, name, keys)

    monkeypatch.setattr(dg.DagsterInstance, "add_dynamic_partitions", slower)
    show_snapshots(["monday"])
    with dg.DagsterInstance.get() as instance:
        assert set(instance.get_dynamic_partitions("snapshots")) == {"first", "monday"}


def test_the_slot_of_a_killed_run_is_freed_while_another_waits(monkeypatch):
    monkeypatch.setattr(lost_runs, "EVERY", 0.2)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = json.dumps(identity(process.pid))
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(_nothing, tags={lost_runs.LAUNCHED_BY: lost_runs.TERMINAL_RUN, OWNER: owner})
        instance.handle_new_event(_started(run))
        storage = instance.event_log_storage
        storage.set_concurrency_slots("training", 1)
        assert storage.claim_concurrency_slot("training", run.run_id, "frozen_model").is_claimed
        said: list[str] = []
        with freeing_slots(said.append):
            time.sleep(1.0)
            assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED, "its process lives"
            process.kill()
            process.wait()
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and storage.get_concurrency_info("training").active_slot_count:
                time.sleep(0.1)
        assert storage.get_concurrency_info("training").active_slot_count == 0
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
        assert said == []


def test_who_waits_for_a_slot_is_told_who_has_it(monkeypatch):
    monkeypatch.setattr(lost_runs, "EVERY", 0.2)
    own = identity()
    with dg.DagsterInstance.get() as instance:
        other = instance.create_run_for_job(_nothing, tags={"diger/owner": "host:1", "dagster/partition": "monday-1"})
        mine = instance.create_run_for_job(_nothing, tags=lost_runs.owned(own))
        storage = instance.event_log_storage
        storage.set_concurrency_slots("training", 1)
        assert storage.claim_concurrency_slot("training", other.run_id, "joint_model").is_claimed
        assert not storage.claim_concurrency_slot("training", mine.run_id, "refit").is_claimed
        said: list[str] = []
        with freeing_slots(said.append, own):
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and not said:
                time.sleep(0.1)
            time.sleep(0.5)
        (line,) = said  # once, however often it looks
        assert line.startswith("refit waits for the one place in pool training, which joint_model of run ")
        assert line.endswith(f"{other.run_id[:8]} (_nothing, snapshot monday-1, host:1) has")
        assert lost_runs.waiting(instance, identity(1)) == [], "another process's run"


def _started(run: dg.DagsterRun) -> Any:
    from dagster._core.events import DagsterEvent, DagsterEventType
    from dagster._core.events.log import EventLogEntry

    event = DagsterEvent(event_type_value=DagsterEventType.RUN_START.value, job_name=run.job_name)
    return EventLogEntry(None, 10, "", run.run_id, time.time(), job_name=run.job_name, dagster_event=event)


@dg.job
def _nothing() -> None:
    pass


def test_the_demo_comes_into_an_empty_store_and_into_its_own_only(tmp_path):
    store = Store(tmp_path / "store")
    assert demo_may_come(store)
    demo = write(tmp_path / "data" / "snapshots" / "demo-1", interactions(), items())
    register(store, str(demo))
    assert demo_may_come(store)
    register(store, str(write(tmp_path / "demo-2", interactions(26), items())))
    assert not demo_may_come(store), "a shop of one's own, whatever its name"


@pytest.mark.slow
def test_two_uis_on_one_store_show_its_snapshots_and_neither_harms_the_other(tmp_path):
    """Each with a home and a port of its own, started at the same moment in an empty project: both register the demo, and both show it."""
    places = [tmp_path / name for name in ("one", "two")]
    shared = tmp_path / "shared"
    for place in places:
        place.mkdir()
        tiny_demo(place)
        (place / "store").symlink_to(shared)
    shared.mkdir()
    started = [(place, start(place, free_port())) for place in places]
    uis = []
    for place, process in started:
        port = next(arg for before, arg in itertools.pairwise(Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")) if before == "--port")
        uis.append(Ui(process, f"http://127.0.0.1:{port}", place))
    try:
        for ui in uis:
            wait_for(ui)
        shown = [sorted(ui.partitions()) for ui in uis]
        assert shown[0] == shown[1]
        assert len(shown[0]) == 2
        assert [entry.key for entry in registered(Store(shared))] != []
        for ui in uis:
            assert "Traceback" not in ui.log()
    finally:
        for ui in uis:
            ui.process.send_signal(signal.SIGTERM)
        for ui in uis:
            ui.process.wait(60)
