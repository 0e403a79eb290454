"""Training on Ray Train: the workers run the core's loop, checkpoints live in our store, and the result comes back through files.

One job per record key. Its checkpoints are `<store>/checkpoints/<record key>/<step>/`, so a run that is started again, by Ray, by Dagster
under a new run id or by hand, continues from the newest one that verifies. Ray's own state is thrown away with the scratch directory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from diger_core.config import JointModelConfig, ModelConfig, NeighboursConfig
from diger_core.data.sequences import Sequences
from diger_core.data.splits import to_the_end, training_rows
from diger_core.data.teacher import SyntheticHistories, TeacherTables, synthetic_rows, taught
from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable
from diger_core.progress import Progress, Silent
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from diger_core.tokenizer.rqvae import tokenizer_state
from diger_core.training import checkpoint as checkpoints
from diger_core.training.checkpoint import Checkpoint
from diger_core.training.distributed import Distributed
from diger_core.training.inputs import TrainingInputs
from orchestration.champion.baseline import BASELINE
from orchestration.engine import threads
from orchestration.engine.memory import PeakMemory
from orchestration.on_ray.mailbox import Mailbox, MailboxProgress
from orchestration.on_ray.session import alongside, gpus_for, private, ray_session, root_cause
from orchestration.params.cluster import ClusterConfig
from orchestration.params.training import RefitConfig, RetrainingConfig
from orchestration.training.warm_start import budget, from_baseline

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun

_SAVE_AGAIN_AFTER = (1.0, 4.0, 16.0)  # seconds


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know; it opens its inputs itself. Holds no secret."""

    store: str
    key: str
    stage: str
    inputs: Mapping[str, tuple[str, str]]  # name -> (stage, artefact hash)
    model: ModelConfig
    checkpoint_steps: int | None
    threads: int | None  # of torch, in each worker; None: this process's share of the machine
    retraining: RetrainingConfig = RetrainingConfig()  # counts where `inputs` hold a baseline
    neighbours: NeighboursConfig = NeighboursConfig()  # how the transitions of the input `neighbours` were counted
    refit: RefitConfig | None = None  # the input `joint_model` trained on over all events

    def with_training(self, **changes: Any) -> Job:
        """The job with other fields of its `TrainingConfig`."""
        return replace(self, model=replace(self.model, training=replace(self.model.training, **changes)))

    @property
    def checkpoints(self) -> str:
        return f"{self.store}/checkpoints/{self.key}"

    @property
    def results(self) -> str:
        return f"{self.checkpoints}/result"


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


def stage_job(run: StageRun, joint: JointModelConfig, refit: RefitConfig | None = None) -> Job:
    """The job of a stage's run."""
    root, params = run.store.root, run.params
    inputs = {name: (artefact.stage, artefact.hash) for name, artefact in run.inputs.items()}
    training = budget(params.training, params.retraining, BASELINE in inputs) if refit is None else refit.budget(params.training)
    return Job(
        root.base if root.is_local else root.url,
        run.key,
        run.stage.name,
        inputs,
        ModelConfig(params.recommender, training, joint, params.semantic_ids),
        params.cluster.checkpoint_steps,
        None,
        params.retraining,
        params.neighbours,
        refit,
    )


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


# On a worker (or in this process)


def training_inputs(job: Job, progress: Progress | None = None) -> TrainingInputs:
    """What the core's `train` needs from the store; a search's trials share it."""
    from orchestration.champion.bundle import load_bundle
    from orchestration.training.tokenizer import input_vectors, load_tokenizer

    store = Store(job.store)
    inputs = {name: store.artefact(stage, hash_) for name, (stage, hash_) in job.inputs.items()}
    found = TrainingInputs(
        vectors_ND=input_vectors(inputs["embeddings"], inputs["tokenizer"]),
        sequences=Sequences.from_tensors(inputs["sequences"].tensors("sequences.safetensors")),
        item_ids=inputs["sequences"].table("items.parquet").column("item_id").combine_chunks(),
        tokenizer=load_tokenizer(inputs["tokenizer"]),
    )
    if job.refit is not None:
        found = _refitted(found, inputs["joint_model"])
    if "neighbours" in inputs:
        found = _with_teacher(found, job, inputs["neighbours"], progress)
    return from_baseline(found, load_bundle(store, inputs[BASELINE].hash), job.retraining) if BASELINE in inputs else found


