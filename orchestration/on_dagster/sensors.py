"""Sensors and the schedule: arrival -> decision -> retraining or cold start -> release -> recommendations; every failure is told.

A sensor's run key is what the run works on, never a tick's time. What one step decided is read from the store, by the hash that its run made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from orchestration.engine.runner import refuse_failed
from orchestration.on_dagster.jobs import CYCLE, JOBS, arrival, assign_new_items, gate_and_release, recommend, retrain
from orchestration.on_dagster.lost_runs import LAUNCHED_BY
from orchestration.on_dagster.notify import Trouble, notify
from orchestration.on_dagster.partitions import add_partitions
from orchestration.on_dagster.resources import DEFAULT_STORE, params_of, store_of
from orchestration.params.arrival import ArrivalConfig
from orchestration.params.load import load_params
from orchestration.snapshot.arrival import Look, look
from orchestration.verdict.gate.document import VERDICT, GateVerdict

PARTITION = "dagster/partition"
_RUNNING = [
    dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]  # fmt: skip


def automation(config: ArrivalConfig) -> tuple[list[dg.SensorDefinition], list[dg.ScheduleDefinition]]:
    """The sensors and, where `arrival.cron` is set, the schedule."""
    starts = dg.DefaultSensorStatus.RUNNING if config.enabled else dg.DefaultSensorStatus.STOPPED
    every = config.interval_seconds

    @dg.sensor(job=arrival, minimum_interval_seconds=every, default_status=starts, description="Takes up snapshots that arrive in arrival.watch.")
    def snapshot_arrival(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = load_params().arrival
        found = look_at(context.instance, now, known_listing=context.cursor)
        add_partitions(context.instance, list(found.keys))
        return _arrived(found)

    after = dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="next_step",
        monitored_jobs=CYCLE,
        request_jobs=[assign_new_items, retrain, gate_and_release, recommend],
        minimum_interval_seconds=every,
        default_status=starts,
        description="Launches what a finished step asks for: the diff's decision, an accepted candidate's release, recommendations.",
    )(next_step)
    failed = dg.run_failure_sensor(
        name="failure",
        monitored_jobs=JOBS,
        minimum_interval_seconds=every,
        default_status=starts,
        description="Tells of a failed run over the channels of arrival.notify.",
    )(tell_failure)
    return [snapshot_arrival, after, failed], [_schedule(config)] if config.cron else []


def _schedule(config: ArrivalConfig) -> dg.ScheduleDefinition:
    assert config.cron is not None
    status = dg.DefaultScheduleStatus.RUNNING if config.enabled else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(
        job=arrival,
        cron_schedule=config.cron,
        execution_timezone=config.timezone,
        default_status=status,
        description="Asks for the newest registered snapshot, wherever it came from; one that had its run is not run again.",
    )
    def newest_snapshot(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        found = look_at(context.instance, load_params().arrival, all_registered=True)
        add_partitions(context.instance, list(found.keys))
        return _request(found) or dg.SkipReason("; ".join(found.said) or "every registered snapshot had its run")

    return newest_snapshot


# Arrival


def look_at(instance: dg.DagsterInstance, config: ArrivalConfig, store: Store | None = None, **how: Any) -> Look:
    """One look with this instance's runs: a snapshot that had a run of job `arrival`, however it was launched and ended, gets no other."""

    def launched(key: str) -> bool:
        return instance.get_runs_count(dg.RunsFilter(job_name=arrival.name, tags={PARTITION: key})) > 0

    return look(store or default_store(), config, launched, busy=busy(instance, config), **how)


def dry_look(config: ArrivalConfig, store: Store) -> Look:
    """What the sensor would find now, with the runs of DAGSTER_HOME; changes nothing."""
    from orchestration.on_dagster.instance import dagster_home, opened_instance

    dagster_home()
    with opened_instance() as instance:
        return look_at(instance, config, store, dry=True)


