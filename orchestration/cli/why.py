"""`diger why`, `diger where-used`: what something was made from, and what was made with it."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from orchestration.cli.options import json_option, next_steps, open_store, store_option
from orchestration.engine.console import print_json, say

if TYPE_CHECKING:
    from orchestration.audit.chain import Chain
    from orchestration.audit.forward import Uses
    from orchestration.audit.index import Index
    from orchestration.audit.names import Thing
    from orchestration.audit.verify import Outcome


class VerifyCommand(click.Command):
    """`--verify` alone means bytes; click would take the next argument for its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--verify=bytes" if arg == "--verify" else arg for arg in args])


verify_option = click.option(
    "--verify",
    type=click.Choice(["bytes", "content"]),
    metavar="[=content]",
    help="Hash all bytes on the way again; =content: the canonical content too, so that a re-encoded file passes.",
)


@click.command(cls=VerifyCommand)
@click.argument("what", metavar="X")
@json_option
@verify_option
@click.option("--html", "page", metavar="FILE", help="Also draw the chain as a page, with a picture.")
@click.option("--depth", type=click.IntRange(0), metavar="N", help="Show at most N steps back [default: all the way].")
@click.option("--all", "whole", is_flag=True, help="Unfold what lies behind earlier bundles.")
@store_option
def why(what: str, as_json: bool, verify: str | None, page: str | None, depth: int | None, whole: bool, store: str) -> None:
    """Show what X was made from, back to the snapshot's bytes.

    X: the beginning of a hash (artefact, ID assignment, record), a path, a stage (its newest artefact), `champion`, `champion~1`,
    `item:ITEM`, a semantic ID (17-203-88-0), FILE#ROW of a table of recommendations, or a snapshot. Exit code 1 where anything is missing or differs.
    """
    from orchestration.audit.chain import chain
    from orchestration.audit.index import Index
    from orchestration.audit.names import resolve

    index = Index(open_store(store))
    thing = resolve(index, what)
    found = chain(index, thing)
    outcome = _verified(index, found, verify)
    if page:
        from orchestration.audit.page import write_page

        write_page(page, index, found, outcome)
    if as_json:
        _print_json(index, thing, found, outcome)
    else:
        _print(index, thing, found, outcome, whole, depth)
    index.remember()
    faults = [*found.problems, *index.faults, *(outcome.faults if outcome else [])]
    if not as_json:
        steps = [] if verify else [(f"diger why {shlex.quote(what)} --verify", "every file hashed again")]
        steps += [(page, "open it in a browser")] if page else [(f"diger why {shlex.quote(what)} --html FILE", "the chain as a picture")]
        next_steps(store, *steps)
    if faults:
        sys.exit(1)


def _verified(index: Index, found: Chain, verify: str | None) -> Outcome | None:
    if verify is None:
        return None
    from orchestration.audit.verify import verify_chain

    return verify_chain(index, found, content=verify == "content")


def _print_json(index: Index, thing: Thing, found: Chain, outcome: Outcome | None) -> None:
    from orchestration.audit import subject, tree

    value: dict[str, Any] = {"subject": subject.as_json(index, thing), **tree.as_json(index, found), "releases": subject.releases_json(index, thing)}
    if outcome is not None:
        value["verification"] = outcome.as_json()
    print_json({**value, "faults": [*found.problems, *index.faults]})


def _print(index: Index, thing: Thing, found: Chain, outcome: Outcome | None, whole: bool, depth: int | None) -> None:
    from orchestration.audit import subject, tree

    for told in subject.text(index, thing):
        say("\n".join(tree.wrapped(told, "")))
    for line in tree.text(index, found, whole, depth):
        say(line)
    for told in subject.released(index, thing):
        say("\n".join(tree.wrapped(told, "")))
    if outcome is not None:
        print_outcome(outcome)


def print_outcome(outcome: Outcome) -> None:
    for note in outcome.notes:
        say(f"note: {note}")
    for fault in outcome.faults:
        say(f"FAULT {fault}")
    say(outcome.summary)


@click.command(name="where-used")
@click.argument("what", metavar="X")
@click.option("--item", metavar="ITEM_ID", help="Also list the users to whom this item (its own id or its semantic ID) was recommended.")
@json_option
@store_option
def where_used(what: str, item: str | None, as_json: bool, store: str) -> None:
    """Show everything that was made with X: a snapshot, an ID assignment, an encoder, a code commit, any artefact."""
    from orchestration.audit import forward
    from orchestration.audit.index import Index
    from orchestration.audit.names import item_meant, resolve

    index = Index(open_store(store))
    item = None if item is None else item_meant(index, item)
    uses = forward.where_used(index, resolve(index, what))
    customers = _customers(index, uses, item)
    index.remember()
    nobody = _nobody(index, customers, item)
    if as_json:
        print_json({**forward.as_json(index, uses), **({"customers": customers, "customers_note": nobody} if item is not None else {})})
        return
    _print_uses(index, uses)
    if nobody:
        say(nobody)
    for hash_, users in customers.items():
        say(f"item {item} was recommended to {len(users):,} users in {hash_[:12]}" + (f": {', '.join(users[:20])}" if users else ""))
    next_steps(store, (f"diger why {shlex.quote(what)}", "the other way: what it was made from"))


def _customers(index: Index, uses: Uses, item: str | None) -> dict[str, list[str]]:
    if item is None:
        return {}
    from orchestration.audit.customers import recommended_to

    return recommended_to(index, uses.reached.get("recommendations", []), item)


def _nobody(index: Index, customers: dict[str, list[str]], item: str | None) -> str | None:
    """Why nobody is listed, where that is no answer: the item is unknown, or no recommendations were stored."""
    from diger_core.errors import DigerError
    from orchestration.audit.items import history

    if item is None or any(customers.values()):
        return None
    try:
        history(index, item)
    except DigerError as error:
        return f"item {item}: nobody can be listed: {error}"
    if customers:
        return None
    return (
        f"item {item}: no stored recommendations were made with this, so nobody can be listed: stage recommendations (`diger run`) stores them, "
        "`diger recommend --out` writes them elsewhere"
    )


def _print_uses(index: Index, uses: Uses) -> None:
    from orchestration.audit.forward import period

    print("from " + ", ".join(f"{index.stage_of(hash_)} {hash_[:12]}" for hash_ in uses.starts[:6]) + (" …" if len(uses.starts) > 6 else ""))
    if not uses.reached:
        print("nothing was made with it")
    for stage, hashes in uses.reached.items():
        print(f"{stage} ({len(hashes)})")
        for hash_ in hashes:
            snapshots = ", ".join(sorted({str(made.snapshot) for made in index.makers[hash_] if made.snapshot}))
            gone = "" if hash_ in index.present else "  (no longer in the store)"
            print(f"  {hash_[:12]}  {index.made_at(hash_)[:16].replace('T', ' ')}  {snapshots}{gone}")
    for entry in uses.releases:
        start, end = period(index, entry)
        until = f"until {end[:19].replace('T', ' ')}" if end else "and still serves"
        print(f"served as champion #{entry.number} ({entry.action}): from {start[:19].replace('T', ' ')} {until}")
