"""Stages on a cluster behind a job server: submitted, followed, stopped, and refused in clear words."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.engine.registry import Registered, register
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME, upstream
from orchestration.on_ray import jobs as ray_jobs
from orchestration.params.cluster import ClusterConfig
from orchestration.params.load import build_params
from orchestration.params.sections import Params
from tests.support.ray_processes import job_server
from tests.support.snapshot_material import interactions, items, write
from tests.support.training_world import Recorder, params


def test_only_stages_that_use_ray_are_submitted_and_only_to_a_job_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    few, many = (Registered("s", "nowhere", "0", {"interactions.parquet": {"rows": rows}}, None, "") for rows in (1000, 1001))
    there = replace(Params(), cluster=ClusterConfig(address="http://head:8265", block_events=1000))
    assert ray_jobs.is_remote(BY_NAME["joint_model"], there, few)
    assert ray_jobs.is_remote(BY_NAME["decay_search"], there, few)
    assert not ray_jobs.is_remote(BY_NAME["tokenizer"], there, many)
    assert not ray_jobs.is_remote(BY_NAME["sequences"], there, few)
    assert ray_jobs.is_remote(BY_NAME["sequences"], there, many)
    assert not ray_jobs.is_remote(BY_NAME["joint_model"], replace(there, cluster=ClusterConfig(address="head:6379")), few)
    assert not ray_jobs.is_remote(BY_NAME["joint_model"], replace(there, cluster=ClusterConfig(address="http://head:8265", workers=0)), few)
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    assert ray_jobs.is_remote(BY_NAME["joint_model"], Params(), few)


def test_secrets_in_a_runtime_environment_are_refused_by_name() -> None:
    with pytest.raises(DigerError, match=r"runtime_env\.env_vars\.AWS_SECRET_ACCESS_KEY"):
        build_params({"cluster": {"runtime_env": {"env_vars": {"AWS_SECRET_ACCESS_KEY": "x"}}}})
    with pytest.raises(DigerError, match=r"runtime_env\.env_vars\.DB_PWD"):
        build_params({"cluster": {"runtime_env": {"env_vars": {"DB_PWD": "x"}}}})
    build_params({"cluster": {"runtime_env": {"working_dir": ".", "env_vars": {"NCCL_DEBUG": "WARN"}}}})


def test_a_job_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DigerError, match=r"cluster\.address http://127\.0\.0\.1:9: the job server does not answer"):
        ray_jobs._client("http://127.0.0.1:9")


class Server:
    """A job server that only remembers."""

    def __init__(self, end: str, log: str = "", running: str | None = None) -> None:
        from ray.job_submission import JobStatus

        self.status, self.log, self.running, self.submitted, self.stopped = JobStatus(end), log, running, [], []
        self.still = JobStatus("RUNNING")

    def list_jobs(self) -> list[Any]:
        from types import SimpleNamespace

        return [] if self.running is None else [SimpleNamespace(submission_id=self.running, status=self.still)]

    def submit_job(self, **given: Any) -> str:
        self.submitted.append(given)
        return str(given["submission_id"])

    def get_job_status(self, job: str) -> Any:
        return self.status if not self.stopped else type(self.status)("STOPPED")

    def get_job_logs(self, job: str) -> str:
        return self.log

    def stop_job(self, job: str) -> None:
        self.stopped.append(job)


def follow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server, progress: Any) -> None:
    monkeypatch.setattr(ray_jobs, "_client", lambda address: server)
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    snapshot = register(store, str(write(tmp_path / "snap", interactions(), items())))
    there = replace(Params(), cluster=ClusterConfig(address="http://head:8265", runtime_env={"working_dir": "."}))
    ray_jobs.run_as_job(BY_NAME["joint_model"], "k" * 64, there, store, snapshot, progress, {"dagster_run_id": "r1"})


def test_a_job_is_named_by_its_key_and_told_everything_but_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, recorder = Server("SUCCEEDED", "noise\njoint_model: epoch 1/5\n"), Recorder()
    follow(monkeypatch, tmp_path, server, recorder)
    (given,) = server.submitted
    assert given["submission_id"].startswith(f"diger-joint_model-{'k' * 16}-")
    assert given["runtime_env"]["working_dir"] == "."
    told = given["runtime_env"]["env_vars"]["DIGER_JOB"]
    assert '"address": null' in told
    assert json.loads(told)["store"] == str(tmp_path / "store"), "a job has another working directory"
    assert json.loads(told)["provenance"] == {"dagster_run_id": "r1", "launched_by": "ray job", "ray_job": given["submission_id"]}
    assert "joint_model: epoch 1/5" in recorder.messages
    assert "noise" not in recorder.messages


def test_a_failed_job_says_why_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DigerError, match=r"joint_model: the disk is full \(job diger-joint_model-"):
        follow(monkeypatch, tmp_path, Server("FAILED", "x\ndiger: the disk is full\n"), Recorder())


def test_the_job_of_a_killed_launch_is_followed_not_doubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, recorder = Server("SUCCEEDED", running=f"diger-joint_model-{'k' * 16}-00000000"), Recorder()
    follow(monkeypatch, tmp_path, server, recorder)
    assert server.submitted == []
    assert any("still running" in text for text in recorder.messages)


def test_an_interrupt_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupter(Recorder):
        def message(self, text: str) -> None:
            if "epoch" in text:
                raise KeyboardInterrupt

    server = Server("RUNNING", "joint_model: epoch 1/5\njoint_model: …\n")
    with pytest.raises(KeyboardInterrupt):
        follow(monkeypatch, tmp_path, server, Interrupter())
    assert len(server.stopped) == 1


def test_an_interrupt_in_the_middle_of_the_submission_stops_the_job_that_comes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Server):
        asked = 0

        def submit_job(self, **given: Any) -> str:
            super().submit_job(**given)
            raise KeyboardInterrupt

        def get_job_status(self, job: str) -> Any:
            self.asked += 1
            if self.asked < 3:
                raise RuntimeError("Request failed with status code 404: it does not exist")
            return super().get_job_status(job)

        def stop_job(self, job: str) -> None:
            if self.asked > 3:  # before, it has nobody yet who would hear it
                super().stop_job(job)

    server = Late("RUNNING")
    with pytest.raises(KeyboardInterrupt):
        follow(monkeypatch, tmp_path, server, Recorder())
    assert server.stopped == [server.submitted[0]["submission_id"]]


# A real cluster, with token authentication


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with job_server() as server:
        yield server.address


@pytest.mark.slow
def test_a_model_is_trained_through_the_job_server_and_a_wrong_token_is_refused(address: str, tmp_path: Path) -> None:
    store, small = Store(tmp_path / "store"), params()
    sections = {name: getattr(small, name) for name in ("tokenizer", "recommender", "training", "joint_model", "semantic_ids")}
    here = replace(Params(), **sections, cluster=ClusterConfig(workers=0))
    snapshot = register(store, str(write(tmp_path / "snap", interactions(), items())))
    for name in (name for name in BY_NAME if name in upstream({"joint_model"}) - {"joint_model"}):
        Session(store, here, snapshot).materialise(BY_NAME[name])
    recorder = Recorder()
    there = replace(here, cluster=ClusterConfig(workers=1, address=address))
    result = Session(store, there, snapshot, recorder).materialise(BY_NAME["joint_model"])
    assert not result.reused
    assert any("submitted to" in text for text in recorder.messages)
    assert any("epoch 2/2" in text for text in recorder.messages)
    assert store.records("joint_model", result.key)[0]["launched_by"] == "ray job"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_AUTH_TOKEN", "0" * 64)
        code = f"from orchestration.on_ray.jobs import _client; _client({address!r}).list_jobs()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "oken" in done.stderr


@pytest.mark.slow
def test_an_interrupted_run_ends_its_job_within_ten_seconds(address: str, tmp_path: Path) -> None:
    store, small = Store(tmp_path / "store"), params()
    sections = {name: getattr(small, name) for name in ("tokenizer", "recommender", "joint_model", "semantic_ids")}
    here = replace(Params(), **sections, training=replace(small.training, epochs=5000, patience=5000), cluster=ClusterConfig(workers=0))
    snapshot = register(store, str(write(tmp_path / "snap", interactions(), items())))
    for name in (name for name in BY_NAME if name in upstream({"joint_model"}) - {"joint_model"}):
        Session(store, here, snapshot).materialise(BY_NAME[name])

    class Interrupter(Recorder):
        at = 0.0

        def message(self, text: str) -> None:
            if "epoch 1/" in text:
                self.at = time.monotonic()
                raise KeyboardInterrupt

    progress = Interrupter()
    with pytest.raises(KeyboardInterrupt):
        Session(store, replace(here, cluster=ClusterConfig(workers=1, address=address)), snapshot, progress).materialise(BY_NAME["joint_model"])
    assert 0 < time.monotonic() - progress.at < 10
    assert all(job.status.is_terminal() for job in ray_jobs._client(address).list_jobs())
