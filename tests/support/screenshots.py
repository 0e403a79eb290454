"""A picture of every page and state, to be looked at: `python -m tests.support.screenshots OUT_DIR` (minutes).

A small shop is taken through Dagster's UI in a headless browser: the pages before anything ran, a run of everything, a refused candidate, a bad
snapshot, a cancelled run, a backfill; then the pages of the reports, in light and dark, wide and narrow, and as printed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from orchestration.graph import STAGES
from tests.support.browser import browser_page
from tests.support.retraining_world import FIRST, LENIENT, RENAMED, SECOND, SMALL, shop
from tests.support.snapshot_material import write
from tests.support.ui_server import Ui, launch, launchpad, running_ui

PARAMS: dict[str, Any] = {
    **SMALL,
    "gate": LENIENT,
    "retraining": {"epochs": 1},
    "decay_search": {"trials": 3, "finalists": 1, "seeds": 1},
    "training_comparison": {"seeds": 1},
}
JOBS = ("arrival", "assign_new_items", "retrain", "evaluate", "gate_and_release", "recommend", "tune")
EVERYTHING = "/asset-groups"
FIRST_GROUP = "/locations/orchestration.definitions/asset-groups/1_snapshot/lineage"
PAPER = 720  # CSS pixels of an A4 page between margins of a centimetre
VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 400)]


class Camera:
    """Numbered pictures of one browser's page."""

    def __init__(self, page: Any, folder: Path) -> None:
        self.page, self.folder, self.taken = page, folder, 0

    def take(self, name: str, path: str | None = None, seconds: float = 2.0, whole: bool = False) -> None:
        """Goes to the address where one is given, lets the page settle, and writes NN-NAME.png."""
        if path is not None:
            self.page.goto(path)
        self.page.wait_for_timeout(seconds * 1000)
        self.page.get_by_text("Loading run logs").wait_for(state="hidden")
        self.taken += 1
        place = self.folder / f"{self.taken:02d}-{name}.png"
        self.page.screenshot(path=str(place), full_page=whole)
        print(place, flush=True)


