"""CSV and Parquet files with a column mapping. Ids in a CSV file are text, exactly as they stand there; Parquet keeps its types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from diger_core.progress import Progress
from orchestration.snapshot.ingest.header import Header, TextFormat, missing_columns, read_header
from orchestration.snapshot.ingest.notes import Mask, Notes, Place
from orchestration.snapshot.ingest.rows import batches
from orchestration.snapshot.ingest.source import Source
from orchestration.snapshot.ingest.times import Times, floats
from orchestration.validation.columns import decoded, exact_ids, is_text

CANONICAL = ("user_id", "item_id", "timestamp", "pos", "rating", "weight", "event_type")
_EXACT_FLOAT = 2.0**53


@dataclass(frozen=True)
class TableOptions:
    """`mapping`: canonical name -> column of the file. `unit`: of numeric timestamps. `floor`: drop fractions of a second, do not refuse.
    `timestamp_format`: of times as text, as strptime has it. `event_types`: the only ones that are kept (None: all); of a `day` they need
    not all occur."""

    mapping: Mapping[str, str]
    items_mapping: Mapping[str, str]
    unit: str = "s"
    floor: bool = False
    integer_ids: bool = False
    with_rating: bool = False
    text: TextFormat = TextFormat()
    items_text: TextFormat = TextFormat()
    timestamp_format: str | None = None
    decimal_comma: bool = False
    drop_invalid: bool = False
    event_types: tuple[str, ...] | None = None
    day: bool = False


def table_source(interactions: Path, items: Path | None, options: TableOptions, name: str = "table") -> Source:
    """Checks the columns of both files, and returns their readers. DigerError for a column that does not exist or exists twice."""
    notes = Notes(options.drop_invalid)
    events = read_header(interactions, options.text, notes)
    options = replace(options, mapping=_interaction_columns(interactions, events, options))
    described = None
    if items is not None:
        described = read_header(items, options.items_text, notes)
        options = replace(options, items_mapping=_item_columns(items, described, options))
    return Source(
        format=name,
        files={"interactions": interactions} | ({"items": items} if items else {}),
        interactions=lambda progress: _interactions(interactions, events, options, notes, progress),
        items=(lambda progress: _items(items, described, options, notes, progress)) if items and described else None,
        integer_ids=options.integer_ids,
        options=_told(options),
        notes=notes,
    )


def _told(options: TableOptions) -> dict[str, object]:
    """For ingest.json: what makes the same files give another snapshot."""
    found: dict[str, object] = {
        "map": dict(options.mapping),
        "map_items": dict(options.items_mapping),
        "timestamp_unit": options.unit,
        "floor": options.floor,
    }
    for key in ("timestamp_format", "decimal_comma", "drop_invalid", "event_types"):
        if getattr(options, key):
            found[key] = getattr(options, key)
    for name, text in (("text", options.text), ("items_text", options.items_text)):
        if text != TextFormat():
            found[name] = {"delimiter": text.delimiter, "encoding": text.encoding, "columns": text.names}
    return found


def _interaction_columns(path: Path, header: Header, options: TableOptions) -> dict[str, str]:
    """What is mapped, and the canonical names that the file has itself; user, item and an order must be there."""
    mapping = {name: name for name in CANONICAL if name in header.names} | dict(options.mapping)
    needed = ["user_id", "item_id", *options.mapping]
    needed += ["rating"] * options.with_rating + ["event_type"] * (options.event_types is not None)
    if not {"timestamp", "pos"} & mapping.keys():
        needed.append("timestamp")
    wanted = {name: mapping.get(name, name) for name in dict.fromkeys(needed)}
    missing_columns(path, header, options.text, wanted)
    if not options.with_rating:
        mapping.pop("rating", None)
    if mapping["user_id"] == mapping["item_id"]:
        raise DigerError(
            f"{path.name}: column {mapping['user_id']} is mapped to user_id and to item_id; name the column of each (--map item_id=COLUMN)"
        )
    for column in mapping.values():
        header.require_once(path, column)
    return mapping


def _item_columns(path: Path, header: Header, options: TableOptions) -> dict[str, str]:
    shared = options.mapping.get("item_id", "item_id")
    own = options.items_mapping.get("item_id") or (shared if shared in header.names else "item_id")
    mapping = {**options.items_mapping, "item_id": own}
    missing_columns(path, header, options.items_text, mapping, "--map-items", "--items-columns")
    for column in _kept(header, options):
        header.require_once(path, column)
    return mapping


def _kept(header: Header, options: TableOptions) -> list[str]:
    """The items' columns that are read: all of them, or of RecBole those that hold words."""
    kept, renamed = options.items_text.text_fields, set(options.items_mapping.values())
    return [name for name in header.names if name and (kept is None or name in kept or name in renamed)]


