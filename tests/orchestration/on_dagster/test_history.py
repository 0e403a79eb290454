"""Dagster's history is written without waiting for the disk, and is whole all the same."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import NullPool, create_engine, text

from orchestration.on_dagster.history import quick_history


def database(path: Path, mode: str) -> str:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE events (id INTEGER)")
    connection.close()
    return f"sqlite:///{path}"


def synchronous(url: str) -> int:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return int(connection.execute(text("PRAGMA synchronous")).scalar_one())


def test_only_files_in_wal_mode_are_written_without_waiting_and_only_inside(tmp_path: Path) -> None:
    wal, rollback = database(tmp_path / "wal.db", "wal"), database(tmp_path / "rollback.db", "delete")
    with quick_history():
        assert synchronous(wal) == 1  # NORMAL
        assert synchronous(rollback) == 2  # FULL: without WAL a lost commit could damage the file
    assert synchronous(wal) == 2


def test_a_close_does_not_fold_the_log_into_the_file_until_the_end(tmp_path: Path) -> None:
    log = tmp_path / "wal.db-wal"
    url = database(tmp_path / "wal.db", "wal")
    with quick_history():
        for number in range(3):
            with create_engine(url, poolclass=NullPool).begin() as connection:
                connection.execute(text(f"INSERT INTO events VALUES ({number})"))
            assert log.exists()  # the last close would have removed it
        with sqlite3.connect(tmp_path / "wal.db") as other:  # what was committed is there for everybody
            assert other.execute("SELECT count(*) FROM events").fetchone() == (3,)
        other.close()
    assert not log.exists()
    with sqlite3.connect(tmp_path / "wal.db") as after:
        assert after.execute("SELECT count(*) FROM events").fetchone() == (3,)
    after.close()
