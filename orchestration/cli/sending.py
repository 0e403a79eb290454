"""What `diger lineage` and `diger track` share: which records, and where to they may go."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from orchestration.audit.index import Index, Made

since_option = click.option("--since", metavar="TIME", help="Only what began at this time (2026-11-29, or with 10:30) or later, UTC.")


def chosen(index: Index, since: str | None, snapshot: str | None) -> list[Made]:
    """The records that the two options leave, oldest first. DigerError where there are none, or the snapshot is unknown."""
    from diger_core.errors import DigerError

    earliest, store = _time(since), index.store.url
    if snapshot is not None and snapshot not in index.snapshots:
        raise DigerError(f"--snapshot {snapshot}: {store} knows {', '.join(index.snapshots) or 'no snapshot'} (diger snapshot list)")
    made = [one for one in index.made if datetime.fromisoformat(one.at) >= earliest and (snapshot is None or one.snapshot in (None, snapshot))]
    if not made:
        raise DigerError(
            f"{store}: no stage ran{f' for {snapshot}' if snapshot else ''}{f' since {since}' if since else ''}: there is nothing to tell"
        )
    return made


def address(url: str, example: str, variable: str) -> str:
    """The receiver's address, which holds no key itself: that is in the environment variable."""
    from diger_core.errors import DigerError

    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # of brackets that hold no address
        fit = False
    if not fit:
        raise DigerError(f"--to: give the receiver's address, such as {example}, not {url!r}")
    if parts.username or parts.password or parts.query:
        raise DigerError(f"--to: an address holds no user, password or key: put the key into the environment variable {variable}")
    return url


def never_in_clear(url: str, key: str | None) -> None:
    """DigerError where `key`, named by where it comes from, would leave this machine over plain http."""
    from diger_core.errors import DigerError

    parts = urlsplit(url)
    if key and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise DigerError(f"--to {url}: {key} would travel unencrypted: use https://")


def _time(since: str | None) -> datetime:
    from diger_core.errors import DigerError

    try:
        given = datetime.fromisoformat(since or "0001-01-01")
    except ValueError as error:
        raise DigerError(f"--since {since}: give a date or a time, such as 2026-11-29 or 2026-11-29T10:30") from error
    return given if given.tzinfo else given.replace(tzinfo=UTC)
