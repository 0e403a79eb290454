"""Dagster's UI as a user meets it: started by `diger ui` in an empty directory, driven in a real browser."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestration.cli.ui import _members
from orchestration.graph import STAGES
from tests.browser import browser_page, chromium
from tests.orchestration.snapshot_material import interactions, items, replaced, write

EARLY = ("raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences")


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
        return self.ask("{runsOrError(limit: 20) {... on Runs {results {runId status}}}}")["runsOrError"]["results"]

    def finished_run(self, number: int) -> dict[str, Any]:
        """The newest run, once there are `number` of them and it has ended."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            runs = self.runs()
            if len(runs) == number and runs[0]["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
                return runs[0]
            time.sleep(0.5)
        raise AssertionError(f"no run number {number} ended: {self.runs()}")

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


def tiny_demo(directory: Path) -> None:
    """Two tiny snapshots in the demo's place: a good one, and one with a third of its events on unknown items."""
    good, bad = interactions(), interactions(users=26)
    bad = replaced(bad, "item_id", dict.fromkeys(range(0, bad.num_rows, 3), 9_999))
    for name, events in (("demo-1", good), ("demo-2", bad)):
        (write(directory / "data/snapshots" / name, events, items()) / "_SUCCESS").touch()


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    chromium()  # skips before anything is started
    home = tmp_path_factory.mktemp("ui")
    tiny_demo(home)
    port = free_port()
    running = Ui(start(home, port), f"http://127.0.0.1:{port}", home)
    try:
        wait_for(running)
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(60)


def wait_for(ui: Ui) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and ui.process.poll() is None:
        try:
            urllib.request.urlopen(f"{ui.url}/server_info", timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError((ui.home / "ui.log").read_text())


@pytest.fixture(scope="module")
def page(ui: Ui, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        yield page


def materialise(page: Any, ui: Ui, partition: str) -> dict[str, Any]:
    """Launches the early assets for one partition by the buttons of the lineage page; returns the ended run."""
    before = len(ui.runs())
    page.goto(f"{ui.url}/assets/sequences?view=lineage&lineageScope=upstream&lineageDepth=5")
    page.get_by_text("raw_interactions").first.wait_for()
    page.get_by_text("Materialize all").first.click()
    page.get_by_text("Select a partition or create one").click()
    page.get_by_text(partition).first.click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Launch 1 run").click()
    page.get_by_text("Launched run").first.wait_for()
    return ui.finished_run(before + 1)


def partitions(ui: Ui) -> list[str]:
    node = ui.ask('{assetNodeOrError(assetKey: {path: ["raw_items"]}) {... on AssetNode {partitionKeys}}}')
    return node["assetNodeOrError"]["partitionKeys"]


def test_a_taken_port_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(tmp_path, port)
        assert process.wait(60) == 1
    text = (tmp_path / "ui.log").read_text().strip()
    assert text.startswith(f"diger: port {port} of 127.0.0.1 cannot be used")
    assert "--port" in text
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_the_demo_snapshots_are_partitions_and_every_listening_socket_is_on_loopback(ui: Ui) -> None:
    assert [key.rsplit("-", 1)[0] for key in partitions(ui)] == ["demo-1", "demo-2"]
    inodes = {os.readlink(fd) for pid in ui.processes() for fd in Path(f"/proc/{pid}/fd").glob("*") if fd.is_symlink()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in inodes:
                found.append(columns[1].split(":"))
    assert f"{int(ui.url.rsplit(':', 1)[1]):04X}" in [port for _, port in found]
    assert {address for address, _ in found} == {"0100007F"}


def test_the_lineage_page_shows_every_asset_in_its_group(ui: Ui, page: Any) -> None:
    page.goto(f"{ui.url}/asset-groups")
    page.get_by_text("Materialize all").first.wait_for()
    assert page.get_by_role("dialog").count() == 0  # no first-visit dialog
    for group in sorted({stage.group for stage in STAGES}, reverse=True):  # from the bottom: what opens moves only what is below
        label = page.get_by_text(group, exact=True).first
        label.wait_for()
        box = label.bounding_box()
        page.mouse.click(box["x"] - 40, box["y"] + box["height"] / 2)
        for stage in STAGES:
            if stage.group == group:
                page.get_by_text(stage.name, exact=True).first.wait_for()


def test_materialising_from_the_page_succeeds_and_a_second_time_reuses(ui: Ui, page: Any) -> None:
    good = partitions(ui)[0]
    assert materialise(page, ui, good)["status"] == "SUCCESS"
    page.goto(f"{ui.url}/assets/validated_items?view=events")
    page.get_by_text("content_hash", exact=True).first.wait_for()
    assert metadata(ui, "sequences", good)["reused"] is False
    page.goto(f"{ui.url}/assets/validated_items?view=checks")
    page.get_by_text("This is a blocking asset check").wait_for()
    page.get_by_text("Passed", exact=True).first.wait_for()

    assert materialise(page, ui, good)["status"] == "SUCCESS"
    for name in EARLY:
        assert metadata(ui, name, good)["reused"] is True
    page.goto(f"{ui.url}/assets/sequences?view=events")
    row = page.get_by_role("row").filter(has=page.get_by_text("reused", exact=True)).first
    row.wait_for()
    assert "true" in row.inner_text()


def test_a_bad_snapshot_fails_its_run_with_a_message_that_says_what_to_do(ui: Ui, page: Any) -> None:
    run = materialise(page, ui, partitions(ui)[1])
    assert run["status"] == "FAILURE"
    page.goto(f"{ui.url}/runs/{run['runId']}")
    page.get_by_text("Steps failed: ['validated_interactions']").first.wait_for()
    page.get_by_role("textbox", name="Filter…", exact=True).fill("mend these rows")
    page.get_by_text("mend these rows").first.wait_for()
    shown = page.inner_text("body")
    assert "interactions.parquet" in shown
    assert "max_quarantined" in shown  # the remedy


def metadata(ui: Ui, asset: str, partition: str) -> dict[str, Any]:
    """Booleans of the newest materialisation of an asset's partition."""
    query = """query($path: [String!]!, $partitions: [String!]) {assetNodeOrError(assetKey: {path: $path}) {... on AssetNode {
      assetMaterializations(partitions: $partitions, limit: 1) {metadataEntries {label ... on BoolMetadataEntry {boolValue}}}}}}"""
    node = ui.ask(query, path=[asset], partitions=[partition])["assetNodeOrError"]
    return {entry["label"]: entry.get("boolValue") for entry in node["assetMaterializations"][0]["metadataEntries"]}


def test_sigterm_stops_every_process(ui: Ui) -> None:
    alive = ui.processes()
    assert len(alive) >= 4  # dagster dev, the code server, the webserver, the daemon
    ui.process.send_signal(signal.SIGTERM)
    assert ui.process.wait(40) == 0
    running = [pid for pid in alive if Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()]
    assert running == []