def busy(instance: dg.DagsterInstance, config: ArrivalConfig) -> str | None:
    """The run of the cycle that is under way, or has just ended so that its next step may be about to start."""
    names = {job.name for job in CYCLE}
    since = datetime.now(UTC) - timedelta(seconds=3 * config.interval_seconds)
    recent = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], updated_after=since)
    for told, runs in (("is under way", dg.RunsFilter(statuses=_RUNNING)), ("has just ended", recent)):
        for run in instance.get_runs(runs, limit=100):
            if run.job_name in names:
                return f"run {run.run_id[:8]} of {run.job_name} {told}"
    return None


def _arrived(found: Look) -> dg.SensorResult:
    request = _request(found)
    return dg.SensorResult(
        run_requests=[request] if request else [],
        skip_reason=None if request else dg.SkipReason("; ".join(found.said) or "every snapshot had its run"),
        cursor=found.listing if found.quiet else "",
    )


def _request(found: Look) -> dg.RunRequest | None:
    if found.launch is None:
        return None
    return dg.RunRequest(run_key=found.launch.content_hash, partition_key=found.launch.key, tags={"diger/content": found.launch.content_hash})


# What follows a finished run


def next_step(context: dg.RunStatusSensorContext) -> dg.RunRequest | dg.SkipReason:
    """The run that a finished one asks for, or why there is none."""
    run, config = context.dagster_run, _params(context.dagster_run)
    snapshot = run.tags.get(PARTITION)
    if snapshot is None:
        return dg.SkipReason(f"run {run.run_id[:8]} of {run.job_name} is not of one snapshot")
    if LAUNCHED_BY in run.tags:
        return dg.SkipReason(f"{snapshot}: run {run.run_id[:8]} belongs to a terminal, which does what follows by itself")
    if run.job_name == arrival.name:
        return _after_arrival(context, config, snapshot)
    if run.job_name == retrain.name:
        return _after_retraining(context, config, snapshot)
    if run.job_name in (gate_and_release.name, assign_new_items.name) and config.recommend:
        return _launch(run, recommend.name, snapshot, made(context, "release", "cold_start").hash)
    return dg.SkipReason(f"{snapshot}: nothing follows {run.job_name}")


def _after_arrival(context: dg.RunStatusSensorContext, config: ArrivalConfig, snapshot: str) -> dg.RunRequest | dg.SkipReason:
    diff = made(context, "catalogue_diff")
    decision, reason = str(diff.facts["decision"]), str(diff.facts["reason"])
    if diff.facts["refused"]:
        message = _refusal(diff) or reason
        notify(Trouble(context.dagster_run.job_name, snapshot, diff.stage, message, context.dagster_run.run_id), config.notify, context.log.error)
        return dg.SkipReason(f"{snapshot}: refused: {message}")
    context.log.info(f"{snapshot}: {decision}: {reason}")
    drift = f"drift: {diff.facts['drift']}" if diff.facts["drift_warnings"] else ""
    if drift:
        context.log.warning(f"{snapshot}: {drift}")
    job = {"retrain": retrain.name, "cold_start": assign_new_items.name}.get(decision)
    if job is None:
        return dg.SkipReason(f"{snapshot}: nothing to do: {'; '.join(filter(None, (reason, drift)))}")
    return _launch(context.dagster_run, job, snapshot, diff.hash, {"diger/reason": reason, **({"diger/drift": drift} if drift else {})})


def _after_retraining(context: dg.RunStatusSensorContext, config: ArrivalConfig, snapshot: str) -> dg.RunRequest | dg.SkipReason:
    judged = made(context, "gate")
    verdict: GateVerdict = judged.json(VERDICT)
    if verdict["verdict"] != "accept":
        from orchestration.verdict.report.gate import refusal

        run = context.dagster_run
        notify(Trouble(run.job_name, snapshot, "gate", refusal(verdict), run.run_id), config.notify, context.log.error)
        return dg.SkipReason(f"{snapshot}: refused: {refusal(verdict)}")
    if not config.release:
        return dg.SkipReason(f"{snapshot}: accepted; release it by job {gate_and_release.name} (arrival.release is false)")
    return _launch(context.dagster_run, gate_and_release.name, snapshot, judged.hash)


