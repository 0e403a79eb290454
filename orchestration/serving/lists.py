"""Batch recommendations: the champion's lists after all of each user's events, in shards of users (ranking: orchestration/serving/ranker.py).

Every event counts, the held-out ones included. Only items that `items` names are listed, where it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from diger_core.evaluation.recipes import REPEATS, Fitted
from diger_core.item_ids import index_of
from diger_core.store.artefacts import Store
from diger_core.store.canonical import canonical_json, digest
from diger_core.store.content_hash import table_hash
from orchestration.champion.bundle import FUSION, load_bundle
from orchestration.serving.ranker import Ranker, taken
from orchestration.serving.rules import Rules


@dataclass(frozen=True)
class Request:
    """What is asked for. Hashes name artefacts of the store at `url`; `users` and `items` are None for all."""

    url: str
    bundle: str
    sequences: str
    neighbours: str
    validated_items: str
    cold_start: str | None
    k: int
    beams: int
    shard_users: int
    batch_size: int | None
    remove_seen: bool
    users: pa.Array | None = None
    items: pa.Array | None = None
    rules: Rules = field(default_factory=Rules)

    @property
    def key(self) -> str:
        """SHA-256 of the request: what an earlier, interrupted one must agree with."""
        names = ("bundle", "sequences", "neighbours", "validated_items", "cold_start", "k", "beams", "shard_users", "remove_seen")
        plain = {**{name: getattr(self, name) for name in names}, "rules": self.rules.key}
        orders: tuple[tuple[str, ...] | None, ...] = ((), None)  # a shard's users follow from their order; items are a set
        columns = zip((self.users, self.items), orders, strict=True)
        ids = ["all" if column is None else table_hash(pa.table({"id": column}), order) for column, order in columns]
        return digest("recommendations", canonical_json(plain), *ids)


def removes_seen(store: Store, bundle: str, seen: Literal["auto", "keep", "remove"], judged: bool | None = None) -> tuple[bool, str]:
    """(whether lists leave out what the user's history holds, the reason in one line).

    auto: by the repeat share that the champion's fusion stage measured, the share of validation targets that their user had before. judged: whether
    the lists that the gate and the report judge leave such items out (evaluation.remove_seen); a difference is told. None: not asked.
    """
    share = Fitted.from_document(store.artefact("bundle", bundle).json(FUSION)).repeat_share
    remove = seen == "remove" or (seen == "auto" and share < REPEATS)
    what, other = ("are left out", "keep") if remove else ("stay in the lists", "remove")
    why = f"as recommendations.seen={seen} says" if seen != "auto" else f"as people {'seldom' if remove else 'often'} come back to one"
    told = f"items that a user had before {what}, {why} ({share:.1%} of validation targets are such items; --seen {other} changes that)"
    if judged is not None and judged != remove:
        lists = "leave them out" if judged else "may hold them"
        told += f"; the figures of gate and report are of lists that {lists} (evaluation.remove_seen: {_word(remove)} judges these)"
    return remove, told


def _word(value: bool) -> str:
    return "true" if value else "false"


class Recommender:
    """An opened request: computes its shards, in any order and process."""

    def __init__(self, request: Request) -> None:
        store = Store(request.url)
        self.request, self.bundle = request, load_bundle(store, request.bundle)
        child = store.artefact("cold_start", request.cold_start) if request.cold_start else None
        data = {name: store.artefact(name, getattr(request, name)) for name in ("sequences", "neighbours", "validated_items")}
        self.ranker = Ranker(self.bundle, child, data, request.rules, request.items, request.batch_size)
        self.item_ids = self.ranker.item_ids
        known = data["sequences"].table("users.parquet")["user_id"]
        self.user_ids = known.combine_chunks() if request.users is None else request.users
        self.user_n = np.arange(len(known)) if request.users is None else index_of(request.users, known)
        self.counts = {
            "users": len(self.user_n),
            "users_unknown": int((self.user_n < 0).sum()),
            "users_without_history": int((self.history_lengths() == 0).sum()),
            "items": self.ranker.items,
            "items_without_id": int((self.ranker.own_N < 0).sum()),
            "items_unknown": 0 if request.items is None else int((index_of(request.items, self.item_ids) < 0).sum()),
        }

    @property
    def shards(self) -> int:
        return -(-len(self.user_n) // self.request.shard_users)

    def history_lengths(self) -> np.ndarray:
        """[users]: each user's events; 0 for an unknown one, whose row is -1."""
        length_n: np.ndarray = np.append(np.diff(self.ranker.seq.offsets_U1), 0)[self.user_n]
        return length_n

    def __call__(self, shard: int) -> pa.Table:
        """user_id, item_id, rank (from 1), score: the rows of the shard's users, in their order."""
        asked, start = self.request, shard * self.request.shard_users
        user_n = self.user_n[start : start + asked.shard_users]
        items_nk, scores_nk = self.ranker.lists(taken(self.ranker.seq, user_n), asked.k, asked.beams, asked.remove_seen)
        return self._arrow(self.user_ids.slice(start, len(user_n)), items_nk, scores_nk)

    def _arrow(self, user_ids: pa.Array, items_nk: np.ndarray, scores_nk: np.ndarray) -> pa.Table:
        real = (items_nk >= 0).reshape(-1)
        rows, top = len(items_nk), items_nk.shape[1]
        users = user_ids.take(pa.array(np.repeat(np.arange(rows), top)[real]))
        items = self.item_ids.take(pa.array(items_nk.reshape(-1)[real]))
        rank = np.tile(np.arange(1, top + 1, dtype=np.int32), rows)[real]
        score = pa.array(scores_nk.reshape(-1)[real], from_pandas=True)  # NaN becomes null: the most popular have no score
        return pa.table({"user_id": users, "item_id": items, "rank": rank, "score": score})
