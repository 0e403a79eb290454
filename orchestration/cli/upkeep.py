"""`diger gc`, `diger forget`, `diger reproduce`: what changes a store, or builds a part of it again beside it."""

from __future__ import annotations

import shlex
import sys
from datetime import timedelta

import click

from orchestration.cli.options import json_option, next_steps, open_store, store_option

wait_option = click.option(
    "--wait",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to wait for stages, changes of champion, gc and forget that are at work on the store.",
)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@click.command()
@click.option("--delete", is_flag=True, help="Remove it; without this, only show what would go.")
@click.option("--keep-releases", type=click.IntRange(1), metavar="N", help="Keep the last N entries of the champion log [default: all].")
@click.option("--keep-reports", type=click.IntRange(0), metavar="N", help="Keep the newest N reports [default: all].")
@click.option("--min-age", default=7.0, show_default=True, type=click.FloatRange(0), metavar="DAYS", help="Nothing younger is removed.")
@wait_option
@json_option
@store_option
def gc(delete: bool, keep_releases: int | None, keep_reports: int | None, min_age: float, wait: float, as_json: bool, store: str) -> None:
    """Show, or remove, the artefacts that no release, report or pointer needs, and what crashed runs left behind."""
    from orchestration.audit.collect import Rules, execute, plan
    from orchestration.audit.index import Index
    from orchestration.engine.console import print_json

    index, rules = Index(open_store(store), cached=False), Rules(keep_releases, keep_reports, timedelta(days=min_age))
    found = plan(index, rules)
    if delete:
        found = execute(index, rules, found, wait, tell)
    if as_json:
        print_json({**found.as_json(), "deleted": delete})
        return
    verb = "removed" if delete else "would remove"
    for stage, hash_, size in found.remove:
        print(f"{verb} {stage} {hash_[:12]}  {size:,} bytes")
    for names, size in found.litter:
        print(f"{verb} {'/'.join(names)}  {size:,} bytes, left by an unfinished run")
    print(
        f"{verb} {len(found.remove):,} artefacts and {len(found.litter):,} leftovers, {found.bytes:,} bytes; {len(found.keep):,} artefacts are kept"
    )
    if found.running and not delete:
        print(f"at work now: {found.running[0]}: --delete waits for it as long as --wait says, then refuses")
    if not delete and (found.remove or found.litter):
        print("nothing was changed")
        next_steps(store, ("diger gc --delete", "remove it"))


@click.command()
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only show what would happen.")
@wait_option
@json_option
@store_option
def forget(user: str, yes: bool, dry_run: bool, wait: float, as_json: bool, store: str) -> None:
    """Remove USER's events from every stored artefact, and name the models that saw them and the copies elsewhere."""
    from orchestration.audit.forget import find, was_forgotten
    from orchestration.audit.forget import forget as act
    from orchestration.audit.index import Index
    from orchestration.engine.console import print_json

    index = Index(open_store(store), cached=False)
    found = find(index, user)
    if not found.holders and not found.pages and not as_json:
        print("forgotten before: nothing of this user is stored any more" if was_forgotten(index, user) else "nothing of this user is stored")
    if not as_json:
        _print_findings(index, found)
    if (found.holders or found.pages) and not dry_run:
        if not yes:
            _ask("Write these artefacts again without the user and remove the old ones?")
        found, replaced = act(index, user, wait, tell)
        if not as_json:
            print(f"rewrote {len(replaced)} artefacts, removed {len(found.pages)} others; `diger why` explains each gap")
            next_steps(store, ("diger verify", "the whole store again"), ("diger run", "a model that never saw the user"))
    elif dry_run and (found.holders or found.pages) and not as_json:
        next_steps(store, (f"diger forget {shlex.quote(user)}", "do it"))
    if as_json:
        print_json({**found.as_json(index), "done": bool(found.holders or found.pages) and not dry_run})


def _ask(question: str) -> None:
    """DigerError where the answer is not yes, or there is none: without a terminal nobody can be asked."""
    from diger_core.errors import DigerError

    try:
        click.confirm(question, abort=True)
    except click.Abort as stop:
        print(file=sys.stderr)  # the question's line is open
        raise DigerError("not confirmed, so nothing was changed; where nobody can be asked, give --yes (--dry-run only shows)") from stop


def _print_findings(index, found) -> None:  # type: ignore[no-untyped-def]
    from orchestration.audit.forward import period

    for artefact in found.holders:
        print(f"holds events: {artefact.stage} {artefact.hash[:12]}")
    for artefact in found.pages:
        print(f"may show them: {artefact.stage} {artefact.hash[:12]} (removed, not rewritten: run the flow for a new one)")
    for stage, hash_ in found.models:
        print(f"saw them: {stage} {hash_[:12]}: train it again, and release")
    for entry in found.releases:
        end = period(index, entry)[1]
        print(f"saw them: champion #{entry.number}" + (f", until {end[:19]}" if end else ", which serves now: release a new one"))
    for place in found.copies:
        print(f"still holds them: {place}")


@click.command()
@click.argument("what", metavar="X")
@click.option("--here", is_flag=True, help="Use the code of this checkout instead of the recorded commit.")
@click.option("--allow-dirty", is_flag=True, help="Reproduce where the recorded run had uncommitted changes: with the commit that it began from.")
@click.option("--snapshot", metavar="DIR_OR_URL", help="Take the raw files from here (for instance after dvc pull) instead of the store.")
@click.option("--keep", metavar="DIR", help="Keep the scratch store there.")
@json_option
@store_option
def reproduce(what: str, here: bool, allow_dirty: bool, snapshot: str | None, keep: str | None, as_json: bool, store: str) -> None:
    """Build X and everything that it was made from again, beside the store, and compare. Exit code 1 where anything differs."""
    from orchestration.audit.index import Index
    from orchestration.audit.names import resolve
    from orchestration.audit.reproduce import How, rebuild
    from orchestration.engine.console import print_json

    index = Index(open_store(store))
    result = rebuild(index, resolve(index, what), How(here, allow_dirty, snapshot, keep))
    if as_json:
        print_json(result.as_json())
    else:
        for line in result.text():
            print(line)
    if not result.equal:
        sys.exit(1)
