"""What a format's reader hands to the writer, and how both read files: gzip or plain, in one pass, with the line at fault in every message."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypedDict, cast

import pyarrow as pa

from diger_core.errors import DigerError
from diger_core.progress import Progress
from diger_core.store.regular import require_regular
from orchestration.snapshot.ingest.delta import LOG, delta_files
from orchestration.snapshot.ingest.foreign import MAGIC_BYTES, foreign, marked_encoding
from orchestration.snapshot.ingest.iceberg import iceberg_files, is_iceberg
from orchestration.snapshot.ingest.notes import Notes

BATCH_ROWS = 100_000
BLOCK_BYTES = 1 << 22  # also what a row may have
GZIP = b"\x1f\x8b"
LINE_BYTES = 1 << 24  # what a line of JSON may have
Batches = Callable[[Progress], Iterator[pa.Table]]


@dataclass(frozen=True)
class Source:
    """One data set in a public format.

    `interactions` yields tables of user_id, item_id (strings, int64 or uint64), timestamp (int64 Unix seconds) or pos (int64) or both, and of
    rating (float64), weight (float32) and event_type (string) those that were asked for; without nulls but in event_type. `items` yields tables
    of item_id and any other columns, all of one schema. `integer_ids`: ids that are read as text are integers. `options`: for ingest.json.
    `notes`: what the readers leave out and change, filled as they read.
    """

    format: str
    files: dict[str, Path]  # role -> file
    interactions: Batches
    items: Batches | None
    integer_ids: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)


class Reading:
    """An open file that says how far it was read, for the progress display."""

    def __init__(self, path: Path, raw: BinaryIO, progress: Progress) -> None:
        self.path, self.raw, self._progress = path, raw, progress
        self._kib = max(path.stat().st_size >> 10, 1)

    def advance(self, rows: int, finished: bool = False) -> None:
        """`rows` read so far; the display counts KiB of the file as it lies on the disk."""
        done = self._kib if finished else min(self.raw.tell() >> 10, self._kib - 1)
        self._progress.update(f"reading {self.path.name} (KiB)", done, self._kib, rows=rows)


@contextmanager
def reading(path: Path, progress: Progress) -> Iterator[Reading]:
    """Opens `path`. DigerError where it is missing, no regular file, unreadable, empty, or of a format that nothing here reads."""
    require_regular(path)
    try:
        with path.open("rb") as raw:
            if path.stat().st_size == 0:
                raise DigerError(f"{path.name}: the file is empty; download or export it again")
            if what := foreign(raw.read(MAGIC_BYTES)):
                raise DigerError(f"{path.name}: {what}")
            raw.seek(0)
            yield Reading(path, raw, progress)
    except OSError as error:
        raise DigerError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def is_gzip(raw: BinaryIO) -> bool:
    magic = raw.read(2)
    raw.seek(0)
    return magic == GZIP


def unzipped(file: Reading) -> BinaryIO:
    """The file's bytes, unzipped where it is gzipped; a damaged gzip stream raises what `GZIP_FAULTS` lists."""
    return cast(BinaryIO, gzip.GzipFile(fileobj=file.raw)) if is_gzip(file.raw) else file.raw


GZIP_FAULTS = (EOFError, gzip.BadGzipFile, zlib.error)


