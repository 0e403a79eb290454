"""`diger recommend`: the champion's lists, on the terminal or to a directory of the user's choice."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import click

from orchestration.cli.options import Source, champion_source_options, json_option, next_steps, of_snapshot, prepare

if TYPE_CHECKING:
    from diger_core.progress import Progress
    from diger_core.store.artefacts import Store
    from orchestration.engine.runner import Session
    from orchestration.serving.lists import Request

PRINTED = 100  # users whose lists are printed; for more there is --out


@dataclass(frozen=True)
class Wanted:
    """What is asked for: of which users and items, how many, and whether items stay that the user had before."""

    users: tuple[str, ...]
    items: str | None
    k: int | None
    seen: Literal["keep", "remove"] | None


@click.command()
@click.option("--out", metavar="DIR_OR_URL", help="Where Parquet shards go; a run that was cut off continues there. Without it lists are printed.")
@click.option(
    "--users", multiple=True, metavar="FILE|ID", help="A file of user ids (Parquet, or one a line), or an id; may be repeated [default: all]."
)
@click.option(
    "--items", metavar="FILE", help="Recommend only these (in stock, sold in a region): Parquet with item_id, or one a line [default: all]."
)
@click.option("-k", "k", type=click.IntRange(1, 1000), help="Items for each user [default: recommendations.k].")
@click.option(
    "--seen",
    type=click.Choice(["keep", "remove"]),
    help="Items that the user had before stay in the lists, or are left out [default: recommendations.seen, by how often people come back to one].",
)
@champion_source_options
@json_option
def recommend(
    out: str | None,
    users: tuple[str, ...],
    items: str | None,
    k: int | None,
    seen: Literal["keep", "remove"] | None,
    source: Source,
    as_json: bool,
) -> None:
    """Print the lists of given users (--users), or write those of all or given users (--out), by the champion, from all events of the snapshot.

    Files have the columns user_id, item_id, rank, score. Users without history get the most popular items, without a score. New items take part as
    soon as cold start has given them IDs; nothing is trained. Without --snapshot the events are those that `diger serve` answers from.
    """
    if out is None and not users:
        raise click.UsageError("give --users ID to see lists, or --out DIR_OR_URL to write them for all users")
    from orchestration.engine.console import console_progress, print_json

    store, wanted = source.open(), Wanted(users, items, k, seen)
    with console_progress() as progress:
        session, request = prepared(source, store, wanted, progress)
        document = lists_of(session, request, progress) if out is None else to_directory(session, request, out, progress)
    if as_json:
        print_json(document)
    elif out is None:
        show(document, source)
    else:
        show_written(document, out, store.url)


def prepared(source: Source, store: Store, wanted: Wanted, progress: Progress) -> tuple[Session, Request]:
    """Brings the snapshot as far as cold start: the session, and what is asked for."""
    from orchestration.graph import BY_NAME
    from orchestration.serving.given_ids import read_ids
    from orchestration.serving.lists import Request, removes_seen
    from orchestration.serving.recommendations import present_champion
    from orchestration.serving.rules import Rules

    params = source.params()
    champion = present_champion(store)  # first: without one, nothing else is worth doing
    session = source.champion_session(store, progress, "diger recommend")
    prepare(session, {"sequences", "neighbours", "cold_start"})
    sequences, config = session.find(BY_NAME["sequences"]), params.recommendations
    kinds = {name: sequences.table(f"{name}s.parquet")[f"{name}_id"].type for name in ("user", "item")}
    remove_seen, why = removes_seen(store, champion.hash, wanted.seen or config.seen, params.evaluation.remove_seen)
    progress.message(f"recommendations: {why}")
    return session, Request(
        url=store.url,
        bundle=champion.hash,
        sequences=sequences.hash,
        neighbours=session.find(BY_NAME["neighbours"]).hash,
        validated_items=session.find(BY_NAME["validated_items"]).hash,
        cold_start=session.find(BY_NAME["cold_start"]).hash,
        k=wanted.k or config.k,
        beams=max(config.beams, wanted.k or 0),
        shard_users=config.shard_users,
        batch_size=config.batch_size,
        remove_seen=remove_seen,
        users=read_ids(wanted.users, "user_id", kinds["user"], "--users") if wanted.users else None,
        items=read_ids((wanted.items,), "item_id", kinds["item"], "--items", only_files=True) if wanted.items else None,
        rules=Rules.read(params.rules, kinds["item"]),
    )


def _described(session: Session, request: Request) -> dict[str, Any]:
    return {"key": request.key, "champion": request.bundle, "snapshot": session.snapshot.key, "k": request.k, "remove_seen": request.remove_seen}


def to_directory(session: Session, request: Request, out: str, progress: Progress) -> dict[str, Any]:
    """Computes what is missing below `out`, and writes recommendations.json last."""
    import json

    from diger_core.store.files import Root
    from orchestration.serving.champion_snapshot import newer_than
    from orchestration.serving.shards import DOCUMENT, Shards
    from orchestration.serving.shards import recommend as compute

    root = Root(out)
    root.writable()
    document = _described(session, request) | compute(
        request, Shards(root), session.params.cluster, progress, newer_than(session.store, request.bundle, session.snapshot)
    )
    document.pop("reused_shards")
    if not root.create(json.dumps(document, indent=1, sort_keys=True).encode(), DOCUMENT):
        progress.message("recommendations: nothing has changed since they were written")
    return document


def lists_of(session: Session, request: Request, progress: Progress) -> dict[str, Any]:
    """The lists of a few users in memory, with the items' titles; DigerError for too many of them."""
    from diger_core.errors import DigerError
    from orchestration.graph import BY_NAME
    from orchestration.serving.champion_snapshot import newer_than
    from orchestration.serving.lists import Recommender
    from orchestration.serving.shards import tell
    from orchestration.serving.titles import Titles

    assert request.users is not None
    if len(request.users) > PRINTED:
        raise DigerError(f"--users: {len(request.users):,} users are too many to print (at most {PRINTED}): give --out DIR_OR_URL")
    opened = Recommender(replace(request, shard_users=len(request.users)))
    tell(opened, progress, newer_than(session.store, request.bundle, session.snapshot) if opened.counts["items_without_id"] else None)
    rows = opened(0)
    titles = Titles.of(session.find(BY_NAME["validated_items"]))(rows["item_id"])
    histories = opened.history_lengths()
    lists: dict[Any, dict[str, Any]] = {
        user: {"user_id": user, "known": bool(at >= 0), "events": int(events), "items": []}
        for user, at, events in zip(request.users.to_pylist(), opened.user_n, histories, strict=True)
    }
    for row, title in zip(rows.to_pylist(), titles, strict=True):
        lists[row["user_id"]]["items"].append({name: row[name] for name in ("rank", "item_id", "score")} | {"title": title})
    return _described(session, request) | {"counts": opened.counts, "rules": list(opened.ranker.rules.told), "lists": list(lists.values())}


