"""Batch recommendations: the champion's lists after all of each user's events, in shards of users.

Every event counts, the held-out ones included. A list mixes the champion's model with what is counted in the snapshot's events, by the champion's
recipe; a place that the mixture leaves empty is filled with popular items, without a score. A user without history gets popular items. Only items
that the snapshot lists, and that `items` names, are recommended; the model reaches an item that the champion lacks by its ID from cold start, and the
tables reach it by its text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from diger_core.data.sequences import Sequences
from diger_core.data.splits import to_the_end
from diger_core.errors import DigerError
from diger_core.evaluation.recipes import REPEATS, Beams, Fitted, ranked
from diger_core.item_ids import index_of
from diger_core.store.artefacts import Artefact, Store
from diger_core.store.canonical import canonical_json, digest, table_hash
from orchestration.champion.bundle import FUSION, Bundle, load_bundle
from orchestration.change.cold_start import ENCODED
from orchestration.features.neighbours import read_counts

if TYPE_CHECKING:
    from orchestration.champion.model_artefact import Model

NAMED = 3  # unknown ids that a message names
FILLED = 256  # rows whose empty places are filled at once


@dataclass(frozen=True)
class Request:
    """What is asked for. Hashes name artefacts of the store at `url`; `users` and `items` are None for all."""

    url: str
    bundle: str
    sequences: str
    neighbours: str
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
        plain = {
            name: getattr(self, name) for name in ("bundle", "sequences", "neighbours", "cold_start", "k", "beams", "shard_users", "remove_seen")
        }
        orders: tuple[tuple[str, ...] | None, ...] = ((), None)  # a shard's users follow from their order; items are a set
        columns = zip((self.users, self.items), orders, strict=True)
        ids = ["all" if column is None else table_hash(pa.table({"id": column}), order) for column, order in columns]
        return digest("recommendations", canonical_json(plain), *ids)


def removes_seen(store: Store, bundle: str, seen: Literal["auto", "keep", "remove"]) -> tuple[bool, str]:
    """(whether lists leave out what the user's history holds, the reason in one line).

    auto: by the repeat share that the champion's fusion stage measured, the share of validation targets that their user had before.
    """
    share = Fitted.from_document(store.artefact("bundle", bundle).json(FUSION)).repeat_share
    remove = seen == "remove" or (seen == "auto" and share < REPEATS)
    what, other = ("are left out", "keep") if remove else ("stay in the lists", "remove")
    why = f"as recommendations.seen={seen} says" if seen != "auto" else f"as people {'seldom' if remove else 'often'} come back to one"
    return remove, f"items that a user had before {what}, {why} ({share:.1%} of validation targets are such items; --seen {other} changes that)"


def projected(seq: Sequences, own_N: np.ndarray, items: int) -> tuple[Sequences, np.ndarray]:
    """(the sequences in another numbering, without the events whose `own_N` is -1; events [E + 1] that are left before each place)."""
    known_E = own_N[seq.events_E] >= 0
    before_E1 = np.r_[0, np.cumsum(known_E)]
    return Sequences(own_N[seq.events_E[known_E]].astype(np.int32), before_E1[seq.offsets_U1], items), before_E1


def serving_table(bundle: Bundle, child: Artefact | None) -> tuple[Model, bool]:
    """(the champion's model with the table that serves, whether that is the child which cold start made of this very table)."""
    from diger_core.ids.id_table import assignment_hash, from_arrow

    if child is None or "id_table.parquet" not in child.names or child.json("cold_start.json")["parent"] != bundle.hash:
        return bundle.model, False
    document = child.json("cold_start.json")
    item_ids, table = from_arrow(child.table("id_table.parquet"))
    if document["parent_assignment"] != bundle.assignment_hash or assignment_hash(item_ids, table) != document["assignment_hash"]:
        raise DigerError(f"{child.directory}: its table is not the child of champion {bundle.hash[:12]}: run cold_start again")
    z_Ne = child.tensors(ENCODED)["z"] if ENCODED in child.names else None
    return replace(bundle.model, table=table, item_ids=item_ids, z_Ne=z_Ne), True


class Recommender:
    """An opened request: computes its shards, in any order and process."""

    def __init__(self, request: Request) -> None:
        store = Store(request.url)
        self.request, self.bundle = request, load_bundle(store, request.bundle)
        child = store.artefact("cold_start", request.cold_start) if request.cold_start else None
        self.model, self.child = serving_table(self.bundle, child)
        table_ids, self.table = self.model.item_ids, self.model.table
        source = store.artefact("sequences", request.sequences)
        self.seq = to_the_end(Sequences.from_tensors(source.tensors("sequences.safetensors")))
        self.item_ids = source.table("items.parquet")["item_id"]
        self.counting = read_counts(store.artefact("neighbours", request.neighbours), self.seq, "transitions_end")
        own_N = index_of(self.item_ids, table_ids)
        self.listed_C = index_of(table_ids, self.item_ids)  # row of the ID table -> the snapshot's item, -1 where it is not listed any more
        self.own, self.before_E1 = projected(self.seq, own_N, len(table_ids))
        self.allowed_N = self._allowed(own_N)
        known = source.table("users.parquet")["user_id"]
        self.user_ids = known.combine_chunks() if request.users is None else request.users
        self.user_n = np.arange(len(known)) if request.users is None else index_of(request.users, known)
        self.counts = {
            "users": len(self.user_n),
            "users_unknown": int((self.user_n < 0).sum()),
            "users_without_history": int((self._history_lengths(self.user_n) == 0).sum()),
            "items": int(self.allowed_N.sum()),
            "items_without_id": int((own_N < 0).sum()),
            "items_unknown": 0 if request.items is None else int((index_of(request.items, self.item_ids) < 0).sum()),
        }
        self._trie: Any = None
        self._tokens: Any = None

    def _allowed(self, own_N: np.ndarray) -> np.ndarray:
        """[N]: the snapshot's items that may be recommended."""
        if not (own_N >= 0).any():
            raise DigerError(f"none of the snapshot's items has an ID under champion {self.bundle.hash[:12]}: were all ids re-mapped? Retrain first")
        allowed_N = np.ones(len(own_N), dtype=bool)
        if self.request.items is None:
            return allowed_N
        wanted = index_of(self.request.items, self.item_ids)
        allowed_N[:] = False
        allowed_N[wanted[wanted >= 0]] = True
        if not allowed_N.any():
            first = ", ".join(repr(item) for item in self.request.items[:NAMED].to_pylist())
            raise DigerError(f"--items: none of its {len(self.request.items)} items ({first}, …) is in the catalogue: check the ids and their type")
        return allowed_N

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
        top = min(self.request.k, int(self.allowed_N.sum()))
        items_nk = np.full((len(user_n), top), -1, dtype=np.int32)
        scores_nk = np.full((len(user_n), top), np.nan, dtype=np.float32)
        rows = np.flatnonzero(self._history_lengths(user_n) > 0)
        if len(rows):
            items_nk[rows], scores_nk[rows] = self._ranked(user_n[rows], top)
        scores_nk[items_nk < 0] = np.nan
        return self._arrow(self.user_ids.slice(start, len(user_n)), self._filled(items_nk, user_n), scores_nk)

    def _ranked(self, users_T: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        end_T = self.seq.offsets_U1[users_T + 1]
        seen = self.request.remove_seen
        beams = self._beams(users_T, end_T)
        return ranked(self.bundle.fitted.lists, self.counting, self.seq, users_T, end_T, top, beams, remove_seen=seen, allowed_N=self.allowed_N)

    def _beams(self, users_T: np.ndarray, end_T: np.ndarray) -> Beams:
        """The model's lists in the snapshot's numbering; empty for users of whose history the model knows nothing."""
        import torch

        from diger_core.evaluation.ranking import recommended
        from diger_core.recommender.trie import Trie

        wide = self.request.beams
        items_TW, scores_TW = np.full((len(users_T), wide), -1, dtype=np.int32), np.full((len(users_T), wide), -np.inf, dtype=np.float32)
        can_T = self.before_E1[end_T] > self.own.offsets_U1[users_T]
        may_C = (self.listed_C >= 0) & self.allowed_N[self.listed_C]
        if not can_T.any() or not may_C.any():
            return items_TW, scores_TW
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = self.model.recommender.to(device)
        if self._trie is None:
            self._tokens = self.model.history_tokens()
            chosen = torch.from_numpy(np.flatnonzero(may_C))
            self._trie = Trie.from_table(self.table.codes_NM, self.table.suffix_N, model.codes, model.suffixes, device, items=chosen)
        items_tW, scores_TW[can_T] = recommended(
            model, self.table.codes_NM, self.table.suffix_N, self.own, users_T[can_T], self.before_E1[end_T[can_T]], wide, beams=wide,
            remove_seen=self.request.remove_seen, batch_size=self.request.batch_size, device=device, trie=self._trie,
            tokens_NTd=self._tokens,
        )  # fmt: skip
        items_TW[can_T] = np.where(items_tW >= 0, self.listed_C[items_tW], -1)
        return items_TW, scores_TW

    def _filled(self, items_nk: np.ndarray, user_n: np.ndarray) -> np.ndarray:
        """Empty places filled with the most popular allowed items that the row does not hold, nor, where seen items are removed, the history."""
        short = np.flatnonzero((items_nk < 0).any(axis=1))
        lengths = self._history_lengths(user_n[short]) if self.request.remove_seen else np.zeros(len(short), dtype=np.int64)
        short, lengths = short[np.argsort(lengths, kind="stable")], np.sort(lengths)  # long histories together: only their block is wide
        for start in range(0, len(short), FILLED):
            rows = short[start : start + FILLED]
            held_rk = items_nk[rows]
            best_w = self._popular[: 2 * held_rk.shape[1] + lengths[start : start + FILLED].max()]
            row_X, place_X = np.nonzero(held_rk >= 0)
            taken = row_X * np.int64(self.seq.items) + held_rk[row_X, place_X]
            if self.request.remove_seen:
                taken = np.r_[taken, self._seen(user_n[rows])]
            free_rw = ~np.isin(np.arange(len(rows))[:, None] * np.int64(self.seq.items) + best_w, taken)
            both = np.concatenate([held_rk, np.where(free_rw, best_w, np.int32(-1))], axis=1)
            items_nk[rows] = np.take_along_axis(both, np.argsort(both < 0, axis=1, kind="stable")[:, : held_rk.shape[1]], axis=1)
        return items_nk

    def _seen(self, user_r: np.ndarray) -> np.ndarray:
        """row * N + item of every event of these users; -1, an unknown user, has none."""
        known = np.flatnonzero(user_r >= 0)
        begin, many = self.seq.offsets_U1[user_r[known]], np.diff(self.seq.offsets_U1)[user_r[known]]
        place = np.repeat(begin - (np.cumsum(many) - many), many) + np.arange(int(many.sum()))
        seen: np.ndarray = np.repeat(known, many) * np.int64(self.seq.items) + self.seq.events_E[place]
        return seen

    @cached_property
    def _popular(self) -> np.ndarray:
        """The allowed items by falling number of events, then by row."""
        allowed = np.flatnonzero(self.allowed_N)
        return allowed[np.argsort(-np.bincount(self.seq.events_E, minlength=self.seq.items)[allowed], kind="stable")].astype(np.int32)

    def _arrow(self, user_ids: pa.Array, items_nk: np.ndarray, scores_nk: np.ndarray) -> pa.Table:
        real = (items_nk >= 0).reshape(-1)
        rows, top = len(items_nk), items_nk.shape[1]
        users = user_ids.take(pa.array(np.repeat(np.arange(rows), top)[real]))
        items = self.item_ids.take(pa.array(items_nk.reshape(-1)[real]))
        rank = np.tile(np.arange(1, top + 1, dtype=np.int32), rows)[real]
        score = pa.array(scores_nk.reshape(-1)[real], from_pandas=True)  # NaN becomes null: the most popular have no score
        return pa.table({"user_id": users, "item_id": items, "rank": rank, "score": score})
