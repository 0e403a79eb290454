"""Asset checks: the stored verdicts of the validated stages, and the properties that a release stands on."""

from __future__ import annotations

import dagster as dg

from diger_core.store import Artefact
from orchestration.graph import Stage

_SEVERITY = {"critical": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN, "info": dg.AssetCheckSeverity.WARN}
_VALIDATED = ("validated_items", "validated_interactions")
_FACT_CHECKS = {
    "semantic_ids": (("tuples_unique", "Every item has a semantic ID of its own.", True),),
    "joint_model": (("no_alarm", "Training ended without a collapse alarm.", False),),
}


def check_specs(stage: Stage) -> list[dg.AssetCheckSpec]:
    """Static: known without data, so that a check which reports nothing shows as missing."""
    if stage.name in _VALIDATED:
        from orchestration.expectations import expected_check_names

        return [dg.AssetCheckSpec(name, asset=stage.name, blocking=True) for name in expected_check_names(stage.name)]
    return [dg.AssetCheckSpec(name, asset=stage.name, description=text, blocking=block) for name, text, block in _FACT_CHECKS.get(stage.name, ())]


def check_results(stage: Stage, artefact: Artefact) -> list[dg.AssetCheckResult]:
    """One result for each declared check; a declared check without a stored result has failed."""
    if stage.name in _VALIDATED:
        stored = {check["name"]: check for check in artefact.json("checks.json")["checks"]}
        return [_stored(spec.name, stored.get(spec.name)) for spec in check_specs(stage)]
    return [dg.AssetCheckResult(passed=bool(artefact.facts.get(name)), check_name=name) for name, _, _ in _FACT_CHECKS.get(stage.name, ())]


def _stored(name: str, check: dict | None) -> dg.AssetCheckResult:
    if check is None:
        return dg.AssetCheckResult(passed=False, check_name=name, description="the check reported nothing, which counts as failed")
    shown = {key: str(check[key]) for key in ("column", "observed", "expected") if check.get(key) is not None}
    return dg.AssetCheckResult(
        passed=bool(check["passed"]), check_name=name, severity=_SEVERITY[check["severity"]], description=check["message"], metadata=shown
    )
