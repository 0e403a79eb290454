"""`diger ingest`: public formats into a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from orchestration.snapshot.ingest.source import Source

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)
_MAP = "Which column holds user_id, item_id, timestamp, pos, rating, weight or event_type."
_UNITS = click.Choice(["s", "ms", "us", "ns"])


@click.group()
def ingest() -> None:
    """Turn a public format into a snapshot: a directory with interactions.parquet and items.parquet."""


def _moment(_: click.Context, option: click.Parameter, text: str | None) -> int | None:
    from orchestration.snapshot.ingest.times import moment

    try:
        return None if text is None else moment(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no date (2014-07-01), time (2014-07-01T12:00:00) or Unix seconds", param=option) from error


def _mapping(_: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    from orchestration.snapshot.ingest.table import CANONICAL

    mapping = dict(pair.partition("=")[::2] for pair in pairs)
    for name, column in mapping.items():
        if not name or not column:
            raise click.BadParameter(f"{name}: write it as NAME=COLUMN", param=option)
        if option.name == "mapping" and name not in CANONICAL:
            raise click.BadParameter(f"{name} is none of {', '.join(CANONICAL)}", param=option)
    return mapping


def _output_options(command: F) -> F:
    """What all formats share: where to write, and what to keep."""
    for option in reversed((
        click.option("--out", required=True, type=_FILE, help="The snapshot's directory."),
        click.option("--overwrite", is_flag=True, help="Replace a snapshot that exists."),
        click.option("--k-core", default=0, type=click.IntRange(0), help="Keep users and items with at least N interactions each."),
        click.option("--min-rating", type=float, help="Drop interactions rated lower."),
        click.option("--since", callback=_moment, help="Drop earlier interactions: a date, an ISO time (UTC) or Unix seconds."),
        click.option("--until", callback=_moment, help="Drop interactions at or after this time."),
        click.option("--keep-rating", is_flag=True, help="Keep the rating as the column weight."),
    )):  # fmt: skip
        command = option(command)
    return command


def _table_options(command: F) -> F:
    """What files with named columns share."""
    for option in reversed((
        click.option("--map", "mapping", multiple=True, callback=_mapping, metavar="NAME=COLUMN", help=_MAP),
        click.option("--map-items", "items_mapping", multiple=True, callback=_mapping, metavar="NAME=COLUMN", help="Rename a column of the items."),
        click.option("--timestamp-unit", "unit", default="s", type=_UNITS, show_default=True, help="What numeric timestamps count."),
        click.option("--floor-timestamps", "floor", is_flag=True, help="Drop fractions of a second instead of refusing them."),
        click.option("--integer-ids", is_flag=True, help="Ids in text files are integers (default: text, leading zeros kept)."),
    )):  # fmt: skip
        command = option(command)
    return command


@ingest.command()
@click.option("--reviews", required=True, type=_FILE, help="JSON lines, gzipped or plain.")
@click.option("--metadata", type=_FILE, help="JSON lines of the same release.")
@_output_options
def amazon(reviews: Path, metadata: Path | None, **options: Any) -> None:
    """Amazon Reviews 2014, 2018 or 2023; the release is told from the keys."""
    from orchestration.snapshot.ingest.amazon import amazon_source

    _write(amazon_source(reviews, metadata, _with_rating(options)), **options)


@ingest.command()
@click.option("--inter", required=True, type=_FILE, help="The .inter file.")
@click.option("--item", type=_FILE, help="The .item file.")
@_table_options
@_output_options
def recbole(
    inter: Path, item: Path | None, mapping: dict[str, str], items_mapping: dict[str, str], unit: str, floor: bool, integer_ids: bool, **options: Any
) -> None:
    """RecBole atomic files."""
    from orchestration.snapshot.ingest.recbole import recbole_source
    from orchestration.snapshot.ingest.table import TableOptions

    columns = TableOptions(mapping, items_mapping, unit, floor, integer_ids, _with_rating(options))
    _write(recbole_source(inter, item, columns), **options)


@ingest.command()
@click.option("--interactions", required=True, type=_FILE, help="CSV (gzipped or plain) or Parquet.")
@click.option("--items", type=_FILE, help="CSV (gzipped or plain) or Parquet.")
@click.option("--delimiter", default=",", show_default=True, help="Of CSV files; \\t is a tab.")
@_table_options
@_output_options
def table(
    interactions: Path,
    items: Path | None,
    delimiter: str,
    mapping: dict[str, str],
    items_mapping: dict[str, str],
    unit: str,
    floor: bool,
    integer_ids: bool,
    **options: Any,
) -> None:
    """CSV or Parquet files with a column mapping."""
    from orchestration.snapshot.ingest.table import TableOptions, TextFormat, table_source

    delimiter = delimiter.replace("\\t", "\t")
    if len(delimiter) != 1 or not delimiter.isascii():
        raise click.BadParameter("one ASCII character, or \\t", param_hint="--delimiter")
    text = TextFormat(delimiter)
    columns = TableOptions(mapping, items_mapping, unit, floor, integer_ids, _with_rating(options), text, text)
    _write(table_source(interactions, items, columns), **options)


def _with_rating(options: dict[str, Any]) -> bool:
    return options["min_rating"] is not None or options["keep_rating"]


def _write(source: Source, *, out: Path, overwrite: bool, keep_rating: bool, **filters: Any) -> None:
    from orchestration.engine.console import console_progress
    from orchestration.snapshot.ingest.events import Filters
    from orchestration.snapshot.ingest.writer import write_snapshot

    with console_progress() as progress:
        counts = write_snapshot(source, out, Filters(**filters), keep_rating=keep_rating, overwrite=overwrite, progress=progress)
    click.echo("  ".join(f"{name} {count}" for name, count in counts.items()))
