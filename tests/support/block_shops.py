"""Snapshots of several kinds, and the artefacts of the stages that work in blocks, made at once or block by block."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from orchestration.engine.registry import register
from orchestration.engine.runner import Session
from orchestration.features.encoders import EmbeddingsConfig
from orchestration.graph import BY_NAME
from orchestration.params.cluster import ClusterConfig
from orchestration.params.sections import Params
from tests.support.snapshot_material import DAY, START, write

STAGES = ("raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences", "embeddings", "neighbours")
WHOLE = ClusterConfig(workers=0)


def shop(kind: str = "integers", events: int = 3000, users: int = 220, items: int = 50, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """(interactions, items). One user has a fifth of all events; times repeat.

    Kinds: integers, texts, large (ids beyond 2^63 for some), positions (no times), both (positions, and times of fractions of a second), weights,
    few (too few test users for a temporal split), faulty (every reason of the quarantine, ids that look alike, event types).
    """
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, events), rng.integers(0, items, events)
    user[rng.permutation(events)[: events // 5]] = users // 2
    seconds = START + rng.integers(0, 4000, events) * DAY // 40
    columns: dict[str, Any] = {"user_id": user, "item_id": item, "timestamp": seconds}
    ids: Any = np.arange(items)
    if kind == "texts":
        ids = np.array([f"thing-{i}é" for i in range(items)], dtype=object)
        columns |= {"user_id": [f"u{u}\u200b" if u % 50 == 0 else f"u{u}" for u in user], "item_id": ids[item]}
    elif kind == "large":
        columns["user_id"] = user.astype(np.uint64) + np.where(user > users - 9, np.uint64(2**63), np.uint64(0))
    elif kind == "positions":
        columns = {"user_id": user, "item_id": item, "pos": rng.permutation(events)}
    elif kind == "both":
        columns |= {"pos": rng.integers(0, 30, events), "timestamp": pa.array(seconds * 1000 + rng.integers(0, 1000, events), pa.timestamp("ms"))}
    elif kind == "weights":
        columns["weight"] = rng.random(events)
    elif kind == "faulty":
        columns |= faulty(rng, user, item, seconds)
        ids = np.array([f"thing-{i}" for i in range(items)], dtype=object)
    elif kind == "few":
        columns["timestamp"] = np.where(user < 5, seconds, START + user)
    titles = [f"lamp {i} of brand {i % 7}" for i in range(items)]
    return pa.table(columns), pa.table({"item_id": ids, "title": titles})


def faulty(rng: np.random.Generator, user: np.ndarray, item: np.ndarray, seconds: np.ndarray) -> dict[str, Any]:
    """Columns with text ids of which about one row in ten is bad, for each reason of the quarantine."""
    events, n = len(user), max(1, len(user) // 100)
    users: list[Any] = [f"u{u}" + ("", " ", "\u200b", "\uff21")[u % 4 if u < 40 else 0] for u in user]
    for at, u in enumerate(user):
        if 40 <= u < 60 and at % 3 == 0:
            users[at] = f"u{u}\u00a0"  # looks like the user without the space
    item_ids: list[Any] = [f"thing-{i}" for i in item]
    times, weights, pos = seconds.astype(object), rng.random(events).astype(object), rng.integers(0, 99, events).astype(object)
    spoilt = iter(np.array_split(rng.permutation(events)[: 9 * n], 9))
    for column, value in ((users, None), (item_ids, ""), (users, "x" * 20_000), (item_ids, "elsewhere"), (pos, None), (times, None)):
        for at in next(spoilt):
            column[at] = value
    for column, value in ((times, 10**10), (times, 5), (weights, float("nan"))):
        for at in next(spoilt):
            column[at] = value
    return {
        "user_id": pa.array(users, pa.string()),
        "item_id": pa.array(item_ids, pa.string()),
        "timestamp": pa.array(list(times), pa.int64()),
        "weight": pa.array(list(weights), pa.float64()),
        "pos": pa.array(list(pos), pa.int64()),
        "event_type": pa.array(["buy" if at % 4 else "view" for at in range(events)], pa.string()).dictionary_encode(),
        "note": pa.array([{"a": 1}] * events),
    }


def made(
    folder: Path,
    snapshot: tuple[pa.Table, pa.Table],
    cluster: ClusterConfig,
    stages: tuple[str, ...] = STAGES,
    whole: tuple[str, ...] = (),
    store: str | None = None,
    **sections: Any,
) -> dict[str, Artefact]:
    """The stages' artefacts in a store of their own; those of `whole` at once whatever the cluster says."""
    place = Store(store or folder / "store")
    registered = register(place, write(folder / "snapshot", *snapshot))
    params = replace(Params(embeddings=EmbeddingsConfig(dimensions=4), cluster=cluster), **sections)
    sessions = {at_once: Session(place, replace(params, cluster=WHOLE) if at_once else params, registered) for at_once in (False, True)}
    return {name: sessions[name in whole].materialise(BY_NAME[name]).artefact for name in stages}


def differences(left: dict[str, Artefact], right: dict[str, Artefact]) -> list[str]:
    """Files whose content, and files whose bytes alone, are not the same."""
    found = []
    for stage, artefact in left.items():
        other = right[stage].files
        for name, entry in artefact.files.items():
            for what in ("canonical", "sha256"):
                if entry[what] != other[name][what]:
                    found.append(f"{stage}/{name}: {what}")
        if artefact.hash != right[stage].hash:
            found.append(stage)
    return found
