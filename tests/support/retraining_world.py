"""A small shop in two snapshots, taken through the real stages with tiny models: what the tests of retraining start from.

60 items in ten kinds; each customer buys of one kind. The second snapshot adds items and events, drops an item and renames another.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diger_core.progress import Silent
from diger_core.store.artefacts import Store
from orchestration.champion import log as champion
from orchestration.champion.bundle import Bundle, load_bundle
from orchestration.engine.registry import Registered, register
from orchestration.engine.runner import Result, Session
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from orchestration.params.sections import Params
from tests.support.snapshot_material import write

KINDS = ("lamp", "soap", "chair", "tea", "rope", "drum", "sled", "vase", "boot", "kite")
WORDS = ("red", "blue", "old", "tall", "oak", "iron", "soft", "wide", "pale")
TO_BUNDLE = (
    "raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences", "embeddings", "neighbours",
    "catalogue_diff", "cold_start", "tokenizer", "frozen_model", "joint_model", "refit", "semantic_ids", "id_diff",
    "fusion", "bundle",
)  # fmt: skip
UNTIL_EMBEDDINGS = TO_BUNDLE[:7]  # with the tables that are made of them
FIRST, SECOND = range(60), [i for i in range(66) if i != 7]
RENAMED = {3: "a completely different thing"}
SMALL: dict[str, Any] = {
    "embeddings": {"dimensions": 12, "min_df": 1},
    "tokenizer": {"levels": 2, "codes": 8, "suffixes": 32, "code_dim": 8, "hidden": [16], "epochs": 10, "item_factors": 4},
    "recommender": {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "d_ff": 32, "heads": 2, "d_head": 8, "dropout": 0.0, "history": 5},
    "training": {"epochs": 2, "batch_size": 32, "beams": 5, "device": "cpu", "warmup_steps": 2},
    "joint_model": {"codebook_learning_rate": 0.003},
    "cluster": {"workers": 0},
    "validated_items": {"max_quarantined": 0.5},
}

# A gate that lets hardly trained models of a tiny shop pass.
LENIENT: dict[str, Any] = {
    "min_relative_ndcg": 0.0, "min_relative_anchor": 0.0, "min_relative_slice": 0.0, "min_new_items": 0.0, "max_churn": 1.0,
    "min_unique_prefixes": 0.0, "min_coverage": 0.0, "min_relative_coverage": 0.0, "beat_most_popular": False, "servability_users": 4,
    "bootstrap": 100,
}  # fmt: skip


def shop(items: Iterable[int], users: int, each: int = 8, texts: dict[int, str] | None = None, ids: Any = None) -> tuple[pa.Table, pa.Table]:
    """(interactions, items); `ids` maps an item's number to its id."""
    items, name = list(items), ids or (lambda i: i)
    rng = np.random.default_rng(7)
    kinds = {kind: [i for i in items if i % 10 == kind] for kind in range(10)}
    rows = [(u, int(rng.choice(kinds[u % 10])), 1_600_000_000 + 90_000 * k + u) for u in range(users) for k in range(each)]
    titles = [(texts or {}).get(i, f"{KINDS[i % 10]} {WORDS[i // 10 % 9]} {WORDS[(i * 7) % 9]} {WORDS[i % 8]}") for i in items]
    catalogue = pa.table({"item_id": [name(i) for i in items], "title": titles, "brand": [KINDS[i % 10] + "co" for i in items]})
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(("user_id", "item_id", "timestamp"), map(list, columns), strict=True))).set_column(
        1, "item_id", pa.array([name(row[1]) for row in rows])
    ), catalogue


class RetrainingWorld:
    """A store, and sessions over snapshots of the shop."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder / "store")

    def snapshot(self, name: str, events: pa.Table, items: pa.Table, vectors: pa.Table | None = None) -> Registered:
        return register(self.store, str(write(self.folder / name, events, items, vectors)))

    def first(self) -> Registered:
        return self.snapshot("first", *shop(FIRST, 60))

    def second(self) -> Registered:
        return self.snapshot("second", *shop(SECOND, 70, 9, RENAMED))

    def session(self, snapshot: Registered, progress: Any = None, **changes: Any) -> Session:
        return Session(Store(self.store.url), parameters(**changes), snapshot, progress or Silent())

    def run(self, snapshot: Registered, stages: Iterable[str] = TO_BUNDLE, **changes: Any) -> dict[str, Result]:
        session = self.session(snapshot, **changes)
        return {name: session.materialise(BY_NAME[name]) for name in stages}

    def release(self, results: dict[str, Result]) -> Bundle:
        """Makes the run's bundle the champion by hand."""
        hash_ = results["bundle"].artefact.hash
        champion.append(self.store, hash_, "promote", "for a test", forced=True)
        return load_bundle(self.store, hash_)


def parameters(**changes: Any) -> Params:
    """The small parameters; `changes` are merged section by section."""
    return build_params({**SMALL, **{name: SMALL.get(name, {}) | value for name, value in changes.items()}})