def show(document: dict[str, Any], source: Source) -> None:
    """A table for each user, then the counts."""
    from orchestration.engine.console import digits, print_table
    from orchestration.serving.titles import short

    for each in document["lists"]:
        after = (
            f"after {each['events']:,} events" if each["events"] else "no history, so popular items" if each["known"] else "unknown, so popular items"
        )
        rows = [
            [str(row["rank"]), str(row["item_id"]), short(row["title"]), "" if row["score"] is None else digits(row["score"])]
            for row in each["items"]
        ]
        print_table(f"User {each['user_id']}: {after}", ["", "item_id", "title", "score"], rows)
    _print_counts(document)
    print(f"Champion {document['champion'][:12]}, snapshot {document['snapshot']}")
    first = next((row["item_id"] for each in document["lists"] for row in each["items"]), None)
    if first is not None:
        of = of_snapshot(source.named)
        like = (f"diger similar {shlex.quote(str(first))}{of}", "items like it")
        next_steps(source.store_url, like, (f"diger recommend --out DIR{of}", "all users"))


def show_written(document: dict[str, Any], out: str, store_url: str) -> None:
    """The counts and the place."""
    from orchestration.serving.shards import counted

    _print_counts(document)
    print(f"Champion {document['champion'][:12]}; {counted(len(document['shards']), 'shard')} in {out}")
    if "://" not in out and document["shards"]:
        next_steps(store_url, (f"diger why {shlex.quote(out)}/{document['shards'][0]['file']}", "what these lists were made from"))


def _print_counts(document: dict[str, Any]) -> None:
    """Users and items, the unknown ones counted, and what each rule concerns."""
    from orchestration.serving.shards import counted

    counts = document["counts"]
    unknown = f", {counts['users_unknown']:,} of them unknown" if counts["users_unknown"] else ""
    left_out = f" ({counts['items_unknown']:,} of --items unknown)" if counts["items_unknown"] else ""
    without = f"{counts['users_without_history']:,} without history"
    print(f"{counted(counts['users'], 'user')}{unknown}, {without}; {counted(counts['items'], 'item')} to choose from{left_out}")
    for rule in document["rules"]:
        print(f"Rule {rule['rule']}: {counted(rule['items'], 'item')}")