def _interactions(path: Path, header: Header, options: TableOptions, notes: Notes, progress: Progress) -> Iterator[pa.Table]:
    wanted = list(dict.fromkeys(options.mapping.values()))
    times = Times(options.unit, options.floor, options.timestamp_format, options.decimal_comma)
    order, first, kinds = Times(order=True), 1, Kinds(options.event_types, options.day)
    for batch in batches(path, header, options.text, wanted, notes, progress):
        columns: dict[str, pa.ChunkedArray | pa.Array] = {}
        bad = np.zeros(len(batch), bool)
        for name, column in options.mapping.items():
            values, where = batch.column(column), Place(path, column, first)
            if name in ("user_id", "item_id"):
                columns[name], wrong = _ids(values, where, notes, options.integer_ids)
            elif name in ("timestamp", "pos"):
                found, wrong = (times if name == "timestamp" else order)(values, where, notes)
                columns[name] = pa.array(found)
            elif name == "event_type":
                columns[name], wrong = _kind(values, where), np.zeros(len(batch), bool)
            else:
                numbers, wrong = floats(values, where, notes, options.decimal_comma)
                columns[name] = pa.array(numbers.astype(np.float32 if name == "weight" else np.float64))
            bad |= wrong
        table = pa.table(columns)
        yield kinds.chosen(table.filter(pa.array(~bad)) if bad.any() else table)
        first += len(batch)
    kinds.tell(path, notes)


class Kinds:
    """Counts event types, and keeps the rows of those that are wanted."""

    def __init__(self, wanted: tuple[str, ...] | None, day: bool = False) -> None:
        self.wanted, self.day = wanted, day
        self.counts: dict[str, int] = {}

    def chosen(self, table: pa.Table) -> pa.Table:
        if "event_type" not in table.column_names:
            return table
        for row in pc.value_counts(table["event_type"]).to_pylist():
            kind = row["values"] or "(none)"
            self.counts[kind] = self.counts.get(kind, 0) + row["counts"]
        if self.wanted is None:
            return table
        return table.filter(pc.fill_null(pc.is_in(table["event_type"], pa.array(self.wanted, pa.large_string())), False))

    def tell(self, path: Path, notes: Notes) -> None:
        """DigerError where a wanted type does not occur: most likely it is misspelt. Not of a day, where a rare type may be missing."""
        if not self.counts:
            return
        there = ", ".join(f"{kind!r} {count:,}" for kind, count in sorted(self.counts.items(), key=lambda pair: -pair[1])[:10])
        for kind in self.wanted or ():
            if kind not in self.counts and not self.day:
                raise DigerError(f"{path.name}: no event has type {kind!r}; the file has {there}; correct --event-types")
        left = sum(count for kind, count in self.counts.items() if self.wanted is not None and kind not in self.wanted)
        if left:
            notes.dropped[f"event type not among {', '.join(self.wanted or ())}"] += left
        elif self.wanted is None and len(self.counts) > 1:
            notes.say(f"all event types are kept: {there}; --event-types chooses among them")


def _kind(values: pa.ChunkedArray, where: Place) -> pa.ChunkedArray:
    column = decoded(values)
    if not (is_text(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type) or pa.types.is_null(column.type)):
        raise DigerError(f"{where.path.name}: column {where.column} has type {column.type}; event types must be texts or integers")
    return column.cast(pa.large_string())


