"""The outcomes of a suite: what Great Expectations has found of each expectation, as counts; merged from a table's parts, and as checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestration.validation.quarantine import Check, check
from orchestration.validation.suites import KEPT, RECEIVED, ROW_COUNT, Expectation


@dataclass(frozen=True)
class Outcome:
    """What GX has found of one expectation: counts, no values."""

    raised: bool
    success: bool
    observed: int | None  # rows, or values that do not meet it; None of an aggregate or a type
    expected: str | None


Outcomes = dict[str, Outcome | None]  # by expectation; None: there is no such column


def merged(stage: str, parts: list[tuple[int, Outcomes]], arguments: dict[str, dict[str, Any]]) -> Outcomes:
    """The outcomes of a whole table from those of its parts, each with its rows: counts add up, and are judged as GX judges them."""
    suites = {e.name: e for e in (*RECEIVED[stage], *KEPT[stage])}
    told = [(rows, outcomes) for rows, outcomes in parts if rows]
    total, found = sum(rows for rows, _ in told), Outcomes()
    for name in told[0][1] if told else ():
        each = [outcomes[name] for _, outcomes in told if name in outcomes]
        there = [outcome for outcome in each if outcome is not None]
        if not there:
            found[name] = None
        elif len(there) == len(told):  # otherwise one part gave no result
            found[name] = _sum(suites[name], there, total, arguments.get(name, {}))
    return found


def _sum(e: Expectation, there: list[Outcome], rows: int, arguments: dict[str, Any]) -> Outcome:
    counts = [outcome.observed for outcome in there if outcome.observed is not None]
    observed = sum(counts) if len(counts) == len(there) else None
    success = all(outcome.success for outcome in there)  # an aggregate or a type
    if observed is not None and e.kind == ROW_COUNT:
        success = arguments.get("min_value", 0) <= observed <= arguments.get("max_value", observed)
    elif observed is not None:
        success = (rows - observed) / rows >= arguments.get("mostly", 1.0)
    raised = any(outcome.raised for outcome in there)
    return Outcome(raised, success and not raised, observed, there[0].expected)


def suite_checks(stage: str, suite_name: str, expectations: tuple[Expectation, ...], found: Outcomes, rows: int) -> list[Check]:
    """The suite as checks, one an expectation. `rows`: of the table that it ran on."""
    if rows == 0:  # an empty table passes every row-wise expectation
        return [
            check(e.name, False, e.severity, f"{stage}: {e.name} not run, there are no rows ({suite_name})", column=e.column) for e in expectations
        ]
    checks = []
    for e in expectations:
        if e.name not in found:
            checks.append(check(e.name, False, "critical", f"{stage}: {e.name} yielded no result; run the stage again", column=e.column))
        elif (outcome := found[e.name]) is None:
            checks.append(check(e.name, True, "info", f"{e.name}: the snapshot has no such column, nothing to check"))
        else:
            checks.append(_as_check(stage, e, outcome))
    return checks


def _as_check(stage: str, e: Expectation, outcome: Outcome) -> Check:
    """Counts only: GX's own text and exceptions may quote values."""
    if outcome.raised:
        return check(e.name, False, "critical", f"{stage}: {e.name} could not be evaluated; run with --debug for the cause", column=e.column)
    of = f" of column {e.column}" if e.column else ""
    if e.kind == ROW_COUNT:
        message = f"{stage}: {outcome.observed} rows"
    elif outcome.observed is None:  # an aggregate or a type: GX would show a value
        message = f"{stage}: {e.kind}{of} " + ("holds" if outcome.success else "does not hold")
    else:
        message = f"{stage}: {outcome.observed} values{of} do not meet {e.kind}"
    if not outcome.success:
        message += f" ({outcome.expected or 'no exception allowed'}); fix the file or the stage's parameters"
    return check(e.name, outcome.success, e.severity, message, column=e.column, observed=outcome.observed, expected=outcome.expected)
