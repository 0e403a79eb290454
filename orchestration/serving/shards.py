"""Shards of recommendations in a directory or under a URL: written once, kept across interruptions, verified before they count.

`part-00000.parquet` and, after it, `part-00000.json` with its SHA-256. A shard counts where both are there and agree; anything else is made again.
`recommendations.json` comes last: where it is, the directory is complete.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diger_core.errors import Damaged, DigerError
from diger_core.progress import Progress
from diger_core.store.files import Root
from orchestration.params.cluster import ClusterConfig
from orchestration.serving.lists import Recommender, Request
from orchestration.serving.rules import NAMED

DOCUMENT = "recommendations.json"
REQUEST = "request.json"


@dataclass(frozen=True)
class Shards:
    """The shards of one request below `prefix` of a root."""

    root: Root
    prefix: tuple[str, ...] = ()

    def claim(self, request: Request) -> None:
        """Binds an empty place to the request, or continues with the same one; DigerError where it holds another one's."""
        if self.root.create(json.dumps({"key": request.key}).encode(), *self.prefix, REQUEST):
            return
        try:
            found = json.loads(self.root.read(*self.prefix, REQUEST))["key"]
        except (ValueError, KeyError, TypeError) as error:
            place = "/".join([self.root.url, *self.prefix, REQUEST])
            raise Damaged(f"{place}: damaged, it names no request: remove it and the shards beside it, and run again") from error
        if found != request.key:
            raise DigerError(
                f"{self.root.url}: holds recommendations for another request (another champion, snapshot, k, users or items): give an empty directory"
            )

    def finished(self, shard: int) -> dict[str, Any] | None:
        """The shard's entry, where its bytes are those that were written."""
        if not self.root.exists(*self.prefix, _name(shard, "json")):
            return None
        try:
            entry = json.loads(self.root.read(*self.prefix, _name(shard, "json")))
            data = self.root.read(*self.prefix, _name(shard))
        except (ValueError, DigerError):
            return None
        return entry if isinstance(entry, dict) and hashlib.sha256(data).hexdigest() == entry.get("sha256") else None

    def write(self, shard: int, rows: pa.Table) -> dict[str, Any]:
        """Stores a shard, in place of one that is damaged or cut off."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd", compression_level=3)
        data = sink.getvalue().to_pybytes()
        entry = {"file": _name(shard), "rows": rows.num_rows, "sha256": hashlib.sha256(data).hexdigest()}
        for name, content in ((_name(shard), data), (_name(shard, "json"), json.dumps(entry).encode())):
            if not self.root.create(content, *self.prefix, name) and self.root.read(*self.prefix, name) != content:
                self.root.remove(*self.prefix, name)
                self.root.create(content, *self.prefix, name)
        return entry

    def read(self, shard: int) -> bytes:
        return self.root.read(*self.prefix, _name(shard))


def _name(shard: int, kind: str = "parquet") -> str:
    return f"part-{shard:05d}.{kind}"


def recommend(request: Request, shards: Shards, cluster: ClusterConfig, progress: Progress, newer: str | None = None) -> dict[str, Any]:
    """Computes what is missing of the request, in `cluster.workers` processes; returns {"counts", "shards", "reused_shards", "child", "rules"}.

    `newer`: the champion's own snapshot, where that is newer than the one that the request is about."""
    from orchestration.on_ray.data import map_shards

    opened = Recommender(request)
    shards.claim(request)
    tell(opened, progress, newer)
    done = {shard: entry for shard in range(opened.shards) if (entry := shards.finished(shard)) is not None}
    missing = [shard for shard in range(opened.shards) if shard not in done]
    reused = len(done)
    if reused:
        progress.message(f"recommendations: {reused} of {counted(opened.shards, 'shard')} there and verified")

    def keep(shard: int, rows: pa.Table) -> None:
        done[shard] = shards.write(shard, rows)
        progress.update("recommendations", len(done), opened.shards)

    if cluster.workers == 0 or len(missing) <= 1:
        for shard in missing:
            keep(shard, opened(shard))
    else:
        map_shards(Recommender, (request,), missing, cluster, keep, progress, "recommendations", gpu=True)
    shown = [done[shard] for shard in range(opened.shards)]
    return {"counts": opened.counts, "rules": list(opened.ranker.rules.told), "shards": shown, "reused_shards": reused, "child": opened.ranker.child}


def counted(number: int, noun: str) -> str:
    """1 user, 1,000 users."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tell(opened: Recommender, progress: Progress, newer: str | None = None) -> None:
    """What the request comes to, with unknown users and items counted and the first of them named. `newer`: as in `recommend`."""
    counts = opened.counts
    progress.message(
        f"recommendations: {counted(counts['users'], 'user')}, {counted(counts['items'], 'item')}; "
        f"{counted(counts['users_without_history'], 'user')} without history: the most popular items"
    )
    from diger_core.fast.inference import obstacle

    model = opened.ranker.model
    reason = obstacle(model.recommender) if model.precision == "bf16" else None
    if reason is not None:
        progress.message(f"recommendations: on an accelerator the torch module ranks, not the fused kernels: {reason}")
    for rule in opened.ranker.rules.told:
        progress.message(f"recommendations: rule {rule['rule']}: {counted(rule['items'], 'item')}")
    for warning in opened.ranker.rules.warnings:
        progress.message(f"warning: recommendations: {warning}")
    if counts["users_unknown"]:
        first = ", ".join(repr(user)[:60] for user in opened.user_ids.filter(pa.array(opened.user_n < 0))[:NAMED].to_pylist())
        progress.message(
            f"warning: recommendations: {counts['users_unknown']:,} of {counted(counts['users'], 'user')} of --users are not in the snapshot and get "
            f"popular items, the first: {first}"
        )
    if counts["items_unknown"]:
        assert opened.request.items is not None
        from diger_core.item_ids import index_of

        unknown = opened.request.items.filter(pa.array(index_of(opened.request.items, opened.item_ids) < 0))
        first = ", ".join(repr(item) for item in unknown[:NAMED].to_pylist())
        progress.message(
            f"warning: recommendations: {counts['items_unknown']:,} items of --items are not in the catalogue and are left out, the first: {first}"
        )
    if counts["items_without_id"]:
        progress.message(
            f"warning: recommendations: {counts['items_without_id']:,} items of the snapshot have no ID under this champion, "
            + (
                f"which was made from {newer}, a newer snapshot: make the lists from that one, or let the champion before serve"
                if newer
                else "so only counts and texts list them: a retraining on this snapshot gives them IDs"
            )
        )
