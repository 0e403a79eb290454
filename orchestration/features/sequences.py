"""Stage `sequences`: each user's events in order, as item indices, with the split (docs/method.md, section 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diger_core.data import sequences as core
from diger_core.data import splits

if TYPE_CHECKING:
    import pyarrow as pa

    from diger_core.data.sequences import Sequences
    from orchestration.engine.stage_run import StageRun
    from orchestration.params.data import SequencesConfig


def sequences(run: StageRun) -> None:
    """Writes sequences.safetensors (events, offsets, times, boundaries of the split), items.parquet and users.parquet (index and id)."""
    config = run.params.sequences
    interactions = run.inputs["validated_interactions"].table("interactions.parquet")
    known = run.inputs["validated_items"].table("items.parquet", ["item_id"])
    seq, items, users, why = _split(interactions, known, config)
    if why:
        run.progress.message(f"warning: leave-one-out is used, which flatters: {why}")
    training, _ = splits.training_rows(seq)
    tied = splits.same_time(seq, "test")
    run.out.table("items.parquet", items)
    run.out.table("users.parquet", users)
    run.out.tensors("sequences.safetensors", seq.to_tensors())
    facts: dict[str, Any] = {
        "split": "leave_one_out" if seq.boundaries is None else "temporal",
        "validation_users": len(splits.targets(seq, "validation")[0]),
        "same_time_targets": None if tied is None else round(float(tied.mean()), 4),
        **splits.without_rows(seq),
    }
    if why:
        facts["why_leave_one_out"] = why
    if seq.boundaries is not None:
        facts |= {"train_until": splits.date_of(seq.boundaries[0]), "validate_until": splits.date_of(seq.boundaries[1])}
    evaluated = len(splits.targets(seq, "test")[0])
    run.facts(users=seq.users, items=seq.items, events=len(seq.events_E), training_rows=len(training), evaluated_users=evaluated, **facts)


def _split(interactions: pa.Table, known: pa.Table, config: SequencesConfig) -> tuple[Sequences, pa.Table, pa.Table, str | None]:
    """(sequences with their split, items, users, why `auto` did not take the temporal split)."""
    why = None
    if config.split != "leave_one_out":
        try:
            seq, items, users = core.sequences(interactions, known, use_weights=config.use_weights, by_time=True)
            seq = replace(seq, boundaries=splits.time_boundaries(seq, config.train_until, config.validate_until))
            splits.require_rows(seq, config.min_test_users)
            return seq, items, users, None
        except splits.NoTemporalSplit as error:
            if config.split == "temporal":
                raise
            why = str(error)
    seq, items, users = core.sequences(interactions, known, use_weights=config.use_weights)
    splits.require_rows(seq, config.min_test_users)
    return seq, items, users, why
