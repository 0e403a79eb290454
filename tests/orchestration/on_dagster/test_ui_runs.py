"""What a person does with runs in the UI, by its own buttons: backfill, cancel, run again, configure a job. Store and GraphQL agree."""

from __future__ import annotations

import fcntl
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diger_core.store.artefacts import Store
from orchestration.cli.ui import wait_until
from orchestration.engine.registry import lookup
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME
from orchestration.params.load import load_params
from tests.support.ui_server import ENDED, Ui, launch, launchpad

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # minutes of real runs: `make test-slow` (test_ui.py is the short tour)

SNAPSHOT = "/locations/orchestration.definitions/asset-groups/1_snapshot/lineage"
RAW = ("raw_items", "raw_interactions")
JOBS = {
    "retrain": ("raw_items", "joint_model", "report"),
    "assign_new_items": ("cold_start",),
    "tune": ("decay_search",),
    "evaluate": ("evaluation", "report"),
    "gate_and_release": ("gate", "release"),
}


@pytest.fixture(scope="module")
def backfill(ui: Ui, page: Any) -> str:
    """The id of a backfill of both snapshots' raw assets, launched from the group's page; the daemon takes it up while other tests run."""
    page.goto(f"{ui.url}{SNAPSHOT}")
    page.get_by_text("Materialize all").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="All", exact=True).click()
    dialog.get_by_text("2 partitions").first.wait_for()
    dialog.get_by_role("button", name="Launch backfill").click()
    dialog.wait_for(state="hidden")
    return ui.backfills()[0]["id"]


