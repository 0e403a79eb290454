"""The embedded catalogue: a make-believe shop, small enough for a demo and rich enough that learning from it means something.

Two snapshots, a year of trade and the season after it. In the second some items are gone, others are new or renamed, customers come back, and new
ones arrive. Seeded: two calls write equal bytes (with one version of numpy and pyarrow).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.snapshot.demo_shop.catalogue import Catalogue, Ints, catalogue
from orchestration.snapshot.demo_shop.shoppers import lengths, routes, shop, shoppers

__all__ = ["SNAPSHOTS", "USERS_ADDED", "USERS_FIRST", "write_demo_snapshots"]

SNAPSHOTS = ("demo-1", "demo-2")
SEED = 20_240_229
USERS_FIRST = 6000
USERS_ADDED = 400
RETURNING = 30  # percent of the known customers that buy again before the second snapshot
DAY = 86_400
OPENING = 1_672_531_200  # 2023-01-01 00:00 UTC, in Unix seconds
FIRST_EXPORT = OPENING + 365 * DAY
SECOND_EXPORT = FIRST_EXPORT + 60 * DAY


def write_demo_snapshots(directory: Path) -> list[Path]:
    """Writes `demo-1` and `demo-2` below `directory`, replacing older ones, and returns their paths.

    Each holds interactions.parquet (user_id, item_id: strings; timestamp: int64 Unix seconds), items.parquet (item_id, title, brand, categories) and,
    last, `_SUCCESS`. The shop exports only events of items that it still lists.
    """
    rng = np.random.Generator(np.random.PCG64(SEED))
    items, ways = catalogue(rng), routes(rng)
    users = USERS_FIRST + USERS_ADDED
    people, counts = shoppers(rng, users), lengths(rng, users)
    bought_UN = np.zeros((users, len(items.item_id)), bool)
    known = np.arange(users) < USERS_FIRST

    first = shop(rng, items, ways, people, bought_UN, np.where(known, counts, 0), snapshot=1)
    returning = np.where(rng.integers(0, 100, users) < RETURNING, rng.integers(1, 6, users), 0)
    second = shop(rng, items, ways, people, bought_UN, np.where(known, returning, counts), snapshot=2)

    history = [(*first, _times(rng, first[0], OPENING, FIRST_EXPORT)), (*second, _times(rng, second[0], FIRST_EXPORT, SECOND_EXPORT))]
    written = []
    for number, name in enumerate(SNAPSHOTS, start=1):
        columns = [np.concatenate(parts) for parts in zip(*history[:number], strict=True)]
        written.append(_write(Path(directory) / name, _interactions(items, number, *columns), items.table(number)))
    return written


def _times(rng: np.random.Generator, user: Ints, start: int, end: int) -> Ints:
    """Increasing Unix seconds within [start, end) for each customer's events; `user` is sorted."""
    # A margin at the end, so that adding the place in the whole list, which makes times distinct, stays below `end`.
    drawn = rng.integers(start, end - DAY, len(user))
    return drawn[np.lexsort((drawn, user))] + _place(user)


def _place(user: Ints) -> Ints:
    """0, 1, 2, … within each run of equal users."""
    index = np.arange(len(user))
    begins = np.r_[True, user[1:] != user[:-1]]
    return index - np.maximum.accumulate(np.where(begins, index, 0))


def _interactions(items: Catalogue, number: int, user: Ints, item: Ints, time: Ints) -> pa.Table:
    """interactions.parquet of snapshot `number`, ordered by time as a shop's log is."""
    user_id = pa.array([f"c{u:05d}" for u in range(int(user.max()) + 1)], pa.string())
    kept = items.in_snapshot(number)[item]
    order = np.flatnonzero(kept)[np.lexsort((user[kept], time[kept]))]
    columns = {
        "user_id": user_id.take(pa.array(user[order])),
        "item_id": pa.array(items.item_id, pa.string()).take(pa.array(item[order])),
        "timestamp": pa.array(time[order], pa.int64()),
    }
    return pa.table(columns)


def _write(target: Path, interactions: pa.Table, items: pa.Table) -> Path:
    """Replaces the snapshot at `target`; `_SUCCESS` comes last, so that a half-written one is never taken for whole."""
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    pq.write_table(interactions, target / "interactions.parquet", compression="zstd")
    pq.write_table(items, target / "items.parquet", compression="zstd")
    (target / "_SUCCESS").write_bytes(b"")
    return target
