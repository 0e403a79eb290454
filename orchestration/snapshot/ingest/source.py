"""What a format's reader hands to the writer, and how both read files: gzip or plain, in one pass, with the line at fault in every message."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from diger_core.errors import DigerError
from diger_core.progress import Progress

BATCH_ROWS = 100_000
BLOCK_BYTES = 1 << 22
Batches = Callable[[Progress], Iterator[pa.Table]]


@dataclass(frozen=True)
class Source:
    """One data set in a public format.

    `interactions` yields tables of user_id, item_id (strings, int64 or uint64), timestamp (int64 Unix seconds) or pos (int64) or both, and of
    rating (float64), weight (float32) and event_type (string) those that were asked for; without nulls but in event_type. `items` yields tables
    of item_id and any other columns, all of one schema. `integer_ids`: ids that are read as text are integers. `options`: for ingest.json.
    """

    format: str
    files: dict[str, Path]  # role -> file
    interactions: Batches
    items: Batches | None
    integer_ids: bool = False
    options: dict[str, Any] = field(default_factory=dict)


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
    """Opens `path`. DigerError where it is missing, a directory, unreadable or empty."""
    try:
        with path.open("rb") as raw:
            if path.stat().st_size == 0:
                raise DigerError(f"{path.name}: the file is empty; download or export it again")
            yield Reading(path, raw, progress)
    except OSError as error:
        raise DigerError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def is_gzip(raw: BinaryIO) -> bool:
    magic = raw.read(2)
    raw.seek(0)
    return magic == b"\x1f\x8b"


def lines(file: Reading) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line) of a text file, plain or gzipped. DigerError where the gzip stream is truncated or damaged."""
    number = 0
    zipped = is_gzip(file.raw)
    stream: BinaryIO = cast(BinaryIO, gzip.GzipFile(fileobj=file.raw)) if zipped else file.raw
    try:
        for line in io.BufferedReader(cast(io.RawIOBase, stream), BLOCK_BYTES):
            number += 1
            if number % BATCH_ROWS == 0:
                file.advance(number)
            if not line.isspace():
                yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DigerError(f"{file.path.name}: the gzip stream is cut off or damaged after line {number} ({error}); download it again") from error
    file.advance(number, finished=True)


def file_facts(path: Path, role: str) -> dict[str, str | int]:
    """Name without directories, size and SHA-256 of a source file, for ingest.json."""
    with path.open("rb") as raw:
        return {"role": role, "name": path.name, "bytes": path.stat().st_size, "sha256": hashlib.file_digest(raw, "sha256").hexdigest()}


def string_table(columns: dict[str, list[str | None]]) -> pa.Table:
    """Lists of strings as a table of large_string columns."""
    return pa.table({name: pa.array(values, pa.large_string()) for name, values in columns.items()})
