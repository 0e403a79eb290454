"""The champion's lists after any histories: the one ranking behind the stage `recommendations`, `diger recommend` and `diger serve`.

A list mixes the champion's model with what is counted in the snapshot's events, by the champion's recipe; a place that the mixture leaves empty is
filled with popular items, without a score. Who has no history gets popular items. Only items that the snapshot lists are recommended; the model
reaches an item that the champion lacks by its ID from cold start, and the tables reach it by its text.

Rules (orchestration/serving/rules.py) limit the trie and the counts. Where they limit how many items of one kind a list holds, a list that they leave
short gets more beams, over a trie without the kinds that are full, until k items are found or none are left.

Q histories, N items of the snapshot, C rows of the ID table, k places, W beams. Nothing here knows a user: a history is events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from diger_core.data.sequences import Bool, Float32, Int32, Int64, Sequences, gathered
from diger_core.data.splits import to_the_end
from diger_core.errors import DigerError
from diger_core.evaluation.counts import LISTED
from diger_core.evaluation.fusion import REMEMBERED
from diger_core.evaluation.ranking import recommended
from diger_core.evaluation.recipes import Beams, ranked
from diger_core.item_ids import index_of
from diger_core.store.artefact import Artefact
from orchestration.champion.bundle import Bundle
from orchestration.change.cold_start import ENCODED
from orchestration.features.neighbours import read_counts
from orchestration.serving.rules import Rules

if TYPE_CHECKING:
    from orchestration.champion.model_artefact import Model

COUNTED = 4 * LISTED + REMEMBERED  # candidates that a recipe's parts beside the model name, at most
FILLED = 256  # histories whose empty places are filled at once


Chosen: TypeAlias = tuple[Int32, Float32, list[int]]  # candidates of one history by falling score, their scores, places of those that are listed


def projected(seq: Sequences, own_N: np.ndarray, items: int) -> tuple[Sequences, np.ndarray]:
    """(the sequences in another numbering, without the events whose `own_N` is -1; events [E + 1] that are left before each place)."""
    known_E = own_N[seq.events_E] >= 0
    before_E1 = np.r_[0, np.cumsum(known_E)]
    return Sequences(own_N[seq.events_E[known_E]].astype(np.int32), before_E1[seq.offsets_U1], items), before_E1


def taken(seq: Sequences, user_Q: Int64) -> Sequences:
    """The histories of these users in this order, all their events; -1 (an unknown user) has none."""
    begin_Q = seq.offsets_U1[np.maximum(user_Q, 0)]
    events_e, offsets_Q1 = gathered(seq, begin_Q, np.where(user_Q < 0, begin_Q, seq.offsets_U1[user_Q + 1]))
    return Sequences(events_e, offsets_Q1, seq.items)


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

    def __init__(
        self, bundle: Bundle, child: Artefact | None, data: Mapping[str, Artefact], rules: Rules, items: pa.Array | None, batch_size: int | None
    ):
        """`data`: the artefacts sequences, neighbours and validated_items of the snapshot."""
        sequences = data["sequences"]
        self.bundle, self.batch_size = bundle, batch_size
        self.model, self.child = serving_table(bundle, child)
        self.seq = to_the_end(Sequences.from_tensors(sequences.tensors("sequences.safetensors")))
        self.item_ids = sequences.table("items.parquet")["item_id"]
        self.counting = read_counts(data["neighbours"], self.seq, "transitions_end")
        self.own_N = index_of(self.item_ids, self.model.item_ids)  # the snapshot's item -> row of the ID table, -1 where it has no ID
        self.listed_C = index_of(self.model.item_ids, self.item_ids)  # the other way round, -1 where it is not listed any more
        if not (self.own_N >= 0).any():
            raise DigerError(f"none of the snapshot's items has an ID under champion {bundle.hash[:12]}: were all ids re-mapped? Retrain first")
        codes_NM = np.where(self.own_N[:, None] >= 0, self.model.table.codes_NM.numpy()[self.own_N], -1)
        self.rules = rules.on(self.item_ids, data["validated_items"], codes_NM, items)
        self._device: str | None = None  # where the model lies, once somebody has asked
        self._trie: Any = None
        self._tokens: Any = None

    @property
    def allowed_N(self) -> Bool:
        """[N]: what may be listed."""
        return self.rules.allowed_N

    @property
    def items(self) -> int:
        """How many items may be listed."""
        return int(self.allowed_N.sum())

    def lists(self, histories: Sequences, k: int, beams: int, remove_seen: bool) -> tuple[Int32, Float32]:
        """(items [Q, k'] in the snapshot's numbering, scores [Q, k']), best first; k' is k, or fewer where the rules leave fewer.

        A history's list does not depend on the others beside it. Scores are NaN in places that popular items fill; -1 where there is no item left.
        """
        top = min(k, self.rules.reach)
        items_Qk = np.full((histories.users, top), -1, dtype=np.int32)
        scores_Qk = np.full((histories.users, top), np.nan, dtype=np.float32)
        rows = np.flatnonzero(np.diff(histories.offsets_U1) > 0)
        if len(rows):
            items_Qk[rows], scores_Qk[rows] = self._ranked(histories, rows, top, beams, remove_seen)
        scores_Qk[items_Qk < 0] = np.nan
        return self._filled(items_Qk, histories, remove_seen), scores_Qk

    def _ranked(self, histories: Sequences, rows_T: Int64, top: int, wide: int, remove_seen: bool) -> Beams:
        beams = self._beams(histories, rows_T, wide, remove_seen)
        if not self.rules.reorders:
            return self._mixed(histories, rows_T, top, beams, remove_seen)
        items_TX, scores_TX = self.rules.boosted(*self._mixed(histories, rows_T, wide + COUNTED, beams, remove_seen))
        items_Tk, scores_Tk = np.full((len(rows_T), top), -1, dtype=np.int32), np.full((len(rows_T), top), np.nan, dtype=np.float32)
        for row, user in enumerate(rows_T):
            listed, scores = items_TX[row][items_TX[row] >= 0], scores_TX[row]
            places = [place for place, _ in self.rules.standing(listed.tolist(), top)]
            if len(places) < top and self.bundle.fitted.lists.applied.get("generative", 0.0) > 0:
                one = taken(histories, np.array([user]))
                listed, scores, places = self._topped_up(one, (beams[0][row], beams[1][row]), (listed, scores, places), top, remove_seen)
            items_Tk[row, : len(places)], scores_Tk[row, : len(places)] = listed[places], scores[places]
        return items_Tk, scores_Tk

    def _topped_up(self, one: Sequences, beams: Beams, short: Chosen, top: int, remove_seen: bool) -> Chosen:
        """More beams for one history whose list the rules leave short: over a trie without what is listed or full, until k are found or none is left.

        The log-probabilities of all beams are of one kind, since the trie only forbids: the list is ranked anew from all of them.
        """
        items_w, scores_w = beams
        listed, scores, places = short
        first_1, wide = np.zeros(1, dtype=np.int64), len(items_w)
        while len(places) < top:
            may_N = self.allowed_N & ~self.rules.full_N(listed[places])
            may_N[listed] = False
            may_N[items_w[items_w >= 0]] = False
            if remove_seen:
                may_N[one.events_E] = False
            more_1W, more_scores_1W = self._beams(one, first_1, wide, remove_seen, may_N)
            fresh = more_1W[0] >= 0
            items_w, scores_w = np.r_[items_w, more_1W[0][fresh]], np.r_[scores_w, more_scores_1W[0][fresh]]
            found, values = self.rules.boosted(*self._mixed(one, first_1, len(items_w) + COUNTED, (items_w[None], scores_w[None]), remove_seen))
            if not np.isin(more_1W[0][fresh], found).any():
                break  # none are left, or none to which the model gives a probability that a float holds
            listed, scores = found[0][found[0] >= 0], values[0]
            places = [place for place, _ in self.rules.standing(listed.tolist(), top)]
        return listed, scores, places

    def _mixed(self, histories: Sequences, rows_T: Int64, top: int, beams: Beams, remove_seen: bool) -> Beams:
        """The champion's recipe over beams and counts."""
        options = {"remove_seen": remove_seen, "allowed_N": self.allowed_N}
        return ranked(self.bundle.fitted.lists, self.counting, histories, rows_T, histories.offsets_U1[rows_T + 1], top, beams, **options)

    def _beams(self, histories: Sequences, rows_T: Int64, wide: int, remove_seen: bool, may_N: Bool | None = None) -> Beams:
        """The model's lists in the snapshot's numbering; empty for histories of which the model knows nothing. `may_N`: over these items alone."""
        end_T = histories.offsets_U1[rows_T + 1]
        items_TW, scores_TW = np.full((len(rows_T), wide), -1, dtype=np.int32), np.full((len(rows_T), wide), -np.inf, dtype=np.float32)
        own, before_E1 = projected(histories, self.own_N, len(self.listed_C))
        can_T = before_E1[end_T] > own.offsets_U1[rows_T]
        may_C = (self.listed_C >= 0) & (self.allowed_N if may_N is None else may_N)[self.listed_C]
        if not can_T.any() or not may_C.any():
            return items_TW, scores_TW
        model, device, trie, tokens = self._on_device(may_C, keep=may_N is None)
        items_tW, scores_TW[can_T] = recommended(
            model, self.model.table.codes_NM, self.model.table.suffix_N, own, rows_T[can_T], before_E1[end_T[can_T]], wide, beams=wide,
            remove_seen=remove_seen, batch_size=self.batch_size, device=device, trie=trie, precision=self.model.precision,
            tokens_NTd=tokens,
        )  # fmt: skip
        items_TW[can_T] = np.where(items_tW >= 0, self.listed_C[items_tW], -1)
        return items_TW, scores_TW

    def _on_device(self, may_C: Bool, keep: bool) -> tuple[Any, str, Any, Any]:
        """(recommender, device, trie of these items, the items' tokens in a history or None). `keep`: it is the trie of all that may be listed."""
        import torch

        from diger_core.recommender.trie import Trie

        if self._device is None:
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
            self.model.recommender.to(self._device)
        model, table, device = self.model.recommender, self.model.table, self._device
        trie = self._trie if keep else None
        if trie is None:
            chosen = torch.from_numpy(np.flatnonzero(may_C))
            trie = Trie.from_table(table.codes_NM, table.suffix_N, model.codes, model.suffixes, device, items=chosen)
        if keep and self._trie is None:
            self._trie, self._tokens = trie, self.model.history_tokens()
        return model, device, trie, self._tokens

    def _filled(self, items_Qk: Int32, histories: Sequences, remove_seen: bool) -> Int32:
        """Empty places filled with the most popular allowed items that the row does not hold, nor, where seen items are removed, the history."""
        short = np.flatnonzero((items_Qk < 0).any(axis=1))
        if self.rules.limits:
            return self._filled_by_rules(items_Qk, short, histories, remove_seen)
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

    def _filled_by_rules(self, items_Qk: Int32, short: Int64, histories: Sequences, remove_seen: bool) -> Int32:
        """As `_filled`, one list after the other: which items may join depends on those before."""
        popular, top = self._popular.tolist(), items_Qk.shape[1]
        for row in short:
            held = items_Qk[row][items_Qk[row] >= 0].tolist()
            seen = histories.events_E[histories.offsets_U1[row] : histories.offsets_U1[row + 1]].tolist() if remove_seen else []
            gone = {*held, *seen}
            joined = [item for _, item in self.rules.standing((item for item in popular if item not in gone), top, held)]
            items_Qk[row, len(held) : len(held) + len(joined)] = joined
        return items_Qk

    @cached_property
    def _popular(self) -> Int32:
        """The allowed items by falling number of events, which a boost multiplies too, then by row."""
        events_N = np.bincount(self.seq.events_E, minlength=self.seq.items) * (1.0 if self.rules.factor_N is None else self.rules.factor_N)
        allowed = np.flatnonzero(self.allowed_N)
        return allowed[np.argsort(-events_N[allowed], kind="stable")].astype(np.int32)
