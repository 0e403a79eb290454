"""RecBole atomic files: tab-separated text whose header names each field's type, as in `user_id:token`.

Tokens are ids or words and stay text; `token_seq` holds words separated by spaces. Times are `timestamp:float`: whole numbers are taken as
they are, and a fraction of a second is refused unless told to drop it. Vectors (`float_seq`) and numbers of the items are left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diger_core.errors import DigerError
from orchestration.snapshot.ingest.header import TextFormat, header_cells
from orchestration.snapshot.ingest.source import Source
from orchestration.snapshot.ingest.table import TableOptions, table_source

FIELD_TYPES = ("token", "token_seq", "float", "float_seq")


def recbole_source(inter: Path, item: Path | None, options: TableOptions) -> Source:
    """`options.mapping` renames fields, where they are not called user_id, item_id, timestamp and rating."""
    options = replace(options, text=text_format(inter))
    if item is not None:
        options = replace(options, items_text=text_format(item))
    return table_source(inter, item, options, "recbole")


def text_format(path: Path) -> TextFormat:
    """The field names without their types. DigerError where a header field has no type."""
    plain = TextFormat(delimiter="\t", quoted=False, option="")
    fields = header_cells(path, plain)
    if len(fields) == 1 and fields[0].count(":") > 1:
        raise DigerError(f"{path.name}, line 1: its fields are not separated by tabs; write a tab between two fields, in each line")
    names = []
    for field in fields:
        name, colon, kind = field.rpartition(":")
        if not colon or kind not in FIELD_TYPES:
            raise DigerError(f"{path.name}, line 1: field {field[:60]!r} has no type; a RecBole header reads like user_id:token<tab>item_id:token")
        names.append(name)
    return replace(plain, names=tuple(names), text_fields=tuple(n for n, f in zip(names, fields, strict=True) if "token" in f.rpartition(":")[2]))