def _ids(values: pa.ChunkedArray, where: Place, notes: Notes, integer: bool) -> tuple[pa.ChunkedArray, Mask]:
    """Ids as large_string, int64 or uint64, one type for all batches of a file, and the rows without one (null or an empty text)."""
    column = decoded(values)
    wide = column.type == pa.uint64()
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        if not integer:
            raise DigerError(
                f"{where.path.name}: column {where.column} has type {column.type}, and ids must be integers or text; pass --integer-ids where all "
                "are whole numbers, or write the column as int64 or as string"
            )
        column = _whole(column, where)
    ids = exact_ids(column, where.path.name, where.column)
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(ids), ""), True) if is_text(ids.type) else pc.is_null(ids)
    bad = notes.at_fault(empty.to_numpy(), f"no {where.column}", "no id", where)
    if is_text(ids.type):
        _tell_of_floats(ids, where, notes, integer)
        _tell_of_odd(ids, where, notes)
        ids = plain_integers(ids) if integer else ids
    return (ids.cast(pa.uint64()) if wide else ids), bad


def _whole(column: pa.ChunkedArray, where: Place) -> pa.ChunkedArray:
    """Float ids that are whole numbers below 2^53, as int64: what a table with a missing value becomes in many tools. Decimals: any whole number."""
    if pa.types.is_decimal(column.type):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise DigerError(
                f"{where.path.name}: column {where.column} has type {column.type} and holds a value that is no integer within 64 bits; write the "
                "ids as text"
            ) from error
    numbers = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy()
    wrong = ~(np.abs(numbers) < _EXACT_FLOAT) | (numbers != np.floor(numbers))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DigerError(f"{where.row(at)} holds {numbers[at]!r}, which is no exact integer; write the ids as int64 or as text")
    return pa.chunked_array([pa.array(numbers.astype(np.int64), mask=pc.is_null(column).to_numpy())])


def plain_integers(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts such as 17850.0 without their zeros, where a float holds the number exactly (15 digits); others unchanged."""
    return pc.replace_substring_regex(ids, r"^(-?\d{1,15})\.0+$", r"\1")


def _tell_of_floats(ids: pa.ChunkedArray, where: Place, notes: Notes, integer: bool) -> None:
    found = pc.match_substring_regex(ids, r"^-?\d{1,15}\.0+$")
    if pc.any(found).as_py():
        example = ids[pc.index(found, True).as_py()].as_py()
        done = "read as integers" if integer else "kept as text; pass --integer-ids to read them as integers"
        notes.say(f"{where.path.name}: column {where.column} holds integers written as floats, such as {example!r}: {done}")


_NO_VALUE = ("null", "none", "nan", "na", "n/a", "<na>", "#n/a", "\\n", "undefined", "(null)", "nil")


def _tell_of_odd(ids: pa.ChunkedArray, where: Place, notes: Notes) -> None:
    """Ids that other tools write for a missing one, and numbers that a spreadsheet has rounded: kept, and told."""
    missing = pc.fill_null(pc.is_in(pc.utf8_lower(ids), pa.array(_NO_VALUE, pa.large_string())), False)
    for word in pc.unique(ids.filter(missing)).to_pylist()[:3]:
        notes.say(
            f"{where.path.name}: column {where.column} holds {word!r}, kept as an id like others; where it stands for no id, leave it empty and "
            "pass --drop-invalid"
        )
    rounded = pc.fill_null(pc.match_substring_regex(ids, r"^-?\d(\.\d+)?[eE]\+\d+$"), False)
    if pc.any(rounded).as_py():
        example = ids[pc.index(rounded, True).as_py()].as_py()
        notes.say(
            f"{where.path.name}: column {where.column} holds numbers as spreadsheets shorten them, such as {example!r}: several ids may have become "
            "one; export the column as text"
        )


def _items(path: Path, header: Header, options: TableOptions, notes: Notes, progress: Progress) -> Iterator[pa.Table]:
    """item_id and every other column, the mapped ones under their new names."""
    renamed = {column: name for name, column in options.items_mapping.items()}
    wanted, first = _kept(header, options), 1
    names: Sequence[str] = [renamed.get(name, name) for name in wanted]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise DigerError(f"{path.name}: two columns would be called {double}; rename one of them in the file")
    for batch in batches(path, header, options.items_text, wanted, notes, progress):
        batch = batch.rename_columns(names)
        ids, bad = _ids(batch.column("item_id"), Place(path, options.items_mapping["item_id"], first), notes, options.integer_ids)
        first += len(batch)
        batch = batch.set_column(names.index("item_id"), "item_id", ids)
        yield batch.filter(pa.array(~bad)) if bad.any() else batch
