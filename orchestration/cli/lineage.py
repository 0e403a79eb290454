"""`diger lineage`: what made what, as OpenLineage events, to a file or to a receiver."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from typing import Any, TextIO
from urllib.parse import urlsplit

import click

from orchestration.cli.options import next_steps, open_store, store_option


@click.command()
@click.option("--to", "url", metavar="URL", help="Send to this OpenLineage receiver; the key is taken from OPENLINEAGE_API_KEY.")
@click.option("--out", metavar="FILE", help="Write to this new file, an event a line.")
@click.option("--since", metavar="TIME", help="Only what began at this time (2026-11-29, or with 10:30) or later, UTC.")
@click.option("--snapshot", metavar="KEY", help="Only what was made for this snapshot, and the text encoder.")
@click.option("--namespace", default="diger", show_default=True, help="Of the jobs; one for each shop and environment.")
@store_option
def lineage(url: str | None, out: str | None, since: str | None, snapshot: str | None, namespace: str, store: str) -> None:
    """Write or send every run of a stage with its inputs and outputs, as OpenLineage events. Nothing is sent without --to.

    Sending again changes nothing at the receiver: a record always gives the same events.
    """
    from diger_core.errors import DigerError

    if (url is None) == (out is None):
        raise click.UsageError("give --to URL or --out FILE, one of them")
    if find_spec("openlineage") is None:
        raise DigerError("diger lineage needs openlineage-python: pip install 'diger[lineage]'")
    from orchestration.audit.index import Index
    from orchestration.audit.lineage_events import as_json, events, send, sender
    from orchestration.engine.console import console_progress, say

    index, earliest, key = Index(open_store(store)), _time(since), os.environ.get("OPENLINEAGE_API_KEY")
    if snapshot is not None and snapshot not in index.snapshots:
        raise DigerError(f"--snapshot {snapshot}: {store} knows {', '.join(index.snapshots) or 'no snapshot'} (diger snapshot list)")
    made = [one for one in index.made if datetime.fromisoformat(one.at) >= earliest and (snapshot is None or one.snapshot in (None, snapshot))]
    if not made:
        raise DigerError(
            f"{store}: no stage ran{f' for {snapshot}' if snapshot else ''}{f' since {since}' if since else ''}: there is nothing to tell"
        )
    with ExitStack() as stack:
        progress = stack.enter_context(console_progress())
        if url is not None:
            transport = sender(_receiver(url, key), key)
            give: Callable[[Any], None] = partial(send, transport)
        else:
            file = stack.enter_context(_new(str(out)))
            give = lambda event: print(as_json(event), file=file)  # noqa: E731
        for number, event in enumerate(events(index, made, namespace), 1):
            give(event)
            progress.update("events", number, 2 * len(made))
    say(f"{len(made):,} runs of stages, {2 * len(made):,} events: {url or out}")
    next_steps(store, ("diger why champion", "the same here, as a tree"))


def _time(since: str | None) -> datetime:
    from diger_core.errors import DigerError

    try:
        given = datetime.fromisoformat(since or "0001-01-01")
    except ValueError as error:
        raise DigerError(f"--since {since}: give a date or a time, such as 2026-11-29 or 2026-11-29T10:30") from error
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def _receiver(url: str, key: str | None) -> str:
    """The address, where events and key may go to it."""
    from diger_core.errors import DigerError

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DigerError(f"--to: give the receiver's address, such as https://marquez.example.org, not {url!r}")
    if parts.username or parts.password or parts.query:
        raise DigerError("--to: an address holds no user, password or key: put the key into the environment variable OPENLINEAGE_API_KEY")
    if key and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise DigerError(f"--to {url}: OPENLINEAGE_API_KEY would travel unencrypted: use https://")
    return url


def _new(out: str) -> TextIO:
    from diger_core.errors import DigerError

    try:
        return open(out, "x", encoding="utf-8")
    except OSError as error:
        raise DigerError(f"--out {out}: {error.strerror}: name a new file in a directory that exists") from error
