"""How this project uses Ray: one private cluster per process, started when first needed, or a cluster that is already there.

Nothing here goes into job details or a runtime environment: workers on this machine inherit the driver's environment, so credentials stay there.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from diger_core.errors import DigerError
from orchestration.engine import threads
from orchestration.engine.scratch import end_processes, family, private_directory
from orchestration.on_ray.mailbox import POLL
from orchestration.params.cluster import ClusterConfig

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default workers run at niceness 15 and have a minute to start: beside other busy processes they hardly get a core.
    "RAY_worker_niceness": "0",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
}
# A cluster gets a fixed 30 seconds to start; on a machine that is busy just then a second try comes through.
_SLOW_START = "timed out during startup"
_CONNECT = 10.0  # seconds in which a cluster must answer
_PATIENCE = 3.0  # seconds that something gets to end by itself
# A Unix socket's path may have 107 bytes; Ray appends up to 72 (session name, "sockets", the socket's name) to its directory.
_LONGEST_BASE = 107 - 72 - len("/diger-12345678")


class _State:
    """What this process has started; guarded by `lock`."""

    lock = threading.Lock()
    owned = False
    directory: str | None = None
    cpus = 0


@contextlib.contextmanager
def ray_session(cluster: ClusterConfig) -> Iterator[Any]:
    """The `ray` module, connected. A private cluster is started once per process and kept for later stages, until `shutdown` or exit.

    Raises DigerError for a `ray://` address and where no cluster can be reached or started.
    """
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise DigerError(
            f"cluster.address {address}: Ray Client (ray://) does not carry training; submit the run as a job instead "
            "(cluster.address: http://HOST:8265)"
        )
    if address.startswith(("http://", "https://")):
        raise DigerError(
            f"cluster.address {address} is a job server: this work is not submitted there; give the cluster's host:port, or run the stage"
        )
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)  # read by Ray at import, and inherited by its processes
    if address == "local" and "ray" not in sys.modules:
        _keep_private()
    import ray
    from ray._private import auto_init_hook

    # By default any call of Ray's API starts a cluster where there is none: a thread that outlives its cluster would start one of its own, with
    # Ray's defaults, which the next stage takes for its own and which dies with that thread, and this process with it.
    auto_init_hook.enable_auto_connect = False
    with _State.lock:
        if _State.owned and ray.is_initialized() and address == "local" and _State.cpus < cluster.workers:
            _shutdown(ray)  # started for fewer workers than are wanted now
        if not ray.is_initialized():
            _check_reachable(address)
            _start(ray, address, cluster)
    yield ray


def _check_reachable(address: str) -> None:
    """DigerError where nobody listens at host:port: Ray itself tries again for minutes, without a word."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise DigerError(f"Ray does not start at {address!r}: nobody answers there ({error}): {_remedy(address)}") from error


def _keep_private() -> None:
    """Settings that Ray reads at import: listen on 127.0.0.1 only, and a token that stays with this process and its children.

    By default Ray listens on every interface, and writes its token into the home directory, readable by all.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # despite its name: "this node belongs to no cluster of several machines"
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def _start(ray: Any, address: str, cluster: ClusterConfig) -> None:
    for last in (False, True):
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.WARNING}
        try:
            ray.init(**options, **(_private_options(cluster) if address == "local" else {}))
            break
        except BaseException as error:
            _shutdown(ray)  # also where an interrupt comes in between: some of its processes may run already
            if not isinstance(error, Exception):
                raise
            if last or address != "local" or _SLOW_START not in str(error):
                raise DigerError(f"Ray does not start at {address!r}: {_reason(error)}: {_remedy(address)}") from error
    _State.owned = True
    atexit.register(shutdown)


def _private_options(cluster: ClusterConfig) -> dict[str, Any]:
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False  # as `_keep_private` says it, also where something had imported Ray before
    _State.cpus = max(threads.cores(), cluster.workers, 1)
    _State.directory = str(private_directory("diger-", _short_directory()))
    return {
        "num_cpus": _State.cpus,
        "include_dashboard": cluster.dashboard,
        "dashboard_host": "127.0.0.1",
        "object_store_memory": cluster.object_store_mb * 1024 * 1024,
        "_temp_dir": _State.directory,
    } | ({} if cluster.gpus == "auto" else {"num_gpus": cluster.gpus})


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _remedy(address: str) -> str:
    if address != "local":
        return "check cluster.address or RAY_ADDRESS"
    return "check free memory and the temporary directory (TMPDIR), or do without Ray (--set cluster.workers=0)"


def private() -> bool:
    """Whether the cluster that this process is connected to is its own, on this machine and on loopback."""
    return _State.owned and _State.directory is not None


def shutdown() -> None:
    """Ends what this process started: its private cluster, or its connection to another. Never other people's Ray processes."""
    with _State.lock:
        if _State.owned:
            import ray

            _shutdown(ray)


def _shutdown(ray: Any) -> None:
    """Returns when the private cluster's servers and workers have ended: those that do not within `_PATIENCE` seconds are killed."""
    started = [] if _State.directory is None else family(_State.directory)
    ray.shutdown(wait_for_processes=True)
    _State.owned = False
    if _State.directory is not None:
        end_processes(started, _PATIENCE)
        shutil.rmtree(_State.directory, ignore_errors=True)
        _State.directory = None


def alongside(name: str, work: Callable[[], Any], meanwhile: Callable[[], Any], stop: Callable[[], Any]) -> BaseException | None:
    """Runs `work`, which blocks on Ray, in a thread, and calls `meanwhile` again and again from this one, which an interrupt therefore reaches.

    Returns what `work` has raised, if anything. Where this thread is interrupted, `stop` makes the work end, Ray is shut down, and nothing of
    either is left: a thread of an ended cluster must not meet the next one.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread, which raises it; Ray also raises SystemExit here
            failures.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(POLL)
            meanwhile()
    except BaseException:
        try:
            stop()
            thread.join(_PATIENCE)
        finally:
            shutdown()  # ends what this process has running on Ray, and nothing else
            thread.join(_PATIENCE)  # without a cluster its next call fails
        raise
    return failures[0] if failures else None


def gpus_for(ray: Any, cluster: ClusterConfig) -> bool:
    """Whether each worker gets a GPU of its own. Raises DigerError where the configuration demands GPUs that the cluster lacks."""
    available = int(ray.cluster_resources().get("GPU", 0))
    if cluster.gpus == "auto":
        return 0 < cluster.workers <= available
    if cluster.gpus and available < cluster.workers:
        wanted = f"cluster.gpus = {cluster.gpus} with {cluster.workers} workers"
        raise DigerError(f"{wanted}, but the cluster has {available} GPUs: set cluster.gpus=auto or 0")
    return bool(cluster.gpus)


def told_by_worker(error: BaseException) -> str | None:
    """The message of the DigerError that a worker raised. Ray carries the cause of an exception as text only."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line.partition("DigerError: ")[2] for line in reversed(lines) if line.startswith("diger_core.errors.DigerError: ")), None)


def root_cause(error: BaseException) -> str:
    """The worker's own exception in one line; where several workers failed the first one's, because the others mostly echo it."""
    failures = getattr(error, "worker_failures", None)
    rank, cause = sorted(failures.items())[0] if failures else (None, error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    exceptions = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    told = exceptions[-1] if exceptions else f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
    return told if rank is None else f"worker {rank}: {told}"


def _short_directory() -> str:
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return base if len(base.encode()) <= _LONGEST_BASE else "/tmp"
