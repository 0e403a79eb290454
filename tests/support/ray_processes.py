"""Ray clusters of tests, and the processes that they have started."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestration.engine.scratch import private_directory
from orchestration.on_ray import jobs as ray_jobs


def workers(title: str) -> list[int]:
    """Process ids of Ray workers whose title contains `title`, of this process's cluster, or of the one that the tests are run on (two_nodes.py)."""
    found = []
    for pid in descendants(int(os.environ.get("DIGER_TEST_CLUSTER", os.getpid()))):
        with contextlib.suppress(OSError):
            if title in (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace"):
                found.append(pid)
    return sorted(found)


def train_workers() -> list[int]:
    return workers("RayTrainWorker")


def tune_workers() -> list[int]:
    return workers("ImplicitFunc")


def marked(mark: str) -> list[int]:
    """Processes that inherited the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def descendants(pid: int) -> set[int]:
    """Live processes that descend from one; zombies do not count."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry.parent.name)] = int(parent)
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent == pid or parent in found} - found:
        found |= more
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def forget_token() -> None:
    """A process that has had a cluster of its own would show that one's token."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    reset_auth_token_state()


@dataclass(frozen=True)
class JobServer:
    address: str
    head: int  # process id


@contextlib.contextmanager
def job_server() -> Iterator[JobServer]:
    """A cluster with a job server on loopback that asks for a token; this process and those that it starts have the token meanwhile.

    Every port is its own: the agent that starts jobs has a fixed one by default, and where another Ray of the machine holds it no job ever starts.
    """
    mark, port, gcs, agent, client = secrets.token_hex(16), *(free_port() for _ in range(4))
    folder = private_directory("diger-", "/tmp")  # sockets' paths are short
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**os.environ, **token, "DIGER_TEST_MARK": mark, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on loopback, whatever the host's address
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={port}"]
    command += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--num-cpus=2", "--object-store-memory=200000000"]
    command += [f"--temp-dir={folder}", "--disable-usage-stats", f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
    head = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = {name: os.environ.get(name) for name in token}
    os.environ.update(token)
    forget_token()
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                ray_jobs._client(f"http://127.0.0.1:{port}").list_jobs()
                break
            except Exception:  # noqa: BLE001 - it is starting
                assert time.monotonic() < deadline, "the job server did not start"
                time.sleep(0.5)
        yield JobServer(f"http://127.0.0.1:{port}", head.pid)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        forget_token()
        head.terminate()
        head.wait(60)
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def listening(pids: set[int]) -> list[tuple[int, str, int]]:
    """(process id, local address, port) of every listening TCP socket of the processes, IPv4 and IPv6, read from /proc."""
    inodes = {}
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                name = os.readlink(link)
                if name.startswith("socket:["):
                    inodes[name[8:-1]] = pid
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
                found.append((inodes[fields[9]], socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return found
