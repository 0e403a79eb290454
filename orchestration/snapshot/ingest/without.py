"""Users whose events stay out of a snapshot: the list that a person gives, beside what a store still says of those who asked to be forgotten."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from diger_core.errors import DigerError
from diger_core.progress import Silent
from diger_core.store.artefacts import Store
from orchestration.engine.forgotten import forgotten, unnamed
from orchestration.snapshot.files import open_root
from orchestration.snapshot.ingest.event_files import NAME
from orchestration.snapshot.ingest.source import lines, reading
from orchestration.snapshot.parts import described


def forgotten_users(previous: Path, listed: Path | None, store: str) -> tuple[pa.Array | None, list[str]]:
    """(ids as text, what is to be said). DigerError where the snapshot's file is known to hold a forgotten user whom the list does not name."""
    users = None if listed is None else _users(listed)
    found = forgotten(Store(store))
    if not found.users:
        return users, []
    sha256 = described(open_root(previous), NAME).sha256 if found.in_files else ""
    if left := unnamed(found, sha256, [] if users is None else users.to_pylist()):
        raise DigerError(
            f"{previous}/{NAME}: holds {left} {'user' if left == 1 else 'users'} who asked to be forgotten (diger forget, {store})"
            f"{'' if listed is None else f' and whom {listed.name} does not name'}: pass --without FILE with their ids, one a line"
        )
    if users is not None:
        return users, []
    count = len(found.users)
    return None, [
        f"{store}: {count} {'user was' if count == 1 else 'users were'} forgotten, and its notes hold no ids: where the files still name one, "
        "that user is back in this snapshot; pass --without FILE with their ids, or give diger forget USER again after the next run"
    ]


def _users(path: Path) -> pa.Array:
    """One id a line; empty lines count for nothing."""
    try:
        with reading(path, Silent()) as file:
            found = [line.decode("utf-8-sig").strip("\r\n") for _, line in lines(file)]
    except UnicodeDecodeError as error:
        raise DigerError(f"{path.name}: is not UTF-8 text; write one user id a line, as UTF-8") from error
    return pa.array(found, pa.large_string())
