"""`diger item`, `diger verify`: an item's semantic IDs over time; the whole store against its own hashes."""

from __future__ import annotations

import shlex
import sys
import textwrap

import click

from orchestration.cli.options import json_option, next_steps, open_store, store_option
from orchestration.cli.why import VerifyCommand, print_outcome


@click.command()
@click.argument("item_id", metavar="ITEM")
@click.option("--history", "past", is_flag=True, help="Every ID that the item has had, when, and why it changed.")
@click.option("--released", is_flag=True, help="With --history: only the assignments that were released.")
@json_option
@store_option
def item(item_id: str, past: bool, released: bool, as_json: bool, store: str) -> None:
    """Show ITEM's semantic ID in the champion (or, before the first release, in the newest table).

    ITEM is the item's own id, or the semantic ID that it has now (17-203-88-0).
    """
    from diger_core.ids.notation import written
    from orchestration.audit.id_rows import title_in
    from orchestration.audit.index import Index, plain
    from orchestration.audit.items import history
    from orchestration.audit.names import current_assignment, item_meant
    from orchestration.engine.console import print_json, say
    from orchestration.serving.titles import named

    index = Index(open_store(store))
    item_id = item_meant(index, item_id)
    episodes = history(index, item_id, every=not released)
    if not past:
        now = current_assignment(index)
        episodes = [episode for episode in episodes if episode.assignment == now]
    if as_json:
        print_json([plain(episode) for episode in episodes])
        return
    say(f"item {named(item_id, title_in(index, item_id))}")
    say(f"{'when':<16}  {'ID':<13}  {'assignment':<12}  snapshot")
    for episode in episodes:
        name = "no ID" if episode.id is None else written(episode.id)
        champion = f"  champion #{', #'.join(str(n) for n in episode.released)}" if episode.released else ""
        say(f"{episode.at[:16].replace('T', ' ')}  {name:<13}  {episode.assignment[:12]}  {', '.join(episode.snapshots)}{champion}")
        if past:
            say(textwrap.fill(episode.why, 80, initial_indent=" " * 18, subsequent_indent=" " * 18))
    quoted = shlex.quote(item_id)
    made, had = (
        (f"diger why {shlex.quote(f'item:{item_id}')}", "what its ID was made from"),
        (f"diger item {quoted} --history", "every ID that it has had"),
    )
    next_steps(store, made if past else had, (f"diger similar {quoted}", "items like it"))


@click.command(cls=VerifyCommand)
@click.option("--content", is_flag=True, help="Recompute the canonical hashes too, so that a re-encoded file passes.")
@click.option("--again", is_flag=True, help="Do not continue from an interrupted verification.")
@json_option
@store_option
def verify(content: bool, again: bool, as_json: bool, store: str) -> None:
    """Verify every artefact, record, snapshot and release of the store. Exit code 1 where anything is missing or differs.

    An interrupted verification continues where it stopped.
    """
    from diger_core.store.artefact import cache_directory
    from diger_core.store.canonical import digest
    from orchestration.audit.index import Index
    from orchestration.audit.journal import Journal
    from orchestration.audit.verify import verify_store
    from orchestration.engine.console import print_json

    index = Index(open_store(store), cached=False)
    path = cache_directory() / "verify" / digest(index.store.url, index.root.base, "content" if content else "bytes")[:32]
    if again:
        path.unlink(missing_ok=True)
    outcome = verify_store(index, content, Journal(path))
    if as_json:
        print_json(outcome.as_json())
    else:
        print_outcome(outcome)
    if outcome.faults:
        sys.exit(1)
    if not as_json:
        next_steps(store, ("diger reproduce champion", "build it again, and compare"))
