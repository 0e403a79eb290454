"""`diger ingest`: public formats into a snapshot."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestration.snapshot.ingest import values

if TYPE_CHECKING:
    from orchestration.snapshot.ingest.header import TextFormat
    from orchestration.snapshot.ingest.overlap import Rule
    from orchestration.snapshot.ingest.source import Source
    from orchestration.snapshot.ingest.table import TableOptions

F = TypeVar("F", bound=Callable[..., Any])
_FILE = values.LocalPath()
_MAP = "Which column holds user_id, item_id, timestamp, pos, rating, weight or event_type."
_UNITS = click.Choice(["s", "ms", "us", "ns"])
_RULES = click.Choice(["keep", "drop", "refuse"])
_READING = ("timestamp_format", "decimal_comma", "event_types", "drop_invalid")


@click.group()
def ingest() -> None:
    """Turn a public format into a snapshot: a directory with interactions.parquet and items.parquet."""


def _output_options(command: F) -> F:
    """What all formats share: where to write, and what to keep."""
    for option in reversed((
        click.option("--out", required=True, type=_FILE, help="The snapshot's directory."),
        click.option("--overwrite", is_flag=True, help="Replace a snapshot that exists."),
        click.option("--k-core", default=0, type=click.IntRange(0), help="Keep users and items with at least N interactions each."),
        click.option("--min-rating", type=float, help="Drop interactions rated lower."),
        click.option("--since", callback=values.moment, help="Drop earlier interactions: a date, an ISO time (UTC) or Unix seconds."),
        click.option("--until", callback=values.moment, help="Drop interactions at or after this time."),
        click.option("--keep-rating", is_flag=True, help="Keep the rating as the column weight."),
    )):  # fmt: skip
        command = option(command)
    return command


def _reading_options(command: F) -> F:
    """How files with named columns are read."""
    for option in reversed((
        click.option("--map", "mapping", multiple=True, callback=values.mapping, metavar="NAME=COLUMN", help=_MAP),
        click.option("--map-items", "items_mapping", multiple=True, callback=values.mapping, metavar="NAME=COLUMN", help="Rename an item's column."),
        click.option("--timestamp-unit", "unit", default="s", type=_UNITS, show_default=True, help="What numeric timestamps count."),
        click.option("--floor-timestamps", "floor", is_flag=True, help="Drop fractions of a second instead of refusing them."),
        click.option("--timestamp-format", callback=values.time_format, metavar="FORMAT", help="Of times, as in '%m/%d/%y %H:%M' [ISO 8601]."),
        click.option("--decimal-comma", is_flag=True, help="Numbers in text files are written as 4,5."),
        click.option("--drop-invalid", is_flag=True, help="Leave out and count rows without an id or with unreadable values."),
    )):  # fmt: skip
        command = option(command)
    return command


def _table_options(command: F) -> F:
    """What files with named columns share."""
    for option in reversed((
        click.option("--integer-ids", is_flag=True, help="Ids are integers, also where written as 17.0 (default: text, leading zeros kept)."),
        click.option("--event-types", callback=values.kinds, metavar="TYPE,TYPE…", help="Keep only events of these types [default: all]."),
    )):  # fmt: skip
        command = option(command)
    return _reading_options(command)


def _text_options(command: F) -> F:
    """How text files are cut."""
    for option in reversed((
        click.option("--delimiter", default=",", show_default=True, callback=values.delimiter, help="Of CSV files; \\t is a tab."),
        click.option("--encoding", default="utf-8", show_default=True, callback=values.encoding, help="Of CSV files, for instance cp1252."),
        click.option("--columns", callback=values.names, metavar="NAME,NAME…", help="The columns, where the interactions have no line of names."),
        click.option("--items-delimiter", callback=values.delimiter, help="Where it differs from the interactions'."),
        click.option("--items-encoding", callback=values.encoding, help="Where it differs from the interactions'."),
        click.option("--items-columns", callback=values.names, metavar="NAME,NAME…", help="The columns, where the items have no line of names."),
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
def recbole(inter: Path, item: Path | None, **options: Any) -> None:
    """RecBole atomic files."""
    from orchestration.snapshot.ingest.recbole import recbole_source

    columns = _columns(options)
    _write(recbole_source(inter, item, columns), **options)


@ingest.command()
@click.option("--interactions", required=True, type=_FILE, help="CSV (gzipped or plain), Parquet, Parquet parts in a directory, Delta, Iceberg.")
@click.option("--items", type=_FILE, help="Likewise; without it the catalogue has ids alone.")
@_text_options
@_table_options
@_output_options
def table(
    interactions: Path,
    items: Path | None,
    delimiter: str,
    encoding: str,
    columns: tuple[str, ...] | None,
    items_delimiter: str | None,
    items_encoding: str | None,
    items_columns: tuple[str, ...] | None,
    **options: Any,
) -> None:
    """CSV or Parquet files with a column mapping.

    At the end a line tells what was dropped, floored and merged.
    """
    from orchestration.snapshot.ingest.header import TextFormat
    from orchestration.snapshot.ingest.table import table_source

    text = TextFormat(delimiter, names=columns, header=columns is None, encoding=encoding)
    items_text = TextFormat(
        items_delimiter or delimiter,
        names=items_columns,
        header=items_columns is None,
        encoding=items_encoding or encoding,
        option="--items-encoding",
    )
    _write(table_source(interactions, items, _columns(options, text=text, items_text=items_text)), **options)


@ingest.command()
@click.argument("snapshot", type=_FILE)
@click.option("--interactions", required=True, type=_FILE, help="The day's events (reviews, .inter), in the format of the first ones.")
@click.option("--items", type=_FILE, help="The day's items (metadata, .item): all, or new and changed ones. A row replaces the item's row.")
@click.option("--out", required=True, type=_FILE, help="The new snapshot's directory.")
@click.option("--overwrite", is_flag=True, help="Replace a snapshot that exists.")
@click.option("--late", type=_RULES, help="Events older than the snapshot's newest [default: keep; a day that is older as a whole is refused].")
@click.option("--duplicates", type=_RULES, default="drop", show_default=True, help="Events that the snapshot has already, equal in every column.")
@click.option("--without", type=_FILE, help="Ids of users, one a line: their events are left out, old ones too.")
@click.option("--store", default="store", show_default=True, envvar="DIGER_STORE", help="Where diger forget has noted who is forgotten.")
@_text_options
@_reading_options
@click.pass_context
def append(
    context: click.Context,
    /,
    snapshot: Path,
    interactions: Path,
    items: Path | None,
    out: Path,
    overwrite: bool,
    late: Rule | None,
    duplicates: Rule,
    without: Path | None,
    store: str,
    **reading: Any,
) -> None:
    """Make a new snapshot from SNAPSHOT and a day's files.

    Equal, byte for byte, to a full ingest of all events with the items as they are now. Files are read as those of SNAPSHOT were; options of reading
    say what is different today.
    """
    from orchestration.engine.console import console_progress, print_next
    from orchestration.snapshot.ingest.append import append_snapshot
    from orchestration.snapshot.ingest.overlap import Policy
    from orchestration.snapshot.ingest.previous import day_source, open_previous
    from orchestration.snapshot.ingest.without import forgotten_users

    given = {name: value for name, value in reading.items() if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    previous = open_previous(snapshot)
    users, warning = forgotten_users(previous.path, without, store)
    source = day_source(previous, interactions, items, given)
    with console_progress() as progress:
        done = append_snapshot(previous, source, out, Policy(late, duplicates), without=users, overwrite=overwrite, progress=progress)
    of_files, *said = source.notes.lines()
    for line in [f"{done.line}; of the files {of_files}", *said, *warning]:
        click.echo(line)
    print_next([(f"diger run --snapshot {shlex.quote(str(out))}", "compare, retrain if it pays, judge, release")])


def _columns(options: dict[str, Any], text: TextFormat | None = None, items_text: TextFormat | None = None) -> TableOptions:
    """Takes its own options out of those of the command."""
    from orchestration.snapshot.ingest.header import TextFormat
    from orchestration.snapshot.ingest.table import TableOptions

    own = {name: options.pop(name) for name in ("mapping", "items_mapping", "unit", "floor", "integer_ids", *_READING)}
    return TableOptions(**own, with_rating=_with_rating(options), text=text or TextFormat(), items_text=items_text or TextFormat())


def _with_rating(options: dict[str, Any]) -> bool:
    return options["min_rating"] is not None or options["keep_rating"]


def _write(source: Source, *, out: Path, overwrite: bool, keep_rating: bool, **filters: Any) -> None:
    from orchestration.engine.console import console_progress, print_next
    from orchestration.snapshot.ingest.events import Filters
    from orchestration.snapshot.ingest.writer import write_snapshot

    with console_progress() as progress:
        counts = write_snapshot(source, out, Filters(**filters), keep_rating=keep_rating, overwrite=overwrite, progress=progress)
    click.echo("  ".join(f"{name} {count}" for name, count in counts.items() if ":" not in name))
    for line in source.notes.lines():
        click.echo(line)
    if not source.items:
        click.echo(
            "without --items the catalogue has ids alone: semantic IDs will come from who bought what, and a new item has none before its first sale"
        )
    print_next(
        [
            (f"diger run --snapshot {shlex.quote(str(out))}", "train, judge, release"),
            (f"diger params --suggest {shlex.quote(str(out))}", "values for a snapshot of this size"),
        ]
    )