def _refitted(found: TrainingInputs, judged: Artefact) -> TrainingInputs:
    """All events are training; the judged model's tokenizer and table stand still."""
    from orchestration.champion.model_artefact import load_model

    model = load_model(judged)
    start = model.recommender.state_dict()
    return replace(found, sequences=to_the_end(found.sequences), tokenizer=model.tokenizer, table=model.table, start=start)


def _with_teacher(found: TrainingInputs, job: Job, neighbours: Artefact, progress: Progress | None) -> TrainingInputs:
    """The inputs with what the item-to-item tables teach."""
    from orchestration.features.neighbours import read_table

    config = job.model.training.teacher
    transitions = read_table(neighbours, "transitions" if job.refit is None else "transitions_end")
    tables = TeacherTables(transitions, read_table(neighbours, "text"), job.neighbours)
    synthetic = synthetic_rows(len(training_rows(found.sequences)[0]), config)
    return replace(
        found,
        distillation=taught(found.sequences, tables, config, progress) if config.share else None,
        synthetic=SyntheticHistories(tables, config, synthetic) if synthetic else None,
    )


def train_job(job: Job, ranks: Distributed, progress: Progress) -> None:
    """Runs the core's training loop from the newest valid checkpoint; rank 0 stores checkpoints and, at the end, the result."""
    import torch

    from diger_core.training.loop import train

    torch.set_num_threads(job.threads or min(threads.for_each(1), torch.get_num_threads()))
    memory = PeakMemory()
    trained = train(
        training_inputs(job, progress),
        job.model,
        distributed=ranks,
        progress=progress,
        on_checkpoint=lambda state: _save(job, ranks, state, progress),
        checkpoint_steps=job.checkpoint_steps,
        resume=_common_checkpoint(job, ranks, progress),
    )
    if not ranks.main:
        return
    suffixes = int(trained.recommender.token_tables[-1].shape[0])
    state = {
        "step": max((row["step"] for row in trained.curves), default=0),
        "curves": trained.curves,
        "best_epoch": trained.best_epoch,
        "best_ndcg": trained.best_ndcg,
        "alarm": trained.alarm,
        "rows_per_second": trained.rows_per_second,
        "memory": memory.mebibytes(),
        "tokenizer": tokenizer_state(trained.tokenizer)[1],
        "codes": trained.tokenizer.codes,
        "levels": trained.tokenizer.levels,
        "suffixes": suffixes,
    }
    usage = {} if trained.usage_EMK is None else {"usage": trained.usage_EMK}
    tensors = {
        "recommender": dict(trained.recommender.state_dict()),
        "tokenizer": dict(trained.tokenizer.state_dict()),
        "items": {} if trained.z_Ne is None else {"z": trained.z_Ne},
        "table": {"codes": trained.table.codes_NM, "suffix": trained.table.suffix_N, **usage},
    }
    Checkpoint(tensors, state).save(job.results)


def _save(job: Job, ranks: Distributed, state: Checkpoint, progress: Progress) -> None:
    """Stores a checkpoint. One that cannot be stored after several attempts is no reason to lose the training: a warning says so."""
    if not ranks.main:
        return
    for pause in (*_SAVE_AGAIN_AFTER, None):
        try:
            state.save(job.checkpoints)
            checkpoints.prune(job.checkpoints, job.model.training.checkpoints_kept)
            return
        except DigerError as error:
            if pause is None:
                progress.message(f"warning: {job.stage}: the checkpoint of step {state.step} was not stored, training continues without it: {error}")
                return
            time.sleep(pause)


def _common_checkpoint(job: Job, ranks: Distributed, progress: Progress) -> Checkpoint | None:
    """The newest checkpoint that verifies on every rank: a file that one node does not see yet must not set the ranks apart."""
    found = checkpoints.newest_valid(job.checkpoints, progress if ranks.main else Silent())
    if ranks.world == 1:
        return found
    import torch
    import torch.distributed as dist

    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    step = torch.tensor([-1 if found is None else found.step], device=device)
    dist.all_reduce(step, op=dist.ReduceOp.MIN)
    common = int(step)
    if common < 0:
        return None
    assert found is not None
    return found if found.step == common else checkpoints.load(f"{job.checkpoints}/{common:08d}")


# Launching


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
