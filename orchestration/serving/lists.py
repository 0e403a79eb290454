"""Batch recommendations: the champion's lists after all of each user's events, in shards of users.

Every event counts, the last two included: nothing is held out from people who wait for a recommendation. A user without history (unknown, or
with events of unknown items only) gets the most popular items, with no score. Only items that the snapshot lists, and that `items` names, are
recommended; an item that the champion lacks has its ID from cold start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.store.artefacts import Artefact, Store
from diger_core.store.canonical import canonical_json, digest, table_hash
from orchestration.champion.bundle import Bundle, index_of, load_bundle

if TYPE_CHECKING:
    from diger_core.ids.id_table import IdTable

NAMED = 3  # unknown ids that a message names


@dataclass(frozen=True)
class Request:
    """What is asked for. Hashes name artefacts of the store at `url`; `users` and `items` are None for all."""

    url: str
    bundle: str
    sequences: str
    cold_start: str | None
    k: int
    beams: int
    shard_users: int
    batch_size: int
    remove_seen: bool
    users: pa.Array | None = None
    items: pa.Array | None = None

    @property
    def key(self) -> str:
        """SHA-256 of the request: what an earlier, interrupted one must agree with."""
        plain = {name: getattr(self, name) for name in ("bundle", "sequences", "cold_start", "k", "beams", "shard_users", "remove_seen")}
        orders: tuple[tuple[str, ...] | None, ...] = ((), None)  # a shard's users follow from their order; items are a set
        columns = zip((self.users, self.items), orders, strict=True)
        ids = ["all" if column is None else table_hash(pa.table({"id": column}), order) for column, order in columns]
        return digest("recommendations", canonical_json(plain), *ids)


def projected(seq: Sequences, own_N: np.ndarray, items: int) -> tuple[Sequences, np.ndarray]:
    """(the sequences in another numbering, without the events whose `own_N` is -1; events [E + 1] that are left before each place)."""
    known_E = own_N[seq.events_E] >= 0
    before_E1 = np.r_[0, np.cumsum(known_E)]
    return Sequences(own_N[seq.events_E[known_E]].astype(np.int32), before_E1[seq.offsets_U1], items), before_E1


def serving_table(bundle: Bundle, child: Artefact | None) -> tuple[Any, IdTable, bool]:
    """(item ids, table, whether it is the child): the champion's table, or the child that cold start made of this very table."""
    from diger_core.ids.id_table import assignment_hash, from_arrow

    if child is None or "id_table.parquet" not in child.names or child.json("cold_start.json")["parent"] != bundle.hash:
        return bundle.item_ids, bundle.table, False
    document = child.json("cold_start.json")
    item_ids, table = from_arrow(child.table("id_table.parquet"))
    if document["parent_assignment"] != bundle.assignment_hash or assignment_hash(item_ids, table) != document["assignment_hash"]:
        raise DigerError(f"{child.directory}: its table is not the child of champion {bundle.hash[:12]}: run cold_start again")
    return item_ids, table, True


