"""Runs that a stopped machine or a killed daemon left behind as "started": nobody else ends them, and the cycle would wait for them for ever."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

import dagster as dg
from sqlalchemy.exc import DBAPIError

from diger_core.errors import DigerError
from diger_core.store.owner import Owner, ended
from orchestration.on_dagster.instance import opened_instance

OWNER = ".dagster/diger_owner"  # tag of a run: the process that works on it, in full; the UI hides tags with this beginning
SHOWN_OWNER = "diger/owner"  # the same for people: host and process id
LAUNCHED_BY, TERMINAL_RUN = "diger/launched_by", "diger run"
EVERY = 5.0  # seconds

_SERVER = ".dagster/grpc_info"  # where the server listens whose child the run is
_STATUSES = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def fail_lost_runs() -> list[str]:
    """Marks runs of DAGSTER_HOME as failed whose server is gone; returns "job (run)" of each. Finished stages are kept in the store."""
    lost = []
    with opened_instance() as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=_STATUSES)):
            if _SERVER in run.tags and _gone(json.loads(run.tags[_SERVER])):
                instance.report_run_failed(
                    run, "the process of this run ended with the machine or the daemon: re-execute it, finished stages are reused"
                )
                lost.append(f"{run.job_name} ({run.run_id[:8]})")
    return lost


def owned(owner: Owner) -> dict[str, str]:
    """The tags of a run that this process works on by itself."""
    return {LAUNCHED_BY: TERMINAL_RUN, OWNER: json.dumps(owner), SHOWN_OWNER: f"{owner['host']}:{owner['pid']}"}


def close_killed_runs(instance: dg.DagsterInstance) -> None:
    """Runs of `diger run` whose process was killed count as failed and give their pool's slot back: Dagster's daemon does not know that process."""
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING], tags={LAUNCHED_BY: TERMINAL_RUN})
    for run in instance.get_runs(filters=unfinished):
        if OWNER in run.tags and ended(json.loads(run.tags[OWNER])):
            instance.report_run_failed(run, "its process was killed; the next run continues from what it had stored")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def waiting(instance: dg.DagsterInstance, own: Owner | None = None) -> list[str]:
    """A line for each step that waits for a pool's slot: which run has it. `own`: only steps of runs that this process works on."""
    told = []
    for pool in sorted(instance.event_log_storage.get_concurrency_keys()):
        info = instance.event_log_storage.get_concurrency_info(pool)
        holders = ", ".join(_named(instance, slot.run_id, slot.step_key) for slot in info.claimed_slots)
        for step in info.pending_steps:
            run = instance.get_run_by_id(step.run_id)
            mine = own is None or (run is not None and json.loads(run.tags.get(OWNER, "null")) == own)
            if step.assigned_timestamp is None and holders and mine:
                told.append(f"{step.step_key} waits for the one place in pool {pool}, which {holders} has")
    return told


def _named(instance: dg.DagsterInstance, run_id: str, step: str) -> str:
    """A run as a person knows it: what it does, of which snapshot, and where to look."""
    run = instance.get_run_by_id(run_id)
    if run is None:
        return f"{step} of run {run_id[:8]}"
    by = f", {run.tags[SHOWN_OWNER]}" if SHOWN_OWNER in run.tags else ""
    return f"{step} of run {run_id[:8]} ({run.job_name}, snapshot {run.tags.get('dagster/partition', 'none')}{by})"


@contextlib.contextmanager
def freeing_slots(tell: Callable[[str], object], own: Owner | None = None) -> Iterator[None]:
    """While the body runs, looks every `EVERY` seconds for killed runs: one that waits for the slot of a dead one would else wait for ever. Tells
    once for whom a step waits; `own`: of the runs of this process alone."""
    over = threading.Event()

    def look() -> None:
        told = ""
        waits: list[str] = []
        while not over.wait(EVERY):
            try:
                with opened_instance() as instance:
                    close_killed_runs(instance)
                    now = waiting(instance, own)
                for line in now:
                    if line not in waits:
                        tell(line)
                waits = now
            except (DBAPIError, dg.DagsterError, DigerError) as error:  # a busy database: the next look comes soon
                if str(error) != told:
                    told = str(error)
                    tell(f"warning: killed runs could not be looked for: {told.splitlines()[0][:200]}")

    thread = threading.Thread(target=look, name="diger-slots", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _gone(server: dict[str, str | int]) -> bool:
    """Whether nothing listens at the server's socket or port. Of a server on another machine the daemon's own monitoring knows more."""
    local = "socket" in server
    if not local and server["host"] not in ("localhost", "127.0.0.1"):
        return False
    with socket.socket(socket.AF_UNIX if local else socket.AF_INET) as probe:
        probe.settimeout(2.0)
        return probe.connect_ex(str(server["socket"]) if local else (str(server["host"]), int(server["port"]))) != 0
