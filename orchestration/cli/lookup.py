"""`diger lookup`: between an item and its semantic ID."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from orchestration.cli.options import Source, champion_source_options, json_option, next_steps, of_snapshot

if TYPE_CHECKING:
    import pyarrow as pa

    from diger_core.store.artefact import Artefact
    from orchestration.engine.runner import Session


@click.command()
@click.option("--item", metavar="ITEM_ID", help="The item whose semantic ID is wanted.")
@click.option("--id", "--codes", "codes", metavar="17-203-88-0", help="A semantic ID, or the beginning of one.")
@click.option("--limit", default=20, show_default=True, help="At most so many items of a prefix.")
@champion_source_options
@json_option
def lookup(item: str | None, codes: str | None, limit: int, source: Source, as_json: bool) -> None:
    """Find an item's semantic ID (--item), or the items of an ID or prefix (--id)."""
    if (item is None) == (codes is None):
        raise click.UsageError("give either --item or --id")
    from diger_core.errors import DigerError
    from diger_core.ids.notation import id_of
    from diger_core.progress import Silent
    from orchestration.engine.console import print_json, print_table
    from orchestration.serving.titles import short

    store = source.open()
    session = source.champion_session(store, Silent(), "diger lookup", own=True)
    if source.named is None:
        print(f"IDs of snapshot {session.snapshot.key}", file=sys.stderr)
    table = id_table_of(session).table("items_by_code.parquet")
    found = by_item(table, item) if item is not None else by_codes(table, str(codes))
    if not len(found):
        raise DigerError(f"no item {item!r} in the ID table: check its spelling" if item is not None else f"no item has the ID or prefix {codes}")
    rows = with_titles(session, found.slice(0, limit))
    if as_json:
        print_json(rows)
        return
    cut = f", the first {limit:,} of them" if len(found) > limit else ""
    title = f"{len(found):,} item{'s' * (len(found) != 1)}{cut}"
    print_table(title, ["item_id", "title", "ID"], [[str(row["item_id"]), short(row["title"]), str(id_of(row))] for row in rows])
    first = shlex.quote(str(rows[0]["item_id"]))
    like = (f"diger similar {first}{of_snapshot(source.named)}", "items like it")
    next_steps(source.store_url, like, (f"diger item {first} --history", "every ID that it has had"))


def with_titles(session: Session, table: pa.Table) -> list[dict[str, Any]]:
    """The table's rows, each with `title` (null where the catalogue has no text) and `id`, its semantic ID as it is written."""
    from diger_core.ids.notation import id_of
    from orchestration.engine.runner import MissingInput
    from orchestration.graph import BY_NAME
    from orchestration.serving.titles import Titles

    try:
        titles = Titles.of(session.find(BY_NAME["validated_items"]))(table["item_id"])
    except MissingInput:  # IDs of other parameters than these
        titles = [None] * len(table)
    return [{**row, "title": title, "id": id_of(row)} for row, title in zip(table.to_pylist(), titles, strict=True)]


def id_table_of(session: Session) -> Artefact:
    """The table that the session's params lead to; where there is none, the newest of its snapshot, and a line on stderr says so."""
    from orchestration.audit.index import Index
    from orchestration.engine.runner import MissingInput
    from orchestration.graph import BY_NAME

    try:
        return session.find(BY_NAME["semantic_ids"])
    except MissingInput:
        index = Index(session.store)
        for made in reversed(index.made):
            found = index.artefact(made.artefact) if made.stage == "semantic_ids" and made.snapshot == session.snapshot.key else None
            if found is not None:
                told = f"made {made.at[:16].replace('T', ' ')} with other parameters or another starting bundle"
                print(f"the newest IDs of snapshot {session.snapshot.key}: {found.hash[:12]}, {told}", file=sys.stderr)
                return found
        raise


def by_item(table: pa.Table, item: str) -> pa.Table:
    """Rows whose item_id, as text, is `item`; where there is none and it has the form of an ID, the row of that ID."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from diger_core.ids.notation import read

    found = table.filter(pc.equal(pc.cast(table["item_id"], pa.string()), item))
    numbers = read(item)
    return by_codes(table, item) if not len(found) and numbers is not None and len(numbers) == len(_levels(table)) else found


def by_codes(table: pa.Table, codes: str) -> pa.Table:
    """Rows whose ID begins with the given codes."""
    import pyarrow.compute as pc

    from diger_core.ids.notation import read

    levels, numbers = _levels(table), read(codes)
    if numbers is None or len(numbers) > len(levels):
        raise click.BadParameter(f"{codes!r}: write at most {len(levels)} whole numbers with dashes, as in 17-203-88-0", param_hint="--id")
    mask = None
    for name, number in zip(levels, numbers, strict=False):
        same = pc.equal(table[name], number)
        mask = same if mask is None else pc.and_(mask, same)
    return table.filter(mask)


def _levels(table: pa.Table) -> list[str]:
    from diger_core.ids.notation import code_columns

    return [*code_columns(table.column_names), "suffix"]
