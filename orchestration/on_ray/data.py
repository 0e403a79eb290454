"""Batched work on Ray Data: a function over texts, run by a pool of actors that load it once, into one array in the texts' order."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from diger_core.errors import DigerError
from diger_core.progress import Progress, Silent
from orchestration.engine.threads import for_each
from orchestration.on_ray.session import gpus_for, private, ray_session, root_cause, shutdown, told_by_worker
from orchestration.params.cluster import ClusterConfig

Function = Callable[[Sequence[str]], np.ndarray]


class _Actor:
    """Builds the function once per worker; its arguments come through the object store."""

    def __init__(self, make: Callable[..., Function], argument_refs: list[Any]):
        import ray

        self.function = make(*ray.get(argument_refs))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"row": batch["row"], "value": self.function(list(batch["text"]))}


def map_batches_to_numpy(
    make: Callable[..., Function],
    arguments: Sequence[Any],
    texts: Sequence[str],
    width: int,
    cluster: ClusterConfig,
    batch_size: int = 512,
    progress: Progress | None = None,
    what: str = "embeddings",
    gpu: bool = False,
) -> np.ndarray:
    """`make(*arguments)` is built once in each of `cluster.workers` actors and called on batches of `texts` [n] -> float32 [n, width].

    With 0 workers it runs in this process; with `gpu`, each actor holds a GPU where the cluster has enough of them. The result does not
    depend on the number of workers as long as the function treats each text by itself.
    """
    progress = progress or Silent()
    out_nD = np.empty((len(texts), width), dtype=np.float32)
    if not texts:
        return out_nD
    if cluster.workers == 0:
        function = make(*arguments)
        for start in range(0, len(texts), batch_size):
            out_nD[start : start + batch_size] = function(texts[start : start + batch_size])
            progress.update(what, min(start + batch_size, len(texts)), len(texts))
        return out_nD

    def once(ray: Any) -> None:
        _collect(_dataset(ray, make, arguments, texts, cluster, batch_size, gpu), out_nD, progress, what)

    _with_restarts(once, cluster, progress, what, lambda: "the extraction starts again", "run it again with --debug, or with cluster.workers=0")
    return out_nD


def _with_restarts(once: Callable[[Any], None], cluster: ClusterConfig, progress: Progress, what: str, then: Callable[[], str], remedy: str) -> None:
    """Calls `once(ray)`, and again after the loss of a worker or another fault of Ray's own, at most `cluster.max_failures` times.

    A second fault in a row may be the cluster's: from then on each start gets a private cluster of its own. Raises DigerError: at once for
    what the work itself has told, otherwise for the last fault; `then` says what a new start does, `remedy` what is left to the user.
    """
    for failures in range(1, cluster.max_failures + 2):
        with ray_session(cluster) as ray:
            try:
                return once(ray)
            except Exception as error:
                if not _of_ray(error):
                    raise
                told = told_by_worker(error)
                if told is not None:
                    raise DigerError(told) from error
                if failures > cluster.max_failures:
                    raise DigerError(f"{what}: {root_cause(error)}: {remedy}") from error
                progress.message(f"warning: {what}: a worker was lost ({root_cause(error)}); {then()}")
        if failures > 1 and private():
            shutdown()


def _of_ray(error: Exception) -> bool:
    """Whether Ray, or a function that it has run, raised it: Ray Data marks what comes from its own code by the cause, whatever the type."""
    from ray.data.exceptions import SystemException
    from ray.exceptions import RayError

    return isinstance(error, RayError) or isinstance(error.__cause__, SystemException)


def _no_restarts() -> dict[str, Any]:
    return {"max_restarts": 0}


def _collect(dataset: Any, out_nD: np.ndarray, progress: Progress, what: str) -> None:
    done = 0
    for batch in dataset.iter_batches(batch_size=None, batch_format="numpy"):
        out_nD[batch["row"]] = batch["value"]
        done += len(batch["row"])
        progress.update(what, done, len(out_nD))
    if done != len(out_nD):
        raise RuntimeError(f"Ray Data returned {done} of {len(out_nD)} rows")


def _dataset(
    ray: Any, make: Callable[..., Function], arguments: Sequence[Any], texts: Sequence[str], cluster: ClusterConfig, batch_size: int, gpu: bool
) -> Any:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its warnings speak of its own scheduling, its errors are raised and told here
    table = pa.table({"row": np.arange(len(texts), dtype=np.int64), "text": pa.array(texts, pa.large_string())})
    blocks = [table.slice(start, batch_size) for start in range(0, len(texts), batch_size)]
    refs = [ray.put(argument) for argument in arguments]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(ray_remote_args_fn|deprecated)")  # the lock pins this Ray
        return ray.data.from_arrow(blocks).map_batches(
            _Actor,
            fn_constructor_args=(make, refs),
            batch_size=batch_size,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=min(cluster.workers, len(blocks))),
            # A restarted actor may not find its arguments again; a lost worker costs one new start instead.
            ray_remote_args_fn=_no_restarts,
            num_gpus=1 if gpu and gpus_for(ray, cluster) else None,
        )


# Shards: a number goes in, a table comes out


class _ShardActor:
    """Builds the function once per worker and calls it on one shard's number at a time."""

    def __init__(self, make: Callable[..., Callable[[int], pa.Table]], arguments: Sequence[Any], threads: int):
        import torch

        torch.set_num_threads(threads)
        self.function = make(*arguments)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows, stream = self.function(batch["shard"][0].as_py()), pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, rows.schema) as writer:
            writer.write_table(rows)
        # one row a shard, whatever it holds: a table without rows would get lost between Ray Data's blocks
        return batch.select(["shard"]).append_column("rows", pa.array([stream.getvalue().to_pybytes()], pa.large_binary()))


