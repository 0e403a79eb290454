"""Every listening socket of a private cluster is on loopback: read from /proc while two workers train, not from the configuration."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from orchestration.on_ray import session
from orchestration.params.cluster import ClusterConfig
from orchestration.training.joint_model import joint_model
from tests.support.ray_processes import descendants, listening, train_workers
from tests.support.training_world import Recorder, World, params

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def test_what_proc_says_of_a_socket_is_read_right() -> None:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as server:
            server.bind((address, 0))
            server.listen()
            assert (os.getpid(), address, server.getsockname()[1]) in listening({os.getpid()})


@pytest.mark.slow
@pytest.mark.parametrize("dashboard", [False, True])
def test_two_training_workers_listen_on_loopback_alone(tmp_path: Path, dashboard: bool) -> None:
    world = World(tmp_path)
    seen: set[tuple[str, str]] = set()
    workers, over = [0], threading.Event()

    def look() -> None:
        while not over.is_set():
            mine = descendants(os.getpid()) | {os.getpid()}
            for pid, address, port in listening(mine):
                if address not in LOOPBACK:
                    title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80]
                    seen.add((f"{address}:{port}", title))
            workers[0] = max(workers[0], len(train_workers()))
            time.sleep(0.1)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        progress = Recorder()
        given = params(cluster=ClusterConfig(workers=2, dashboard=dashboard))
        artefact, notes = world.compute("joint_model", joint_model, given, key="5" * 64, progress=progress)
    finally:
        over.set()
        thread.join()
        session.shutdown()
    assert workers[0] == 2
    assert notes["workers"] == 2
    assert seen == set()
    assert artefact.names
