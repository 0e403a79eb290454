"""Stage `recommendations`: the present champion's lists for every user of the snapshot, as Parquet (orchestration/serving/lists.py).

Shards that an interrupted run has finished lie beside the checkpoints, under the record's key, and are taken over once they verify.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun
    from orchestration.params.sections import Params

__all__ = ["extra_inputs", "recommendations"]


def recommendations(run: StageRun) -> None:
    """Writes part-00000.parquet … (user_id, item_id, rank, score) and recommendations.json."""
    from orchestration.serving.champion_snapshot import newer_than
    from orchestration.serving.lists import Request, removes_seen
    from orchestration.serving.rules import Rules
    from orchestration.serving.shards import DOCUMENT, Shards, recommend

    config = run.params.recommendations
    remove_seen, why = removes_seen(run.store, run.inputs["champion"].hash, config.seen, run.params.evaluation.remove_seen)
    run.progress.message(f"recommendations: {why}")
    request = Request(
        url=run.store.url,
        bundle=run.inputs["champion"].hash,
        sequences=run.inputs["sequences"].hash,
        neighbours=run.inputs["neighbours"].hash,
        validated_items=run.inputs["validated_items"].hash,
        cold_start=run.inputs["cold_start"].hash,
        k=config.k,
        beams=config.beams,
        shard_users=config.shard_users,
        batch_size=config.batch_size,
        remove_seen=remove_seen,
        rules=Rules.of(run.params.rules, run.inputs.get("rules")),
    )
    shards = Shards(run.store.root, ("checkpoints", run.key))
    made = recommend(request, shards, run.params.cluster, run.progress, newer_than(run.store, request.bundle, run.snapshot))
    for place, entry in enumerate(made["shards"]):
        run.out.bytes(entry["file"], shards.read(place))
    document = {"champion": request.bundle, "cold_start": request.cold_start if made["child"] else None, "k": config.k, "remove_seen": remove_seen}
    document |= {"counts": made["counts"], "rules": made["rules"]}
    run.out.json(DOCUMENT, document)
    rows = sum(entry["rows"] for entry in made["shards"])
    run.facts(champion=request.bundle, k=config.k, remove_seen=remove_seen, shards=len(made["shards"]), rows=rows, **made["counts"])
    run.note(reused_shards=made["reused_shards"], workers=run.params.cluster.workers)


def present_champion(store: Store) -> Artefact:
    """The bundle that serves; DigerError where nothing was ever released."""
    from orchestration.champion.log import current

    entry = current(store)
    if entry is None:
        raise DigerError(f"recommendations: {store.url} has no champion yet: release a bundle first (diger run)")
    return store.artefact("bundle", entry.bundle)


def extra_inputs(params: Params, store: Store, inputs: Mapping[str, Artefact], fit: bool, **_: Any) -> dict[str, Artefact] | None:
    """The present champion and, where rules name files, what these hold now."""
    found = {"champion": present_champion(store)}
    if params.rules.allow or params.rules.deny:
        from orchestration.serving.rules import Rules

        stored = Rules.read(params.rules, inputs["sequences"].table("items.parquet")["item_id"].type).stored(store, publish=fit)
        if stored is None:
            return None
        found["rules"] = stored
    return found
