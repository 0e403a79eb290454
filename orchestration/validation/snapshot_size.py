"""How large a snapshot is, and of what kind: what parameters are suggested from. Reads ids and times alone; nothing is trained or stored."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from orchestration.snapshot.files import describe, fetch, open_root, read_table
from orchestration.validation.columns import column_of, title_column, unix_seconds

DAY = 86_400


@dataclass(frozen=True)
class SnapshotSize:
    """Counts of a snapshot. `days`: from the first to the last event, None without times; `test_users`: of a temporal split at 80% and 90%."""

    url: str
    items: int
    users: int
    events: int
    median_events: int  # of a user
    long_events: int  # 90% of the users have no more
    repeats: float  # share of events whose user had the item before
    days: int | None
    test_users: int
    text: bool
    vectors: bool

    @property
    def rows(self) -> int:
        """Training rows, about: every event with a predecessor."""
        return max(0, self.events - self.users)


def snapshot_size(url: str) -> SnapshotSize:
    """Counts the snapshot below `url`. DigerError as `describe` raises it, and for columns that are missing or of a wrong type."""
    found = describe(url)
    with tempfile.TemporaryDirectory() as folder:
        events, schema = _events(found.url, Path(folder), found.files["interactions.parquet"].columns)
    if not events.num_rows:
        raise DigerError(f"{url}: interactions.parquet holds no event with user and item: there is no size to go by")
    user_E, item_E = (pc.dictionary_encode(pc.cast(events[name], pa.string())).combine_chunks().indices.to_numpy() for name in ("user_id", "item_id"))
    many_U = np.bincount(user_E)
    key_E = np.sort(user_E.astype(np.int64) * (int(item_E.max()) + 1) + item_E)  # numpy's unique hashes, many times slower
    pairs = 1 + int((key_E[1:] != key_E[:-1]).sum())
    days, test_users = None, 0
    if "timestamp" in events.column_names:
        time_E = unix_seconds(events["timestamp"], "interactions.parquet", "timestamp").to_numpy()
        days, test_users = int((time_E.max() - time_E.min()) // DAY), _test_users(user_E, time_E, len(many_U))
    return SnapshotSize(
        url=url,
        items=found.files["items.parquet"].rows,
        users=len(many_U),
        events=events.num_rows,
        median_events=int(np.median(many_U)),
        long_events=int(np.quantile(many_U, 0.9)),
        repeats=1 - pairs / events.num_rows,
        days=days,
        test_users=test_users,
        text=title_column(schema) is not None,
        vectors="vectors.parquet" in found.files,
    )


def _events(url: str, folder: Path, columns: Mapping[str, str]) -> tuple[pa.Table, pa.Schema]:
    """(user_id, item_id and, where it is there, timestamp, without nulls; the schema of items.parquet)."""
    events, items = (_local(url, name, folder) for name in ("interactions.parquet", "items.parquet"))
    wanted = [name for name in ("user_id", "item_id", "timestamp") if name != "timestamp" or name in columns]
    empty = pq.read_schema(events).empty_table()
    for name in wanted:
        column_of(empty, "interactions.parquet", name)
    return read_table(events, lambda field: field.name in wanted).select(wanted).drop_null(), pq.read_schema(items)


def _local(url: str, name: str, folder: Path) -> Path:
    """The file itself where it is one on this disk, otherwise a copy."""
    root = open_root(url)
    here = Path(root.at(name)) if root.is_local else None
    return here if here is not None and here.is_file() else fetch(url, name, folder / name)


def _test_users(user_E: np.ndarray, time_E: np.ndarray, users: int) -> int:
    """Users with an event after 90% of all events and one before."""
    end = np.sort(time_E)[max(0, int(np.ceil(0.9 * len(time_E))) - 1)]
    before_U, after_U = np.zeros(users, dtype=bool), np.zeros(users, dtype=bool)
    before_U[user_E[time_E <= end]] = True
    after_U[user_E[time_E > end]] = True
    return int((before_U & after_U).sum())
