"""`diger recommend`: the champion's lists to a directory of the user's choice."""

from __future__ import annotations

from typing import Any, Literal

import click

from orchestration.cli.options import json_option, open_store, params_options, store_option


@click.command()
@click.option("--out", required=True, metavar="DIR_OR_URL", help="Where the Parquet shards go; a run that was cut off continues there.")
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
@click.option("--snapshot", metavar="DIR_OR_URL", help="Its events are the histories [default: from params].")
@params_options
@store_option
@json_option
def recommend(
    out: str,
    users: tuple[str, ...],
    items: str | None,
    k: int | None,
    seen: Literal["keep", "remove"] | None,
    snapshot: str | None,
    params_file: str | None,
    overrides: tuple[str, ...],
    store: str,
    as_json: bool,
) -> None:
    """Write the top items for all or given users, by the champion, from all events of the snapshot.

    Columns: user_id, item_id, rank, score. Users without history get the most popular items, without a score. New items take part as soon as
    cold start has given them IDs; nothing is trained.
    """
    from orchestration.engine.console import console_progress, print_json
    from orchestration.params.load import load_params
    from orchestration.serving.shards import counted

    params = load_params(params_file, overrides)
    with console_progress() as progress:
        document = to_directory(params, snapshot or params.snapshot, store, out, users, items, k, seen, progress)
    if as_json:
        print_json(document)
        return
    counts = document["counts"]
    print(
        f"{counted(counts['users'], 'user')}, {counts['users_without_history']:,} without history; {counted(counts['items'], 'item')} to choose from"
    )
    for rule in document["rules"]:
        print(f"Rule {rule['rule']}: {counted(rule['items'], 'item')}")
    print(f"Champion {document['champion'][:12]}; {counted(len(document['shards']), 'shard')} in {out}")


def to_directory(
    params: Any,
    snapshot: str,
    store_url: str,
    out: str,
    users: tuple[str, ...],
    items: str | None,
    k: int | None,
    seen: Literal["keep", "remove"] | None,
    progress: Any,
) -> dict[str, Any]:
    """Brings the snapshot as far as cold start, computes what is missing below `out`, and writes recommendations.json last."""
    import json

    from diger_core.store.files import Root
    from orchestration.engine.registry import register
    from orchestration.engine.runner import Session, refuse_failed
    from orchestration.graph import BY_NAME, STAGES, upstream
    from orchestration.serving.given_ids import read_ids
    from orchestration.serving.lists import Request, removes_seen
    from orchestration.serving.recommendations import present_champion
    from orchestration.serving.rules import Rules
    from orchestration.serving.shards import DOCUMENT, Shards
    from orchestration.serving.shards import recommend as compute

    store = open_store(store_url)
    champion = present_champion(store)  # first: without one, nothing else is worth doing
    session = Session(store, params, register(store, snapshot), progress, {"launched_by": "diger recommend"})
    needed = upstream({"sequences", "neighbours", "cold_start"})
    for stage in STAGES:
        if stage.name in needed:
            refuse_failed(session.materialise(stage).artefact)
    sequences, config = session.find(BY_NAME["sequences"]), params.recommendations
    kinds = {name: sequences.table(f"{name}s.parquet")[f"{name}_id"].type for name in ("user", "item")}
    remove_seen, why = removes_seen(store, champion.hash, seen or config.seen, params.evaluation.remove_seen)
    progress.message(f"recommendations: {why}")
    request = Request(
        url=store.url,
        bundle=champion.hash,
        sequences=sequences.hash,
        neighbours=session.find(BY_NAME["neighbours"]).hash,
        validated_items=session.find(BY_NAME["validated_items"]).hash,
        cold_start=session.find(BY_NAME["cold_start"]).hash,
        k=k or config.k,
        beams=max(config.beams, k or 0),
        shard_users=config.shard_users,
        batch_size=config.batch_size,
        remove_seen=remove_seen,
        users=read_ids(users, "user_id", kinds["user"], "--users") if users else None,
        items=read_ids((items,), "item_id", kinds["item"], "--items", only_files=True) if items else None,
        rules=Rules.read(params.rules, kinds["item"]),
    )
    root = Root(out)
    root.writable()
    made = compute(request, Shards(root), params.cluster, progress)
    document = {"key": request.key, "champion": champion.hash, "snapshot": session.snapshot.key, "k": request.k, "remove_seen": remove_seen}
    document |= made
    document.pop("reused_shards")
    if not root.create(json.dumps(document, indent=1, sort_keys=True).encode(), DOCUMENT):
        progress.message("recommendations: nothing has changed since they were written")
    return document
