"""`diger champion`, `diger promote`, `diger rollback`: which bundle serves, and changing that by hand."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from orchestration.cli.options import json_option, next_steps, open_store, store_option

if TYPE_CHECKING:
    from orchestration.champion.log import Entry


@click.command()
@click.option("--history", "whole", is_flag=True, help="All entries of the log, oldest first.")
@store_option
@json_option
def champion(whole: bool, store: str, as_json: bool) -> None:
    """Show the bundle that serves, since when and why."""
    from diger_core.errors import DigerError
    from orchestration.champion.log import current, history
    from orchestration.engine.console import print_json, print_table

    opened = open_store(store)
    if whole:
        entries = history(opened)
        if as_json:
            print_json([dataclasses.asdict(entry) for entry in entries])
            return
        rows = [
            [str(e.number), e.action + (" (forced)" if e.forced else ""), e.bundle[:12], e.at[:16].replace("T", " "), e.by, e.reason] for e in entries
        ]
        print_table("Champions, oldest first", ["no.", "by", "bundle", "at (UTC)", "who", "reason"], rows)
        if len(entries) > 1:
            back = ("diger rollback --to N --reason TEXT", "let entry N serve again")
            next_steps(store, ("diger report compare champion~1 champion", "what the last change brought"), back)
        return
    entry = current(opened)
    if entry is None:
        raise DigerError(f"{opened.url}: there is no champion: run the flow (diger run), whose last stage releases what the gate accepts")
    if as_json:
        print_json(dataclasses.asdict(entry))
        return
    show(entry)
    steps = [("diger why champion --verify", "what it was made from, every file hashed again"), ("diger report show champion", "its report")]
    if entry.previous:
        steps.append(("diger rollback --reason TEXT", "let the one before serve again"))
    next_steps(store, *steps)


@click.command()
@click.argument("bundle", metavar="BUNDLE")
@click.option("--reason", required=True, help="Why: the log keeps it.")
@click.option("--force", is_flag=True, help="Without an accepting verdict against the present champion; the log keeps that, too.")
@store_option
def promote(bundle: str, reason: str, force: bool, store: str) -> None:
    """Make BUNDLE (its hash, or the beginning of it) the champion."""
    from orchestration.champion.baseline import find_bundle
    from orchestration.champion.log import promote as change

    opened = open_store(store)
    show(change(opened, find_bundle(opened, bundle).hash, reason, force=force))
    next_steps(store, *_AFTER_CHANGE)


@click.command()
@click.option("--to", type=int, metavar="N", help="The entry whose bundle is to serve again [default: the one before the present].")
@click.option("--reason", required=True, help="Why: the log keeps it.")
@store_option
def rollback(to: int | None, reason: str, store: str) -> None:
    """Make an earlier champion serve again. One more entry of the log, so it can itself be rolled back."""
    from orchestration.champion.log import rollback as change

    show(change(open_store(store), reason, to))
    next_steps(store, *_AFTER_CHANGE)


_AFTER_CHANGE = (
    ("diger recommend --out DIR", "everybody's lists by the model that serves now"),
    ("diger champion --history", "every change; `diger rollback --to N` undoes one"),
)


def show(entry: Entry) -> None:
    """The entry in a few lines."""
    from orchestration.engine.console import say

    forced = ", forced without an accepting verdict" if entry.forced else ""
    print(f"Champion #{entry.number}: bundle {entry.bundle[:12]}")
    say(f"  by:      {entry.action}{forced}, {entry.at[:16].replace('T', ' ')} UTC, {entry.by}")
    say(f"  reason:  {entry.reason}")
    print(f"  before:  {'bundle ' + entry.previous[:12] if entry.previous else 'none, the first one'}")
    print(f"  verdict: {'gate ' + entry.verdict[:12] if entry.verdict else 'none'}")
