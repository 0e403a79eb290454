"""What a person is told where the flow ends early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from diger_core.errors import DigerError
from diger_core.progress import Silent
from diger_core.store.artefacts import Store
from orchestration.engine.registry import Registered, register
from orchestration.graph import FLOW, upstream
from orchestration.on_dagster import presentation, recorded
from orchestration.on_dagster.launch import _explain, run_flow
from orchestration.on_dagster.recorded import jobs_of, stages_of
from tests.support.snapshot_material import interactions, items, write

PROJECT = Path(__file__).resolve().parents[3]
# A process that a script has begun in its background ignores SIGINT, and so do its children: not so a terminal's.
AS_ON_A_TERMINAL = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Registered]:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    return store, register(store, str(write(tmp_path / "snap", interactions(), items())))


def test_an_error_of_dagsters_own_is_not_hidden_behind_a_missing_verdict(snapshot: tuple[Store, Registered], monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object, **__: object) -> None:
        raise dg.DagsterError("the instance is locked")

    monkeypatch.setattr(recorded, "execute", locked)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.raises(dg.DagsterError, match="the instance is locked"):
        run_flow(*snapshot, None, [], Silent(), ["raw_items"])


def test_the_cause_behind_dagsters_error_is_what_is_told(snapshot: tuple[Store, Registered]) -> None:
    error = dg.DagsterError("a step failed")
    error.__cause__ = DigerError("column item_id is missing")
    with pytest.raises(DigerError, match="column item_id is missing"):
        _explain(error, *snapshot, None, [])


def test_dagsters_name_for_ctrl_c_is_an_interruption(snapshot: tuple[Store, Registered], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise dg.DagsterExecutionInterruptedError

    monkeypatch.setattr(recorded, "execute", interrupted)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.raises(KeyboardInterrupt):
        run_flow(*snapshot, None, [], Silent(), ["raw_items"])


def test_a_run_of_the_terminal_is_a_run_of_the_job_that_does_the_same() -> None:
    flow = {stage.name for stage in FLOW}
    assert jobs_of(flow) == [("retrain", flow - {"release"}), ("gate_and_release", {"release"})]
    assert stages_of("retrain") == flow - {"release"}
    assert [name for name, _ in jobs_of(upstream({"sequences"}))] == ["retrain"]
    assert [name for name, _ in jobs_of(upstream({"decay_search"}))] == ["tune"]
    assert [name for name, _ in jobs_of(upstream({"training_comparison"}))] == ["compare_training"]
    assert [name for name, _ in jobs_of(upstream({"tuned_model"}))] == ["__ASSET_JOB"]


def test_a_run_stands_under_its_job_with_its_configuration(snapshot: tuple[Store, Registered], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    store, entry = snapshot
    run_flow(store, entry, None, [], Silent(), ["raw_items"])
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="retrain", tags={".dagster/repository": "__repository__@orchestration.definitions"}))
    assert (run.status, run.tags["dagster/partition"]) == (dg.DagsterRunStatus.SUCCESS, entry.key)
    assert run.run_config["resources"]["pipeline"]["config"] == {"store": store.url, "overrides": []}
    assert run.remote_job_origin is not None
    assert run.remote_job_origin.location_name == "orchestration.definitions", "without it the landing page leaves the run out"
    assert len(run.tags["diger/owner"]) < 80


def test_what_is_reused_keeps_what_it_showed_and_is_not_drawn_again(snapshot: tuple[Store, Registered], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    store, entry = snapshot
    run_flow(store, entry, None, [], Silent(), ["raw_items"])
    present = presentation.present
    monkeypatch.setattr(presentation, "present", lambda result: pytest.fail("shown anew") if result.stage.name == "raw_items" else present(result))
    run_flow(store, entry, None, [], Silent(), ["raw_items", "raw_interactions"])
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_materializations(dg.AssetRecordsFilter(dg.AssetKey("raw_items")), limit=2).records
    last, first = ({name: each.value for name, each in record.asset_materialization.metadata.items()} for record in records)
    assert (first.pop("reused"), last.pop("reused")) == (False, True)
    assert last.pop("seconds") <= first.pop("seconds")
    assert last == first
    assert last["dagster/row_count"] == 40


class Told(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def runs() -> list[str]:
    with dg.DagsterInstance.get() as instance:
        return [run.run_id for run in instance.get_runs()]


def test_where_nothing_has_changed_no_run_is_started(snapshot: tuple[Store, Registered], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    store, entry = snapshot
    progress = Told()
    first = run_flow(store, entry, None, [], progress, ["validated_items"])
    (made,) = runs()
    with monkeypatch.context() as nothing:
        nothing.setattr(recorded, "execute", lambda *_: pytest.fail("a run was started"))
        again = run_flow(store, entry, None, [], progress, ["validated_items"])
    assert {name: result.artefact.hash for name, result in again.items()} == {name: result.artefact.hash for name, result in first.items()}
    assert progress.messages[-1] == f"Nothing has changed since run {made[:8]}: no run was started"
    assert f"validated_items: unchanged, reused {again['validated_items'].artefact.hash[:12]}" in progress.messages


def test_what_the_ui_does_not_show_for_this_snapshot_is_run(snapshot: tuple[Store, Registered], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    store, entry = snapshot
    run_flow(store, entry, None, [], Silent(), ["raw_items"])
    other = register(store, str(write(Path("other"), interactions(users=7), items())))  # its items are the same file
    run_flow(store, other, None, [], Silent(), ["raw_items"])
    assert len(runs()) == 2
    with dg.DagsterInstance.get() as instance:
        instance.delete_run(runs()[1])  # the first one, in the UI
    run_flow(store, entry, None, [], Silent(), ["raw_items"])
    assert len(runs()) == 2


@pytest.mark.slow
def test_ctrl_c_ends_a_run_with_one_line(snapshot: tuple[Store, Registered]) -> None:
    command = [sys.executable, "-c", AS_ON_A_TERMINAL + "from orchestration.cli import main; main()", "run", "--snapshot", "snap"]
    given = {name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "DIGER_STORE")}
    given |= {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
    training = ["--set", "tokenizer.epochs=20000", "--until", "tokenizer"]
    with subprocess.Popen([*command, *training], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=given) as child:
        assert child.stdout is not None
        told = []
        try:
            for line in child.stdout:
                told.append(line)
                if line.startswith("tokenizer: "):
                    break
            child.send_signal(signal.SIGINT)
            told += child.stdout
            child.wait(60)
        finally:
            child.kill()
    assert child.returncode == 130, told
    assert told[-1] == "diger: interrupted; finished stages are kept, run the same command to continue\n"
    assert not any("Traceback" in line for line in told)