def _launch(run: dg.DagsterRun, job: str, snapshot: str, decided_by: str, why: Mapping[str, str] | None = None) -> dg.RunRequest:
    """One run for one snapshot and one decision, under the parameters of the run that decided. `why`: tags that say so in the UI."""
    kept = {name: run.run_config[name] for name in ("resources",) if name in run.run_config}
    tags = {"diger/decided_by": decided_by, **(why or {})}
    return dg.RunRequest(run_key=f"{job}:{snapshot}:{decided_by}", job_name=job, partition_key=snapshot, run_config=kept, tags=tags)


def made(context: dg.RunStatusSensorContext, *stages: str) -> Artefact:
    """The artefact that this run made or reused for the first of the stages that it materialised."""
    store, versions = _store(context.dagster_run), _versions(context.instance, context.dagster_run.run_id)
    for stage in stages:
        if stage in versions:
            return store.artefact(stage, versions[stage])
    raise DigerError(f"run {context.dagster_run.run_id} materialised none of {', '.join(stages)}")


def _versions(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    """Stage -> artefact hash (its data version) of what a run has materialised."""
    found = {}
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        materialisation = entry.asset_materialization
        if materialisation is not None and materialisation.tags:
            found[materialisation.asset_key.to_user_string()] = materialisation.tags["dagster/data_version"]
    return found


# Failures


def tell_failure(context: dg.RunFailureSensorContext) -> None:
    """Notifies; whatever breaks on the way is told in the tick's log and stops nothing. Who started a run in a terminal sees it fail there."""
    if LAUNCHED_BY in context.dagster_run.tags:
        return
    try:
        config = _params(context.dagster_run).notify
    except DigerError as error:  # a broken params.yaml may be the very reason of the failure
        context.log.error(str(error))
        config = ArrivalConfig().notify
    notify(trouble(context), config, context.log.error)


def trouble(context: dg.RunFailureSensorContext) -> Trouble:
    """Job, snapshot, stage, and the line that says what to do."""
    run = context.dagster_run
    events = context.get_step_failure_events()
    stage = str(events[0].step_key) if events else "its start"
    message = _stored_refusal(context, stage) if events else None
    for event in events:
        message = message or _user_line(event.step_failure_data.error)
    message = message or (context.failure_event.message or "the run ended without a message")
    return Trouble(run.job_name, run.tags.get(PARTITION, "none"), stage, " ".join(message.split())[:2000], run.run_id)


def _user_line(error: Any) -> str | None:
    """The `DigerError` in a chain of causes, or the last cause's own line."""
    line = None
    while error is not None:
        line = str(error.message).strip()
        kind, _, text = line.partition(": ")
        if kind.startswith(("diger_core.", "orchestration.")):
            return text
        error = error.cause
    return line


def _stored_refusal(context: dg.RunFailureSensorContext, stage: str) -> str | None:
    """Why a stored verdict stopped the run: Dagster's own error names only the check."""
    try:
        store, versions = _store(context.dagster_run), _versions(context.instance, context.dagster_run.run_id)
        return _refusal(store.artefact(stage, versions[stage])) if stage in versions else None
    except DigerError as error:
        return str(error)


def _refusal(artefact: Artefact) -> str | None:
    try:
        refuse_failed(artefact)
    except DigerError as error:
        return str(error)
    return None


# A run's store and parameters


def default_store() -> Store:
    return Store(os.environ.get("DIGER_STORE", DEFAULT_STORE))


def _configured(run: dg.DagsterRun) -> dict[str, Any]:
    node: Any = run.run_config
    for name in ("resources", "pipeline", "config"):
        node = node.get(name, {})
    return dict(node)


def _store(run: dg.DagsterRun) -> Store:
    given = _configured(run).get("store")
    return store_of(given) if given else default_store()


def _params(run: dg.DagsterRun) -> ArrivalConfig:
    given = _configured(run)
    return params_of(given.get("params_file"), given.get("overrides", [])).arrival
