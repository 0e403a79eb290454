"""A stage on a cluster that is somewhere else: submitted as a Ray job, followed, stopped with its run.

The job computes the same record key from the same parameters and writes into the same store, so all that comes back is "it is there". The
submission id is made from the key: a launch that finds the job of an earlier one still running follows that one.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from diger_core.errors import DigerError
from diger_core.progress import Progress
from orchestration.stage import Stage

if TYPE_CHECKING:
    from diger_core.store.artefacts import Store
    from orchestration.engine.registry import Registered
    from orchestration.params.sections import Params

VARIABLE = "DIGER_JOB"
ENTRYPOINT = "python -m orchestration.on_ray.stage_job"
POLL = 0.5  # seconds
STOPPED_WITHIN = 10.0  # seconds
KNOWN_WITHIN = 5.0  # seconds from an interrupt to a job that was being submitted meanwhile
AGENT_WITHIN = 60.0  # seconds
_AGENT = " (no agent: where two Rays share a host, give one another --dashboard-agent-listen-port)"


def is_remote(stage: Stage, params: Params, snapshot: Registered) -> bool:
    """Whether the stage's work on the snapshot belongs on the cluster behind a job server's address."""
    uses_ray = stage.remote or (stage.blocks and snapshot.files["interactions.parquet"]["rows"] > params.cluster.block_events)
    return uses_ray and params.cluster.workers > 0 and _address(params).startswith(("http://", "https://"))


def _address(params: Params) -> str:
    return params.cluster.address or os.environ.get("RAY_ADDRESS") or ""


def run_as_job(
    stage: Stage, key: str, params: Params, store: Store, snapshot: Registered, progress: Progress, provenance: Mapping[str, Any] | None = None
) -> None:
    """Submits the stage (or finds its job running) and returns when it has succeeded. The job is stopped where this process is interrupted.

    `provenance`: what the job's record shall say of the run that submitted it; the job's own name is added."""
    address = _address(params)
    client = _client(address)
    prefix = f"diger-{stage.name}-{key[:16]}-"
    running = next((j.submission_id for j in client.list_jobs() if (j.submission_id or "").startswith(prefix) and not j.status.is_terminal()), None)
    job = running or prefix + uuid.uuid4().hex[:8]
    try:
        if running is None:
            _submit(client, job, _environment(stage, job, params, store, snapshot, provenance or {}))
            progress.message(f"{stage.name}: submitted to {address} as {job}")
        else:
            progress.message(f"{stage.name}: job {job} of an earlier launch is still running at {address}: followed")
        _follow(client, job, stage, progress)
    except DigerError:
        raise  # it was not taken, or it has ended
    except BaseException:
        _stop(client, job, progress)
        from diger_core.training import checkpoint as checkpoints  # torch, which a reused stage does without

        checkpoints.sweep(f"{store.url}/checkpoints/{key}", progress)  # a job that is killed cannot
        raise


def _environment(stage: Stage, job: str, params: Params, store: Store, snapshot: Registered, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The job's runtime environment, with what stage_job.py reads."""
    given = {
        "provenance": {**provenance, "launched_by": "ray job", "ray_job": job},
        "stage": stage.name,
        "store": store.root.base if store.root.is_local else store.url,  # a job has another working directory
        "snapshot": snapshot.key,
        "params": asdict(replace(params, cluster=_inside(params))),
    }
    environment = dict(params.cluster.runtime_env)
    environment["env_vars"] = {**environment.get("env_vars", {}), VARIABLE: json.dumps(given)}
    return environment


def _submit(client: Any, job: str, environment: dict[str, Any]) -> None:
    """A cluster that has just started has a job server before it has an agent that could run jobs."""
    deadline = time.monotonic() + AGENT_WITHIN
    while True:
        try:
            client.submit_job(entrypoint=ENTRYPOINT, submission_id=job, runtime_env=environment)
            return
        except RuntimeError as error:
            no_agent = "No available agent" in str(error)
            if not no_agent or time.monotonic() > deadline:
                reason = str(error).splitlines()[0][:200] + (_AGENT if no_agent else "")
                raise DigerError(f"cluster.address: the cluster does not take the job: {reason}") from error
            time.sleep(POLL)


def _inside(params: Params) -> Any:
    """What the job is told of the cluster: it finds the cluster that it runs on by itself."""
    return replace(params.cluster, address=None, runtime_env={})


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DigerError(
            f"cluster.address {address}: the job server does not answer ({reason}): check the address, and, where the cluster asks for a token, "
            "RAY_AUTH_MODE=token with RAY_AUTH_TOKEN_PATH"
        ) from error


def _follow(client: Any, job: str, stage: Stage, progress: Progress) -> None:
    told = 0
    while True:
        status = client.get_job_status(job)
        lines = client.get_job_logs(job).splitlines()
        complete = lines if status.is_terminal() else lines[:-1]
        for line in complete[told:]:
            if line.startswith(f"{stage.name}:") or line.startswith("diger:") or line.startswith("warning:"):
                progress.message(line)
        told = len(complete)
        if status.is_terminal():
            if str(status.value) == "SUCCEEDED":
                return
            reason = next(
                (line.removeprefix("diger: ") for line in reversed(lines) if line.startswith("diger: ")), f"the job ended as {status.value}"
            )
            raise DigerError(f"{stage.name}: {reason} (job {job}; `ray job logs {job}` shows all of it)")
        time.sleep(POLL)


def _stop(client: Any, job: str, progress: Progress) -> None:
    """Asks the job to stop until it has, so that nothing runs on behind a run that has ended: a job that is only just starting hears nothing yet."""
    asked = time.monotonic()
    while True:
        try:
            if client.get_job_status(job).is_terminal():
                return
            client.stop_job(job)
        except RuntimeError as error:  # interrupted while it was being submitted: the server does not know it yet, or never will
            if time.monotonic() > asked + KNOWN_WITHIN:
                progress.message(f"warning: job {job} is unknown to its server, so it was not stopped: {str(error).splitlines()[0][:200]}")
                return
        if time.monotonic() > asked + STOPPED_WITHIN:
            progress.message(f"warning: job {job} has not stopped within {STOPPED_WITHIN:g} s: `ray job stop {job}`")
            return
        time.sleep(0.2)
