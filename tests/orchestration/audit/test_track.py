"""Trainings told as MLflow runs: to a real tracking server on loopback, and what is refused before anything is sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from diger_core.store.artefacts import Store
from orchestration.audit.index import Index
from orchestration.audit.mlflow_runs import key_given
from orchestration.cli import main

pytest.importorskip("mlflow", reason="mlflow-skinny is not installed: pip install 'diger[tracking]'")

# Runs diger with the arguments after the first, and writes every place that it looks up or connects to into the file that the first one names.
WATCHED = """
import socket, sys
out = open(sys.argv.pop(1), "w")
for name in ("connect", "connect_ex"):
    def called(self, address, own=getattr(socket.socket, name)):
        print(address[0], address[1], file=out, flush=True)
        return own(self, address)
    setattr(socket.socket, name, called)
def looked_up(host, *rest, own=socket.getaddrinfo, **named):
    print(host, *rest[:1], file=out, flush=True)
    return own(host, *rest, **named)
socket.getaddrinfo = looked_up
from orchestration.cli import main
main()
"""
SILENCED = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TF_BUILD", "PYTEST_CURRENT_TEST", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tests.support.mlflow_server import mlflow_server

    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


def diger(store: Store, *arguments: str) -> int:
    try:
        main(["track", *arguments, "--store", str(store.url)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def post(url: str, path: str, **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def runs(url: str, experiment: str) -> list[SimpleNamespace]:
    """The experiment's runs as the server's own API tells them, without MLflow's client."""
    with urllib.request.urlopen(f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={experiment}", timeout=30) as answer:
        number = json.load(answer)["experiment"]["experiment_id"]
    found = post(url, "runs/search", experiment_ids=[number], max_results=100, run_view_type="ALL").get("runs", [])
    pairs = [{name: {each["key"]: each["value"] for each in run["data"].get(name, [])} for name in ("params", "metrics", "tags")} for run in found]
    return [SimpleNamespace(**pair, **run["info"]) for pair, run in zip(pairs, found, strict=True)]


def history(url: str, run: str, metric: str) -> list[tuple[int, float]]:
    with urllib.request.urlopen(f"{url}/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key={metric}", timeout=30) as answer:
        return sorted((int(each["step"]), each["value"]) for each in json.load(answer)["metrics"])


def test_every_training_is_a_run_and_none_is_sent_twice(audit_world, server, capsys):
    index = Index(audit_world.store, cached=False)
    trained = {
        one.artefact: one
        for one in index.made
        if one.stage in ("tokenizer", "frozen_model", "joint_model", "refit") and index.artefact(one.artefact).json("curves.json")
    }
    assert len(trained) > 5
    assert diger(audit_world.store, "--to", server, "--experiment", "shop") == 0
    assert f"{len(trained)} trainings sent, 0 were there" in capsys.readouterr().out
    found = runs(server, "shop")
    assert {run.tags["diger.artefact"]: run.status for run in found} == dict.fromkeys(trained, "FINISHED")
    for run in found:
        one = trained[run.tags["diger.artefact"]]
        record, artefact = index.record(one), index.artefact(one.artefact)
        assert run.end_time - run.start_time == pytest.approx(1000 * record["seconds"], abs=1)
        assert run.user_id == "unknown"
        assert (run.tags["diger.record"], run.tags["diger.snapshot"], run.tags["diger.key"]) == (record["seal"], one.snapshot, one.key)
        assert run.tags["mlflow.source.git.commit"] == one.commit
        assert run.tags.get("diger.assignment_hash") == artefact.facts.get("assignment_hash")
        assert {name.removeprefix("diger.input."): value for name, value in run.tags.items() if "input" in name} == dict(one.inputs)
        assert run.params["training.epochs" if one.stage != "tokenizer" else "tokenizer.epochs"] in ("2", "10")
        assert run.metrics["cost/seconds"] == record["seconds"]
        assert f"diger why {one.artefact[:12]}" in run.tags["mlflow.note.content"]
    assert diger(audit_world.store, "--to", f"{server}/", "--experiment", "shop") == 0
    assert f"0 trainings sent, {len(trained)} were there" in capsys.readouterr().out
    assert len(runs(server, "shop")) == len(trained)


def test_curves_are_those_of_the_artefact_and_inputs_lead_to_their_runs(audit_world, server):
    assert diger(audit_world.store, "--to", server, "--experiment", "shop", "--snapshot", audit_world.snapshots[0].key) == 0
    artefact = Store(audit_world.store.url).find("joint_model", audit_world.runs[0]["joint_model"])
    rows, found = artefact.json("curves.json"), {run.tags["diger.artefact"]: run for run in runs(server, "shop")}
    run = found[artefact.hash]
    assert history(server, run.run_id, "loss_gen") == [(row["epoch"], row["loss_gen"]) for row in rows]
    assert history(server, run.run_id, "perplexity/2") == [(row["epoch"], row["perplexity"][1]) for row in rows]
    assert run.metrics["result/validation_ndcg_10"] == artefact.facts["validation_ndcg_10"]
    assert (run.params["recommender.d_model"], run.params["training.device"]) == ("16", "cpu")
    assert f"/runs/{found[audit_world.runs[0]['tokenizer']].run_id})" in run.tags["mlflow.note.content"]


def test_an_interrupted_sending_is_completed_and_what_is_deleted_stays_so(audit_world, server, tmp_path, monkeypatch, capsys):
    from mlflow import MlflowClient

    snapshot = ("--experiment", "cut", "--snapshot", audit_world.snapshots[0].key)
    store = audit_world.copy(tmp_path)
    (tmp_path / "store/artefacts/refit" / audit_world.runs[0]["refit"]).rename(tmp_path / "gone")
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_batch", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert diger(store, "--to", server, *snapshot) == 130
    assert [run.status for run in runs(server, "cut")] == ["RUNNING"]
    assert diger(store, "--to", server, *snapshot) == 0
    assert "1 not sent: their artefacts" in capsys.readouterr().out
    found = runs(server, "cut")
    assert {run.status for run in found} == {"FINISHED"}
    assert all(run.params for run in found)
    post(server, "runs/delete", run_id=found[0].run_id)
    capsys.readouterr()
    assert diger(store, "--to", server, *snapshot) == 0
    assert f"0 trainings sent, {len(found)} were there" in capsys.readouterr().out
    assert len(runs(server, "cut")) == len(found)
    post(server, "experiments/delete", experiment_id=found[0].experiment_id)
    assert diger(store, "--to", server, *snapshot) == 1
    assert "restore it there" in capsys.readouterr().err


def test_mlflow_does_not_report_its_own_use(monkeypatch):
    from mlflow.telemetry import utils

    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(utils, "_IS_IN_CI_ENV_OR_TESTING", False)  # pytest's own variables switch it off, too
    assert not utils.is_telemetry_disabled()
    key_given("https://mlflow.example.org")
    assert utils.is_telemetry_disabled()


@pytest.mark.slow
def test_nothing_but_the_server_is_looked_up_or_connected_to(audit_world, server, tmp_path):
    """In a process of its own, where nothing tells MLflow that this is a test: it reports its use then."""
    places = tmp_path / "places"
    environment = {name: value for name, value in os.environ.items() if name not in SILENCED}
    command = [sys.executable, "-c", WATCHED, str(places), "track", "--to", server, "--experiment", "watched", "--store", str(audit_world.store.url)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "trainings sent" in done.stdout
    assert "View run" not in done.stdout
    host, _, port = server.removeprefix("http://").partition(":")
    assert {tuple(line.split()) for line in places.read_text().splitlines()} == {(host, port)}


def test_what_is_wrong_is_said_in_a_line(audit_world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def told(*arguments: str, code: int = 1) -> str:
        assert diger(audit_world.store, *arguments) == code
        return capsys.readouterr().err

    assert "--to" in told(code=2)
    assert "such as https://mlflow.example.org" in told("--to", "sqlite:///runs.db")
    assert "such as https://mlflow.example.org" in told("--to", "http://[")
    assert "no user, password or key" in told("--to", "https://me:secret@example.org")
    assert "secret" not in told("--to", "https://me:secret@example.org")
    assert "there is nothing to tell" in told("--to", "http://127.0.0.1:9", "--since", "2999-01-01")
    assert "cannot be reached" in told("--to", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "canary")
    in_clear = told("--to", "http://mlflow.example.org")
    assert "MLFLOW_TRACKING_TOKEN would travel unencrypted" in in_clear
    assert "canary" not in in_clear
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = canary\n")
    assert "~/.mlflow/credentials) would travel unencrypted" in told("--to", "http://mlflow.example.org")
    (tmp_path / ".mlflow/credentials").unlink()
    (tmp_path / ".netrc").write_text("machine mlflow.example.org login me password canary\n")
    assert ".netrc would travel unencrypted" in told("--to", "http://mlflow.example.org")
