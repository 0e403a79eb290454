"""A run launched through Dagster's webserver as its UI does, and terminated there: within ten seconds nothing of it is left, and the next launch
continues from the last checkpoint. On a private Ray, and with the training behind a job server."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from diger_core.store.artefacts import Store
from diger_core.training import checkpoint as checkpoints
from orchestration.engine.registry import register
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME, upstream
from orchestration.on_ray import jobs as ray_jobs
from orchestration.params.cluster import ClusterConfig
from orchestration.params.load import build_params
from tests.support.ray_processes import JobServer, descendants, job_server
from tests.support.retraining_world import FIRST, SMALL, shop
from tests.support.snapshot_material import write
from tests.support.ui_server import Ui, running_ui

WITHIN = 10.0  # seconds from the request to the end of everything
LONG = {"epochs": 5000, "patience": 5000}
PARAMS: dict[str, Any] = SMALL | {
    "training": SMALL["training"] | LONG,
    "joint_model": SMALL["joint_model"] | {"collapse_unique_prefixes": 0.0, "collapse_perplexity": 0.0},
    "cluster": {"workers": 1, "checkpoint_steps": 1},  # nearly always at storing a checkpoint
}
LAUNCH = """mutation($execution: ExecutionParams!) {launchRun(executionParams: $execution) {
  __typename ... on LaunchRunSuccess {run {runId}} ... on Error {message}}}"""
TERMINATE = """mutation($id: String!) {terminateRun(runId: $id) {__typename ... on TerminateRunFailure {message}}}"""
EVENTS = """query($id: ID!) {logsForRun(runId: $id) {... on EventConnection {events {
  ... on MessageEvent {message} ... on ExecutionStepFailureEvent {error {cause {message}}}}}}}"""


@dataclass
class World:
    ui: Ui
    store: Store
    snapshot: str
    key: str  # of the joint model's record
    server: JobServer

    def launch(self, *overrides: str) -> str:
        execution = {
            "selector": {
                "repositoryName": "__repository__", "repositoryLocationName": "orchestration.definitions", "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": ["joint_model"]}],
            },
            "mode": "default",
            "runConfigData": {"resources": {"pipeline": {"config": {"overrides": list(overrides)}}}},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": self.snapshot}]},
        }  # fmt: skip
        launched = self.ui.ask(LAUNCH, execution=execution)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def status(self, run: str) -> str:
        return self.ui.run(run)["status"]

    def said(self, run: str) -> str:
        return "\n".join(f"{event.get('message', '')} {event.get('error') or ''}" for event in self.ui.ask(EVENTS, id=run)["logsForRun"]["events"])

    def processes(self) -> set[int]:
        """All that descends from Dagster, but Python's own helper of its code server; and what works for a job on the job server's cluster."""
        ours = {pid for pid in descendants(self.ui.process.pid) if b"resource_tracker" not in command_line(pid)}
        return ours | {pid for pid in descendants(self.server.head) if works_for_a_job(command_line(pid))}

    @property
    def saved(self) -> Path:
        return Path(self.store.root.at("checkpoints", self.key))

    def steps(self) -> list[int]:
        """Steps of complete checkpoints."""
        return [int(name) for name in checkpoints.steps(self.saved) if (self.saved / name / checkpoints.MANIFEST).is_file()]

    def jobs(self) -> list[str]:
        """Jobs that have not ended."""
        return [job.submission_id for job in ray_jobs._client(self.server.address).list_jobs() if not job.status.is_terminal()]


def works_for_a_job(line: bytes) -> bool:
    """Not what the cluster keeps for the next one: idle workers, and the one actor that Ray detaches from all runs."""
    kept = (b"ray::IDLE", b"ray::_AutoscalingCoordinatorActor")
    return b"orchestration.on_ray.jobs" in line or (line.startswith(b"ray::") and not line.startswith(kept))


def runs_the_steps(pid: int) -> bool:
    """Dagster's own process of the run: it has nothing left to do but to end, which takes a Python with torch a while."""
    return b"multiprocessing.spawn" in command_line(pid)


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait(condition: Callable[[], Any], world: World, run: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert world.status(run) not in ("FAILURE", "SUCCESS"), world.said(run)[-4000:]
        assert time.monotonic() < end, world.said(run)[-4000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything up to the tokenizer is made; `diger ui` runs, its parameters ask for a training that would take an hour."""
    home = tmp_path_factory.mktemp("home")
    store, chosen = Store(home / "store"), build_params(PARAMS)
    snapshot = register(store, str(write(home / "data/snapshots/demo-1", *shop(FIRST, 60))))
    (home / "data/snapshots/demo-1/_SUCCESS").touch()
    (write(home / "data/snapshots/demo-2", *shop(FIRST, 61)) / "_SUCCESS").touch()
    here = replace(chosen, cluster=ClusterConfig(workers=0))
    for name in (name for name in BY_NAME if name in upstream({"joint_model"}) and name != "joint_model"):
        Session(store, here, snapshot).materialise(BY_NAME[name])
    key, _ = Session(store, here, snapshot).resolve(BY_NAME["joint_model"])
    (home / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")

    with job_server() as server, running_ui(home) as ui:
        yield World(ui, store, snapshot.key, key, server)


def terminate(world: World, run: str, before: set[int]) -> float:
    """Terminates the run as the UI's button does, and holds it to what termination promises; returns the seconds that this took."""
    made = private_directories(world.processes() - before)
    asked = time.monotonic()

    def left() -> set[int]:
        return world.processes() - before

    told = world.ui.ask(TERMINATE, id=run)["terminateRun"]
    assert told["__typename"] == "TerminateRunSuccess", told
    while [pid for pid in left() if not runs_the_steps(pid)] or world.status(run) != "CANCELED":
        if time.monotonic() - asked > WITHIN:
            lines = "\n".join(command_line(pid).replace(b"\0", b" ").decode() for pid in left())
            pytest.fail(f"{world.status(run)}; still there after {WITHIN:g} s:\n{lines}\n{world.said(run)[-4000:]}")
        time.sleep(0.05)
    seconds = time.monotonic() - asked
    wait(lambda: not left(), world, run, 30)
    assert world.jobs() == []
    assert world.store.lookup("joint_model", world.key) is None, "no model is visible"
    assert not Path(world.store.root.at("artefacts", "joint_model")).exists()
    if world.saved.is_dir():
        assert [entry.name for entry in world.saved.iterdir() if not entry.name.isdigit()] == [], "an unfinished upload is left"
    assert [directory for directory in made if directory.exists()] == []
    return seconds


def private_directories(pids: set[int]) -> list[Path]:
    """Temporary directories of these processes: a stage's scratch, and Ray's."""
    found = {path for parent in (tempfile.gettempdir(), "/tmp") for path in Path(parent).glob("diger-*/.diger-owner")}
    return sorted(path.parent for path in found if json.loads(path.read_text())["pid"] in pids)


def in_set_up_and_in_training(world: World, working: Callable[[], bool], *overrides: str) -> tuple[dict[str, float], str]:
    """Two launches, the first terminated as soon as its Ray or its job is there, the second after two more checkpoints: (the seconds that each
    termination took, what the second run said)."""
    before, reached = world.processes(), max(world.steps(), default=0)
    first = world.launch(*overrides)
    wait(working, world, first)
    took = {"in set-up": terminate(world, first, before)}
    assert max(world.steps(), default=0) == reached
    second = world.launch(*overrides)
    wait(lambda: len([step for step in world.steps() if step > reached]) >= 2, world, second)
    wait(lambda: reached == 0 or "resumed at" in world.said(second), world, second)
    said = world.said(second)
    took["in training"] = terminate(world, second, before)
    return took, said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_terminated_in_set_up_and_in_training_leaves_nothing(world: World, record_property: Any) -> None:
    def its_ray() -> bool:
        return any(b"raylet_socket_name" in command_line(pid) for pid in descendants(world.ui.process.pid))

    before = world.processes()
    took, _ = in_set_up_and_in_training(world, its_ray)
    assert world.processes() <= before
    assert len(world.steps()) >= 2, "but the checkpoints, from which the next launch continues"
    for moment, seconds in took.items():
        record_property(f"private Ray, terminated {moment}: gone after s", round(seconds, 1))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_behind_a_job_server_too_and_the_next_launch_goes_on_from_the_last_checkpoint(world: World, record_property: Any) -> None:
    reached = max(world.steps(), default=0)  # of the run that the test before has terminated
    took, said = in_set_up_and_in_training(world, lambda: world.jobs() != [], f"cluster.address={world.server.address}")
    for moment, seconds in took.items():
        record_property(f"job, terminated {moment}: gone after s", round(seconds, 1))
    resumed = re.search(r"joint_model: resumed at .*?step (\d+)", said)
    assert int(resumed[1] if resumed else 0) == reached, said
