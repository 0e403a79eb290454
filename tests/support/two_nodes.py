"""A Ray cluster of two nodes on this machine, one CPU each: a process of its own, so that whoever uses it connects as to any other cluster.

As a module it is that process: prints the cluster's address, then does what each line on its standard input says: `lose`, `add`.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.ray_processes import descendants


@dataclass(frozen=True)
class TwoNodes:
    process: subprocess.Popen[str]
    environment: dict[str, str]  # of processes that shall use the cluster

    def say(self, word: str) -> None:
        """`lose`: the second node is gone without a goodbye; `add`: another one joins. Returns when that has been done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(word, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline().strip() == f"done {word}"


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on loopback, whatever the host's address
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    sensitive = {"RAY_health_check_failure_threshold": "2", "RAY_health_check_period_ms": "1000"}  # a lost node is noticed in seconds
    command = [sys.executable, "-m", "tests.support.two_nodes"]
    process = subprocess.Popen(command, env=environment | sensitive, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the cluster did not start"
        yield TwoNodes(process, environment | sensitive | {"RAY_ADDRESS": address, "DIGER_TEST_CLUSTER": str(process.pid)})
    finally:
        left = descendants(process.pid)
        process.communicate(timeout=60)  # the end of its input is its end
        for pid in left & descendants(1):
            os.kill(pid, 9)


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "lose":
            cluster.remove_node(second, allow_graceful=False)
        else:
            second = cluster.add_node(num_cpus=1)
        print(f"done {line.strip()}", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
