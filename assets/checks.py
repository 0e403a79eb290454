"""Asset checks: the stored verdicts of the validated stages, and signals of the models."""

from __future__ import annotations

import dagster as dg

from assets.check_texts import check_text
from diger_core.store import Artefact
from orchestration.graph import Stage

_SEVERITY = {"critical": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN, "info": dg.AssetCheckSeverity.WARN}
_WARN, _ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
_VALIDATED = ("validated_items", "validated_interactions")


def _no_alarm(artefact: Artefact) -> dg.AssetCheckResult:
    alarm = artefact.facts.get("alarm")  # a control that is switched off was not trained, and says nothing
    return dg.AssetCheckResult(passed=alarm is None, check_name="no_alarm", severity=_WARN, description=alarm or "Training ended as planned.")


def _beats_baselines(artefact: Artefact) -> dg.AssetCheckResult:
    models = artefact.json("metrics.json")["models"]
    metric = "ndcg@10" if "ndcg@10" in models["joint_model"] else min(m for m in models["joint_model"] if m.startswith("ndcg@"))
    found = {name: values[metric] for name, values in models.items()}
    passed = found["joint_model"] > max(found["most_popular"], found["markov"])
    shown = {name: float(value) for name, value in found.items()}
    return dg.AssetCheckResult(passed=passed, check_name="beats_baselines", severity=_WARN, metadata=shown)


def _ids_mean_the_same(artefact: Artefact) -> dg.AssetCheckResult:
    refused = bool(artefact.facts["refused"])
    told = str(artefact.facts["reason"]) if refused else "Most item ids mean the items that they meant before."
    return dg.AssetCheckResult(passed=not refused, check_name="ids_mean_the_same", severity=_ERROR, description=told)


def _accepted(artefact: Artefact) -> dg.AssetCheckResult:
    from orchestration.stages.gate import VERDICT, summary

    verdict = artefact.json(VERDICT)
    passed = verdict["verdict"] == "accept"
    met = sum(rule["passed"] for rule in verdict["rules"])
    shown = {"rules_met": met, "rules": len(verdict["rules"])}
    return dg.AssetCheckResult(passed=passed, check_name="accepted", severity=_ERROR, description=summary(verdict), metadata=shown)


def _gate_accepts(artefact: Artefact) -> dg.AssetCheckResult:
    said = str(artefact.facts.get("gate", "the report was made without a gate"))
    passed = artefact.facts.get("gate_verdict") == "accept"
    told = said if passed else f"{said} {_AFTER_REFUSAL}"
    return dg.AssetCheckResult(passed=passed, check_name="gate_accepts", severity=_ERROR, description=told)


# Signals, not gates: what may be released is decided by a stored verdict. The report is written for a refused candidate, too, so it is the report's
# check that stops a run before release; release itself asks the stored verdict again.
_SIGNALS = {
    "catalogue_diff": (
        "ids_mean_the_same",
        "Item ids mean the items that they meant in the baseline; else nothing is taken over.",
        _ids_mean_the_same,
    ),
    "frozen_model": ("no_alarm", "Training ended without an alarm.", _no_alarm),
    "joint_model": ("no_alarm", "Training ended without a collapse or divergence alarm.", _no_alarm),
    "evaluation": ("beats_baselines", "The joint model's NDCG@10 is above most popular and Markov.", _beats_baselines),
    "gate": ("accepted", "The candidate meets every rule of the gate.", _accepted),
    "report": ("gate_accepts", "The gate has accepted the candidate; otherwise the run stops here, before release.", _gate_accepts),
}
_BLOCKING = ("report",)
_TOLD = ("ids_mean_the_same", "gate_accepts")
_AFTER_REFUSAL = (
    "The champion stays; check `accepted` of `gate` names each rule, the report shows why. Train longer or with other parameters and launch "
    "again (Launchpad, overrides: training.epochs=20), or, where a rule asks too much of this catalogue, change it in section `gate` of params.yaml."
)


def check_specs(stage: Stage) -> list[dg.AssetCheckSpec]:
    """Static: known without data, so that a check which reports nothing shows as missing."""
    if stage.name in _VALIDATED:
        from orchestration.expectations import expected_check_names

        names = expected_check_names(stage.name)
        return [dg.AssetCheckSpec(name, asset=stage.name, description=check_text(stage.name, name), blocking=True) for name in names]
    if stage.name not in _SIGNALS:
        return []
    name, text, _ = _SIGNALS[stage.name]
    return [dg.AssetCheckSpec(name, asset=stage.name, description=text, blocking=stage.name in _BLOCKING)]


def check_results(stage: Stage, artefact: Artefact) -> list[dg.AssetCheckResult]:
    """One result for each declared check; a declared check without a stored result has failed."""
    if stage.name in _VALIDATED:
        stored = {check["name"]: check for check in artefact.json("checks.json")["checks"]}
        return [_stored(spec.name, stored.get(spec.name)) for spec in check_specs(stage)]
    return [_SIGNALS[stage.name][2](artefact)] if stage.name in _SIGNALS else []


def remedies(stage: Stage, results: list[dg.AssetCheckResult]) -> list[str]:
    """What to do about a check that stops a run or a release, as lines for its log: Dagster's own error names the check alone."""
    return [f"{stage.name}: {r.description}" for r in results if not r.passed and r.check_name in _TOLD]


def _stored(name: str, check: dict | None) -> dg.AssetCheckResult:
    if check is None:
        return dg.AssetCheckResult(passed=False, check_name=name, description="the check reported nothing, which counts as failed")
    found = {key: check[key] for key in ("column", "observed", "expected") if check.get(key) is not None}
    shown = {key: value if isinstance(value, int | float) else str(value) for key, value in found.items()}  # the UI plots numbers over time
    return dg.AssetCheckResult(
        passed=bool(check["passed"]), check_name=name, severity=_SEVERITY[check["severity"]], description=check["message"], metadata=shown
    )
