"""`diger ui`: Dagster's UI and daemon on loopback, with the demo snapshots as partitions unless others are watched for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click

from diger_core.errors import DigerError
from orchestration.cli.options import store_option

LOOPBACK = "127.0.0.1"
PATIENCE = 20.0  # seconds that Dagster gets to stop by itself before its processes are killed


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port on 127.0.0.1.")
@store_option
def ui(port: int, store: str) -> None:
    """Open Dagster's UI and daemon on http://127.0.0.1:PORT; stop with Ctrl-C.

    Where params.yaml says `arrival.enabled: true`, snapshots that arrive are processed without a click (docs/retraining.md).
    """
    refuse_taken(port)
    from diger_core.store.artefacts import Store
    from orchestration.cli.demo import demo_may_come, demo_snapshots
    from orchestration.engine.registry import readable
    from orchestration.on_dagster.instance import dagster_home
    from orchestration.on_dagster.lost_runs import fail_lost_runs, freeing_slots
    from orchestration.on_dagster.partitions import add_snapshots, show_snapshots
    from orchestration.params.load import load_params

    home, arrival, opened = dagster_home(), load_params().arrival, Store(store)
    if arrival.enabled or arrival.watch:
        print(f"Arrival: {'on' if arrival.enabled else 'off until started in the UI'}; watched: {arrival.watch or 'nothing'}; cron: {arrival.cron}")
    elif demo_may_come(opened):
        add_snapshots(store, demo_snapshots(None))
    entries, damaged = readable(opened)
    show_snapshots([entry.key for entry in entries])  # all of them: DAGSTER_HOME may be new, the store is what counts
    for told in damaged:
        print(f"Left out: {told}")
    for lost in fail_lost_runs():
        print(f"A run was lost when Dagster stopped: {lost}; re-execute it in the UI")
    print(f"Snapshots: {', '.join(entry.key for entry in entries) or 'none yet'}")
    print(f"Dagster's UI: http://{LOOPBACK}:{port}  (home {home}; Ctrl-C stops it)", flush=True)
    # Runs that the UI launches use the store whose snapshots it shows.
    environment = {**os.environ, "DAGSTER_DISABLE_TELEMETRY": "yes", "DIGER_STORE": Store(store).url}
    environment.setdefault("DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", "900")  # a look reads a new snapshot in full, for its content hash
    # The module, not a workspace file: it loads from any working directory.
    advice = "ignore:Function `dev_command`"  # Dagster's own advice to its developers about another command
    command = [sys.executable, "-W", advice, "-m", "orchestration.on_dagster.dev", "-m", "orchestration.definitions", "-h", LOOPBACK, "-p", str(port)]
    with freeing_slots(print):
        code = supervise(command, environment)
    if code:
        raise DigerError(f"Dagster stopped by itself (exit code {code}): its last lines above say why")


def refuse_taken(port: int) -> None:
    """`DigerError` where another process listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port of a server that just ended is free
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise DigerError(
                f"port {port} of {LOOPBACK} cannot be used ({error.strerror}): stop what listens there, or choose another with --port"
            ) from error


def supervise(command: list[str], environment: dict[str, str]) -> int:
    """Runs the command in its own process group until it ends or this process gets SIGINT or SIGTERM; leaves no process of the group behind.

    Returns the command's exit code, 0 where it was stopped.
    """
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    # Installed before the start: a signal in between must not leave the group alone. A script's `&` ignores SIGINT; this does not.
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        while not stopping and child.poll() is None:
            time.sleep(0.2)
        if child.poll() is None:
            print("Stopping Dagster", flush=True)
            child.send_signal(signal.SIGINT)
            wait_until(lambda: child.poll() is not None, PATIENCE)
    finally:
        _end_group(child)
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if stopping else child.returncode


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Calls `done` until it is true; False where the seconds have passed before."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _end_group(leader: subprocess.Popen[bytes]) -> None:
    """Code servers and runs may outlive `dagster dev`: first they are asked, then killed."""
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if leader.poll() is not None and not _members(leader.pid):
            return
        try:
            os.killpg(leader.pid, number)
        except ProcessLookupError:
            return
        wait_until(lambda: leader.poll() is not None and not _members(leader.pid), seconds)


def _members(group: int) -> list[int]:
    """Live processes of a process group, by /proc; zombies, which only their parent can remove, do not count."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while the list was read
        if int(number) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found
