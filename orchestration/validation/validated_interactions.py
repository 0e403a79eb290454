"""Stage `validated_interactions`: events of known items that pass the rules, by user and time; the others in quarantine, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from orchestration.engine.blocks import in_blocks
from orchestration.snapshot.files import read_table
from orchestration.validation import expectations
from orchestration.validation.interaction_blocks import validate_in_blocks
from orchestration.validation.interaction_columns import COLUMNS
from orchestration.validation.interaction_rules import validate_interactions
from orchestration.validation.quarantine import Check, refusal, report
from orchestration.validation.suites import expected_check_names

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun

STAGE = "validated_interactions"


def validated_interactions(run: StageRun) -> None:
    """Row rules, then the Great Expectations suites; both are in checks.json. Failed checks stop the run in `refuse`, after the table of
    quarantined rows was stored."""
    rows = int(run.inputs["raw_interactions"].facts["rows"])
    counts, checks = validate_in_blocks(run, rows) if in_blocks(run, rows) else _validate(run)
    run.progress.message(f"validated_interactions: {counts['events']} of {counts['rows']} events kept")
    found = report(checks, counts, expected_check_names(STAGE))
    run.out.json("checks.json", found)
    run.facts(passed=found["passed"], **counts)


def _validate(run: StageRun) -> tuple[dict[str, int], list[Check]]:
    """All rows at once: writes the two tables; returns their counts and checks."""
    params, previous = run.params.validated_interactions, run.snapshot.previous_of("interactions.parquet")
    interactions = read_table(run.inputs["raw_interactions"].path("interactions.parquet"), lambda field: field.name in COLUMNS)
    known = run.inputs["validated_items"].table("items.parquet", columns=["item_id"])["item_id"]
    validated = validate_interactions(interactions, known, params, previous)
    checks = [*validated.checks, *expectations.check_interactions(interactions, validated, known, params, previous)]
    times = [name for name in ("pos", "timestamp") if name in validated.table.column_names]
    run.out.table("interactions.parquet", validated.table, sort_by=("user_id", *times, "item_id"))
    run.out.table("quarantine.parquet", validated.quarantine, sort_by=("row",))
    return validated.counts, checks


def refuse(artefact: Artefact) -> None:
    """Stops the run where a critical check failed; the artefact stays, for its quarantine."""
    reason = refusal(STAGE, artefact.json("checks.json"))
    if reason is not None:
        raise DigerError(f"{reason} (quarantined rows: {artefact.directory}/quarantine.parquet)")
