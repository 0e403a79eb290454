"""A champion held open: bundle, ID table, counts and histories of one snapshot, loaded once. It answers with the code of the batch lists.

Q queries. One thread at a time: whoever asks from several puts the queries in one batch (orchestration/serving/http/batches.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diger_core.data.sequences import Int32, Sequences
from diger_core.errors import DigerError
from diger_core.item_ids import Places
from diger_core.store.artefacts import Store
from orchestration.champion.bundle import load_bundle
from orchestration.champion.log import Entry
from orchestration.engine.removal import present
from orchestration.params.rules import RulesConfig
from orchestration.params.verdict import RecommendationsConfig
from orchestration.serving.given_ids import request_ids
from orchestration.serving.lists import removes_seen
from orchestration.serving.online.query import Answer, Id, ListedItem, Query
from orchestration.serving.ranker import Ranker
from orchestration.serving.rules import Rules, ToldRule
from orchestration.serving.similar import SimilarItems


@dataclass(frozen=True)
class Sources:
    """Hashes of the artefacts that lists are made of. `cold_start`: None where the snapshot is the champion's own, which has all its items."""

    bundle: str
    sequences: str
    neighbours: str
    validated_items: str
    cold_start: str | None = None

    @classmethod
    def own(cls, store: Store, bundle: str) -> Sources:
        """The data that the bundle itself was made from, or what `diger forget` left of it."""
        components = store.artefact("bundle", bundle).json("bundle.json")["components"]
        return cls(bundle, *(present(store, name, components[name]).hash for name in ("sequences", "neighbours", "validated_items")))


@dataclass(frozen=True)
class _History:
    """Events [n] of one query in the snapshot's numbering."""

    events_n: Int32
    unknown_items: int
    known_user: bool | None


class LiveChampion:
    """The bundle of one entry of the champion log over one snapshot. What does not load or does not answer raises here, before anybody asks it."""

    def __init__(self, store: Store, entry: Entry, sources: Sources, config: RecommendationsConfig, rules: RulesConfig, text_weight: float):
        if sources.bundle != entry.bundle:
            raise ValueError(f"sources of bundle {sources.bundle[:12]} for entry {entry.number}, which names {entry.bundle[:12]}")
        self.entry, self.sources, self.config = entry, sources, config
        self.withheld = False  # users' histories, since one of them was forgotten and the data without them did not load
        bundle = load_bundle(store, sources.bundle)
        data = {name: store.artefact(name, getattr(sources, name)) for name in ("sequences", "neighbours", "validated_items")}
        child = store.artefact("cold_start", sources.cold_start) if sources.cold_start else None
        kind = data["sequences"].table("items.parquet")["item_id"].type
        self.ranker = Ranker(bundle, child, data, Rules.read(rules, kind), None, config.batch_size)
        self.remove_seen, self.why_seen = removes_seen(store, sources.bundle, config.seen)
        self.similar = SimilarItems.of(**data, text_weight=text_weight)
        user_ids = data["sequences"].table("users.parquet")["user_id"]
        self._users, self._items = Places(user_ids), Places(self.ranker.item_ids)
        self._user_type, self._item_type = user_ids.type, self.ranker.item_ids.type
        (first,) = self.answers([Query(history=(self.ranker.item_ids[0].as_py(),))])
        if isinstance(first, DigerError):
            raise first

    @property
    def bundle(self) -> str:
        return self.sources.bundle

    @property
    def assignment_hash(self) -> str:
        """Of the bundle's table, which its model was trained with; cold start only adds rows to it."""
        return self.ranker.bundle.assignment_hash

    @property
    def rules(self) -> tuple[ToldRule, ...]:
        """The rules that every list obeys."""
        return self.ranker.rules.told

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the files of the rules hold that names no item."""
        return self.ranker.rules.warnings

    @property
    def integer_ids(self) -> bool:
        """Whether the catalogue's ids are integers; otherwise they are texts."""
        return self._items.integers

    def answers(self, queries: Sequence[Query]) -> list[Answer | DigerError]:
        """One answer for each query, in their order; DigerError in its place where an id is of the wrong type. Each is what it would be alone."""
        found: dict[int, Answer | DigerError] = {}
        groups: dict[tuple[int, bool], list[tuple[int, _History]]] = {}
        for place, query in enumerate(queries):
            try:
                history = self._history(query)
            except DigerError as error:
                found[place] = error
                continue
            remove = self.remove_seen if query.seen is None else query.seen == "remove"
            groups.setdefault((query.k or self.config.k, remove), []).append((place, history))
        for (k, remove), asked in groups.items():
            for (place, history), listed in zip(asked, self._lists([history for _, history in asked], k, remove), strict=True):
                found[place] = Answer(listed, len(history.events_n), history.unknown_items, history.known_user, remove)
        return [found[place] for place in range(len(queries))]

    def _history(self, query: Query) -> _History:
        if query.history is None:
            assert query.user is not None
            (user,) = request_ids([query.user], self._user_type, "user")
            row, seq = -1 if self.withheld else self._users.of(user), self.ranker.seq
            return _History(seq.events_E[seq.offsets_U1[row] : seq.offsets_U1[row + 1]] if row >= 0 else seq.events_E[:0], 0, row >= 0)
        row_n = np.array([self._items.of(item) for item in request_ids(query.history, self._item_type, "history")], dtype=np.int32)
        return _History(row_n[row_n >= 0], int((row_n < 0).sum()), None)

    def _lists(self, histories: list[_History], k: int, remove_seen: bool) -> list[list[ListedItem]]:
        offsets_Q1 = np.r_[0, np.cumsum([len(history.events_n) for history in histories])]
        asked = Sequences(np.concatenate([history.events_n for history in histories]), offsets_Q1, self.ranker.seq.items)
        items_Qk, scores_Qk = self.ranker.lists(asked, k, max(self.config.beams, k), remove_seen)
        return [self._listed(items_k, scores_k) for items_k, scores_k in zip(items_Qk, scores_Qk, strict=True)]

    def _listed(self, items_k: np.ndarray, scores_k: np.ndarray) -> list[ListedItem]:
        listed: list[ListedItem] = []
        for place, (item, score) in enumerate(zip(items_k.tolist(), scores_k.tolist(), strict=True)):
            if item >= 0:
                listed.append({"item_id": self.item_id(item), "rank": place + 1, "score": None if score != score else score})
        return listed

    def item_id(self, row: int) -> Id:
        found: Id = self.ranker.item_ids[row].as_py()
        return found
