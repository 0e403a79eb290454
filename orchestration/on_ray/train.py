"""Training on Ray Train: the workers run the job's loop, checkpoints live in our store, and the result comes back through files.

Ray's own state is thrown away with the scratch directory: a training continues from the job's checkpoints (training/job.py).
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from diger_core.config import JointModelConfig
from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable
from diger_core.progress import Progress, Silent
from diger_core.training import checkpoint as checkpoints
from diger_core.training.checkpoint import Checkpoint
from diger_core.training.distributed import Distributed
from orchestration.engine import threads
from orchestration.on_ray.mailbox import Mailbox, MailboxProgress
from orchestration.on_ray.session import alongside, gpus_for, private, ray_session, root_cause
from orchestration.params.cluster import ClusterConfig
from orchestration.params.training import RefitConfig
from orchestration.training.job import Job, stage_job, train_job

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun


def launch_training(run: StageRun, joint: JointModelConfig, refit: RefitConfig | None = None) -> None:
    """Trains the stage's model on the configured cluster and writes its artefact's files into `run.out`.

    With 0 workers, and where the training is a short one, the loop runs in this process. Raises DigerError with the root cause in one line where
    training fails.
    """
    job = stage_job(run, joint, refit)
    cluster = _worth_workers(run, job)
    started = time.monotonic()
    checkpoints.sweep(job.checkpoints, run.progress)
    result = checkpoints.newest_valid(job.results, run.progress)
    if result is not None:
        run.progress.message(f"{job.stage}: an earlier attempt had finished the training; its result is taken")
    elif cluster.workers == 0:
        train_job(job, Distributed(), run.progress)
    else:
        try:
            run.note(starts=_on_ray(job, cluster, str(run.scratch / "ray"), run.progress))
        except BaseException:
            checkpoints.sweep(job.checkpoints, run.progress)  # its workers were killed, perhaps while they stored a checkpoint
            raise
    result = result or checkpoints.newest_valid(job.results, run.progress)
    if result is None:
        raise DigerError(f"{job.stage}: training ended without a result in {job.results}: run it again with --debug")
    _write(run, job, result)
    state = result.state
    seconds = round(time.monotonic() - started, 3)
    run.note(training_seconds=seconds, workers=cluster.workers, rows_per_second=round(state["rows_per_second"], 1), **state.get("memory", {}))


def _worth_workers(run: StageRun, job: Job) -> ClusterConfig:
    """The configured cluster; without its workers for a training that takes less time than their start (`cluster.short_training`)."""
    cluster = run.params.cluster
    if not (cluster.workers and cluster.short_training):
        return cluster
    shown = run.inputs["sequences"].facts["events"] * job.model.training.epochs
    if shown > cluster.short_training:
        return cluster
    told = f"{shown:,} events in all, so it is trained in this process (cluster.short_training: {cluster.short_training:,})"
    run.progress.message(f"{job.stage}: {told}")
    return replace(cluster, workers=0, min_workers=None)


def _write(run: StageRun, job: Job, result: Checkpoint) -> None:
    from orchestration.champion.model_artefact import write_model

    tensors = {f"{part}.{name}": value for part in ("recommender", "tokenizer", "items") for name, value in result.tensors[part].items()}
    state, table = result.state, IdTable(result.tensors["table"]["codes"], result.tensors["table"]["suffix"])
    config = {
        "recommender": asdict(job.model.recommender),
        "training": asdict(job.model.training),
        "joint_model": asdict(job.model.joint),
        "semantic_ids": asdict(job.model.table),
        **{name: state[name] for name in ("tokenizer", "codes", "levels", "suffixes", "best_epoch", "alarm")},
    }
    item_ids = run.inputs["sequences"].table("items.parquet").column("item_id")
    assignment = write_model(run.out, tensors, config, item_ids, table, state["curves"], result.tensors["table"].get("usage"))
    best: dict[str, Any] = next((row for row in state["curves"] if row["epoch"] == state["best_epoch"]), {})
    shown = {name: best.get(name) for name in ("validation_recall_10", "validation_ndcg_10", "unique_prefixes", "loss_gen")}
    if state["best_epoch"] == 0 and state["best_ndcg"] >= 0:
        shown["validation_ndcg_10"] = state["best_ndcg"]  # no epoch was better than the warm start
    run.facts(epochs=len(state["curves"]), best_epoch=state["best_epoch"], alarm=state["alarm"], assignment_hash=assignment, **shown)


# On Ray Train


def _worker(config: dict[str, Any]) -> None:
    """One rank. A DigerError is final: it is told to the driver, and the attempt that Ray then makes ends at once on every rank."""
    import ray

    job, mailbox = ray.get(config["job"]), config["mailbox"]
    ranks = Distributed.current()
    if ray.get(mailbox.start.remote() if ranks.main else mailbox.failed.remote()) is not None:
        return
    if config["gpu"]:
        import torch
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    try:
        if checkpoints.newest_valid(job.results) is None:
            train_job(job, ranks, MailboxProgress(mailbox) if ranks.main else Silent())
    except DigerError as error:
        ray.get(mailbox.fail.remote(str(error)))
        raise


def _on_ray(job: Job, cluster: ClusterConfig, storage: str, progress: Progress) -> int:
    """Runs the job on Ray Train and returns how often rank 0 was started. The calling thread delivers the progress, so an interrupt reaches it."""
    with ray_session(cluster) as ray:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        gpu = gpus_for(ray, cluster)
        if job.model.training.device == "cuda" and not gpu:
            raise DigerError(
                f"training.device = 'cuda', but {cluster.workers} workers do not get a GPU each: set training.device=auto or cluster.workers"
            )
        device = job.model.training.device if gpu else "cpu"
        job = replace(job.with_training(device=device), threads=_threads(ray, cluster))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # it must not be lost with another node
        mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()
        # The job by reference: its class would have the controller import torch, a second before the workers start.
        trainer = _trainer({"job": ray.put(job), "mailbox": mailbox, "gpu": gpu}, job, cluster, gpu, storage)
        failed = alongside(f"fit-{job.stage}", trainer.fit, lambda: _deliver(ray, mailbox, progress), stop=lambda: _end_controller(ray, mailbox))
        failure, starts = _deliver(ray, mailbox, progress)
        ray.kill(mailbox)
    if failure is not None:
        raise DigerError(failure)
    if failed is not None:
        raise DigerError(f"{job.stage}: training failed: {root_cause(failed)}") from failed
    return starts


def _trainer(config: dict[str, Any], job: Job, cluster: ClusterConfig, gpu: bool, storage: str) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    # The placement group's cleaner is a detached actor that shall remove the group of a killed controller: it cannot end itself, and so outlived
    # every terminated run on a shared cluster. The group belongs to the controller and goes with it. The manager of data sets is an actor that no
    # run of ours needs: workers open the store themselves, and its start takes a second before they begin.
    left_out = (PlacementGroupCleanerCallback, DatasetsCallback)

    class Trainer(TorchTrainer):
        """Without two actors of Ray Train."""

        def _create_default_callbacks(self) -> list[Any]:
            made = super()._create_default_callbacks()  # type: ignore[misc] # type checkers see the older class
            return [each for each in made if not isinstance(each, left_out)]

    least = cluster.workers if cluster.min_workers is None else cluster.min_workers
    size: Any = cluster.workers if least == cluster.workers else (least, cluster.workers)  # ray.train re-exports the older class to type checkers
    return Trainer(
        _worker,
        train_loop_config=config,
        torch_config=_process_group("nccl" if gpu else "gloo", storage),
        scaling_config=ScalingConfig(num_workers=size, use_gpu=gpu),
        run_config=RunConfig(
            name=f"{job.stage}-{job.key[:16]}",
            storage_path=storage,
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            callbacks=[_tells_its_controller(config["mailbox"])],
        ),  # fmt: skip
    )


def _process_group(backend: str, folder: str) -> Any:
    from ray.train.torch import TorchConfig

    if not private():
        return TorchConfig(backend=backend)  # the cluster's network is its owner's
    from orchestration.on_ray.loopback import LoopbackConfig

    os.makedirs(folder, mode=0o700, exist_ok=True)
    return LoopbackConfig(backend=backend, folder=os.path.abspath(folder))


def _tells_its_controller(mailbox: Any) -> Any:
    from ray.train.v2._internal.execution.callback import ControllerCallback

    class TellsItsController(ControllerCallback):
        """Runs in the actor that leads the training: the only one whose end makes `fit` return."""

        def after_controller_start(self, train_run_context: Any) -> None:
            import ray

            mailbox.controlled_by.remote(ray.get_runtime_context().current_actor)

    return TellsItsController()


def _end_controller(ray: Any, mailbox: Any) -> None:
    """Ends the training at once: its workers go with their controller. One that has not started yet ends with Ray."""
    with contextlib.suppress(ray.exceptions.RayError):
        controller = ray.get(mailbox.its_controller.remote(), timeout=2)
        if controller is not None:
            ray.kill(controller)


def _deliver(ray: Any, mailbox: Any, progress: Progress) -> tuple[str | None, int]:
    messages, updates, failure, starts = ray.get(mailbox.take.remote())
    for text in messages:
        progress.message(text)
    for what, (done, total, values) in updates.items():
        progress.update(what, done, total, **values)
    return failure, starts


def _threads(ray: Any, cluster: ClusterConfig) -> int:
    """Torch threads of each worker: the cluster's cores, shared out, unless the environment tells a number."""
    return threads.for_each(cluster.workers, int(ray.cluster_resources().get("CPU", 1)))