def map_shards(
    make: Callable[..., Callable[[int], pa.Table]],
    arguments: Sequence[Any],
    shards: Sequence[int],
    cluster: ClusterConfig,
    keep: Callable[[int, pa.Table], None],
    progress: Progress,
    what: str,
    gpu: bool = False,
) -> None:
    """`make(*arguments)` is built once in each of `cluster.workers` actors and called on every shard's number; `keep` gets each table here, in
    whatever order they come. After the loss of a worker only what was not kept is computed again. With 0 workers it runs in this process; with
    `gpu`, each actor holds a GPU where the cluster has enough of them."""
    if cluster.workers == 0:
        function = make(*arguments)
        for shard in shards:
            keep(shard, function(shard))
        return
    left = list(shards)

    def kept(shard: int, rows: pa.Table) -> None:
        keep(shard, rows)
        left.remove(shard)

    def once(ray: Any) -> None:
        if left:
            _collect_shards(_shard_dataset(ray, make, arguments, left, cluster, gpu), kept)

    _with_restarts(once, cluster, progress, what, lambda: f"{len(left)} shards are computed again", "run it again; finished shards are kept")
    if left:
        raise RuntimeError(f"{what}: Ray Data returned nothing for the shards {left[:5]}")


def _collect_shards(dataset: Any, kept: Callable[[int, pa.Table], None]) -> None:
    for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        for shard, rows in zip(block["shard"].to_pylist(), block["rows"], strict=True):
            kept(shard, pa.ipc.open_stream(rows.as_buffer()).read_all())


def _shard_dataset(ray: Any, make: Callable[..., Any], arguments: Sequence[Any], shards: Sequence[int], cluster: ClusterConfig, gpu: bool) -> Any:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # as above
    workers = min(cluster.workers, len(shards))
    threads = for_each(workers, int(ray.cluster_resources().get("CPU", 1)))
    blocks = [pa.table({"shard": np.array([shard], dtype=np.int64)}) for shard in shards]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(ray_remote_args_fn|deprecated)")  # the lock pins this Ray
        return ray.data.from_arrow(blocks).map_batches(
            _ShardActor,
            fn_constructor_args=(make, arguments, threads),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            ray_remote_args_fn=_no_restarts,
            num_gpus=1 if gpu and gpus_for(ray, cluster) else None,
        )
