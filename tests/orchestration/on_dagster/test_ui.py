"""Dagster's UI as a user meets it: started by `diger ui` in an empty directory, driven in a real browser."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from orchestration.graph import STAGES
from orchestration.on_dagster.presentation import group_label
from tests.support.ui_server import Ui, ended, free_port, launch, start, wait_for

pytestmark = pytest.mark.timeout(900)  # a run from the page starts processes, and two cores may be busy with other tests

__all__ = ["free_port", "wait_for"]

EARLY = ("raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences")


SEQUENCES = "/assets/sequences?view=lineage&lineageScope=upstream&lineageDepth=5"


def materialise(page: Any, ui: Ui, partition: str) -> dict[str, Any]:
    """Launches the early assets for one partition by the buttons of the lineage page; returns the ended run."""
    return ended(page, ui, launch(page, ui, SEQUENCES, partition)["runId"])


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
    assert [key.rsplit("-", 1)[0] for key in ui.partitions()] == ["demo-1", "demo-2"]
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
    for group in sorted({group_label(stage) for stage in STAGES}, reverse=True):  # from the bottom: what opens moves only what is below
        label = page.get_by_text(group, exact=True).first
        label.wait_for()
        box = label.bounding_box()
        page.mouse.click(box["x"] - 40, box["y"] + box["height"] / 2)
        for stage in STAGES:
            if group_label(stage) == group:
                page.get_by_text(stage.name, exact=True).first.wait_for()


def test_materialising_from_the_page_succeeds_and_a_second_time_reuses(ui: Ui, page: Any) -> None:
    good = ui.partitions()[0]
    assert materialise(page, ui, good)["status"] == "SUCCESS"
    page.goto(f"{ui.url}/assets/validated_items?view=events")
    page.get_by_text("content_hash", exact=True).first.wait_for()
    assert metadata(ui, "sequences", good)["reused"] is False
    page.goto(f"{ui.url}/assets/validated_items?view=checks")
    page.get_by_text("Passed", exact=True).first.wait_for()
    page.get_by_text("volume", exact=True).first.click()  # the first one shown may be a check that only warns
    page.get_by_text("This is a blocking asset check").wait_for()

    assert materialise(page, ui, good)["status"] == "SUCCESS"
    for name in EARLY:
        assert metadata(ui, name, good)["reused"] is True
    page.goto(f"{ui.url}/assets/sequences?view=events")
    row = page.get_by_role("row").filter(has=page.get_by_text("reused", exact=True)).first
    row.wait_for()
    assert "true" in row.inner_text()


def test_a_bad_snapshot_fails_its_run_with_a_message_that_says_what_to_do(ui: Ui, page: Any) -> None:
    run = materialise(page, ui, ui.partitions()[1])
    assert run["status"] == "FAILURE"
    page.goto(f"{ui.url}/runs/{run['runId']}")
    page.get_by_text("Steps failed: ['validated_interactions']").first.wait_for()
    page.get_by_role("textbox", name="Filter…", exact=True).fill("fix these rows")
    page.get_by_text("fix these rows").first.wait_for()
    shown = page.inner_text("body")
    assert "interactions.parquet" in shown
    assert "max_quarantined" in shown  # the remedy


def test_a_failed_run_goes_on_from_its_failure_once_the_remedy_is_taken(ui: Ui, page: Any) -> None:
    """After the test before: the share of bad rows is allowed, as the message says, and the failed run's page starts what is left."""
    failed = next((run for run in ui.runs() if run["status"] == "FAILURE"), None)
    assert failed, "the test before has made none"
    params = ui.home / "params.yaml"
    before = params.read_bytes() if params.exists() else None
    params.write_text("validated_interactions: {max_quarantined: 0.5}\n")
    try:
        page.goto(f"{ui.url}/runs/{failed['runId']}")
        page.get_by_role("button").filter(has=page.get_by_label("arrow_drop_down")).click()
        page.get_by_text("From failure", exact=True).click()
        page.wait_for_url(lambda url: "/runs/" in url and failed["runId"] not in url)
        again = ended(page, ui, page.url.rsplit("/", 1)[1])
    finally:
        if before is None:
            params.unlink()
        else:
            params.write_bytes(before)
    assert (again["status"], again["parentRunId"]) == ("SUCCESS", failed["runId"]), ui.log()
    assert steps(ui, again["runId"]) == {"validated_interactions", "sequences"}  # and not what had succeeded


def steps(ui: Ui, run_id: str) -> set[str]:
    """Steps that were executed in a run."""
    query = "query($id: ID!) {runOrError(runId: $id) {... on Run {stepStats {stepKey startTime}}}}"
    return {step["stepKey"] for step in ui.ask(query, id=run_id)["runOrError"]["stepStats"] if step["startTime"]}


def metadata(ui: Ui, asset: str, partition: str) -> dict[str, Any]:
    """Booleans of the newest materialisation of an asset's partition."""
    query = """query($path: [String!]!, $partitions: [String!]) {assetNodeOrError(assetKey: {path: $path}) {... on AssetNode {
      assetMaterializations(partitions: $partitions, limit: 1) {metadataEntries {label ... on BoolMetadataEntry {boolValue}}}}}}"""
    node = ui.ask(query, path=[asset], partitions=[partition])["assetNodeOrError"]
    return {entry["label"]: entry.get("boolValue") for entry in node["assetMaterializations"][0]["metadataEntries"]}
