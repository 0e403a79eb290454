"""The champion's lists after any histories: the one ranking behind the stage `recommendations`, `diger recommend` and `diger serve`.

A list mixes the champion's model with what is counted in the snapshot's events, by the champion's recipe; a place that the mixture leaves empty is
filled with popular items, without a score. Who has no history gets popular items. Only items that the snapshot lists are recommended; the model
reaches an item that the champion lacks by its ID from cold start, and the tables reach it by its text.

Q histories, N items of the snapshot, C rows of the ID table, k places, W beams. Nothing here knows a user: a history is events.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from diger_core.data.sequences import Bool, Float32, Int32, Int64, Sequences
from diger_core.data.splits import to_the_end
from diger_core.errors import DigerError
from diger_core.evaluation.ranking import recommended
from diger_core.evaluation.recipes import Beams, ranked
from diger_core.item_ids import index_of
from diger_core.store.artefacts import Artefact
from orchestration.champion.bundle import Bundle
from orchestration.change.cold_start import ENCODED
from orchestration.features.neighbours import read_counts

if TYPE_CHECKING:
    from orchestration.champion.model_artefact import Model

FILLED = 256  # histories whose empty places are filled at once


def projected(seq: Sequences, own_N: np.ndarray, items: int) -> tuple[Sequences, np.ndarray]:
    """(the sequences in another numbering, without the events whose `own_N` is -1; events [E + 1] that are left before each place)."""
    known_E = own_N[seq.events_E] >= 0
    before_E1 = np.r_[0, np.cumsum(known_E)]
    return Sequences(own_N[seq.events_E[known_E]].astype(np.int32), before_E1[seq.offsets_U1], items), before_E1


def taken(seq: Sequences, user_Q: Int64) -> Sequences:
    """The histories of these users in this order, all their events; -1 (an unknown user) has none."""
    many_Q = np.append(np.diff(seq.offsets_U1), 0)[user_Q]
    offsets_Q1 = np.r_[0, np.cumsum(many_Q)]
    place = np.repeat(seq.offsets_U1[user_Q] - offsets_Q1[:-1], many_Q) + np.arange(offsets_Q1[-1])
    return Sequences(seq.events_E[place], offsets_Q1, seq.items)


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


class Ranker:
    """One champion over one snapshot. `items`: only these are listed; None for all. `seq`: the snapshot's events, every one of them.

    Opened once, it holds all that does not depend on who asks: model, trie, counts, popular items. One thread at a time.
    """

    def __init__(self, bundle: Bundle, child: Artefact | None, sequences: Artefact, neighbours: Artefact, items: pa.Array | None, batch_size: int):
        self.bundle, self.batch_size = bundle, batch_size
        self.model, self.child = serving_table(bundle, child)
        self.seq = to_the_end(Sequences.from_tensors(sequences.tensors("sequences.safetensors")))
        self.item_ids = sequences.table("items.parquet")["item_id"]
        self.counting = read_counts(neighbours, self.seq, "transitions_end")
        self.own_N = index_of(self.item_ids, self.model.item_ids)  # the snapshot's item -> row of the ID table, -1 where it has no ID
        self.listed_C = index_of(self.model.item_ids, self.item_ids)  # the other way round, -1 where it is not listed any more
        if not (self.own_N >= 0).any():
            raise DigerError(f"none of the snapshot's items has an ID under champion {bundle.hash[:12]}: were all ids re-mapped? Retrain first")
        self.allowed_N: Bool = (
            np.ones(len(self.own_N), dtype=bool) if items is None else np.isin(np.arange(len(self.own_N)), index_of(items, self.item_ids))
        )
        self._trie: Any = None
        self._tokens: Any = None

    @property
    def items(self) -> int:
        """How many items may be listed."""
        return int(self.allowed_N.sum())

    def lists(self, histories: Sequences, k: int, beams: int, remove_seen: bool) -> tuple[Int32, Float32]:
        """(items [Q, k'] in the snapshot's numbering, scores [Q, k']), best first; k' is k, or fewer where fewer items may be listed.

        A history's list does not depend on the others beside it. Scores are NaN in places that popular items fill; -1 where there is no item left.
        """
        top = min(k, self.items)
        items_Qk = np.full((histories.users, top), -1, dtype=np.int32)
        scores_Qk = np.full((histories.users, top), np.nan, dtype=np.float32)
        rows = np.flatnonzero(np.diff(histories.offsets_U1) > 0)
        if len(rows):
            items_Qk[rows], scores_Qk[rows] = self._ranked(histories, rows, top, beams, remove_seen)
        scores_Qk[items_Qk < 0] = np.nan
        return self._filled(items_Qk, histories, remove_seen), scores_Qk

    def _ranked(self, histories: Sequences, rows_T: Int64, top: int, wide: int, remove_seen: bool) -> Beams:
        end_T = histories.offsets_U1[rows_T + 1]
        beams = self._beams(histories, rows_T, end_T, wide, remove_seen)
        options = {"remove_seen": remove_seen, "allowed_N": self.allowed_N}
        return ranked(self.bundle.fitted.lists, self.counting, histories, rows_T, end_T, top, beams, **options)

    def _beams(self, histories: Sequences, rows_T: Int64, end_T: Int64, wide: int, remove_seen: bool) -> Beams:
        """The model's lists in the snapshot's numbering; empty for histories of which the model knows nothing."""
        items_TW, scores_TW = np.full((len(rows_T), wide), -1, dtype=np.int32), np.full((len(rows_T), wide), -np.inf, dtype=np.float32)
        own, before_E1 = projected(histories, self.own_N, len(self.listed_C))
        can_T = before_E1[end_T] > own.offsets_U1[rows_T]
        may_C = (self.listed_C >= 0) & self.allowed_N[self.listed_C]
        if not can_T.any() or not may_C.any():
            return items_TW, scores_TW
        model, device, trie, tokens = self._on_device(may_C)
        items_tW, scores_TW[can_T] = recommended(
            model, self.model.table.codes_NM, self.model.table.suffix_N, own, rows_T[can_T], before_E1[end_T[can_T]], wide, beams=wide,
            remove_seen=remove_seen, batch_size=self.batch_size, device=device, trie=trie, tokens_NTd=tokens,
        )  # fmt: skip
        items_TW[can_T] = np.where(items_tW >= 0, self.listed_C[items_tW], -1)
        return items_TW, scores_TW

    def _on_device(self, may_C: Bool) -> tuple[Any, str, Any, Any]:
        """(recommender, device, trie of the items that may be listed, the items' tokens in a history or None)."""
        import torch

        from diger_core.recommender.trie import Trie

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model, table = self.model.recommender.to(device), self.model.table
        if self._trie is None:
            self._tokens = self.model.history_tokens()
            chosen = torch.from_numpy(np.flatnonzero(may_C))
            self._trie = Trie.from_table(table.codes_NM, table.suffix_N, model.codes, model.suffixes, device, items=chosen)
        return model, device, self._trie, self._tokens

    def _filled(self, items_Qk: Int32, histories: Sequences, remove_seen: bool) -> Int32:
        """Empty places filled with the most popular allowed items that the row does not hold, nor, where seen items are removed, the history."""
        short = np.flatnonzero((items_Qk < 0).any(axis=1))
        lengths = np.diff(histories.offsets_U1)[short] if remove_seen else np.zeros(len(short), dtype=np.int64)
        short, lengths = short[np.argsort(lengths, kind="stable")], np.sort(lengths)  # long histories together: only their block is wide
        for start in range(0, len(short), FILLED):
            rows = short[start : start + FILLED]
            held_rk = items_Qk[rows]
            best_w = self._popular[: 2 * held_rk.shape[1] + lengths[start : start + FILLED].max()]
            row_X, place_X = np.nonzero(held_rk >= 0)
            gone = row_X * np.int64(self.seq.items) + held_rk[row_X, place_X]
            if remove_seen:
                seen = taken(histories, rows)
                gone = np.r_[gone, np.repeat(np.arange(len(rows)), np.diff(seen.offsets_U1)) * np.int64(self.seq.items) + seen.events_E]
            free_rw = ~np.isin(np.arange(len(rows))[:, None] * np.int64(self.seq.items) + best_w, gone)
            both = np.concatenate([held_rk, np.where(free_rw, best_w, np.int32(-1))], axis=1)
            items_Qk[rows] = np.take_along_axis(both, np.argsort(both < 0, axis=1, kind="stable")[:, : held_rk.shape[1]], axis=1)
        return items_Qk

    @cached_property
    def _popular(self) -> Int32:
        """The allowed items by falling number of events, then by row."""
        allowed = np.flatnonzero(self.allowed_N)
        return allowed[np.argsort(-np.bincount(self.seq.events_E, minlength=self.seq.items)[allowed], kind="stable")].astype(np.int32)
