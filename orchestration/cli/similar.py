"""`diger similar`: items like an item, on the terminal or for the whole catalogue."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestration.cli.options import Source, champion_source_options, json_option, local_path, next_steps, of_snapshot, prepare

if TYPE_CHECKING:
    from diger_core.progress import Progress
    from diger_core.store.artefacts import Store
    from orchestration.serving.similar import Answer, SimilarItems


@click.command()
@click.argument("items", nargs=-1, metavar="ITEM…")
@click.option("-k", "--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Neighbours of each item.")
@click.option(
    "--kind",
    type=click.Choice(["both", "transitions", "text"]),
    default="both",
    show_default=True,
    help="transitions: what follows it in people's events; text: what reads like it.",
)
@click.option("--all", "everything", is_flag=True, help="Every item of the catalogue, to --out.")
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False), callback=local_path, help="Parquet: item_id, similar_id, rank, score.")
@champion_source_options
@json_option
def similar(items: tuple[str, ...], k: int, kind: str, everything: bool, out: Path | None, source: Source, as_json: bool) -> None:
    """Show the items that are most like each ITEM, or write those of the whole catalogue (--all --out FILE).

    ITEM is an item's own id, or its semantic ID (17-203-88-0). Nothing is trained: the answer is counted from all events and read from the items'
    texts, so a new item has one at once. Exit code 1 where an ITEM is not in the catalogue; the others are answered.
    """
    if bool(items) == everything or everything != (out is not None):
        raise click.UsageError("give items, or --all with --out FILE")
    from orchestration.engine.console import console_progress, print_json
    from orchestration.serving.similar import KINDS

    chosen, store = next(each for each in KINDS if each == kind), source.open()
    with console_progress() as progress:
        opened = open_tables(source, store, progress)
        if out is not None:
            written = opened.export(out, k, chosen, progress)
    if out is not None:
        if as_json:
            print_json({"file": str(out), "k": k, "kind": kind, **written})
            return
        print(f"{out}: {written['pairs']:,} pairs of {written['items']:,} items, {written['without']:,} of them without a neighbour")
        return
    import pyarrow as pa

    from orchestration.serving.given_ids import cast_ids

    named = [_meant(store, opened, item) for item in items]
    answers, unknown = opened.answers(cast_ids(pa.array(named), opened.item_ids.type, "ITEM", " ".join(items)), k, chosen)
    if as_json:
        print_json(answers)
    else:
        _show(answers)
    if unknown is not None:
        raise unknown
    if not as_json:
        of = of_snapshot(source.named)
        item = (f"diger lookup --item {shlex.quote(named[0])}{of}", "its semantic ID")
        next_steps(source.store_url, item, (f"diger similar --all --out FILE{of}", "of all"))


def _meant(store: Store, opened: SimilarItems, item: str) -> str:
    """The item itself, or the one whose semantic ID this is."""
    from diger_core.ids.notation import read

    if read(item) is None or "-" not in item or opened.holds(item):
        return item
    from orchestration.audit.index import Index
    from orchestration.audit.names import item_meant

    return item_meant(Index(store), item)


def _show(answers: list[Answer]) -> None:
    from orchestration.engine.console import digits, print_table, say
    from orchestration.serving.titles import named, short

    for answer in answers:
        told = named(answer["item_id"], answer["title"])
        if answer["why"] is not None:
            say(f"{told} has no neighbours: {answer['why']}")
            continue
        rows = [[str(place + 1), str(n["item_id"]), short(n["title"]), f"{digits(n['score'])}"] for place, n in enumerate(answer["neighbours"])]
        print_table(f"Like {told}", ["", "item_id", "title", "score"], rows)


def open_tables(source: Source, store: Store, progress: Progress) -> SimilarItems:
    """Brings the snapshot as far as `neighbours` (nothing is trained) and opens its tables."""
    from orchestration.graph import BY_NAME
    from orchestration.serving.similar import SimilarItems

    session = source.champion_session(store, progress, "diger similar")
    prepare(session, {"neighbours"})
    found = {name: session.find(BY_NAME[name]) for name in ("sequences", "validated_items", "neighbours")}
    return SimilarItems.of(**found, text_weight=session.params.training.teacher.text)
