"""A store with a champion to serve, and the pieces of `diger serve` over it. Nothing is trained."""

from __future__ import annotations

from typing import Any

from diger_core.store.artefacts import Store
from orchestration.champion import log as champion
from orchestration.champion.log import Entry
from orchestration.params.rules import RulesConfig
from orchestration.params.serve import ServeConfig
from orchestration.params.verdict import RecommendationsConfig
from orchestration.serving.lists import Recommender, Request
from orchestration.serving.online.follow import Follower
from orchestration.serving.online.live import LiveChampion, Sources
from orchestration.serving.ranker import Ranker
from tests.support.release_world import ReleaseWorld

CONFIG = RecommendationsConfig(beams=40, seen="keep")
NO_RULES = RulesConfig()
LIMITS = ServeConfig(poll_seconds=60.0, timeout_seconds=30.0)  # tests look at the log themselves


class ServingWorld(ReleaseWorld):
    """A release world whose bundles become champions by hand."""

    def promote(self, made: dict[str, Any]) -> Entry:
        return champion.append(self.store, made["bundle"].hash, "promote", "for a test", forced=True)

    def open(self, entry: Entry, rules: RulesConfig = NO_RULES, **sources: str) -> LiveChampion:
        store = Store(self.store.url)
        own = Sources.own(store, entry.bundle)
        return LiveChampion(store, entry, Sources(**{**vars(own), **sources}), CONFIG, rules, 0.7)

    def follower(self, config: ServeConfig = LIMITS) -> Follower:
        return Follower(lambda: champion.current(Store(self.store.url)), self.open, config)

    def batch(self, made: dict[str, Any], **changes: Any) -> dict[Any, list[dict[str, Any]]]:
        """User -> list, as the shards of `diger recommend` hold them."""
        asked: dict[str, Any] = {"k": 10, "beams": 40, "shard_users": 25, "batch_size": 512, "remove_seen": False, "cold_start": None, **changes}
        hashes = {name: made[name].hash for name in ("bundle", "sequences", "neighbours", "validated_items")}
        opened = Recommender(Request(self.store.url, **hashes, **asked))
        lists: dict[Any, list[dict[str, Any]]] = {}
        for shard in range(opened.shards):
            for row in opened(shard).to_pylist():
                lists.setdefault(row.pop("user_id"), []).append(row)
        return lists


def histories(ranker: Ranker) -> list[list[Any]]:
    """Each user's item ids, oldest first."""
    names, seq = ranker.item_ids.to_pylist(), ranker.seq
    return [[names[item] for item in seq.events_E[seq.offsets_U1[u] : seq.offsets_U1[u + 1]]] for u in range(seq.users)]


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Whether two lists agree: items, ranks and empty scores exactly, scores up to the rounding of another batch's shape."""
    plain = [[(item["item_id"], item["rank"], item["score"] is None) for item in each] for each in (found, wanted)]
    return plain[0] == plain[1] and all(abs((a["score"] or 0) - (b["score"] or 0)) < 1e-5 for a, b in zip(found, wanted, strict=True))
