"""`diger lineage`: what made what, as OpenLineage events, to a file or to a receiver."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import Any, TextIO

import click

from orchestration.cli.options import next_steps, open_store, store_option
from orchestration.cli.sending import address, chosen, never_in_clear, since_option


@click.command()
@click.option("--to", "url", metavar="URL", help="Send to this OpenLineage receiver; the key is taken from OPENLINEAGE_API_KEY.")
@click.option("--out", metavar="FILE", help="Write to this new file, an event a line.")
@since_option
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

    key = os.environ.get("OPENLINEAGE_API_KEY")
    if url is not None:
        never_in_clear(address(url, "https://marquez.example.org", "OPENLINEAGE_API_KEY"), "OPENLINEAGE_API_KEY" if key else None)
    index = Index(open_store(store))
    made = chosen(index, since, snapshot)
    with ExitStack() as stack:
        progress = stack.enter_context(console_progress())
        if url is not None:
            transport = sender(url, key)
            give: Callable[[Any], None] = partial(send, transport)
        else:
            file = stack.enter_context(_new(str(out)))
            give = lambda event: print(as_json(event), file=file)  # noqa: E731
        for number, event in enumerate(events(index, made, namespace), 1):
            give(event)
            progress.update("events", number, 2 * len(made))
    say(f"{len(made):,} runs of stages, {2 * len(made):,} events: {url or out}")
    next_steps(store, ("diger why champion", "the same here, as a tree"))


def _new(out: str) -> TextIO:
    from diger_core.errors import DigerError

    try:
        return open(out, "x", encoding="utf-8")
    except OSError as error:
        raise DigerError(f"--out {out}: {error.strerror}: name a new file in a directory that exists") from error
