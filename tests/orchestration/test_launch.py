"""What a person is told where the flow ends early."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from diger_core.errors import DigerError
from diger_core.progress import Silent
from diger_core.store import Store
from orchestration.launch import _explain, run_flow
from orchestration.registry import Registered, register
from tests.orchestration.snapshot_material import interactions, items, write


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Registered]:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    return store, register(store, str(write(tmp_path / "snap", interactions(), items())))


def test_an_error_of_dagsters_own_is_not_hidden_behind_a_missing_verdict(snapshot: tuple[Store, Registered]) -> None:
    _explain(dg.DagsterError("the instance is locked"), *snapshot, None, [])  # returns, and its caller raises what it has


def test_the_cause_behind_dagsters_error_is_what_is_told(snapshot: tuple[Store, Registered]) -> None:
    error = dg.DagsterError("a step failed")
    error.__cause__ = DigerError("column item_id is missing")
    with pytest.raises(DigerError, match="column item_id is missing"):
        _explain(error, *snapshot, None, [])


def test_dagsters_name_for_ctrl_c_is_an_interruption(snapshot: tuple[Store, Registered], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise dg.DagsterExecutionInterruptedError

    monkeypatch.setattr(dg, "materialize", interrupted)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.raises(KeyboardInterrupt):
        run_flow(*snapshot, None, [], Silent(), ["raw_items"])
