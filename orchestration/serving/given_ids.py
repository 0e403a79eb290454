"""Ids that a person gives: on the command line, in a file, in a request or in a rule. They become ids of the catalogue's own type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.store.regular import require_regular
from orchestration.validation.columns import is_text

_ID_FILE_BYTES = 1 << 30  # a larger one goes into a Parquet file
_FILES = (".txt", ".csv", ".tsv", ".parquet", ".json", ".gz")


def read_ids(given: tuple[str, ...], column: str, kind: pa.DataType, option: str, only_files: bool = False) -> pa.Array:
    """Distinct ids in the order given, in the catalogue's own type; DigerError names the file, or the id that is of another type."""
    parts = []
    for text in given:
        path = Path(text)
        if not _is_there(path):
            if only_files or "/" in text or path.suffix.lower() in _FILES:
                alone = "" if only_files else f"; an id that looks like this goes into such a file, a line for {text[:60]!r}"
                raise DigerError(f"{option} {text}: no such file: give a Parquet file with column {column}, or a text file with one id a line{alone}")
            parts.append(cast_ids(pa.array([text]), kind, option, text))
        elif path.suffix == ".parquet":
            parts.append(cast_ids(_column(path, column, option), kind, option, text))
        else:
            parts.append(cast_ids(pa.array(_lines(path, option), pa.string()), kind, option, text))
    ids = pc.unique(pa.concat_arrays(parts))
    if not len(ids):
        raise DigerError(f"{option} {', '.join(given)}: holds no ids: write one a line, or leave {option} out")
    return ids


def _is_there(path: Path) -> bool:
    """Whether a file, or anything else that must not be taken for an id, has this name."""
    try:
        return path.exists()
    except (OSError, ValueError):  # an id that no file can be called by: too long, or with a NUL
        return False


def _lines(path: Path, option: str, empty: bool = False) -> list[str]:
    """The lines that hold something (all of them: `empty`), without a byte order mark and the spaces around."""
    require_regular(path, f"{option} {path}", at_most=_ID_FILE_BYTES)
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DigerError(f"{option} {path}, line {line}: not UTF-8 text: save it as UTF-8") from error
    # Only line ends end a line: an id may hold what str.splitlines takes for one (U+2028, a form feed).
    stripped = [line.strip(" \t") for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return stripped if empty else [line for line in stripped if line]


def _column(path: Path, column: str, option: str) -> pa.Array:
    require_regular(path, f"{option} {path}")
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if names.count(column) != 1:
                found = f"has no column {column} (it has {', '.join(names[:20])}): rename or add it"
                raise DigerError(f"{option} {path}: {found if column not in names else f'column {column} exists twice: keep one'}")
            values = file.read(columns=[column])[column].combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise DigerError(f"{option} {path}: cannot be read as Parquet: write it again") from error
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.null_count:
        raise DigerError(f"{option} {path}: column {column} holds {values.null_count} nulls: remove those rows")
    return values


def first_of(name: str, column: str, ids: pa.Array) -> str:
    """The first of the ids as the file holds it, with its line or row; without one where the file is not what it was, or not here."""
    path, wanted = Path(name), ids.type
    try:
        values = _column(path, column, name) if path.suffix == ".parquet" else pa.array(_lines(path, name, empty=True), pa.string())
        texts = values.cast(pa.string()) if pa.types.is_integer(values.type) else values
        at = pc.index(pc.is_in(pc.if_else(pc.equal(texts, ""), None, texts).cast(wanted), ids.drop_null()), True).as_py()
    except (DigerError, OSError, pa.ArrowException):
        at = -1
    if at < 0:
        return repr(ids[0].as_py())
    return f"{texts[at].as_py()!r}, {'row' if path.suffix == '.parquet' else 'line'} {at + 1}"


def cast_ids(values: pa.Array, kind: pa.DataType, option: str, source: str) -> pa.Array:
    """Text becomes a number where the catalogue's ids are numbers; a number never becomes text (leading zeros would be lost)."""
    if not (pa.types.is_integer(values.type) or is_text(values.type)):  # a float of 17850.0 or a truth value would become an id that nobody gave
        raise DigerError(f"{option} {source}: ids of type {values.type}: write them as integers or as text, as they are in the catalogue")
    if pa.types.is_integer(values.type) and not pa.types.is_integer(kind):
        raise DigerError(f"{option} {source}: the ids are numbers, the catalogue's are texts: store them as they are in the catalogue")
    source = source if source.isprintable() else repr(source)
    if is_text(values.type) and pa.types.is_integer(kind):
        decimal = pc.fill_null(pc.match_substring_regex(values, r"^-?[0-9]+$"), True)  # Arrow reads 0x10 as 16
        if not pc.all(decimal).as_py():
            odd = values[pc.index(decimal, False).as_py()].as_py()
            raise DigerError(f"{option} {source}: an id is not of the catalogue's type {kind} ({odd[:80]!r} is no integer): correct it")
    try:
        return values.cast(kind)
    except pa.ArrowInvalid as error:
        raise DigerError(
            f"{option} {source}: an id is not of the catalogue's type {kind} ({str(error).splitlines()[0][:120]}): correct it"
        ) from error


def request_ids(values: Sequence[int | str], kind: pa.DataType, what: str) -> list[int | str]:
    """Ids of a request by the same rule. DigerError where they are of several types, or of another type than the catalogue's."""
    try:
        array = pa.array(values, pa.string()) if not values else pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise DigerError(f"{what}: ids are integers or texts, all of one kind, and integers have 64 bits: correct them") from error
    if pa.types.is_integer(array.type) and not pa.types.is_integer(kind):
        raise DigerError(f'{what}: a number was sent, the catalogue\'s ids are texts: send it in quotes, as the catalogue writes it ("{values[0]}")')
    found: list[int | str] = cast_ids(array, kind, what, "in the request").to_pylist()
    return found