class Recommender:
    """An opened request: computes its shards, in any order and process."""

    def __init__(self, request: Request) -> None:
        store = Store(request.url)
        self.request, self.bundle = request, load_bundle(store, request.bundle)
        child = store.artefact("cold_start", request.cold_start) if request.cold_start else None
        self.item_ids, self.table, self.child = serving_table(self.bundle, child)
        source = store.artefact("sequences", request.sequences)
        seq = Sequences.from_tensors(source.tensors("sequences.safetensors"))
        listed = source.table("items.parquet")["item_id"]
        own_N = index_of(listed, self.item_ids)
        self.seq, _ = projected(seq, own_N, len(self.item_ids))
        self.allowed = self._allowed(own_N[own_N >= 0])
        known = source.table("users.parquet")["user_id"]
        self.user_ids = known.combine_chunks() if request.users is None else request.users
        self.user_n = np.arange(len(known)) if request.users is None else index_of(request.users, known)
        self.counts = {
            "users": len(self.user_n),
            "users_unknown": int((self.user_n < 0).sum()),
            "users_without_history": int((self._history_lengths(self.user_n) == 0).sum()),
            "items": len(self.allowed),
            "items_without_id": int((own_N < 0).sum()),
            "items_unknown": 0 if request.items is None else int((index_of(request.items, self.item_ids) < 0).sum()),
        }
        self._trie: Any = None

    def _allowed(self, listed: np.ndarray) -> np.ndarray:
        """Rows of the table that may be recommended, ascending."""
        if not len(listed):
            raise DigerError(f"none of the snapshot's items has an ID under champion {self.bundle.hash[:12]}: were all ids re-mapped? Retrain first")
        if self.request.items is None:
            return np.sort(listed)
        wanted = index_of(self.request.items, self.item_ids)
        chosen = np.intersect1d(wanted[wanted >= 0], listed)
        if not len(chosen):
            first = ", ".join(repr(item) for item in self.request.items[:NAMED].to_pylist())
            raise DigerError(
                f"--items: none of its {len(self.request.items)} items ({first}, …) is in the catalogue with an ID: check the ids and their type"
            )
        return chosen

    @property
    def shards(self) -> int:
        return -(-len(self.user_n) // self.request.shard_users)

    def _history_lengths(self, user_n: np.ndarray) -> np.ndarray:
        lengths = np.append(np.diff(self.seq.offsets_U1), 0)
        length_n: np.ndarray = lengths[user_n]  # -1, an unknown user, reads the 0 at the end
        return length_n

    def __call__(self, shard: int) -> pa.Table:
        """user_id, item_id, rank (from 1), score: the rows of the shard's users, in their order."""
        start = shard * self.request.shard_users
        user_n = self.user_n[start : start + self.request.shard_users]
        top = min(self.request.k, len(self.allowed))
        items_nk = np.tile(self._popular()[:top].astype(np.int32), (len(user_n), 1))
        scores_nk = np.full((len(user_n), top), np.nan, dtype=np.float32)
        rows = np.flatnonzero(self._history_lengths(user_n) > 0)
        if len(rows):
            items_nk[rows], scores_nk[rows] = self._ranked(user_n[rows], top)
        return self._arrow(self.user_ids.slice(start, len(user_n)), items_nk, scores_nk)

    def _ranked(self, users_T: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        import torch

        from diger_core.evaluation.ranking import recommended
        from diger_core.recommender.trie import Trie

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = self.bundle.recommender.to(device)
        if self._trie is None:
            chosen = torch.from_numpy(self.allowed)
            self._trie = Trie.from_table(self.table.codes_NM, self.table.suffix_N, model.codes, model.suffixes, device, items=chosen)
        return recommended(
            model, self.table.codes_NM, self.table.suffix_N, self.seq, users_T, self.seq.offsets_U1[users_T + 1], top,
            beams=self.request.beams, remove_seen=self.request.remove_seen, batch_size=self.request.batch_size, device=device, trie=self._trie,
        )  # fmt: skip

    def _popular(self) -> np.ndarray:
        """The allowed items by falling number of events, all of them, then by row."""
        counts = np.bincount(self.seq.events_E, minlength=len(self.item_ids))[self.allowed]
        return self.allowed[np.argsort(-counts, kind="stable")]

    def _arrow(self, user_ids: pa.Array, items_nk: np.ndarray, scores_nk: np.ndarray) -> pa.Table:
        real = (items_nk >= 0).reshape(-1)
        rows, top = len(items_nk), items_nk.shape[1]
        users = user_ids.take(pa.array(np.repeat(np.arange(rows), top)[real]))
        items = self.item_ids.take(pa.array(items_nk.reshape(-1)[real]))
        rank = np.tile(np.arange(1, top + 1, dtype=np.int32), rows)[real]
        score = pa.array(scores_nk.reshape(-1)[real], from_pandas=True)  # NaN becomes null: the most popular have no score
        return pa.table({"user_id": users, "item_id": items, "rank": rank, "score": score})
