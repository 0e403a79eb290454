"""Stage `sequences`: each user's events in order, as item indices, with the split (docs/method.md, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diger_core.data import sequences as core
from diger_core.data import splits
from orchestration.engine.blocks import in_blocks
from orchestration.features.sequence_blocks import FILE, Split, write_in_blocks

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun
    from orchestration.params.data import SequencesConfig


def sequences(run: StageRun) -> None:
    """Writes sequences.safetensors (events, offsets, times, boundaries of the split), items.parquet and users.parquet (index and id)."""
    events = run.inputs["validated_interactions"].facts["events"]
    write = write_in_blocks if in_blocks(run, events) else _write
    made, why = _split(run.params.sequences, lambda temporal: write(run, temporal))
    if why:
        run.progress.message(f"warning: leave-one-out is used, which flatters: {why}")
    counts = made.counts
    facts: dict[str, Any] = {
        "split": "leave_one_out" if made.boundaries is None else "temporal",
        "validation_users": counts.validation_users,
        "same_time_targets": None if counts.same_time is None else round(counts.same_time / counts.test_users, 4),
        **counts.without_rows(made.boundaries),
    }
    if why:
        facts["why_leave_one_out"] = why
    if made.boundaries is not None:
        facts |= {"train_until": splits.date_of(made.boundaries[0]), "validate_until": splits.date_of(made.boundaries[1])}
    run.facts(users=made.users, items=made.items, events=made.events, training_rows=counts.training_rows, evaluated_users=counts.test_users, **facts)


def _split(config: SequencesConfig, write: Callable[[bool], Split]) -> tuple[Split, str | None]:
    """(what was written, why `auto` did not take the temporal split)."""
    why = None
    if config.split != "leave_one_out":
        try:
            return write(True), None
        except splits.NoTemporalSplit as error:
            if config.split == "temporal":
                raise
            why = str(error)
    return write(False), why


def _write(run: StageRun, temporal: bool) -> Split:
    """All events at once."""
    config = run.params.sequences
    interactions = run.inputs["validated_interactions"].table("interactions.parquet")
    known = run.inputs["validated_items"].table("items.parquet", ["item_id"])
    seq, items, users = core.sequences(interactions, known, use_weights=config.use_weights, by_time=temporal)
    if temporal:
        seq = replace(seq, boundaries=splits.time_boundaries(splits.Moments.of(seq), config.train_until, config.validate_until))
    counts = splits.split_counts(seq)
    splits.require_rows(counts, seq.boundaries, config.min_test_users)
    run.out.table("items.parquet", items)
    run.out.table("users.parquet", users)
    run.out.tensors(FILE, seq.to_tensors())
    return Split(seq.users, seq.items, len(seq.events_E), counts, seq.boundaries)
