"""The columns of a text or Parquet table: how a text table is cut, what its first line says, and what to do where a column is missing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.progress import Silent
from orchestration.snapshot.ingest.foreign import no_table
from orchestration.snapshot.ingest.iceberg import iceberg_columns, is_iceberg
from orchestration.snapshot.ingest.notes import Notes
from orchestration.snapshot.ingest.source import Utf8, part_files, reading
from orchestration.validation.columns import nearest_column

HEADER_BYTES = 1 << 20
MAX_COLUMNS = 10_000
_DELIMITERS = (",", ";", "\t", "|")
_LOOKS_LIKE_A_VALUE = re.compile(r"[+-]?\d+([.,:/-]\d+)*([T ][\d:.]+Z?)?")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_USUAL = {3: "user_id,item_id,timestamp", 4: "user_id,item_id,rating,timestamp"}


@dataclass(frozen=True)
class TextFormat:
    """How a text table is cut into cells. `names`: the columns, where they differ from the header line's own words; `header`: whether there is
    such a line; `text_fields`: those of the columns that an item keeps (None: all)."""

    delimiter: str = ","
    quoted: bool = True
    names: tuple[str, ...] | None = None
    text_fields: tuple[str, ...] | None = None
    header: bool = True
    encoding: str = "utf-8"
    option: str = field(default="--encoding", compare=False)  # that says the encoding of this file alone; empty: the format has one


@dataclass(frozen=True)
class Header:
    """`names`: the columns in their order, without spaces around; `first`: the first line's cells as they stand; `trim`: whether a space follows
    each delimiter, so that spaces around cells belong to the format."""

    names: tuple[str, ...]
    first: tuple[str, ...]
    trim: bool = False
    parquet: bool = False

    def require_once(self, path: Path, column: str) -> None:
        if self.names.count(column) > 1:
            raise DigerError(
                f"{path.name}: column {column} exists {self.names.count(column)} times; keep one of them, or give the others another name"
            )


def is_parquet(path: Path) -> bool:
    """Whether it is Parquet: by its first bytes, not by its name. A directory is taken for one of Parquet's part files."""
    if path.is_dir():
        return True
    with reading(path, Silent()) as file:
        return file.raw.read(4) == b"PAR1"


def open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DigerError(f"{path.name}: not a whole Parquet file ({one_line(error)}); export or download it again") from error


def read_header(path: Path, text: TextFormat, notes: Notes | None = None) -> Header:
    """The columns of a Parquet or text table. DigerError where there are too many, or the first line has no end."""
    if is_iceberg(path):
        columns = tuple(iceberg_columns(path))
        return _limited(path, Header(columns, columns, parquet=True))
    if is_parquet(path):
        first = part_files(path)[0] if path.is_dir() else path
        with open_parquet(first) as file:
            names = tuple(file.schema_arrow.names)
        added = [column for column in directory_values(path, first) if column not in names]
        if added and notes is not None:
            notes.say(f"{path.name}: column {', '.join(added)} is taken from its directories' names")
        names += tuple(added)
        return _limited(path, Header(names, names, parquet=True))
    cells = _first_line(path, text)
    stripped = tuple(cell.strip() for cell in cells)
    trim = text.header and len(cells) > 1 and all(cell.startswith(" ") for cell in cells[1:])
    if trim and notes is not None:
        notes.say(f"{path.name}: a space follows each delimiter in its first line, so spaces around cells are left out")
    names = text.names or stripped
    if text.names and len(text.names) != len(cells):
        raise DigerError(
            f"{path.name}: its first line has {len(cells)} cells, {len(text.names)} columns are named; name each, in the file's order"
            + _other_delimiter(cells, text)
        )
    return _limited(path, Header(tuple(names), stripped, trim))


def directory_values(path: Path, part: Path) -> dict[str, str | None]:
    """Column -> value of a partitioned table's part, from its directories' names (event_type=view/part-0.parquet), as text; None for Hive's null."""
    folders = part.relative_to(path).parts[:-1] if path.is_dir() else ()
    pairs = [folder.partition("=") for folder in folders if "=" in folder]
    return {column: None if value == _HIVE_NULL else unquote(value) for column, _, value in pairs}