class Utf8:
    """A file's text as UTF-8 bytes without a byte order mark, whatever encoding it has; for readers that want a file object.

    `option`: of the command, that says the encoding; empty where it has none. `ending`: a line that follows the file's last one; where it does not
    arrive as a line of its own, a quote was never closed.
    """

    def __init__(self, file: Reading, encoding: str, option: str = "--encoding", ending: str = "") -> None:
        self.closed = False
        self.backslash_quotes = False  # whether a quote stood after a backslash, as far as was read
        self._file, self._encoding, self._option, self._ending = file, encoding, option, ending
        self._stream, self._lines, self._rest = unzipped(file), 1, b""
        self._first, self._last, self._ended = b"", "\n", False
        self._decoder = codecs.getincrementaldecoder("utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding)()

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        """At most `size` bytes; none at the end. DigerError that names the line with bytes of another encoding."""
        while len(self._rest) < max(size, 1) and not self._ended:
            block = self._raw(min(max(size, 1), BLOCK_BYTES))
            if not self._first:
                self._first = block[:MAGIC_BYTES]
                if what := foreign(block) or ("is gzipped twice; unpack it and give the file inside" if block.startswith(GZIP) else None):
                    raise DigerError(f"{self._file.path.name}: {what}")
            text = self._decoded(block)
            if "\0" in text:
                raise DigerError(f"{self._file.path.name}: {self._zeros(block)}")
            self._lines += text.count("\n")
            self.backslash_quotes |= '\\"' in text
            self._last = text[-1:] or self._last
            if not block:
                self._ended = True
                text += ("" if self._last in "\r\n" else "\n") * bool(self._ending) + self._ending
            self._rest += text.encode()
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _zeros(self, block: bytes) -> str:
        if block.count(0) * 4 >= len(block):  # each second byte of Latin letters
            return f"holds zero bytes, as UTF-16 text does; {f'pass {self._option} utf-16, or ' if self._option else ''}export it as UTF-8"
        return f"holds zero bytes, which no text does (line {self._lines} or after): it is damaged, or no text; export it again, as CSV or Parquet"

    def _raw(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except GZIP_FAULTS as error:
            name = self._file.path.name
            raise DigerError(f"{name}: the gzip stream is cut off or damaged after line {self._lines} ({error}); download it again") from error

    def _decoded(self, block: bytes) -> str:
        try:
            return self._decoder.decode(block, final=not block)
        except UnicodeError as error:
            line = self._lines
            if isinstance(error, UnicodeDecodeError):
                line += error.object[: error.start].count(b"\n")
            known = marked_encoding(self._first) or "cp1252 (Western European Windows), latin-1, or whatever it was exported with"
            remedy = f"pass {self._option} {known}" if self._option else "save it as UTF-8"
            why = error.reason if isinstance(error, UnicodeDecodeError) else error
            raise DigerError(f"{self._file.path.name}, line {line}: not {self._encoding} text ({why}); {remedy}") from error

    def close(self) -> None:
        self.closed = True


def lines(file: Reading) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line) of a text file, plain or gzipped. DigerError where the gzip stream is truncated or damaged, or a line has no end."""
    number = 0
    stream = io.BufferedReader(cast(io.RawIOBase, unzipped(file)), BLOCK_BYTES)
    try:
        while line := stream.readline(LINE_BYTES + 1):
            number += 1
            if len(line) > LINE_BYTES:
                raise DigerError(f"{file.path.name}, line {number}: is longer than {LINE_BYTES:,} bytes; check that it is the right file")
            if number % BATCH_ROWS == 0:
                file.advance(number)
            if not line.isspace():
                yield number, line
    except GZIP_FAULTS as error:
        raise DigerError(f"{file.path.name}: the gzip stream is cut off or damaged after line {number} ({error}); download it again") from error
    file.advance(number, finished=True)


class FileFacts(TypedDict):
    """A source file, for ingest.json: its name without directories."""

    role: str
    name: str
    bytes: int
    sha256: str


def file_facts(path: Path, role: str) -> FileFacts:
    parts = part_files(path) if path.is_dir() else [path]
    sha, size = hashlib.sha256(), 0
    for part in parts:
        with part.open("rb") as raw:
            while block := raw.read(BLOCK_BYTES):
                sha.update(block)
                size += len(block)
    return {"role": role, "name": path.name, "bytes": size, "sha256": sha.hexdigest()}


def part_files(path: Path) -> list[Path]:
    """The Parquet files of a directory as Spark, Dask and Polars write it, by path; names that begin with a dot or underscore are marks of the tool.
    Of a Delta table those of its newest version, of an Iceberg table those of its current snapshot, with its deletes.

    Nothing else is left out unseen: DigerError for another file among them, and for one that is no regular file or leads nowhere.
    """
    if (path / LOG).is_dir():
        return delta_files(path)
    if is_iceberg(path):
        return iceberg_files(path)
    found = [entry for entry in sorted(path.rglob("*")) if not any(name[0] in "._" for name in entry.relative_to(path).parts)]
    found = [entry for entry in found if entry.suffix == ".parquet" or entry.is_symlink() or not entry.is_dir()]
    if not any(entry.suffix == ".parquet" for entry in found):
        raise DigerError(f"{path}: is a directory without Parquet files; give a file, or a directory of part files (*.parquet)")
    for entry in found:
        if entry.suffix != ".parquet":
            raise DigerError(f"{entry}: is no Parquet file (*.parquet) and lies among them; take it out of the directory, or give it that ending")
        if not entry.exists():
            raise DigerError(f"{entry}: is a link that leads nowhere; remove it, or put the file in its place")
        require_regular(entry)
    return found


def string_table(columns: dict[str, list[str | None]]) -> pa.Table:
    """Lists of strings as a table of large_string columns."""
    return pa.table({name: pa.array(values, pa.large_string()) for name, values in columns.items()})
