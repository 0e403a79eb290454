"""The cycle unattended: `diger ui` with a real daemon, and three snapshots that arrive one after the other."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from diger_core.store.artefacts import Store
from orchestration.champion import log as champion
from orchestration.engine.registry import registered
from tests.support.retraining_world import FIRST, LENIENT, RENAMED, SECOND, SMALL, shop
from tests.support.snapshot_material import write
from tests.support.ui_server import ENDED, Ui, free_port, start, wait_for

PARAMS: dict[str, Any] = SMALL | {
    "arrival": {"enabled": True, "watch": "incoming", "interval_seconds": 1},
    "gate": LENIENT,
    "retraining": {"epochs": 1},
    "frozen_model": {"enabled": False},
}


def drop(folder: Path, name: str, events: Any, items: Any) -> None:
    """A snapshot, its marker last."""
    (write(folder / "incoming" / name, events, items) / "_SUCCESS").touch()


def runs(ui: Ui) -> list[dict[str, Any]]:
    """Oldest first."""
    query = "{runsOrError(limit: 100) {... on Runs {results {runId jobName status tags {key value}}}}}"
    return ui.ask(query)["runsOrError"]["results"][::-1]


def until(ui: Ui, job: str, number: int, seconds: float = 240) -> None:
    """Waits for the end of the `number`-th run of a job; any failed run ends the test at once."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = runs(ui)
        assert all(run["status"] != "FAILURE" for run in found), (found, (ui.home / "ui.log").read_text()[-6000:])
        if [run["status"] for run in found if run["jobName"] == job and run["status"] in ENDED] == ["SUCCESS"] * number:
            return
        time.sleep(0.5)
    raise AssertionError((f"no run number {number} of {job}", runs(ui), (ui.home / "ui.log").read_text()[-6000:]))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_snapshots_arrive_and_are_trained_retrained_and_given_ids_without_a_click(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    (tmp_path / "incoming").mkdir()
    port = free_port()
    ui = Ui(start(tmp_path, port), f"http://127.0.0.1:{port}", tmp_path)
    try:
        wait_for(ui)
        store = Store(tmp_path / "store")
        write(tmp_path / "incoming" / "half", *shop(FIRST, 60))  # no marker: never taken up

        drop(tmp_path, "first", *shop(FIRST, 60))
        until(ui, "gate_and_release", 1)
        drop(tmp_path, "second", *shop(SECOND, 70, 9, RENAMED))
        until(ui, "gate_and_release", 2)
        drop(tmp_path, "third", *shop([*SECOND, 66], 70, 9, RENAMED))
        drop(tmp_path, "third-again", *shop([*SECOND, 66], 70, 9, RENAMED))
        until(ui, "assign_new_items", 1)
        time.sleep(12)  # several more looks of each sensor: nothing else may start

        found = runs(ui)
        assert Counter(run["jobName"] for run in found) == {"arrival": 3, "retrain": 2, "gate_and_release": 2, "assign_new_items": 1}
        assert {run["status"] for run in found} == {"SUCCESS"}
        keys = [entry.key for entry in registered(store)]
        assert [key.rsplit("-", 1)[0] for key in keys] == ["first", "second", "third"]  # the same bytes under another name are no fourth
        log = champion.history(store)
        assert [(entry.number, entry.action) for entry in log] == [(1, "release"), (2, "release")]
        assert log[1].previous == log[0].bundle
        assert log[1].verdict is not None
    finally:
        alive = ui.processes() if ui.process.poll() is None else []
        if ui.process.poll() is None:
            ui.process.send_signal(signal.SIGTERM)
            ui.process.wait(60)
    running = [pid for pid in alive if Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()]
    assert len(alive) >= 4
    assert running == []
