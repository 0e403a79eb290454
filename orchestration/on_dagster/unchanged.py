"""A run that would find everything done: told without Dagster, which takes many times as long to start and to note that nothing happened."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection

from diger_core.errors import DigerError
from orchestration.engine.runner import Session
from orchestration.graph import STAGES
from orchestration.on_dagster.instance import dagster_home, postgres_url
from orchestration.stage import Stage


def run_that_did_all(session: Session, chosen: Collection[str]) -> str | None:
    """The Dagster run of this snapshot, there in this home, that led to the last of the chosen stages, where all of them are stored; else None.

    None also where a result was made for another snapshot or without Dagster: the UI must show it for this one first.
    """
    stages = [stage for stage in STAGES if stage.name in chosen]
    try:
        for stage in stages:
            session.find(stage)
    except DigerError:
        return None  # the run itself tells what is wrong
    runs = [_run_of(session, stage) for stage in stages if not any(stage.name in (*other.inputs, *other.after) for other in stages)]
    return runs[0] if runs and all(runs) else None


def _run_of(session: Session, stage: Stage) -> str | None:
    key, _ = session.resolve(stage)
    made = next((r for r in reversed(session.store.records(stage.name, key)) if r["artefact"] == session.find(stage).hash), None)
    run = str(made.get("dagster_run_id", "")) if made is not None and made["snapshot"] == session.snapshot.key else ""
    return run if run and _shown(run) else None


def _shown(run: str) -> bool:
    """Whether the history knows the run: PostgreSQL's where one is named, else the home's SQLite."""
    url = postgres_url()
    if url is not None:
        return _in_postgres(url, run)
    runs = dagster_home() / "history" / "runs.db"
    if not runs.is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{runs.as_uri()}?mode=ro", uri=True, timeout=2)) as database:
            return database.execute("select 1 from runs where run_id = ? and status = 'SUCCESS'", (run,)).fetchone() is not None
    except sqlite3.Error:
        return False  # busy, or of a version with other tables: Dagster itself answers


def _in_postgres(url: str, run: str) -> bool:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": 2})
    try:
        with engine.connect() as database:
            found = database.execute(sqlalchemy.text("select 1 from runs where run_id = :run and status = 'SUCCESS'"), {"run": run})
            return found.fetchone() is not None
    except sqlalchemy.exc.DBAPIError:
        return False  # it does not answer, or has no tables yet: Dagster itself says so
