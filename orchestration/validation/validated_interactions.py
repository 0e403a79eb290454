"""Stage `validated_interactions`: events of known items that pass the rules, by user and time; the others in quarantine, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.errors import DigerError
from diger_core.store.artefacts import Artefact
from orchestration.snapshot.files import read_table
from orchestration.validation import expectations
from orchestration.validation.interaction_rules import COLUMNS, validate_interactions
from orchestration.validation.quarantine import refusal, report

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun

STAGE = "validated_interactions"


def validated_interactions(run: StageRun) -> None:
    """Row rules, then the Great Expectations suites; both are in checks.json. Failed checks stop the run in `refuse`, after the table of
    quarantined rows was stored."""
    params, previous = run.params.validated_interactions, run.snapshot.previous_of("interactions.parquet")
    interactions = read_table(run.inputs["raw_interactions"].path("interactions.parquet"), lambda field: field.name in COLUMNS)
    known = run.inputs["validated_items"].table("items.parquet", columns=["item_id"])["item_id"]
    validated = validate_interactions(interactions, known, params, previous)
    run.progress.message(f"validated_interactions: {validated.counts['events']} of {validated.counts['rows']} events kept")
    checks = [*validated.checks, *expectations.check_interactions(interactions, validated, known, params, previous)]
    times = [name for name in ("pos", "timestamp") if name in validated.table.column_names]
    run.out.table("interactions.parquet", validated.table, sort_by=("user_id", *times, "item_id"))
    run.out.table("quarantine.parquet", validated.quarantine, sort_by=("row",))
    found = report(checks, validated.counts, expectations.expected_check_names(STAGE))
    run.out.json("checks.json", found)
    run.facts(passed=found["passed"], **validated.counts)


def refuse(artefact: Artefact) -> None:
    """Stops the run where a critical check failed; the artefact stays, for its quarantine."""
    reason = refusal(STAGE, artefact.json("checks.json"))
    if reason is not None:
        raise DigerError(f"{reason} (quarantined rows: {artefact.directory}/quarantine.parquet)")
