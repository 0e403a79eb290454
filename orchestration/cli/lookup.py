"""`diger lookup`: between an item and its semantic ID."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from orchestration.cli.options import json_option, open_store, params_options, store_option

if TYPE_CHECKING:
    import pyarrow as pa

    from diger_core.store.artefacts import Artefact
    from orchestration.engine.runner import Session


@click.command()
@click.option("--item", metavar="ITEM_ID", help="The item whose semantic ID is wanted.")
@click.option("--codes", "--id", "codes", metavar="C1,C2,C3,S", help="A semantic ID, or the beginning of one; with commas or dashes.")
@click.option("--snapshot", metavar="DIR_OR_URL", help="The snapshot [default: from params].")
@click.option("--limit", default=20, show_default=True, help="At most so many items of a prefix.")
@params_options
@store_option
@json_option
def lookup(
    item: str | None,
    codes: str | None,
    snapshot: str | None,
    limit: int,
    params_file: str | None,
    overrides: tuple[str, ...],
    store: str,
    as_json: bool,
) -> None:
    """Find an item's semantic ID (--item), or the items of an ID or prefix (--codes)."""
    if (item is None) == (codes is None):
        raise click.UsageError("give either --item or --codes")
    from diger_core.errors import DigerError
    from orchestration.engine.console import print_json, print_table
    from orchestration.engine.registry import register
    from orchestration.engine.runner import Session
    from orchestration.params.load import load_params

    params = load_params(params_file, overrides)
    opened = open_store(store)
    artefact = id_table_of(Session(opened, params, register(opened, snapshot or params.snapshot)))
    table = artefact.table("items_by_code.parquet")
    rows = by_item(table, item) if item is not None else by_codes(table, str(codes))
    if not rows:
        raise DigerError(f"no item {item!r} in the ID table: check its spelling" if item is not None else f"no item has the ID or prefix {codes}")
    if as_json:
        print_json(rows[:limit])
        return
    columns = list(rows[0])
    print_table(f"{len(rows):,} item{'s' * (len(rows) != 1)}", columns, [[str(row[c]) for c in columns] for row in rows[:limit]])


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


def by_item(table: pa.Table, item: str) -> list[dict[str, Any]]:
    """Rows whose item_id, as text, is `item`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows: list[dict[str, Any]] = table.filter(pc.equal(pc.cast(table["item_id"], pa.string()), item)).to_pylist()
    return rows


def by_codes(table: pa.Table, codes: str) -> list[dict[str, Any]]:
    """Rows whose ID begins with the given codes."""
    import pyarrow.compute as pc

    levels = [name for name in table.column_names if name.startswith("code_")] + ["suffix"]
    parts = codes.replace("-", ",").split(",")
    if len(parts) > len(levels) or not all(re.fullmatch(r" *[0-9]{1,9} *", part) for part in parts):
        raise click.BadParameter(f"{codes!r}: give at most {len(levels)} whole numbers, separated by commas or dashes", param_hint="--codes")
    mask = None
    for name, part in zip(levels, parts, strict=False):
        same = pc.equal(table[name], int(part))
        mask = same if mask is None else pc.and_(mask, same)
    rows: list[dict[str, Any]] = table.filter(mask).to_pylist()
    return rows
