"""Asset checks: the stored verdicts of the validated stages, and signals of the models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from diger_core.store.artefacts import Artefact
from orchestration.graph import Stage
from orchestration.on_dagster.check_texts import check_text
from orchestration.verdict.gate.document import VERDICT, GateVerdict

if TYPE_CHECKING:
    from orchestration.validation.quarantine import Check, Checks

_SEVERITY = {"critical": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN, "info": dg.AssetCheckSeverity.WARN}
_WARN, _ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def _no_alarm(artefact: Artefact) -> dg.AssetCheckResult:
    alarm = artefact.facts.get("alarm")  # a control that is switched off was not trained, and says nothing
    return dg.AssetCheckResult(passed=alarm is None, check_name="no_alarm", severity=_WARN, description=alarm or "Training ended as planned.")


def _beats_baselines(artefact: Artefact) -> dg.AssetCheckResult:
    from orchestration.verdict.report.verdict import verdict

    found = verdict(artefact.json("metrics.json"))
    row = found.baseline
    shown: dict[str, str | float] = {}
    if row is not None:
        shown = {"baseline": row.theirs, row.theirs: row.base, "lists": row.value, "difference": row.mean, "low": row.low, "high": row.high}
    passed = row is not None and row.tone == "better"
    return dg.AssetCheckResult(passed=passed, check_name="beats_baselines", severity=_WARN, description=found.headline, metadata=shown)


def _ids_mean_the_same(artefact: Artefact) -> dg.AssetCheckResult:
    refused = bool(artefact.facts["refused"])
    told = str(artefact.facts["reason"]) if refused else "Most item ids mean the items that they meant before."
    return dg.AssetCheckResult(passed=not refused, check_name="ids_mean_the_same", severity=_ERROR, description=told)


def _accepted(artefact: Artefact) -> dg.AssetCheckResult:
    from orchestration.verdict.gate.gate import summary

    verdict: GateVerdict = artefact.json(VERDICT)
    passed = verdict["verdict"] == "accept"
    met = sum(rule["passed"] for rule in verdict["rules"])
    shown = {"rules_met": met, "rules": len(verdict["rules"])}
    return dg.AssetCheckResult(passed=passed, check_name="accepted", severity=_ERROR, description=summary(verdict), metadata=shown)


def _gate_accepts(artefact: Artefact) -> dg.AssetCheckResult:
    said = str(artefact.facts.get("gate", "the report was made without a gate"))
    passed = artefact.facts.get("gate_verdict") == "accept"
    told = said if passed else f"{said} {_AFTER_REFUSAL}"
    return dg.AssetCheckResult(passed=passed, check_name="gate_accepts", severity=_ERROR, description=told)


_AFTER_REFUSAL = (
    "The champion stays; check `accepted` of `gate` names each rule, the report shows why. Train longer or with other parameters and launch "
    "again (Launchpad, overrides: training.epochs=20), or, where a rule asks too much of this catalogue, change it in section `gate` of params.yaml."
)


@dataclass(frozen=True)
class Signal:
    """One check of a stage's artefact: a signal, not a gate. What may be released is decided by a stored verdict. The report is written for a
    refused candidate, too, so it is the report's check that stops a run before release; release itself asks the stored verdict again."""

    name: str
    text: str
    result: Callable[[Artefact], dg.AssetCheckResult]
    blocking: bool = False
    told: bool = False  # what to do about its failure becomes a line of the run's log

    def specs(self, stage: Stage) -> list[dg.AssetCheckSpec]:
        return [dg.AssetCheckSpec(self.name, asset=stage.name, description=self.text, blocking=self.blocking)]

    def results(self, stage: Stage, artefact: Artefact) -> list[dg.AssetCheckResult]:
        return [self.result(artefact)]


class Validated:
    """The checks of a validated stage, one for each expectation; a declared check without a stored result has failed."""

    told = False

    def specs(self, stage: Stage) -> list[dg.AssetCheckSpec]:
        from orchestration.validation.expectations import expected_check_names

        names = expected_check_names(stage.name)
        return [dg.AssetCheckSpec(name, asset=stage.name, description=check_text(stage.name, name), blocking=True) for name in names]

    def results(self, stage: Stage, artefact: Artefact) -> list[dg.AssetCheckResult]:
        found: Checks = artefact.json("checks.json")
        stored = {check["name"]: check for check in found["checks"]}
        return [_stored(spec.name, stored.get(spec.name)) for spec in self.specs(stage)]


# What the stages of graph.py name as their checks


def validated() -> Validated:
    return Validated()


def catalogue_diff() -> Signal:
    text = "Item ids mean the items that they meant in the starting bundle; else nothing is taken over."
    return Signal("ids_mean_the_same", text, _ids_mean_the_same, told=True)


def trained() -> Signal:
    return Signal("no_alarm", "Training ended without a collapse or divergence alarm.", _no_alarm)


def evaluation() -> Signal:
    return Signal(
        "beats_baselines",
        "The released lists' NDCG@10 is above the strongest counting baseline's, with the whole 95% interval of the difference.",
        _beats_baselines,
    )


def gate() -> Signal:
    return Signal("accepted", "The candidate meets every rule of the gate.", _accepted)


def report() -> Signal:
    text = "The gate has accepted the candidate; otherwise the run stops here, before release."
    return Signal("gate_accepts", text, _gate_accepts, blocking=True, told=True)


# What an asset asks for


def check_specs(stage: Stage) -> list[dg.AssetCheckSpec]:
    """Static: known without data, so that a check which reports nothing shows as missing."""
    return [] if stage.checks is None else stage.checks().specs(stage)


def check_results(stage: Stage, artefact: Artefact) -> list[dg.AssetCheckResult]:
    """One result for each declared check."""
    return [] if stage.checks is None else stage.checks().results(stage, artefact)


def remedies(stage: Stage, results: list[dg.AssetCheckResult]) -> list[str]:
    """What to do about a check that stops a run or a release, as lines for its log: Dagster's own error names the check alone."""
    told = stage.checks is not None and stage.checks().told
    return [f"{stage.name}: {r.description}" for r in results if told and not r.passed]


def _stored(name: str, check: Check | None) -> dg.AssetCheckResult:
    if check is None:
        return dg.AssetCheckResult(passed=False, check_name=name, description="the check reported nothing, which counts as failed")
    found = {"column": check.get("column"), "observed": check.get("observed"), "expected": check.get("expected")}
    told = {key: value for key, value in found.items() if value is not None}
    shown = {key: value if isinstance(value, int | float) else str(value) for key, value in told.items()}  # the UI plots numbers over time
    return dg.AssetCheckResult(
        passed=bool(check["passed"]), check_name=name, severity=_SEVERITY[check["severity"]], description=check["message"], metadata=shown
    )
