""" "Materialize all" at once, and every job to its end, by the buttons of the UI, over the small shop of the screenshots."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diger_core.store.artefacts import Store
from orchestration.champion import log as champion
from orchestration.engine.registry import lookup
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME, STAGES
from orchestration.params.load import load_params
from tests.support.browser import browser_page, chromium
from tests.support.screenshots import EVERYTHING, JOBS, small_shop
from tests.support.ui_server import Ui, ended, launch, running_ui

DAGSTER = {
    *("fresh-overview", "fresh-lineage", "launchpad-retrain", "run-running", "refused-message", "run-cancelled", "backfill-completed"),
    *(f"asset-{stage.name}" for stage in STAGES),
    *(f"job-{job}" for job in JOBS),
}
REPORTS = {f"{name}-{state}" for name in ("report", "compare", "study") for state in ("light-1280", "dark-400", "printed")}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def shop_ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    chromium()
    home = tmp_path_factory.mktemp("shop")
    small_shop(home)
    with running_ui(home) as running:
        yield running


@pytest.fixture(scope="module")
def shop_page(shop_ui: Ui, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        yield page


def started_at(ui: Ui, run_id: str) -> dict[str, float]:
    query = "query($id: ID!) {runOrError(runId: $id) {... on Run {stepStats {stepKey startTime}}}}"
    return {step["stepKey"]: step["startTime"] for step in ui.ask(query, id=run_id)["runOrError"]["stepStats"]}


def test_materialize_all_makes_every_asset_and_the_study_delays_no_release(shop_ui: Ui, shop_page: Any) -> None:
    snapshot = shop_ui.partitions()[0]
    run = ended(shop_page, shop_ui, launch(shop_page, shop_ui, EVERYTHING, snapshot)["runId"], seconds=600)
    assert run["status"] == "SUCCESS", shop_ui.log()
    began = started_at(shop_ui, run["runId"])
    assert set(began) == {stage.name for stage in STAGES}
    assert began["report"] < began["release"] < began["recommendations"] < began["decay_search"] < began["tuned_model"]
    store = Store(shop_ui.home / "store")
    session = Session(store, load_params(str(shop_ui.home / "params.yaml")), lookup(store, snapshot))
    (entry,) = champion.history(store)
    assert session.find(BY_NAME["recommendations"]).facts["champion"] == entry.bundle
    shop_page.goto(f"{shop_ui.url}/runs/{run['runId']}")
    shop_page.get_by_text("Success", exact=True).first.wait_for()


@pytest.mark.parametrize("job", ["retrain", "gate_and_release", "assign_new_items", "evaluate", "tune", "compare_training"])
def test_each_job_runs_to_its_end_on_the_next_snapshot(shop_ui: Ui, shop_page: Any, job: str) -> None:
    snapshot = shop_ui.partitions()[1]
    path = f"/locations/orchestration.definitions/jobs/{job}"
    run = ended(shop_page, shop_ui, launch(shop_page, shop_ui, path, snapshot)["runId"], seconds=600)
    assert (run["jobName"], run["status"]) == (job, "SUCCESS"), shop_ui.log()
    if job == "gate_and_release":
        store = Store(shop_ui.home / "store")
        first, second = champion.history(store)
        assert (second.action, second.previous) == ("release", first.bundle)


def test_the_script_takes_a_picture_of_every_page_and_state(tmp_path: Path) -> None:
    chromium()
    command = [sys.executable, "-m", "tests.support.screenshots", str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).resolve().parents[3])
    for folder, states in (("dagster", DAGSTER), ("reports", REPORTS)):
        pictures = list((tmp_path / folder).glob("*.png"))
        assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
        assert states <= {picture.stem.partition("-")[2] for picture in pictures}
