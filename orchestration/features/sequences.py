"""Stage `sequences`: each user's events in order, as item indices (docs/method.md, section 3: rows and splits)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.data import sequences as core
from diger_core.errors import DigerError

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun


def sequences(run: StageRun) -> None:
    interactions = run.inputs["validated_interactions"].table("interactions.parquet")
    known = run.inputs["validated_items"].table("items.parquet", ["item_id"])
    seq, items, users = core.sequences(interactions, known, use_weights=run.params.sequences.use_weights)
    training, _ = core.training_rows(seq)
    held_out, _, _ = core.targets(seq, "test")
    if not len(training):
        raise DigerError("sequences: no user has the 4 events that a training row needs: give a snapshot with longer histories")
    run.out.table("items.parquet", items)
    run.out.table("users.parquet", users)
    run.out.tensors("sequences.safetensors", seq.to_tensors())
    run.facts(users=seq.users, items=seq.items, events=len(seq.events_E), training_rows=len(training), evaluated_users=len(held_out))
