"""Dagster's history in PostgreSQL: a real server, asked by several processes; its password is in no file, log or row."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from diger_core.errors import DigerError
from diger_core.progress import Silent
from diger_core.store.artefacts import Store
from orchestration.engine.registry import register
from orchestration.on_dagster.instance import POSTGRES, dagster_home, opened_instance
from orchestration.on_dagster.launch import run_flow
from orchestration.on_dagster.partitions import SNAPSHOTS, add_partitions
from tests.support.postgres import DATABASE, PASSWORD, USER, Postgres, running_postgres, tools
from tests.support.snapshot_material import interactions, items, write
from tests.support.ui_server import run_raw_items, running_ui, tiny_demo

pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed: pip install 'diger[postgres]'")

PROJECT = Path(__file__).resolve().parents[3]
READ = """
import sys
import dagster as dg
with dg.DagsterInstance.get() as instance:
    run = instance.get_run_by_id(sys.argv[1])
    events = [entry.dagster_event_type.value for entry in instance.all_logs(run.run_id) if entry.dagster_event]
print(type(instance.run_storage).__name__, run.status.value, "ASSET_MATERIALIZATION" in events)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture
def home(server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new home whose history is in the server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIGER_STORE", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(POSTGRES, server.url)
    return dagster_home()


def rows(server: Postgres) -> str:
    """Every row of every table, as text."""
    import psycopg2

    connection = psycopg2.connect(host="127.0.0.1", port=server.port, user=USER, password=PASSWORD, dbname=DATABASE)
    with connection, connection.cursor() as cursor:
        cursor.execute("select tablename from pg_tables where schemaname = 'public'")
        names = [name for (name,) in cursor.fetchall()]
        found = []
        for name in names:
            cursor.execute(f'select t::text from "{name}" t')
            found += [f"{name}: {row}" for (row,) in cursor.fetchall()]
    connection.close()
    return "\n".join(found)


class Told(Silent):
    lines: list[str]

    def __init__(self) -> None:
        self.lines = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def events_of_another_process(run: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", READ, run], env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, check=True
    )


def test_another_process_reads_a_runs_events_and_the_password_is_nowhere(server: Postgres, home: Path) -> None:
    @dg.asset
    def trivial() -> None:
        print("trivial")

    with opened_instance() as instance:
        run = dg.materialize([trivial], instance=instance).run_id
    read = events_of_another_process(run)
    assert read.stdout.split() == ["PostgresRunStorage", "SUCCESS", "True"]
    assert not (home / "history").exists()  # SQLite's
    kept = rows(server)
    assert run in kept
    assert PASSWORD not in kept + read.stdout + read.stderr
    assert [path for path in home.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()] == []


def test_a_dump_that_is_restored_into_another_database_has_the_runs(
    server: Postgres, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tools("pg_dump", "pg_restore", "createdb")
    with opened_instance() as instance:
        run = dg.DagsterRun(job_name="retrain", run_id=str(uuid.uuid4()), status=dg.DagsterRunStatus.SUCCESS)
        instance.add_run(run)
    at = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": USER, "PGPASSWORD": PASSWORD}
    dump = str(tmp_path / "dagster.dump")
    for command in (["pg_dump", "-Fc", "-f", dump, DATABASE], ["createdb", "restored"], ["pg_restore", "-d", "restored", dump]):
        subprocess.run([programs[command[0]], *command[1:]], env=at, check=True)
    monkeypatch.setenv(POSTGRES, server.url.replace(f"/{DATABASE}", "/restored"))
    with opened_instance() as instance:
        assert instance.get_run_by_id(run.run_id) == run


@pytest.mark.slow
def test_a_second_run_of_the_terminal_finds_the_first_one_in_postgres(server: Postgres, home: Path, tmp_path: Path) -> None:
    store, told = Store(tmp_path / "store"), Told()
    snapshot = register(store, str(write(tmp_path / "snap", interactions(), items())))
    run_flow(store, snapshot, None, [], told, ["raw_items"])
    with opened_instance() as instance:
        run = instance.get_runs(limit=1)[0].run_id
    run_flow(store, snapshot, None, [], told, ["raw_items"])
    assert told.lines[-1] == f"Nothing has changed since run {run[:8]}: no run was started"
    assert PASSWORD not in rows(server) + "".join(told.lines)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()] == []


def test_processes_that_add_the_same_partitions_at_once_all_succeed(home: Path) -> None:
    keys = [f"day-{number}" for number in range(20)]

    def add(start: int) -> None:
        with opened_instance() as instance:
            add_partitions(instance, keys[start:] + keys[:start])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(0, 20, 5)))
    with opened_instance() as instance:
        assert set(keys) <= set(instance.get_dynamic_partitions(str(SNAPSHOTS.name)))


@pytest.mark.parametrize("wrong", ["password", "port"])
def test_a_database_that_lets_nobody_in_is_named_without_its_address(
    server: Postgres, home: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr("dagster_postgres.utils.time.sleep", lambda _: None)  # it tries six times
    url = server.url.replace(PASSWORD, "no-secret-of-ours") if wrong == "password" else server.url.replace(str(server.port), "9")
    monkeypatch.setenv(POSTGRES, url)
    with pytest.raises(DigerError, match=f"^{POSTGRES}: the database does not answer.*check address, user and password$") as told, opened_instance():
        pass
    assert PASSWORD not in str(told.value)
    assert "no-secret-of-ours" not in str(told.value)


@pytest.mark.slow
def test_the_ui_launches_a_run_whose_history_is_in_postgres(server: Postgres, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_demo(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / ".dagster"))  # the one that the UI makes
    with running_ui(tmp_path) as ui:
        run = run_raw_items(ui, next(key for key in ui.partitions() if key.startswith("demo-1")))
        with opened_instance() as instance:
            failures = [entry.message for entry in instance.all_logs(run["runId"]) if entry.is_dagster_event and entry.dagster_event.is_failure]
        refused = urllib.request.Request(f"{ui.url}/graphql", data=b"{}", headers={"Host": "evil.example", "Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(refused, timeout=10)
        log = ui.log()
    assert (run["status"], failures) == ("SUCCESS", [])
    assert events_of_another_process(run["runId"]).stdout.split() == ["PostgresRunStorage", "SUCCESS", "True"]
    assert PASSWORD not in rows(server) + log
    assert not (tmp_path / ".dagster" / "history" / "runs.db").exists()
