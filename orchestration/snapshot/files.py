"""A snapshot: a directory, local or s3://, with interactions.parquet, items.parquet and, where the user brings vectors, vectors.parquet. Each is one
file or a directory of part files.

Opening one reads every byte once (for its SHA-256) and the Parquet footers, so that a missing, empty or truncated file, a wrong address or
refused credentials are one clear line before any work begins.
"""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.store.canonical import bytes_sha256, digest
from diger_core.store.files import Root
from orchestration.engine.memory import installed
from orchestration.snapshot.parts import described, join, not_parquet, parts

REQUIRED = ("interactions.parquet", "items.parquet")
OPTIONAL = ("vectors.parquet",)
MAX_ROWS = 2**31 - 1  # what a row number and an index can hold
MAX_COLUMNS = 10_000


@dataclass(frozen=True)
class SnapshotFile:
    """One Parquet file of a snapshot: size, SHA-256 of its bytes, rows, and the type of each column."""

    name: str
    bytes: int
    sha256: str
    rows: int
    columns: Mapping[str, str]


@dataclass(frozen=True)
class SnapshotFiles:
    """A described snapshot. `content_hash` depends on the files' names and bytes only, not on where they lie."""

    url: str
    files: Mapping[str, SnapshotFile]
    content_hash: str


def content_hash(files: Mapping[str, str]) -> str:
    """SHA-256 over the sorted, length-prefixed (file name, SHA-256 of its bytes)."""
    return digest("snapshot", *(part for name in sorted(files) for part in (name, files[name])))


def describe(url: str | Path) -> SnapshotFiles:
    """Finds and checks the snapshot's files. DigerError where the place cannot be read, a file is missing, empty, not Parquet, or has no rows."""
    root = open_root(url)
    names = _names(root)
    for name in REQUIRED:
        if name not in names:
            raise DigerError(_missing(root, name, names))
    files = {name: _describe_file(root, name) for name in (*REQUIRED, *OPTIONAL) if name in names}
    return SnapshotFiles(root.url, files, content_hash({name: f.sha256 for name, f in files.items()}))


def open_root(url: str | Path) -> Root:
    """The place of a snapshot. Credentials inside a URL are refused, unseen: they would end up in records and messages."""
    if "://" in str(url) and "@" in urlsplit(str(url)).netloc:
        raise DigerError("the snapshot's URL holds credentials: take them out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead")
    return Root(url)


def fetch(url: str | Path, name: str, target: Path, sha256: str | None = None) -> Path:
    """Copies one file of a snapshot to `target`, a local path; with `sha256`, refuses bytes that are not those that were registered."""
    root = open_root(url)
    if name not in _names(root):
        raise DigerError(_missing(root, name, _names(root)))
    found = _copied(root, name, target)
    if sha256 is not None and found != sha256:
        raise DigerError(f"{root.url}/{name}: its bytes changed since the snapshot was registered: register the directory again as a new snapshot")
    return target


def _copied(root: Root, name: str, target: Path) -> str:
    """Copies the file, or its parts as one, to `target`; returns the SHA-256 of what was read."""
    found = parts(root, name)
    if found == [name]:
        root.download(target, name)
        return bytes_sha256(target)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        copies = {part.removeprefix(f"{name}/"): Path(folder) / str(number) for number, part in enumerate(found)}
        for part, copy in zip(found, copies.values(), strict=True):
            root.download(copy, part)
        join(copies, f"{root.url}/{name}", target)
        return digest("parts", *(text for part, copy in copies.items() for text in (part, bytes_sha256(copy))))


def fetch_from(urls: Sequence[str], name: str, target: Path, sha256: str) -> Path:
    """`fetch` from the first of several places that still has these very bytes; the message is that of the first place."""
    fault: DigerError | None = None
    for url in urls:
        try:
            return fetch(url, name, target, sha256)
        except DigerError as error:
            fault = fault or error
    raise DigerError(f"{fault}; where the snapshot was moved, give its new place (diger snapshot add DIR_OR_URL)") from fault


def read_table(path: Path, wanted: Callable[[pa.Field], bool]) -> pa.Table:
    """A Parquet file's wanted columns; the others stand as nulls in their places, so that a type which nothing reads disturbs nothing.

    A damaged file is refused by name, and so is a column that cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            read = file.read(columns=[field.name for field in schema if wanted(field)])
    except (pa.ArrowException, OSError) as error:
        raise DigerError(not_parquet(path.name, error)) from error
    return pa.table([read[field.name] if wanted(field) else pa.nulls(rows) for field in schema], names=schema.names)


def _names(root: Root) -> list[str]:
    """Names in the snapshot's directory. `ls` rather than `exists`, because the latter hides refused credentials behind a plain no."""
    with root.faults():
        try:
            kind = root.fs.info(root.base)["type"]
            names = root.list() if kind == "directory" else None
        except FileNotFoundError:
            names = []
    if names is None:
        raise DigerError(f"{root.url}: is a file; give the directory that holds {' and '.join(REQUIRED)}")
    if not names:
        raise DigerError(f"{root.url}: no such directory, or it is empty; give a directory or s3:// URL that holds {' and '.join(REQUIRED)}")
    return names


def _missing(root: Root, name: str, names: list[str]) -> str:
    stem = name.removesuffix(".parquet")
    near = [n for n in names if n.lower().startswith(stem)] or difflib.get_close_matches(name, names, n=1)
    if near and near[0].lower().endswith((".csv", ".tsv", ".json", ".gz", ".inter", ".item")):
        remedy = f"convert {near[0]} with diger ingest"
    else:
        remedy = f"rename {near[0]} to {name}" if near else "write it, or make a snapshot with diger ingest"
    return f"{root.url}: {name} is missing; {remedy}"


def _describe_file(root: Root, name: str) -> SnapshotFile:
    found = described(root, name)
    _check_shape(f"{root.url}/{name}", found.rows, found.leaves, found.memory)
    return SnapshotFile(name, found.bytes, found.sha256, found.rows, {field.name: str(field.type) for field in found.schema})


def _check_shape(where: str, rows: int, columns: int, memory: int) -> None:
    if rows == 0:
        raise DigerError(f"{where}: has no rows; write at least one")
    if rows > MAX_ROWS:
        raise DigerError(f"{where}: has {rows:,} rows, at most {MAX_ROWS:,} are read; leave out the oldest events (diger ingest table --since)")
    if columns > MAX_COLUMNS:
        raise DigerError(f"{where}: has {columns:,} columns (nested ones counted), at most {MAX_COLUMNS:,} are read; leave out what is not needed")
    if memory > (there := installed()):
        raise DigerError(
            f"{where}: {rows:,} rows take {memory / 2**30:,.1f} GiB in memory at least, this machine has {there / 2**30:,.1f}; take a larger one, or "
            "leave out the oldest events (diger ingest table --since) and the columns that nothing reads"
        )
