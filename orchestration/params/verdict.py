"""Sections `fusion`, `gate`, `report`, `release` and `recommendations`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from diger_core.config import NEW_ITEMS_COST, STRICT, check
from orchestration.params.training import HASH


@dataclass(frozen=True)
class FusionConfig:
    """Stage `fusion`: the search for what the lists listen to."""

    __pydantic_config__: ClassVar = STRICT
    seed: int = 0  # of the draws that the search tries
    new_items_cost: float = NEW_ITEMS_COST  # share of the lists' validation NDCG@10 that a place for items without an event may cost; 0: none

    def __post_init__(self) -> None:
        check(0 <= self.new_items_cost <= 1, "new_items_cost", self.new_items_cost, "between 0 and 1")


@dataclass(frozen=True)
class GateConfig:
    """Stage `gate`: what a candidate must show before it may serve. Shares and ratios lie between 0 and 1 unless said otherwise."""

    __pydantic_config__: ClassVar = STRICT
    users: int | None = None  # ranked by both models, drawn by a fixed seed; null: all
    judge: Literal["mean", "low", "high"] = "low"  # the end of the 95% interval that must reach min_relative_ndcg and min_relative_anchor
    # N@10 against the champion's on the same users, over all targets and over those that both know; may exceed 1.
    min_relative_ndcg: float = 0.95
    # The bundle that every candidate is compared with beside the champion, so that many small losses do not add up: first (the first release),
    # none, or a bundle's hash.
    anchor: str = "first"
    min_relative_anchor: float = 0.9  # N@10 against the anchor's on targets that it knows; may exceed 1
    min_new_items: float = 0.3  # N@10 on targets without a training event over what text alone reaches; judged beside a champion
    min_relative_slice: float = 0.85  # N@10 on head and on tail; judged only where the interval says that the loss is real
    max_churn: float = 0.2  # events of items that both know whose item gets another ID; 1 where a new ID space is wanted
    min_unique_prefixes: float = 0.3  # prefixes over items
    min_coverage: float = 0.05  # of the catalogue in somebody's top 10
    min_relative_coverage: float = 0.5  # against the champion's
    min_common_items: float = 0.5  # of the champion's items that the catalogue still has
    # The lists against the best counting baseline on the same users: its interval must not lie below zero. false: only the report says so.
    beat_baseline: bool = True
    beat_most_popular: bool = True  # the lists must be above the most popular items
    servability_users: int = 64  # decoded from the bundle as it lies in the store
    bootstrap: int = 1000  # resamples of users for the intervals

    def __post_init__(self) -> None:
        shares = ("min_relative_slice", "max_churn", "min_unique_prefixes", "min_coverage", "min_relative_coverage", "min_common_items")
        for key in (*shares, "min_new_items"):
            check(0 <= getattr(self, key) <= 1, key, getattr(self, key), "between 0 and 1")
        for key in ("min_relative_ndcg", "min_relative_anchor"):
            check(0 <= getattr(self, key) <= 2, key, getattr(self, key), "between 0 and 2")
        check(self.anchor in ("first", "none") or bool(HASH.fullmatch(self.anchor)), "anchor", self.anchor, "first, none or the hash of a bundle")
        check(self.users is None or self.users >= 1, "users", self.users, "null, or at least 1")
        check(self.servability_users >= 1, "servability_users", self.servability_users, "at least 1")
        check(self.bootstrap >= 100, "bootstrap", self.bootstrap, "at least 100")


@dataclass(frozen=True)
class ReportConfig:
    """Stage `report`. Everything on the page is content: no times, hosts or run ids."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    title: str = "Joint semantic IDs: retraining report"  # beside the snapshot's key at the top
    examples: int = 5  # users shown with history, recommendations and truth, under pseudonyms; 0: none
    tree_items_per_prefix: int = 5  # titles shown under each prefix of the ID tree

    def __post_init__(self) -> None:
        if not 0 <= self.examples <= 26:
            raise ValueError(f"examples = {self.examples!r}: must be between 0 (off) and 26")
        if not 0 <= self.tree_items_per_prefix <= 50:
            raise ValueError(f"tree_items_per_prefix = {self.tree_items_per_prefix!r}: must be between 0 and 50")
        if not self.title.strip() or len(self.title) > 200:
            raise ValueError(f"title = {self.title[:40]!r}…: must have 1 to 200 characters")


@dataclass(frozen=True)
class ReleaseConfig:
    """Stage `release`."""

    __pydantic_config__: ClassVar = STRICT
    reason: str = "retraining accepted by its gate"  # what the log says of a release

    def __post_init__(self) -> None:
        check(0 < len(self.reason.strip()) <= 500, "reason", self.reason, "a text of 1 to 500 characters")


@dataclass(frozen=True)
class RecommendationsConfig:
    """Stage `recommendations` and `diger recommend`."""

    __pydantic_config__: ClassVar = STRICT
    k: int = 10  # items for each user
    beams: int = 50  # of the search for each list; at least k
    shard_users: int = 1_000  # users of one Parquet file, the unit of resumption
    batch_size: int | None = None  # users ranked at once; null: by the device and the beams
    # What the user's history holds: keep it in the lists, remove it, or auto: keep it where people buy again (5% of validation targets).
    seen: Literal["auto", "keep", "remove"] = "auto"

    def __post_init__(self) -> None:
        check(1 <= self.k <= 1000, "k", self.k, "between 1 and 1000")
        check(self.beams >= self.k, "beams", self.beams, "at least k")
        check(self.shard_users >= 1, "shard_users", self.shard_users, "at least 1")
        check(self.batch_size is None or self.batch_size >= 1, "batch_size", self.batch_size, "at least 1, or null")
