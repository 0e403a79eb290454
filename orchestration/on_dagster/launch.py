"""Runs the flow through Dagster in this process, so that the UI shows the same run that the terminal saw."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from diger_core.errors import DigerError, Refused
from diger_core.progress import Progress
from diger_core.store.artefacts import Store
from diger_core.store.owner import identity
from orchestration.champion.baseline import continues
from orchestration.engine.registry import Registered
from orchestration.engine.runner import MissingInput, Result, Session, refuse_failed
from orchestration.graph import BY_NAME, FLOW, STAGES, upstream
from orchestration.on_dagster.instance import dagster_home, opened_instance
from orchestration.on_dagster.unchanged import run_that_did_all
from orchestration.params.load import load_params
from orchestration.params.sections import Params
from orchestration.verdict.gate.document import VERDICT, GateVerdict


class RefusedRun(Refused):
    """The gate has refused the candidate: the flow ran to its report, and what served before still serves. `results`: of the stages that ran."""

    results: dict[str, Result]


def run_flow(
    store: Store, snapshot: Registered, params_file: str | None, overrides: Sequence[str], progress: Progress, targets: Iterable[str] = ()
) -> dict[str, Result]:
    """Materialises the stages (default: those of a retraining) for one snapshot; returns what each led to. Raises the first stage's `DigerError`.

    Where all is done already, nothing is launched: the run that did it stays the one that the UI shows.
    """
    params = load_params(params_file, overrides)  # before Dagster starts: a wrong key is the user's to fix, not a failed run
    store.root.writable()
    chosen = upstream(set(targets)) if targets else {stage.name for stage in FLOW}
    if "joint_model" in chosen and continues(params, store, snapshot):
        for line in params.retraining.shadowed(overrides):
            progress.message(line)
    if not _unchanged(store, snapshot, params, progress, chosen):
        from orchestration.on_dagster.recorded import jobs_of

        for job, stages in jobs_of(chosen):
            if stages == {"release"}:  # behind a retraining: a refused candidate has its report, and no run that is bound to fail
                _refuse(store, snapshot, params, chosen)
            _materialise(store, snapshot, params_file, overrides, progress, job, stages)
    if "report" in chosen:
        _refuse(store, snapshot, params, chosen)
    return _results(store, snapshot, params, chosen)


def _unchanged(store: Store, snapshot: Registered, params: Params, progress: Progress, chosen: set[str]) -> bool:
    """Whether nothing is to be done, which is then told. A refused candidate has no release, and none to come."""
    session = Session(store, params, snapshot, progress)
    done, run = chosen, run_that_did_all(session, chosen)
    if run is None and {"gate", "release"} <= chosen:
        done = chosen - {"release"}
        run = run_that_did_all(session, done)
        if run is not None and session.find(BY_NAME["gate"]).json(VERDICT)["verdict"] == "accept":
            return False
    if run is None:
        return False
    for stage in STAGES:
        if stage.name in done:
            session.materialise(stage)
    progress.message(f"Nothing has changed since run {run[:8]}: no run was started")
    return True


def _refuse(store: Store, snapshot: Registered, params: Params, chosen: set[str]) -> None:
    """`RefusedRun` where the gate's stored verdict on this run's candidate is a refusal."""
    verdict: GateVerdict = Session(store, params, snapshot).find(BY_NAME["gate"]).json(VERDICT)
    if verdict["verdict"] != "accept":
        from orchestration.verdict.report.gate import refusal

        refused = RefusedRun(refusal(verdict))
        refused.results = _results(store, snapshot, params, chosen - {"release"})
        raise refused


def _materialise(
    store: Store, snapshot: Registered, params_file: str | None, overrides: Sequence[str], progress: Progress, job: str, stages: set[str]
) -> None:
    import dagster as dg

    from orchestration.on_dagster.history import quick_history
    from orchestration.on_dagster.lost_runs import close_killed_runs, freeing_slots, owned
    from orchestration.on_dagster.partitions import add_partitions
    from orchestration.on_dagster.recorded import execute
    from orchestration.on_dagster.resources import TERMINAL

    dagster_home()
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    token, owner = TERMINAL.set(progress), identity()
    try:
        with quick_history(), opened_instance() as instance, freeing_slots(progress.message, owner):
            add_partitions(instance, [snapshot.key])
            close_killed_runs(instance)
            pipeline = {"store": store.url, "overrides": list(overrides), **({"params_file": params_file} if params_file else {})}
            execute(instance, job, stages, snapshot.key, pipeline, owned(owner))
    except dg.DagsterExecutionInterruptedError:
        raise KeyboardInterrupt from None  # Ctrl-C, as Dagster names it: no DagsterError, and a traceback would be all that the user sees
    except dg.DagsterError as error:
        _explain(error, store, snapshot, params_file, overrides)
        raise
    finally:
        TERMINAL.reset(token)


def _explain(error: BaseException, store: Store, snapshot: Registered, params_file: str | None, overrides: Sequence[str]) -> None:
    """Raises the user's error behind Dagster's, or that of the failed blocking check."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DigerError):
            raise cause from error
        cause = cause.__cause__ or cause.__context__
    session = Session(store, load_params(params_file, overrides), snapshot)
    try:
        for stage in STAGES:
            if stage.volume_of is not None:
                refuse_failed(session.find(stage))
    except MissingInput:
        return  # it ended before a check could stop it: Dagster's own error is the one to tell


def _results(store: Store, snapshot: Registered, params: Params, chosen: set[str]) -> dict[str, Result]:
    session = Session(store, params, snapshot)
    results: dict[str, Any] = {}
    for stage in STAGES:
        if stage.name in chosen:
            key, _ = session.resolve(stage)
            results[stage.name] = Result(stage, key, session.find(stage), True, 0.0)
    return results
