"""A `diger ui` for tests: started as a user starts it, in a directory of its own, asked over GraphQL beside what its pages show."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.cli.ui import _members
from tests.support.snapshot_material import interactions, items, replaced, write

ENDED = ("SUCCESS", "FAILURE", "CANCELED")
RUN = "runId status jobName parentRunId runConfigYaml startTime endTime tags {key value} assetSelection {path}"


@dataclass
class Ui:
    """A running `diger ui`."""

    process: subprocess.Popen[bytes]
    url: str
    home: Path

    def ask(self, query: str, **variables: Any) -> Any:
        """One GraphQL query's data."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)["data"]

    def runs(self) -> list[dict[str, Any]]:
        """Newest first."""
        return self.ask(f"{{runsOrError(limit: 100) {{... on Runs {{results {{{RUN}}}}}}}}}")["runsOrError"]["results"]

    def run(self, run_id: str) -> dict[str, Any]:
        return next(run for run in self.runs() if run["runId"] == run_id)

    def wait(self, run_id: str, statuses: tuple[str, ...] = ENDED, seconds: float = 240) -> dict[str, Any]:
        """The run, once its status is one of these."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run = self.run(run_id)
            if run["status"] in statuses:
                return run
            assert run["status"] not in ENDED, (run, self.log())
            time.sleep(0.5)
        raise AssertionError((f"not {statuses} within {seconds} s", self.runs(), self.log()))

    def backfills(self) -> list[dict[str, Any]]:
        """Newest first."""
        query = "{partitionBackfillsOrError(limit: 5) {... on PartitionBackfills {results {id status partitionNames}}}}"
        return self.ask(query)["partitionBackfillsOrError"]["results"]

    def partitions(self) -> list[str]:
        node = self.ask('{assetNodeOrError(assetKey: {path: ["raw_items"]}) {... on AssetNode {partitionKeys}}}')
        return node["assetNodeOrError"]["partitionKeys"]

    def log(self) -> str:
        return (self.home / "ui.log").read_text()[-6000:]

    def processes(self) -> list[int]:
        """Dagster's processes: `diger ui` gives them a group of their own."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [pid for child in children for pid in _members(int(child))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(directory: Path, port: int) -> subprocess.Popen[bytes]:
    names = ("DAGSTER_HOME", "DIGER_STORE")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    with open(directory / "ui.log", "wb") as log:
        command = [sys.executable, "-c", "from orchestration.cli import main; main()", "ui", "--port", str(port)]
        return subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=subprocess.STDOUT)


def started(home: Path) -> Ui:
    """`diger ui` in the directory, on a free port, once it answers."""
    port = free_port()
    ui = Ui(start(home, port), f"http://127.0.0.1:{port}", home)
    try:
        wait_for(ui)
    except BaseException:
        stop(ui)
        raise
    return ui


def stop(ui: Ui) -> None:
    if ui.process.poll() is None:
        ui.process.send_signal(signal.SIGTERM)
        ui.process.wait(60)


@contextmanager
def running_ui(home: Path) -> Iterator[Ui]:
    ui = started(home)
    try:
        yield ui
    finally:
        stop(ui)


def wait_for(ui: Ui) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and ui.process.poll() is None:
        try:
            urllib.request.urlopen(f"{ui.url}/server_info", timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError((ui.home / "ui.log").read_text())


def tiny_demo(directory: Path) -> None:
    """Two tiny snapshots in the demo's place: a good one, and one with a third of its events on unknown items."""
    good, bad = interactions(), interactions(users=26)
    bad = replaced(bad, "item_id", dict.fromkeys(range(0, bad.num_rows, 3), 9_999))
    for name, events in (("demo-1", good), ("demo-2", bad)):
        (write(directory / "data/snapshots" / name, events, items()) / "_SUCCESS").touch()


def run_raw_items(ui: Ui, snapshot: str) -> dict[str, Any]:
    """A run of asset raw_items for a snapshot, launched over GraphQL, once it has ended."""
    given = {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "orchestration.definitions",
            "pipelineName": "retrain",
            "assetSelection": [{"path": ["raw_items"]}],
        },
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": snapshot}]},
        "runConfigData": {},
        "mode": "default",
    }
    query = """mutation($params: ExecutionParams!) {launchPipelineExecution(executionParams: $params)
{... on LaunchRunSuccess {run {runId}} ... on PythonError {message} ... on RunConfigValidationInvalid {errors {message}}}}"""
    made = ui.ask(query, params=given)["launchPipelineExecution"]
    assert "run" in made, made
    return ui.wait(made["run"]["runId"])


def launch(page: Any, ui: Ui, path: str, *snapshots: str) -> dict[str, Any]:
    """Launches what a page of assets shows, for the snapshots named, by its "Materialize all" button and dialog; returns the new run."""
    page.goto(f"{ui.url}{path}")
    page.get_by_role("button", name="Materialize" if "/jobs/" in path else "Materialize all").first.click()  # a job may have one asset
    page.get_by_text("Select a partition or create one").click()
    for snapshot in snapshots:
        page.get_by_text(snapshot).first.click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Launch 1 run").click()
    told = page.get_by_text("Launched run").first
    told.wait_for()
    begins = re.search(r"Launched run (\w+)", told.inner_text())
    assert begins, told.inner_text()
    return next(run for run in ui.runs() if run["runId"].startswith(begins[1]))


def ended(page: Any, ui: Ui, run_id: str, seconds: float = 240) -> dict[str, Any]:
    """The run, once it has ended. The page is left first: one that shows work under way is drawn without end, which takes a core from the run."""
    page.goto("about:blank")
    return ui.wait(run_id, seconds=seconds)


def launchpad(page: Any, ui: Ui, job: str) -> Any:
    """The dialog of a job's launchpad, with every default written out."""
    page.goto(f"{ui.url}/locations/orchestration.definitions/jobs/{job}")
    page.get_by_role("button", name="Materialize").first.click(modifiers=["Shift"])
    opened, warned = page.get_by_text("Scaffold all default config"), page.get_by_role("button", name="Confirm")
    opened.or_(warned).wait_for()
    if warned.is_visible():  # "may fail because the upstream assets have not been materialized yet"
        warned.click()
        opened.wait_for()
    return page.get_by_role("dialog").filter(has=opened)
