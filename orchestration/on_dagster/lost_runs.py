"""Runs that a stopped machine or a killed daemon left behind as "started": nobody else ends them, and the cycle would wait for them for ever."""

from __future__ import annotations

import json
import socket

import dagster as dg

_SERVER = ".dagster/grpc_info"  # where the server listens whose child the run is
_STATUSES = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def fail_lost_runs() -> list[str]:
    """Marks runs of DAGSTER_HOME as failed whose server is gone; returns "job (run)" of each. Finished stages are kept in the store."""
    lost = []
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=_STATUSES)):
            if _SERVER in run.tags and not _answers(json.loads(run.tags[_SERVER])):
                instance.report_run_failed(
                    run, "the process of this run ended with the machine or the daemon: re-execute it, finished stages are reused"
                )
                lost.append(f"{run.job_name} ({run.run_id[:8]})")
    return lost


def _answers(server: dict[str, str | int]) -> bool:
    """Whether anything listens at the server's socket or port."""
    local = "socket" in server
    with socket.socket(socket.AF_UNIX if local else socket.AF_INET) as probe:
        probe.settimeout(2.0)
        return probe.connect_ex(str(server["socket"]) if local else (str(server["host"]), int(server["port"]))) == 0
