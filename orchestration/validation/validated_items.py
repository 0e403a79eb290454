"""Stage `validated_items`: items that pass the rules, in canonical order; the others in quarantine, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from orchestration.snapshot.files import read_table
from orchestration.validation import expectations
from orchestration.validation.item_rules import is_read, validate_items
from orchestration.validation.quarantine import refusal, report
from orchestration.validation.suites import expected_check_names

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun

STAGE = "validated_items"


def validated_items(run: StageRun) -> None:
    """Row rules, then the Great Expectations suites; both are in checks.json. Failed checks stop the run in `refuse`, after the table of
    quarantined rows was stored."""
    raw, params, previous = run.inputs["raw_items"], run.params.validated_items, run.snapshot.previous_of("items.parquet")
    items = read_table(raw.path("items.parquet"), lambda field: is_read(field, params))
    vectors = read_table(raw.path("vectors.parquet"), lambda field: field.name in ("item_id", "vector")) if "vectors.parquet" in raw.names else None
    validated = validate_items(items, vectors, params, previous)
    run.progress.message(f"validated_items: {validated.counts['items']} of {validated.counts['rows']} items kept")
    checks = [*validated.checks, *expectations.check_items(items, validated, params, previous)]
    run.out.table("items.parquet", validated.table, sort_by=("item_id",))
    if validated.vectors is not None:
        run.out.table("vectors.parquet", validated.vectors, sort_by=("item_id",))
    run.out.table("quarantine.parquet", validated.quarantine, sort_by=("row",))
    found = report(checks, validated.counts, expected_check_names(STAGE))
    run.out.json("checks.json", found)
    run.facts(passed=found["passed"], **validated.counts)


def refuse(artefact: Artefact) -> None:
    """Stops the run where a critical check failed; the artefact stays, for its quarantine."""
    reason = refusal(STAGE, artefact.json("checks.json"))
    if reason is not None:
        raise DigerError(f"{reason} (quarantined rows: {artefact.directory}/quarantine.parquet)")