def small_shop(home: Path) -> None:
    """Parameters, and two snapshots where `diger ui` looks for the demo's."""
    (home / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    for name, tables in (("demo-1", shop(FIRST, 60)), ("demo-2", shop(SECOND, 70, 9, RENAMED))):
        (write(home / "data/snapshots" / name, *tables) / "_SUCCESS").touch()


def dagster(camera: Camera, ui: Ui) -> None:
    before_any_run(camera, ui)
    first, second = ui.partitions()
    everything(camera, ui, first)
    refused(camera, ui, second)
    cancelled(camera, ui, second)
    backfilled(camera, ui)
    assets(camera, ui)


def before_any_run(camera: Camera, ui: Ui) -> None:
    page = camera.page
    pages = {"overview": "/", "catalog": "/assets", "jobs": "/jobs", "automation": "/automation", "deployment": "/deployment/locations"}
    for name, path in pages.items():
        camera.take(f"fresh-{name}", f"{ui.url}{path}", 3)
    lineage(camera, ui, "fresh")
    for job in JOBS:
        camera.take(f"job-{job}", f"{ui.url}/locations/orchestration.definitions/jobs/{job}")
        launchpad(page, ui, job)
        camera.take(f"launchpad-{job}")
    page.goto(f"{ui.url}{EVERYTHING}")
    page.get_by_text("Materialize all").first.click()
    page.get_by_text("Select a partition or create one").click()
    camera.take("materialize-all")


def lineage(camera: Camera, ui: Ui, state: str) -> None:
    camera.take(f"{state}-lineage", f"{ui.url}{EVERYTHING}", 4)
    camera.take(f"{state}-lineage-of-the-report", f"{ui.url}/assets/report?view=lineage&lineageScope=upstream&lineageDepth=20", 4)
    for group in sorted({stage.group for stage in STAGES}):
        camera.take(f"{state}-group-{group}", f"{ui.url}/locations/orchestration.definitions/asset-groups/{group}/lineage", 3)


def everything(camera: Camera, ui: Ui, snapshot: str) -> None:
    run = launch(camera.page, ui, EVERYTHING, snapshot)["runId"]
    camera.take("launched", seconds=0.5)
    ui.wait(run, ("STARTED",))
    camera.take("run-running", f"{ui.url}/runs/{run}", 15)
    ended = ui.wait(run, seconds=600)
    assert ended["status"] == "SUCCESS", ui.log()
    camera.take("run-succeeded", f"{ui.url}/runs/{run}")
    camera.take("runs", f"{ui.url}/runs")
    lineage(camera, ui, "done")


def refused(camera: Camera, ui: Ui, snapshot: str) -> None:
    """A candidate that the gate refuses, and a snapshot that breaks a rule: configured in the launchpad, shown where they failed."""
    for name, job, override, told in (
        ("refused", "retrain", "gate.min_relative_ndcg=2.0", "What served before still serves"),
        ("bad-snapshot", "arrival", "validated_items.min_items=1000000", "too few items"),
        ("wrong-override", "evaluate", "evaluation.beam=10", "beam"),
    ):
        dialog = launchpad(camera.page, ui, job)
        dialog.get_by_placeholder("Partition").click()
        camera.page.get_by_text(snapshot).last.click()
        dialog.locator(".CodeMirror").first.click()
        camera.page.keyboard.press("Control+A")
        camera.page.keyboard.insert_text(f'resources:\n  pipeline:\n    config:\n      overrides: ["{override}"]\n')
        camera.take(f"{name}-launchpad")
        dialog.get_by_role("button", name="Materialize").last.click()
        camera.page.wait_for_url("**/runs/*")
        ended = ui.wait(camera.page.url.rsplit("/", 1)[1], seconds=600)
        assert ended["status"] == ("SUCCESS" if name == "refused" else "FAILURE"), ended  # a refusal is a result
        camera.take(f"{name}-run", f"{ui.url}/runs/{ended['runId']}")
        camera.page.get_by_role("textbox", name="Filter…", exact=True).fill(told)
        camera.page.get_by_text(re.compile(re.escape(told))).nth(0).wait_for()  # or it is another failure than the one meant
        camera.take(f"{name}-message")


def cancelled(camera: Camera, ui: Ui, snapshot: str) -> None:
    run = launch(camera.page, ui, EVERYTHING, snapshot)["runId"]
    ui.wait(run, ("STARTED",))
    camera.page.goto(f"{ui.url}/runs/{run}")
    camera.page.get_by_role("button", name="Terminate").click()
    camera.take("terminate", seconds=1)
    camera.page.get_by_role("dialog").get_by_role("button", name="Terminate 1 run").click()
    ui.wait(run)
    camera.take("run-cancelled", f"{ui.url}/runs/{run}")


def backfilled(camera: Camera, ui: Ui) -> None:
    page = camera.page
    page.goto(f"{ui.url}{FIRST_GROUP}")
    page.get_by_text("Materialize all").first.click()
    page.get_by_role("dialog").get_by_role("button", name="All", exact=True).click()
    camera.take("backfill-dialog")
    page.get_by_role("dialog").get_by_role("button", name="Launch backfill").click()
    camera.take("backfills", f"{ui.url}/runs?view=backfills")
    camera.take("backfill-running", f"{ui.url}/runs/b/{ui.backfills()[0]['id']}")
    page.get_by_text("Completed").first.wait_for(timeout=180_000)
    camera.take("backfill-completed")


def assets(camera: Camera, ui: Ui) -> None:
    for stage in STAGES:
        camera.take(f"asset-{stage.name}", f"{ui.url}/assets/{stage.name}")
        if camera.page.get_by_text("[Show Markdown]").count():
            camera.page.get_by_text("[Show Markdown]").first.click()
            camera.take(f"asset-{stage.name}-markdown", seconds=1)
    for stage in ("validated_items", "validated_interactions", "joint_model", "evaluation", "gate", "report"):
        camera.take(f"asset-{stage}-checks", f"{ui.url}/assets/{stage}?view=checks")
    for view in ("partitions", "events"):
        camera.take(f"asset-sequences-{view}", f"{ui.url}/assets/sequences?view={view}")
    camera.page.goto(f"{ui.url}/assets/evaluation")
    camera.page.get_by_role("button", name="Plots").click()
    camera.take("asset-evaluation-plots")


def reports(camera: Camera, home: Path) -> None:
    """The pages that `diger` writes from the store: a report, two side by side, the study's."""
    made = {"report": ["report", "show", "champion"], "compare": ["report", "compare", "champion", "report"]}
    pages = {}
    for name, arguments in made.items():
        pages[name] = home / f"{name}.html"
        command = [sys.executable, "-c", "from orchestration.cli import main; main()", *arguments, "--out", str(pages[name])]
        subprocess.run(command, cwd=home, check=True)
    pages["study"] = next((home / "store/artefacts/decay_search").rglob("*.html"))
    for name, path in pages.items():
        for scheme, width in VIEWS:
            camera.page.set_viewport_size({"width": width, "height": 900})
            camera.page.emulate_media(color_scheme=scheme, media="screen")
            camera.take(f"{name}-{scheme}-{width}", path.as_uri(), 1, whole=True)
        camera.page.set_viewport_size({"width": PAPER, "height": 900})
        camera.page.emulate_media(color_scheme="light", media="print")
        camera.take(f"{name}-printed", path.as_uri(), 1, whole=True)


@contextmanager
def browser(folder: Path) -> Iterator[Camera]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, browser_page(Path(profile)) as page:
        yield Camera(page, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="where the pictures go")
    parser.add_argument("--home", type=Path, help="keep the small shop and its store here (default: a directory that disappears)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = (given.home or Path(scratch)).absolute()
        home.mkdir(parents=True, exist_ok=True)
        small_shop(home)
        with running_ui(home) as ui, browser(given.out / "dagster") as camera:
            dagster(camera, ui)
        with browser(given.out / "reports") as camera:
            reports(camera, home)


if __name__ == "__main__":
    main()
