"""Amazon Reviews of 2014, 2018 and 2023: JSON lines of reviews and of metadata, gzipped or not. The release is told from the first line's keys.

| release | user, item | time | rating | metadata |
|---|---|---|---|---|
| 2014 | reviewerID, asin | unixReviewTime, seconds | overall | asin, title, brand, categories (lists of paths); lines are Python literals |
| 2018 | reviewerID, asin | unixReviewTime, seconds | overall | asin, title, brand, category (one path) |
| 2023 | user_id, parent_asin | timestamp, milliseconds | rating | parent_asin, title, store, categories (one path) |

Milliseconds are floored to seconds. Only these keys are kept.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diger_core.errors import DigerError
from diger_core.progress import Progress, Silent
from orchestration.snapshot.ingest.source import BATCH_ROWS, Source, lines, reading, string_table


@dataclass(frozen=True)
class Release:
    name: str
    user: str
    item: str
    time: str
    time_divisor: int
    rating: str
    brand: str
    categories: str


RELEASES = (
    Release("amazon-2023", "user_id", "parent_asin", "timestamp", 1000, "rating", "store", "categories"),
    Release("amazon-2018", "reviewerID", "asin", "unixReviewTime", 1, "overall", "brand", "category"),
    Release("amazon-2014", "reviewerID", "asin", "unixReviewTime", 1, "overall", "brand", "categories"),
)


def amazon_source(reviews: Path, metadata: Path | None, with_rating: bool) -> Source:
    """The reviews as interactions, the metadata as items. `with_rating`: the rating is needed, and a review without one is an error."""
    release = _release(reviews)
    files = {"reviews": reviews} | ({"metadata": metadata} if metadata else {})
    return Source(
        format=release.name,
        files=files,
        interactions=lambda progress: _reviews(reviews, release, with_rating, progress),
        items=(lambda progress: _metadata(metadata, release, progress)) if metadata else None,
    )


def _release(reviews: Path) -> Release:
    """2014 and 2018 reviews have the same keys that matter; `verified` and `style` came with 2018."""
    with reading(reviews, Silent()) as file:
        for number, line in lines(file):
            record = _record(line, file.path, number)
            for release in RELEASES:
                fits = {release.user, release.item, release.time} <= record.keys()
                if fits and (release.name != "amazon-2018" or record.keys() & {"verified", "style", "vote"}):
                    return release
            wanted = "reviewerID, asin, unixReviewTime (2014, 2018) or user_id, parent_asin, timestamp (2023)"
            raise DigerError(f"{reviews.name}, line {number}: keys {', '.join(list(record)[:12])}; an Amazon review has {wanted}")
    raise DigerError(f"{reviews.name}: there are only blank lines; download it again")


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """One line as a JSON object, or, as in 2014, a Python dictionary literal. Literals only: nothing is executed."""
    where = f"{path.name}, line {number}"
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DigerError(f"{where}: not UTF-8 text (byte {error.start + 1}); convert the file, or remove the line") from error
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            record = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise DigerError(f"{where}: not a JSON object ({error}); fix or remove the line, or download the file again") from error
    if not isinstance(record, dict):
        raise DigerError(f"{where}: a {type(record).__name__} instead of a JSON object; fix or remove the line")
    return record


def _text(record: dict[str, Any], key: str, path: Path, number: int) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        found = f"key {key} is missing" if key not in record else f"key {key} holds {value!r:.40} instead of text"
        raise DigerError(f"{path.name}, line {number}: {found}; fix or remove the line")
    return _encodable(value, key, path, number)


def _encodable(text: str, key: str, path: Path, number: int) -> str:
    """JSON can escape half of a surrogate pair, which no UTF-8 file can hold."""
    try:
        if not text.isascii():
            text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DigerError(f"{path.name}, line {number}: key {key} holds half of a surrogate pair, which is no text; fix or remove the line") from error
    return text


def _number(record: dict[str, Any], key: str, path: Path, number: int) -> int | float:
    value = record.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not -sys.float_info.max <= value <= sys.float_info.max:
        found = f"key {key} is missing" if key not in record else f"key {key} holds {value!r:.40} instead of a number"
        raise DigerError(f"{path.name}, line {number}: {found}; fix or remove the line")
    return value


def _time(record: dict[str, Any], release: Release, path: Path, number: int) -> int:
    value = _number(record, release.time, path, number)
    if value != value // 1 or not -(2**62) < value < 2**62:
        raise DigerError(f"{path.name}, line {number}: key {release.time} holds {value!r:.40} instead of a whole number; fix or remove the line")
    return int(value) // release.time_divisor


def _reviews(path: Path, release: Release, with_rating: bool, progress: Progress) -> Iterator[pa.Table]:
    users: list[str | None] = []
    items: list[str | None] = []
    times: list[int] = []
    ratings: list[float] = []

    def batch() -> pa.Table:
        table = string_table({"user_id": users, "item_id": items}).append_column("timestamp", pa.array(np.array(times, np.int64)))
        if with_rating:
            table = table.append_column("rating", pa.array(np.array(ratings, np.float64)))
        for column in (users, items, times, ratings):
            column.clear()
        return table

    with reading(path, progress) as file:
        for number, line in lines(file):
            record = _record(line, path, number)
            users.append(_text(record, release.user, path, number))
            items.append(_text(record, release.item, path, number))
            times.append(_time(record, release, path, number))
            if with_rating:
                ratings.append(float(_number(record, release.rating, path, number)))
            if len(users) == BATCH_ROWS:
                yield batch()
    yield batch()


def _metadata(path: Path, release: Release, progress: Progress) -> Iterator[pa.Table]:
    columns: dict[str, list[str | None]] = {"item_id": [], "title": [], "brand": [], "categories": []}

    def batch() -> pa.Table:
        table = string_table(columns)
        for column in columns.values():
            column.clear()
        return table

    with reading(path, progress) as file:
        for number, line in lines(file):
            record = _record(line, path, number)
            if not record.get(release.item):
                raise DigerError(f"{path.name}, line {number}: key {release.item} is missing; give the metadata of the same release ({release.name})")
            columns["item_id"].append(_text(record, release.item, path, number))
            for name, value in (
                ("title", _plain(record.get("title"))),
                ("brand", _plain(record.get(release.brand))),
                ("categories", category_text(record.get(release.categories) or record.get("categories") or record.get("category"))),
            ):
                columns[name].append(None if value is None else _encodable(value, name, path, number))
            if len(columns["item_id"]) == BATCH_ROWS:
                yield batch()
    yield batch()


def _plain(value: Any) -> str | None:
    """A text as it is; a few lines hold a list of pieces. Anything else is no text."""
    if isinstance(value, list):
        value = " ".join(piece for piece in value if isinstance(piece, str))
    return value if isinstance(value, str) and value else None


def category_text(value: Any) -> str | None:
    """Category paths as one text: ["A", "B"] -> "A > B"; [["A", "B"], ["C"]] -> "A > B; C"."""
    if isinstance(value, str):
        return value or None
    if not isinstance(value, list):
        return None
    if any(isinstance(path, list) for path in value):
        paths = [category_text(path) for path in value]
        return "; ".join(path for path in paths if path) or None
    return " > ".join(str(name) for name in value if name) or None
