"""`diger run` through Dagster: an accepted candidate is released, a refused one has its report and stops there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from diger_core.store.artefacts import Store
from orchestration.champion.log import history
from orchestration.cli import main
from tests.support.dvc_project import TINY
from tests.support.snapshot_material import interactions, items, write


def run(capsys: Any, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """(exit code, the JSON summary, standard error)."""
    code = 0
    try:
        main(["run", "--snapshot", "snap", "--json", *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def recorded():
    """(job, status) of the runs that a page of their job would list, newest first."""
    with dg.DagsterInstance.get() as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={".dagster/repository": "__repository__@orchestration.definitions"}))
    assert all(run.remote_job_origin.location_name == "orchestration.definitions" for run in runs)
    assert all("{" not in run.tags["diger/owner"] for run in runs)
    return [(run.job_name, run.status.value) for run in runs]


@pytest.mark.slow
def test_a_run_releases_what_the_gate_accepts_and_stops_behind_the_report_where_it_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("DIGER_STORE", raising=False)
    (tmp_path / "params.yaml").write_text(TINY)
    write(tmp_path / "snap", interactions(), items())

    code, refused, told = run(capsys, "--set", "gate.min_unique_prefixes=1.0")
    assert code == 3, "a verdict is no fault"
    assert told.strip().splitlines()[-1].startswith("diger: The gate refuses bundle")
    assert "unique prefixes" in refused["refused"]
    assert "The gate refuses bundle" in Path(refused["report"]).read_text()
    assert refused["champion"] is None
    assert "release" not in refused["artefacts"]
    assert "Nothing serves yet" in refused["refused"], "there is no champion that could stay"
    with pytest.raises(SystemExit) as ended:  # a lone launch asks the stored verdict
        main(["stage", "release", "--snapshot", "snap", "--set", "gate.min_unique_prefixes=1.0"])
    assert ended.value.code == 3
    assert "release: the gate did not accept bundle" in capsys.readouterr().err
    assert history(Store("store")) == []
    assert recorded() == [("retrain", "SUCCESS")], "the refusal is a result of the run, which every page of its job lists"

    code, accepted, _ = run(capsys)
    assert code == 0
    assert accepted["artefacts"]["bundle"] == refused["artefacts"]["bundle"]
    entry = history(Store("store"))[-1]
    assert accepted["champion"]["bundle"] == entry.bundle == accepted["artefacts"]["bundle"]
    assert (entry.verdict, entry.release) == (accepted["artefacts"]["gate"], accepted["artefacts"]["release"])

    assert recorded() == [("gate_and_release", "SUCCESS"), ("retrain", "SUCCESS"), ("retrain", "SUCCESS")]

    code, again, log = run(capsys)
    assert code == 0
    assert again["artefacts"] == accepted["artefacts"]
    assert "release: unchanged, reused" in log
    assert len(recorded()) == 3, "nothing was to be done, so no run was started"
    assert len(history(Store("store"))) == 1
