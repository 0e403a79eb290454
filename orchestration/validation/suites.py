"""The expectation suites of the two validated stages, and the names of all their checks. Great Expectations itself is in expectations.py.

Two suites a stage, beside the row rules: `received` on the table as it came (row count first, nulls within the share that the
quarantine may take), and `kept` on what the rules let through (strict).
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.validation import interaction_rules, item_rules


@dataclass(frozen=True)
class Expectation:
    """One GX expectation: its class name and arguments, by the stable name that it has as an asset check."""

    name: str
    kind: str
    severity: str = "critical"
    column: str | None = None


ROW_COUNT = "ExpectTableRowCountToBeBetween"
RECEIVED = {
    "validated_items": (
        Expectation("gx_received_row_count", ROW_COUNT),
        Expectation("gx_received_item_id_not_null", "ExpectColumnValuesToNotBeNull", column="item_id"),
        Expectation("gx_received_item_id_unique", "ExpectColumnValuesToBeUnique", "warning", column="item_id"),
    ),
    "validated_interactions": (
        Expectation("gx_received_row_count", ROW_COUNT),
        Expectation("gx_received_user_id_not_null", "ExpectColumnValuesToNotBeNull", column="user_id"),
        Expectation("gx_received_item_id_not_null", "ExpectColumnValuesToNotBeNull", column="item_id"),
    ),
}
KEPT = {
    "validated_items": (
        Expectation("gx_row_count", ROW_COUNT),
        Expectation("gx_item_id_type", "ExpectColumnValuesToBeInTypeList", column="item_id"),
        Expectation("gx_item_id_not_null", "ExpectColumnValuesToNotBeNull", column="item_id"),
        Expectation("gx_item_id_unique", "ExpectColumnValuesToBeUnique", column="item_id"),
        Expectation("gx_item_id_in_order", "ExpectColumnValuesToBeInSet", column="in_order"),
        Expectation("gx_text_present", "ExpectColumnValuesToBeInSet", "warning", column="text_present"),
        Expectation("gx_vector_finite", "ExpectColumnValuesToBeInSet", column="vector_finite"),
    ),
    "validated_interactions": (
        Expectation("gx_row_count", ROW_COUNT),
        Expectation("gx_user_id_type", "ExpectColumnValuesToBeInTypeList", column="user_id"),
        Expectation("gx_user_id_not_null", "ExpectColumnValuesToNotBeNull", column="user_id"),
        Expectation("gx_item_id_type", "ExpectColumnValuesToBeInTypeList", column="item_id"),
        Expectation("gx_item_id_not_null", "ExpectColumnValuesToNotBeNull", column="item_id"),
        Expectation("gx_item_id_known", "ExpectColumnValuesToBeInSet", column="item_known"),
        # aggregates: the row-wise "between" of GX calls a Python function for every value
        Expectation("gx_timestamp_not_early", "ExpectColumnMinToBeBetween", column="seconds"),
        Expectation("gx_timestamp_not_future", "ExpectColumnMaxToBeBetween", column="seconds"),
        Expectation("gx_events_in_order", "ExpectColumnMinToBeBetween", column="step"),
        Expectation("gx_weight_not_negative", "ExpectColumnMinToBeBetween", column="weight"),
    ),
}


def expected_check_names(stage: str) -> list[str]:
    """All checks of a stage, known without data: the asset checks that Dagster declares. Other stages have none."""
    rules = {"validated_items": item_rules.CHECKS, "validated_interactions": interaction_rules.CHECKS}
    if stage not in rules:
        return []
    return [*rules[stage], *(e.name for e in (*RECEIVED[stage], *KEPT[stage]))]


def stopping_check_names(stage: str) -> set[str]:
    """Those of `expected_check_names` whose failure stops a run; the others warn."""
    by_rule = {"items_left", "events_left", "quarantined_share", "volume"}
    by_expectation = {e.name for e in (*RECEIVED.get(stage, ()), *KEPT.get(stage, ())) if e.severity == "critical"}
    return (by_rule | by_expectation) & set(expected_check_names(stage))
