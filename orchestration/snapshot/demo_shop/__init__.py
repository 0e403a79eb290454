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
from orchestration.snapshot.demo_shop.shoppers import order_counts, routes, shop, shoppers

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
    people, counts = shoppers(rng, users, len(items.item_id)), order_counts(rng, users)
    known = np.arange(users) < USERS_FIRST
    returning = np.where(rng.integers(0, 100, users) < RETURNING, rng.integers(1, 4, users), 0)

    orders = _orders(rng, np.where(known, counts, 0), OPENING, FIRST_EXPORT)
    first = shop(rng, items, ways, people, *orders, snapshot=1)
    orders = _orders(rng, np.where(known, returning, counts), FIRST_EXPORT, SECOND_EXPORT)
    history = [first, shop(rng, items, ways, people, *orders, snapshot=2)]
    written = []
    for number, name in enumerate(SNAPSHOTS, start=1):
        columns = [np.concatenate(parts) for parts in zip(*history[:number], strict=True)]
        written.append(_write(Path(directory) / name, _interactions(items, number, *columns), items.table(number)))
    return written


def _orders(rng: np.random.Generator, counts_U: Ints, start: int, end: int) -> tuple[Ints, Ints]:
    """(customer, Unix seconds in [start, end)) of each order, ordered by customer and time; no two orders of a customer share a second."""
    user = np.repeat(np.arange(len(counts_U)), counts_U)
    drawn = rng.integers(start, end - DAY, len(user))
    order = np.lexsort((drawn, user))
    return user, drawn[order] + np.arange(len(user)) - np.repeat(np.cumsum(counts_U) - counts_U, counts_U)


def _interactions(items: Catalogue, number: int, user: Ints, item: Ints, time: Ints) -> pa.Table:
    """interactions.parquet of snapshot `number`, ordered by time as a shop's log is; the items of a basket share their second."""
    user_id = pa.array([f"c{u:05d}" for u in range(int(user.max()) + 1)], pa.string())
    kept = items.in_snapshot(number)[item]
    order = np.flatnonzero(kept)[np.lexsort((item[kept], user[kept], time[kept]))]
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
