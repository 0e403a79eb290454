"""A snapshot that `diger ingest` wrote, opened to be continued: its files, its options, and a day's files read by the same options."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from orchestration.snapshot.ingest import event_files, item_files
from orchestration.snapshot.ingest.amazon import amazon_source
from orchestration.snapshot.ingest.events import Filters
from orchestration.snapshot.ingest.header import TextFormat
from orchestration.snapshot.ingest.recbole import recbole_source
from orchestration.snapshot.ingest.source import FileFacts, Source, file_facts
from orchestration.snapshot.ingest.table import TableOptions, table_source
from orchestration.snapshot.ingest.writer import DOCUMENT
from orchestration.snapshot.parts import reading_of

AGAIN = "make the snapshot again with diger ingest"


class Document(TypedDict):
    """ingest.json."""

    format: str
    files: list[FileFacts]
    options: dict[str, Any]
    counts: dict[str, int]


@dataclass(frozen=True)
class Previous:
    """`parts`: the files of the events, in their order, and the footer of each. `described`: how many rows of items.parquet have metadata; they come
    first. `waiting`: the metadata of items without events, or None."""

    path: Path
    document: Document
    parts: Mapping[Path, pq.FileMetaData]
    events: pa.Schema
    items: Path
    item_columns: pa.Schema
    described: int
    waiting: Path | None

    @property
    def rows(self) -> int:
        return sum(part.num_rows for part in self.parts.values())

    @property
    def filters(self) -> Filters:
        return Filters(**{field.name: self.document["options"][field.name] for field in fields(Filters)})

    @property
    def keep_rating(self) -> bool:
        return bool(self.document["options"]["keep_rating"])

    def tables(self) -> Iterator[pa.Table]:
        """The events, one row group at a time."""
        for part in self.parts:
            with reading_of(part):
                file = pq.ParquetFile(part)
            with file:
                for group in range(file.metadata.num_row_groups):
                    with reading_of(part):
                        table = file.read_row_group(group)
                    yield table


def open_previous(path: Path) -> Previous:
    """DigerError where `path` is no snapshot of `diger ingest`, was cut off or changed since, or cannot be continued."""
    document = _document(path)
    if document["options"]["k_core"] > 1:
        raise DigerError(
            f"{path}: was made with --k-core {document['options']['k_core']}: which users and items belong to the core depends on all events, and "
            "those outside are not in it; ingest all files together, or without --k-core"
        )
    parts = {part: _footer(part) for part in _parts(path / event_files.NAME)}
    items, waiting = path / item_files.NAME, path / item_files.WAITING
    footer, counts = _footer(items), document["counts"]
    if waiting.exists():
        _footer(waiting)
    for name, rows, wanted in (
        (event_files.NAME, sum(part.num_rows for part in parts.values()), counts["interactions"]),
        (item_files.NAME, footer.num_rows, counts["items"]),
    ):
        if rows != wanted:
            raise DigerError(f"{path}/{name}: has {rows:,} rows, diger ingest wrote {wanted:,} ({DOCUMENT}): it was changed since; {AGAIN}")
    return Previous(
        path,
        document,
        parts,
        next(iter(parts.values())).schema.to_arrow_schema(),
        items,
        footer.schema.to_arrow_schema(),
        counts["items"] - counts["items_without_metadata"],
        waiting if waiting.exists() else None,
    )


def _document(path: Path) -> Document:
    if not path.is_dir():
        raise DigerError(f"{path}: no such directory; give the directory of a snapshot that diger ingest wrote")
    for name in (DOCUMENT, "_SUCCESS"):
        if not (path / name).is_file():
            raise DigerError(f"{path}: is no snapshot of diger ingest (there is no {name} in it); only such a one can be continued: {AGAIN}")
    try:
        document: Document = json.loads((path / DOCUMENT).read_text(encoding="utf-8"))
        missing = {"k_core", "keep_rating", "integer_ids"} - document["options"].keys()
        missing |= {"interactions", "items", "items_without_metadata"} - document["counts"].keys()
        missing |= {"format", "files"} - document.keys()
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DigerError(f"{path}/{DOCUMENT}: cannot be read ({' '.join(str(error).split())[:100]}); {AGAIN}") from error
    if missing:
        raise DigerError(f"{path}/{DOCUMENT}: {sorted(missing)[0]} is missing; {AGAIN}")
    if not _sound(document):
        raise DigerError(f"{path}/{DOCUMENT}: a value is not of the type that diger ingest writes: edited or damaged; {AGAIN}")
    return document


def _sound(document: Document) -> bool:
    """Whether what is read of ingest.json here has its type."""
    options, counts = document["options"], document["counts"]
    return (
        isinstance(document["format"], str)
        and isinstance(document["files"], list)
        and all(isinstance(each, dict) and {"role", "name", "sha256"} <= each.keys() for each in document["files"])
        and all(isinstance(counts[name], int) for name in ("interactions", "items", "items_without_metadata"))
        and isinstance(options["k_core"], int)
        and all(isinstance(options.get(name, {}), dict) for name in ("map", "map_items", "text", "items_text"))
    )


def _footer(path: Path) -> pq.FileMetaData:
    if not path.exists():
        raise DigerError(f"{path}: is missing; {AGAIN}")
    with reading_of(path):
        return pq.read_metadata(path)


def _parts(path: Path) -> list[Path]:
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def day_source(previous: Previous, interactions: Path, items: Path | None, given: Mapping[str, Any]) -> Source:
    """A day's files, read as the first ones were. `given`: fields of TableOptions and its TextFormats (`items_encoding`) that differ now."""
    known = previous.document["format"]
    if known.startswith("amazon-"):
        source = amazon_source(interactions, items, _with_rating(previous))
        if source.format != known:
            raise DigerError(f"{interactions.name}: is of the release {source.format}, the snapshot of {known}; give files of the same release")
        return _fresh(previous, source)
    options = _table_options(previous, given)
    if known == "recbole":
        return _fresh(previous, recbole_source(interactions, items, options))
    if known != "table":
        raise DigerError(f"{previous.path}/{DOCUMENT}: format {known!r} is not known to this version; {AGAIN}")
    return _fresh(previous, table_source(interactions, items, options))