@contextmanager
def work_held_back(ui: Ui, stage: str, snapshot: str) -> Iterator[str]:
    """Another process is at the same work: a run of the stage waits for the lock of its record's key, which is what this gives."""
    store = Store(ui.home / "store")
    key, _ = Session(store, load_params(None), lookup(store, snapshot)).resolve(BY_NAME[stage])
    path = ui.home / "store/locks" / f"{key}.lock"
    path.parent.mkdir(exist_ok=True)
    with open(path, "ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield key


def executing(ui: Ui, run_id: str, step: str) -> bool:
    query = "query($id: ID!) {runOrError(runId: $id) {... on Run {stepStats {stepKey status}}}}"
    stats = ui.ask(query, id=run_id)["runOrError"]["stepStats"]
    return {"stepKey": step, "status": "IN_PROGRESS"} in stats


def log_lines(ui: Ui, run_id: str) -> list[str]:
    query = "query($id: ID!) {logsForRun(runId: $id) {... on EventConnection {events {... on MessageEvent {message}}}}}"
    return [event.get("message", "") for event in ui.ask(query, id=run_id)["logsForRun"]["events"]]


@pytest.fixture(scope="module")
def cancelled(ui: Ui, page: Any, backfill: str) -> dict[str, Any]:
    """A run that was terminated, by the dialog of its page, while it worked on raw_items."""
    snapshot = ui.partitions()[0]
    with work_held_back(ui, "raw_items", snapshot) as key:
        made = len(Store(ui.home / "store").records("raw_items", key))
        run = launch(page, ui, SNAPSHOT, snapshot)
        ui.wait(run["runId"], ("STARTED",))
        page.goto(f"{ui.url}/runs/{run['runId']}")
        page.get_by_text("Started", exact=True).first.wait_for()
        assert wait_until(lambda: executing(ui, run["runId"], "raw_items"), 60), ui.log()
        page.get_by_role("button", name="Terminate").click()
        asked = time.monotonic()
        page.get_by_role("dialog").get_by_role("button", name="Terminate 1 run").click()
        ended = ui.wait(run["runId"])
        assert time.monotonic() - asked < 30
        assert len(Store(ui.home / "store").records("raw_items", key)) == made  # it has left nothing
    return ended


def test_a_running_run_is_cancelled_by_the_dialog_of_its_page_and_says_what_is_kept(ui: Ui, page: Any, cancelled: dict[str, Any]) -> None:
    assert cancelled["status"] == "CANCELED"
    page.get_by_text("Canceled", exact=True).first.wait_for()
    assert any("raw_items was interrupted" in line and "Re-execute" in line for line in log_lines(ui, cancelled["runId"]))
    process = Path(f"/proc/{worker(ui, cancelled['runId'])}")
    assert wait_until(lambda: not process.exists(), 10)


def worker(ui: Ui, run_id: str) -> int:
    """The process that worked on a run, by its log."""
    return int(next(found[1] for line in log_lines(ui, run_id) if (found := re.search(r"\(pid: (\d+)\)", line))))


def test_a_cancelled_run_is_executed_again_from_its_page_and_makes_what_was_missing(ui: Ui, page: Any, cancelled: dict[str, Any]) -> None:
    page.goto(f"{ui.url}/runs/{cancelled['runId']}")
    page.get_by_role("button", name="Re-execute all").click()
    page.wait_for_url(lambda url: "/runs/" in url and cancelled["runId"] not in url)
    again = ui.wait(page.url.rsplit("/", 1)[1])
    assert (again["status"], again["parentRunId"]) == ("SUCCESS", cancelled["runId"])
    assert {tag["value"] for tag in again["tags"] if tag["key"] == "dagster/partition"} == {ui.partitions()[0]}
    page.get_by_text("Success", exact=True).first.wait_for()
    store = Store(ui.home / "store")
    session = Session(store, load_params(None), lookup(store, ui.partitions()[0]))
    assert [session.find(BY_NAME[name]).facts["rows"] for name in RAW] == [40, 200]


@pytest.mark.parametrize("job", JOBS)
def test_the_launchpad_of_a_job_opens_with_defaults_that_are_valid_and_explained(ui: Ui, page: Any, job: str) -> None:
    dialog = launchpad(page, ui, job)
    dialog.get_by_text("No errors").wait_for()
    shown = dialog.inner_text()
    assert re.search(r"overrides:\s*\[\]", shown)
    assert re.search(r"store:\s*\S*store", shown)
    assert "Where a run reads and writes, and its parameters" in shown
    assert "No missing config" in shown
    for asset in JOBS[job]:
        dialog.get_by_text(asset).first.wait_for()


def test_a_job_launched_from_its_launchpad_takes_the_override_and_says_what_is_missing(ui: Ui, page: Any) -> None:
    snapshot = ui.partitions()[0]
    dialog = launchpad(page, ui, "evaluate")
    dialog.get_by_placeholder("Partition").click()
    page.get_by_text(snapshot).last.click()
    dialog.locator(".CodeMirror").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text('resources:\n  pipeline:\n    config:\n      overrides: ["evaluation.beams=30"]\n')
    dialog.get_by_text("No errors").wait_for()
    dialog.get_by_role("button", name="Materialize").last.click()
    page.wait_for_url("**/runs/*")
    run = ui.wait(page.url.rsplit("/", 1)[1])
    assert (run["jobName"], run["status"]) == ("evaluate", "FAILURE")  # nothing is trained here
    assert "evaluation.beams=30" in run["runConfigYaml"]
    page.get_by_role("textbox", name="Filter…", exact=True).fill("was never made")
    page.get_by_text(f"was never made for snapshot {snapshot}").first.wait_for()
    assert re.search(r"materialise \w+ first", page.inner_text("body"))


def test_a_backfill_makes_every_snapshot_one_at_a_time(ui: Ui, page: Any, backfill: str) -> None:
    assert wait_until(lambda: ui.backfills()[0]["status"] != "REQUESTED", 150), ui.log()
    (found,) = ui.backfills()
    assert (found["status"], sorted(found["partitionNames"])) == ("COMPLETED_SUCCESS", ui.partitions())
    runs = [run for run in ui.runs() if {"key": "dagster/backfill", "value": backfill} in run["tags"]]
    assert [run["status"] for run in runs] == ["SUCCESS"] * 2
    first, second = sorted(runs, key=lambda run: run["startTime"])
    assert first["endTime"] <= second["startTime"]  # two trainings would share the memory
    store = Store(ui.home / "store")
    for snapshot in ui.partitions():
        session = Session(store, load_params(None), lookup(store, snapshot))
        assert all(session.find(BY_NAME[name]).facts["rows"] for name in RAW)
    page.goto(f"{ui.url}/runs/b/{backfill}")
    page.get_by_text("Completed").first.wait_for()
    page.goto(f"{ui.url}/assets/raw_items?view=partitions")
    for snapshot in ui.partitions():
        page.get_by_text(snapshot).first.wait_for()


def test_sigterm_stops_every_process(ui: Ui) -> None:
    """The last of all tests that need the server."""
    assert {run["status"] for run in ui.runs()} <= set(ENDED)
    alive = ui.processes()
    assert len(alive) >= 4  # dagster dev, the code server, the webserver, the daemon
    ui.process.send_signal(signal.SIGTERM)
    assert ui.process.wait(40) == 0
    running = [pid for pid in alive if Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()]
    assert running == []
