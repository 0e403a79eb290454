"""Ray: one private cluster per process, batched work that gives the same array as without it, and clear refusals."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest

from diger_core.errors import DigerError
from diger_core.progress import Silent
from diger_core.store.owner import Owner, ended
from orchestration.engine.scratch import family
from orchestration.features import encoders
from orchestration.features.encoders import EmbeddingsConfig
from orchestration.on_ray import data
from orchestration.on_ray import session as ray_session
from orchestration.on_ray.data import map_batches_to_numpy, map_shards
from orchestration.params.cluster import ClusterConfig


def test_ray_client_addresses_are_refused_with_the_advice() -> None:
    with pytest.raises(DigerError, match="submit the run as a job"), ray_session.ray_session(ClusterConfig(address="ray://somewhere:10001")):
        pass


def test_ray_client_address_in_the_environment_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://somewhere:10001")
    with pytest.raises(DigerError, match="submit the run as a job"), ray_session.ray_session(ClusterConfig()):
        pass


def test_a_cluster_that_is_not_there_is_told_at_once() -> None:
    ray_session.shutdown()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = f"'{address}': nobody answers there .*check cluster.address or RAY_ADDRESS"
        with pytest.raises(DigerError, match=told), ray_session.ray_session(ClusterConfig(address=address)):
            pass


@pytest.mark.parametrize("values", [{"workers": -1}, {"object_store_mb": 10}, {"max_failures": -1}, {"gpus": -2}])
def test_out_of_range_cluster_values_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        ClusterConfig(**values)


def test_the_temporary_directory_leaves_room_for_ray_s_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 60)
    assert ray_session._short_directory() == "/tmp"


def test_batches_in_this_process_need_no_ray() -> None:
    texts = [f"item {i}" for i in range(50)]
    config = EmbeddingsConfig(dimensions=4)
    encoder = encoders.fit(config, texts)
    out = map_batches_to_numpy(encoders.encode_function, (config, encoder.state()), texts, encoder.width, ClusterConfig(workers=0), batch_size=7)
    np.testing.assert_array_equal(out, encoder.encode(texts))


def test_ray_data_restores_the_order_and_gives_the_same_bits_as_one_process() -> None:
    texts = [f"shoe number {i} of brand {i % 7} in colour {i % 11}" for i in range(1000)]
    config = EmbeddingsConfig(dimensions=16)
    encoder = encoders.fit(config, texts)
    seen: list[int] = []

    class Progress:
        def update(self, what: str, done: int, total: int | None = None, **values: object) -> None:
            seen.append(done)

        def message(self, text: str) -> None:
            return None

    arguments = (config, encoder.state())
    out = map_batches_to_numpy(encoders.encode_function, arguments, texts, encoder.width, ClusterConfig(), batch_size=100, progress=Progress())
    np.testing.assert_array_equal(out, encoder.encode(texts))
    assert seen[-1] == 1000
    assert len(seen) > 3


def _dies_once(marker: str) -> Callable[[Sequence[str]], np.ndarray]:
    def encode(texts: Sequence[str]) -> np.ndarray:
        if not os.path.exists(marker):
            with open(marker, "w"):
                os._exit(1)
        return np.array([[float(len(text))] for text in texts], dtype=np.float32)

    return encode


def _refuses() -> Callable[[Sequence[str]], np.ndarray]:
    def encode(texts: Sequence[str]) -> np.ndarray:
        raise DigerError("item 'x': cannot be encoded: correct its text")

    return encode


def test_a_lost_worker_costs_a_new_start_and_a_fault_of_the_data_is_told(tmp_path) -> None:
    out = map_batches_to_numpy(_dies_once, (str(tmp_path / "marker"),), ["a", "bb", "ccc"], 1, ClusterConfig(workers=1))
    np.testing.assert_array_equal(out, [[1], [2], [3]])
    with pytest.raises(DigerError, match=r"^item 'x': cannot be encoded: correct its text$"):
        map_batches_to_numpy(_refuses, (), ["a"], 1, ClusterConfig(workers=1))


class _Faults:
    """Work that meets the given faults, one a start, and then ends well; `clusters` counts the private clusters that were given up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *faults: Exception) -> None:
        self.faults, self.clusters, self.messages = list(faults), 0, list[str]()
        monkeypatch.setattr(data, "ray_session", lambda cluster: contextlib.nullcontext())
        monkeypatch.setattr(data, "private", lambda: True)
        monkeypatch.setattr(data, "shutdown", self.shutdown)

    def shutdown(self) -> None:
        self.clusters += 1

    def once(self, ray: object) -> None:
        if self.faults:
            raise self.faults.pop(0)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def run(self, max_failures: int = 2) -> None:
        cluster = ClusterConfig(max_failures=max_failures)
        data._with_restarts(self.once, cluster, self, "lists", lambda: "once more", "look here")  # type: ignore[arg-type]


