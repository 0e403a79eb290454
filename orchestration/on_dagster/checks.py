"""Asset checks: the stored verdicts of the validated stages, and signals of the models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from diger_core.store.artefact import Artefact
from orchestration.on_dagster.check_texts import RULE_TEXTS, check_text
from orchestration.stage import Stage
from orchestration.verdict.gate.document import VERDICT, GateVerdict, Rule

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


def _within_limits(artefact: Artefact) -> dg.AssetCheckResult:
    passed = int(artefact.facts["drift_warnings"])
    told = f"Fresh events and the champion: {artefact.facts['drift']}."
    return dg.AssetCheckResult(passed=not passed, check_name="drift", severity=_WARN, description=told, metadata={"limits_passed": passed})


def _gate_accepts(artefact: Artefact) -> dg.AssetCheckResult:
    said = str(artefact.facts.get("gate", "the report was made without a gate"))
    passed = artefact.facts.get("gate_verdict") == "accept"
    told = said if passed else f"{said} {AFTER_REFUSAL}"
    return dg.AssetCheckResult(passed=passed, check_name="gate_accepts", severity=_ERROR, description=told)


AFTER_REFUSAL = (
    "What served before still serves. The checks of `gate` name each rule, the report shows why. Train longer or with other parameters and launch "
    "again (Launchpad, overrides: training.epochs=20, or retraining.epochs=20 where a champion was continued), or, where a rule asks too much of "
    "this catalogue, change it in section `gate` of params.yaml."
)


@dataclass(frozen=True)
class Signal:
    """One check of a stage's artefact: a signal, not a gate. What may be released is decided by a stored verdict, which release reads by itself: a
    refusal is a result of a run, not its failure."""

    name: str
    text: str
    result: Callable[[Artefact], dg.AssetCheckResult]
    told: bool = False  # what to do about its failure becomes a line of the run's log

    def specs(self, stage: Stage) -> list[dg.AssetCheckSpec]:
        return [dg.AssetCheckSpec(self.name, asset=stage.name, description=self.text)]

    def results(self, stage: Stage, artefact: Artefact) -> list[dg.AssetCheckResult]:
        return [self.result(artefact)]


class Signals:
    """Several signals of one stage."""

    def __init__(self, *signals: Signal) -> None:
        self.signals, self.told = signals, any(signal.told for signal in signals)

    def specs(self, stage: Stage) -> list[dg.AssetCheckSpec]:
        return [spec for signal in self.signals for spec in signal.specs(stage)]

    def results(self, stage: Stage, artefact: Artefact) -> list[dg.AssetCheckResult]:
        return [result for signal in self.signals for result in signal.results(stage, artefact)]


class GateRules:
    """The gate's verdict, and a check for each of its rules: what was found, what is wanted, and how much room there is between them."""

    told = False

    def specs(self, stage: Stage) -> list[dg.AssetCheckSpec]:
        accepted = dg.AssetCheckSpec("accepted", asset=stage.name, description="The candidate meets every rule of the gate.")
        return [accepted, *(dg.AssetCheckSpec(f"rule_{name}", asset=stage.name, description=text) for name, text in RULE_TEXTS.items())]

    def results(self, stage: Stage, artefact: Artefact) -> list[dg.AssetCheckResult]:
        from orchestration.verdict.gate.gate import summary

        verdict: GateVerdict = artefact.json(VERDICT)
        judged, met = {rule["name"]: rule for rule in verdict["rules"]}, sum(rule["passed"] for rule in verdict["rules"])
        accepted = dg.AssetCheckResult(
            passed=verdict["verdict"] == "accept",
            check_name="accepted",
            severity=_ERROR,
            description=summary(verdict),
            metadata={"rules_met": met, "rules": len(judged)},
        )
        return [accepted, *(_rule(name, judged.get(name)) for name in RULE_TEXTS)]


def _rule(name: str, rule: Rule | None) -> dg.AssetCheckResult:
    if rule is None:
        told = "not asked of this candidate: there is no champion, or nothing to judge it by"
        return dg.AssetCheckResult(passed=True, check_name=f"rule_{name}", severity=_ERROR, description=told)
    found = {"observed": rule["observed"], "wanted": rule["wanted"], "margin": margin(rule)}
    shown = {key: value for key, value in found.items() if value is not None}
    plain = {key: _number(value) if isinstance(value, int | float) else str(value) for key, value in shown.items()}
    excused = {"excused": True} if rule.get("excused") else {}
    return dg.AssetCheckResult(
        passed=rule["passed"], check_name=f"rule_{name}", severity=_ERROR, description=rule["message"], metadata={**plain, **excused}
    )


def margin(rule: Rule) -> float | None:
    """How far what was found lies on the right side of what is wanted, in its own unit: negative where it does not; None where one is no number."""
    observed, wanted = rule["observed"], rule["wanted"]
    if not isinstance(observed, int | float) or not isinstance(wanted, int | float):
        return None
    return float(wanted - observed if rule["name"] in AT_MOST else observed - wanted)


def _number(value: float) -> float | int:
    return value if isinstance(value, int) else float(f"{value:.4g}")


AT_MOST = ("unique_ids", "reserved_ids", "churn")  # rules that want no more than `wanted`


class Validated:
    """The checks of a validated stage, one for each expectation; a declared check without a stored result has failed. Those that only warn stop
    nothing."""

    told = False

    def specs(self, stage: Stage) -> list[dg.AssetCheckSpec]:
        from orchestration.validation.suites import expected_check_names, stopping_check_names

        names, stopping = expected_check_names(stage.name), stopping_check_names(stage.name)
        return [dg.AssetCheckSpec(name, asset=stage.name, description=check_text(stage.name, name), blocking=name in stopping) for name in names]

    def results(self, stage: Stage, artefact: Artefact) -> list[dg.AssetCheckResult]:
        found: Checks = artefact.json("checks.json")
        stored = {check["name"]: check for check in found["checks"]}
        return [_stored(spec.name, stored.get(spec.name)) for spec in self.specs(stage)]


# What the stages of graph.py name as their checks


def validated() -> Validated:
    return Validated()


def catalogue_diff() -> Signals:
    ids = "Item ids mean the items that they meant in the starting bundle; else nothing is taken over."
    drift = "What fresh events say of the champion is within the limits of `catalogue_diff.drift`: volume, new items, lists and more."
    return Signals(Signal("ids_mean_the_same", ids, _ids_mean_the_same, told=True), Signal("drift", drift, _within_limits))


def trained() -> Signal:
    return Signal("no_alarm", "Training ended without a collapse or divergence alarm.", _no_alarm)


def evaluation() -> Signal:
    return Signal(
        "beats_baselines",
        "The released lists' NDCG@10 is above the strongest counting baseline's, with the whole 95% interval of the difference.",
        _beats_baselines,
    )


def gate() -> GateRules:
    return GateRules()


def report() -> Signal:
    text = "The gate has accepted the candidate. Where it has not, release refuses it."
    return Signal("gate_accepts", text, _gate_accepts, told=True)


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