def header_cells(path: Path, text: TextFormat) -> tuple[str, ...]:
    """The cells of a text table's first line."""
    return _first_line(path, text)


def _first_line(path: Path, text: TextFormat) -> tuple[str, ...]:
    with reading(path, Silent()) as file:
        block = Utf8(file, text.encoding, text.option).read(HEADER_BYTES)
    beginning = block.decode("utf-8", errors="ignore")  # the last character may be cut
    rows = io.StringIO(beginning, newline="")
    dialect: dict[str, Any] = {"delimiter": text.delimiter, "quoting": csv.QUOTE_MINIMAL if text.quoted else csv.QUOTE_NONE}
    try:
        cells = next(csv.reader(rows, **dialect), [])
    except csv.Error as error:
        raise DigerError(f"{path.name}: the header line cannot be read ({error}); give a CSV file with a line of names, or a Parquet file") from error
    if len(block) == HEADER_BYTES and rows.tell() >= len(beginning):
        raise DigerError(
            f"{path.name}: its first line is longer than {HEADER_BYTES:,} bytes; give a CSV file with a line of names, or a Parquet file"
        )
    return tuple(cells)


def _limited(path: Path, header: Header) -> Header:
    if len(header.names) > MAX_COLUMNS:
        raise DigerError(f"{path.name}: has {len(header.names):,} columns, at most {MAX_COLUMNS:,} are read; leave out what is not needed")
    return header


def missing_columns(
    path: Path, header: Header, text: TextFormat, wanted: Mapping[str, str], option: str = "--map", naming: str = "--columns"
) -> None:
    """DigerError that names every column that is not there, and the options that help: another delimiter, names where there are none, a mapping."""
    missing = {name: column for name, column in wanted.items() if column not in header.names}
    if not missing:
        return
    if not header.parquet:
        if why := no_table(text.delimiter.join(header.first)):
            raise DigerError(f"{path.name}: {why}")
        other, cells = _other_delimiter(header.first, text), header.first
        if other:
            cells = tuple("".join(header.first).split(_delimiter_in(header.first, text)))
        if text.header and text.names is None and sum(bool(_LOOKS_LIKE_A_VALUE.fullmatch(cell)) for cell in cells) * 2 >= len(cells):
            usual = _USUAL.get(len(cells), "NAME1,NAME2,…")
            raise DigerError(
                f"{path.name}: its first line holds values ({', '.join(cells[:4])}), so it has no line of names; "
                f"pass {naming} {usual}, a name for each of its {len(cells)} columns in their order{other}"
            )
        if other:
            raise DigerError(f"{path.name}: column {next(iter(missing.values()))} is missing{other}")
    hints = [f"{option} {name}={nearest_column(name, _free(header, wanted)) or 'COLUMN'}" for name in missing]
    there = ", ".join(header.names[:20])
    which = f"column {next(iter(missing.values()))} is" if len(missing) == 1 else f"columns {', '.join(missing.values())} are"
    why = ", so events have no order" if missing.get("timestamp") == "timestamp" else ""
    raise DigerError(f"{path.name}: {which} missing{why}; the file has: {there}; pass {' '.join(hints)}")


def _free(header: Header, wanted: Mapping[str, str]) -> list[str]:
    taken = set(wanted.values())
    return [name for name in header.names if name and name not in taken]


def _delimiter_in(first: Sequence[str], text: TextFormat) -> str:
    """The usual delimiter that stands most often in the first line, other than the one that cut it."""
    line = "".join(first)
    return max((d for d in _DELIMITERS if d != text.delimiter), key=line.count)


def _other_delimiter(first: Sequence[str], text: TextFormat) -> str:
    """`; pass --delimiter …` where the first line was not cut by the given one but would be by another."""
    other = _delimiter_in(first, text)
    count = "".join(first).count(other)
    if count == 0 or len(first) > 1:
        return ""
    if not text.option:
        return f"; its first line has no {text.delimiter!r}: write the file with one between two fields"
    shown = "\\t" if other == "\t" else other
    return f"; its first line has no {text.delimiter!r} but {count} times '{shown}': pass --delimiter '{shown}'"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