def _of_ray_data(error: Exception) -> Exception:
    """As Ray Data raises a fault of its own: any type, the mark is the cause."""
    from ray.data.exceptions import SystemException

    error.__cause__ = SystemException()
    return error


def test_faults_of_ray_cost_new_starts_and_the_second_one_a_new_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import GetTimeoutError

    work = _Faults(monkeypatch, GetTimeoutError("no answer"), _of_ray_data(ValueError("no such actor")))
    work.run()
    assert work.clusters == 1
    assert [text.partition("(")[2] for text in work.messages] == ["GetTimeoutError: no answer); once more", "ValueError: no such actor); once more"]


def test_the_last_fault_of_ray_is_told_with_the_remedy_and_one_of_the_callers_own_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DigerError, match=r"^lists: ValueError: second: look here$"):
        _Faults(monkeypatch, _of_ray_data(ValueError("first")), _of_ray_data(ValueError("second"))).run(max_failures=1)
    work = _Faults(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        work.run()
    assert work.messages == []


def _up_to() -> Callable[[int], pa.Table]:
    return lambda shard: pa.table({"value": pa.array(range(shard), pa.int32())})


def test_shards_come_back_whole_also_those_without_rows() -> None:
    kept: dict[int, pa.Table] = {}
    map_shards(_up_to, (), [0, 1, 3], ClusterConfig(workers=2), lambda shard, rows: kept.update({shard: rows}), Silent(), "counting")
    assert {shard: rows["value"].to_pylist() for shard, rows in kept.items()} == {0: [], 1: [0], 3: [0, 1, 2]}
    assert kept[0].schema == kept[3].schema


def test_one_private_cluster_serves_the_whole_process_and_leaves_nothing_behind() -> None:
    with ray_session.ray_session(ClusterConfig()) as ray:
        first = ray.get_runtime_context().get_node_id()
        ray.put(1)
        assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    with ray_session.ray_session(ClusterConfig(workers=1)) as ray:
        assert ray.get_runtime_context().get_node_id() == first
    directory = ray_session._State.directory
    assert directory is not None
    assert os.path.isdir(directory)
    ray_session.shutdown()
    assert not os.path.exists(directory)
    assert not ray.is_initialized()
    with pytest.raises(Exception, match="[Nn]ot been started|ray.init"):
        ray.put(1)  # by itself it would start a cluster
    assert not ray.is_initialized()


def test_an_interrupted_stage_leaves_no_thread_no_cluster_and_no_process() -> None:
    started: list[Owner] = []

    class Sleeper:
        def sleep(self) -> None:
            time.sleep(600)

    with ray_session.ray_session(ClusterConfig(workers=1)) as ray:
        actor = ray.remote(Sleeper).remote()

        def interrupted() -> None:
            started.extend(family(str(ray_session._State.directory)))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ray_session.alongside("fit-test", lambda: ray.get(actor.sleep.remote()), interrupted, stop=lambda: ray.kill(actor))
    assert started
    deadline = time.monotonic() + 5  # killed ones go when the kernel gets to it
    while time.monotonic() < deadline and not all(ended(each) for each in started):
        time.sleep(0.1)
    assert [each for each in started if not ended(each)] == []
    assert not ray.is_initialized()
    assert "fit-test" not in {thread.name for thread in threading.enumerate()}


class _SlowRay:
    """Stands for a Ray whose first starts take too long."""

    def __init__(self, slow: int) -> None:
        self.slow, self.directories = slow, list[str]()

    def init(self, _temp_dir: str, **options: object) -> None:
        self.directories.append(_temp_dir)
        if len(self.directories) <= self.slow:
            raise RuntimeError("The current node timed out during startup. This could happen because ...")

    def shutdown(self, wait_for_processes: bool) -> None:
        assert wait_for_processes


def test_a_start_that_was_too_slow_is_tried_once_more_and_leaves_nothing() -> None:
    ray_session.shutdown()
    busy = _SlowRay(1)
    ray_session._start(busy, "local", ClusterConfig())
    assert [os.path.isdir(each) for each in busy.directories] == [False, True]
    ray_session._shutdown(busy)
    too_busy = _SlowRay(2)
    with pytest.raises(DigerError, match=r"^Ray does not start at 'local': The current node timed out .*cluster.workers=0"):
        ray_session._start(too_busy, "local", ClusterConfig())
    assert [os.path.isdir(each) for each in (*busy.directories, *too_busy.directories)] == [False] * 4


def test_a_private_cluster_listens_on_loopback_even_where_ray_was_imported_before() -> None:
    script = """
import ray, psutil
from orchestration.on_ray.session import ray_session, shutdown
from orchestration.params.cluster import ClusterConfig
with ray_session(ClusterConfig(workers=1)):
    mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {c.laddr.ip.removeprefix("::ffff:") for process in mine for c in process.net_connections("inet") if c.status == "LISTEN"}
shutdown()
print("LISTENING", sorted(listening))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip().endswith("LISTENING ['127.0.0.1']"), done.stdout + done.stderr