def _with_rating(previous: Previous) -> bool:
    return previous.keep_rating or previous.filters.min_rating is not None


def _table_options(previous: Previous, given: Mapping[str, Any]) -> TableOptions:
    told = previous.document["options"]
    text, items_text = (_text(told.get(name, {}), side, given) for name, side in (("text", ""), ("items_text", "items_")))
    kinds = told.get("event_types")
    return TableOptions(
        mapping={**told["map"], **given.get("mapping", {})},
        items_mapping={**told["map_items"], **given.get("items_mapping", {})},
        unit=given.get("unit", told["timestamp_unit"]),
        floor=given.get("floor", told["floor"]),
        integer_ids=told["integer_ids"],
        with_rating=_with_rating(previous),
        text=text,
        items_text=replace(items_text, option="--items-encoding"),
        timestamp_format=given.get("timestamp_format", told.get("timestamp_format")),
        decimal_comma=given.get("decimal_comma", told.get("decimal_comma", False)),
        drop_invalid=given.get("drop_invalid", told.get("drop_invalid", False)),
        event_types=None if kinds is None else tuple(kinds),
        day=True,
    )


def _text(told: Mapping[str, Any], side: str, given: Mapping[str, Any]) -> TextFormat:
    """How the day's text file is cut: as told in ingest.json, unless given now. Names that are given stand for a line of names."""
    names = given.get(f"{side}columns", told.get("columns"))
    plain = TextFormat()
    delimiter, encoding = (given.get(f"{side}{name}", given.get(name, told.get(name, getattr(plain, name)))) for name in ("delimiter", "encoding"))
    return TextFormat(delimiter, names=None if names is None else tuple(names), header=names is None, encoding=encoding)


def _fresh(previous: Previous, source: Source) -> Source:
    """DigerError where the snapshot holds the very bytes of this file of events already."""
    role = next(iter(source.files))
    new = file_facts(source.files[role], role)
    for old in previous.document["files"]:
        if old["role"] == role and old["sha256"] == new["sha256"]:
            again = "" if old["name"] == new["name"] else f", as {old['name']}"
            raise DigerError(f"{new['name']}: its bytes are in {previous.path} already{again}; give the file of the next day")
    return source
