"""`diger similar`: items like an item, on the terminal or for the whole catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestration.cli.options import json_option, open_store, params_options, store_option

if TYPE_CHECKING:
    from diger_core.progress import Progress
    from orchestration.params.sections import Params
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
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Parquet: item_id, similar_id, rank, score.")
@click.option("--snapshot", metavar="DIR_OR_URL", help="The snapshot [default: from params].")
@params_options
@store_option
@json_option
def similar(
    items: tuple[str, ...],
    k: int,
    kind: str,
    everything: bool,
    out: Path | None,
    snapshot: str | None,
    params_file: str | None,
    overrides: tuple[str, ...],
    store: str,
    as_json: bool,
) -> None:
    """Show the items that are most like each ITEM, or write those of the whole catalogue (--all --out FILE).

    Nothing is trained: the answer is counted from all events and read from the items' texts, so a new item has one at once.
    """
    if bool(items) == everything or everything != (out is not None):
        raise click.UsageError("give items, or --all with --out FILE")
    from orchestration.engine.console import console_progress, print_json, print_table
    from orchestration.params.load import load_params
    from orchestration.serving.given_ids import cast_ids
    from orchestration.serving.similar import KINDS

    params, chosen = load_params(params_file, overrides), next(each for each in KINDS if each == kind)
    with console_progress() as progress:
        opened = open_tables(params, snapshot or params.snapshot, store, progress)
        if out is not None:
            written = opened.export(out, k, chosen, progress)
    if out is not None:
        if as_json:
            print_json({"file": str(out), "k": k, "kind": kind, **written})
            return
        print(f"{out}: {written['pairs']:,} pairs of {written['items']:,} items, {written['without']:,} of them without a neighbour")
        return
    import pyarrow as pa

    answers = opened.answers(cast_ids(pa.array(items), opened.item_ids.type, "ITEM", " ".join(items)), k, chosen)
    if as_json:
        print_json(answers)
        return
    for answer in answers:
        if answer["why"] is not None:
            print(f"{named(answer)} has no neighbours: {answer['why']}")
            continue
        rows = [[str(place + 1), str(n["item_id"]), short(n["title"]), f"{n['score']:.4f}"] for place, n in enumerate(answer["neighbours"])]
        print_table(f"Like {named(answer)}", ["", "item_id", "title", "score"], rows)


def open_tables(params: Params, snapshot: str, store_url: str, progress: Progress) -> SimilarItems:
    """Brings the snapshot as far as `neighbours` (nothing is trained) and opens its tables."""
    from orchestration.engine.registry import register
    from orchestration.engine.runner import Session, refuse_failed
    from orchestration.graph import BY_NAME, STAGES, upstream
    from orchestration.serving.similar import SimilarItems

    store = open_store(store_url)
    session = Session(store, params, register(store, snapshot), progress, {"launched_by": "diger similar"})
    needed = upstream({"neighbours"})
    for stage in STAGES:
        if stage.name in needed:
            refuse_failed(session.materialise(stage).artefact)
    found = {name: session.find(BY_NAME[name]) for name in ("sequences", "validated_items", "neighbours")}
    return SimilarItems.of(**found, text_weight=params.training.teacher.text)


def named(answer: Answer) -> str:
    """The item's id with its title behind it; what a terminal would obey is escaped."""
    from orchestration.engine.console import visible

    title, item = short(answer["title"]), visible(str(answer["item_id"]))
    return f"{item} ({title})" if title else item


def short(title: str | None) -> str:
    """A title fit for a table, or nothing."""
    from orchestration.verdict.report.text import printable

    return printable(title, 60) if title else ""
