"""Dagster's history in SQLite, written without waiting for the disk at every event.

Dagster opens a connection for each event that it stores, commits and closes it. By default the commit waits for the disk, and so does the close,
which as the last one folds SQLite's log into its file: on a laptop's disk a demo waited for 25 seconds in all.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


@contextlib.contextmanager
def quick_history() -> Iterator[None]:
    """While the body runs, this process's commits to SQLite files in WAL mode leave the writing to the operating system, and no close is the last.

    A process that is killed loses nothing. A machine that loses power may lose the newest events of the UI's history, never its consistency; what
    the store holds does not depend on it.
    """
    kept: dict[str, sqlite3.Connection] = {}

    def connected(connection: Any, _: Any) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return  # PostgreSQL
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            return  # in its other modes a file could be damaged
        connection.execute("PRAGMA synchronous = NORMAL")
        file = connection.execute("PRAGMA database_list").fetchone()[2]
        if file not in kept:
            kept[file] = sqlite3.connect(file, check_same_thread=False)
            kept[file].execute("SELECT count(*) FROM sqlite_master").fetchone()  # the file is opened by the first reading

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)
        for connection in kept.values():
            connection.close()
