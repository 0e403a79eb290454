"""A training as a job: what a process needs to know to train a stage's model, and the core's loop run on it.

One job per record key. Its checkpoints are `<store>/checkpoints/<record key>/<step>/`, so a run that is started again, by Ray, by Dagster
under a new run id or by hand, continues from the newest one that verifies. The process may be the stage's own or a worker of Ray Train.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diger_core.config import JointModelConfig, ModelConfig, NeighboursConfig
from diger_core.data.sequences import Sequences
from diger_core.data.splits import to_the_end, training_rows
from diger_core.data.teacher import SyntheticHistories, TeacherTables, synthetic_rows, taught
from diger_core.errors import DigerError
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
