"""The state of a training run, and how it begins.

`TrainingState` is all that training changes; `StepContext` is what every step reads beside it. The loop, the reference step and the CUDA graphs
(`diger_core/fast/captured.py`) work on these two; `resume.py`
turns the state into a checkpoint and back.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from diger_core.config import JointModelConfig, ModelConfig, RecommenderConfig
from diger_core.data.batches import Batches
from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable
from diger_core.recommender.model import Recommender
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.checkpoint import Tensors
from diger_core.training.inputs import TrainingInputs, fingerprint
from diger_core.training.joint_step import LOSSES, PER_LEVEL, ItemTensors
from diger_core.training.monitors import GradientAlarm, code_counts
from diger_core.training.optimisation import Optimisation
from diger_core.training.schedules import Schedule, State, build_schedule
from diger_core.training.table_refresh import TableRefresh, suffix_values


@dataclass
class Position:
    """The next batch to train on, and how many evaluations ago the best one was."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    stale: int = 0
    last_from: int = -1  # epochs before the last stage; -1: it has not begun


@dataclass(frozen=True)
class Best:
    """A copy of the best evaluated state and of the ID table it was evaluated with. Epoch 0: the start."""

    recommender: Tensors
    tokenizer: Tensors
    table: IdTable
    epoch: int = 0
    ndcg: float = -1.0

    @classmethod
    def of(cls, recommender: Recommender, tokenizer: Tokenizer, table: IdTable, epoch: int = 0, ndcg: float = -1.0) -> Best:
        copies = [{name: value.detach().clone() for name, value in module.state_dict().items()} for module in (recommender, tokenizer)]
        return cls(copies[0], copies[1], table, epoch, ndcg)

    def load(self, recommender: Recommender, tokenizer: Tokenizer) -> IdTable:
        recommender.load_state_dict(self.recommender)
        tokenizer.load_state_dict(self.tokenizer)
        return self.table


@dataclass(frozen=True)
class StepContext:
    """What every step reads and none changes, but for the ID table in `items`, which the end of an epoch overwrites in place."""

    config: ModelConfig
    batches: Batches
    items: ItemTensors
    schedule: Schedule
    first_step: int = 0  # of the run: where a last stage began

    @property
    def total_steps(self) -> int:
        """Steps of the run up to the end of this context's epochs."""
        return self.first_step + self.config.training.epochs * len(self.batches)


@dataclass
class TrainingState:
    """All that training changes. Together with the ranks' random generators this is exactly what a checkpoint holds."""

    fingerprint: str  # of the inputs and the configuration: a checkpoint with another one is refused
    recommender: Recommender
    tokenizer: Tokenizer
    optimisation: Optimisation
    schedule: State  # {} where the tokenizer is frozen
    table: IdTable  # after the last epoch
    sums: Tensor  # over the epoch's steps: LOSSES, PER_LEVEL for each level, gradient norms
    usage: list[Tensor]  # int32 [M, K]: items on each code, before training and after each epoch
    best: Best
    gradients: GradientAlarm
    position: Position = field(default_factory=Position)
    curves: list[dict[str, Any]] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return self.sums.device

    def train(self, mode: bool = True) -> None:
        self.recommender.train(mode)
        self.tokenizer.train(mode)

    def code_usage(self) -> Tensor:
        """int32 [M, K]: items on each code of the current ID table."""
        return code_counts(self.table.codes_NM, self.tokenizer.codes).to("cpu", torch.int32)

    def keep_best(self, epoch: int, ndcg: float) -> None:
        """Copies the present state as the best one so far."""
        self.best = Best.of(self.recommender, self.tokenizer, self.table, epoch, ndcg)


def begin(inputs: TrainingInputs, config: ModelConfig, refresh: TableRefresh, device: torch.device) -> tuple[TrainingState, StepContext]:
    """The state before the first step, its models on `device` and its ID table by the tokenizer's codebooks, and what its steps read."""
    training, tokenizer = config.training, learning_copy(inputs.tokenizer, config.joint).to(device)
    batches = Batches(
        inputs.sequences,
        training.batch_size,
        config.recommender.history,
        training.seed,
        distillation=inputs.distillation,
        crop=training.crop,
        synthetic=inputs.synthetic,
    )
    total_steps = training.epochs * len(batches)
    recommender = built_recommender(config.recommender, inputs.tokenizer, training.seed, inputs.start).to(device)
    schedule = build_schedule(config.joint.schedule, tokenizer.codes, total_steps)
    if inputs.table is not None and config.learns:
        raise ValueError("TrainingInputs.table: a given ID table needs joint.tokenizer frozen")
    table = inputs.table if inputs.table is not None else refresh(tokenizer, None)
    state = TrainingState(
        fingerprint=fingerprint(inputs, config),
        recommender=recommender,
        tokenizer=tokenizer,
        optimisation=Optimisation(recommender, tokenizer, training, config.joint, total_steps),
        schedule=schedule.initial(tokenizer.levels, tokenizer.codes, total_steps, device) if config.learns else {},
        table=table,
        sums=torch.zeros(len(LOSSES) + len(PER_LEVEL) * tokenizer.levels + 1, device=device),
        usage=[],
        best=Best.of(recommender, tokenizer, table),
        gradients=GradientAlarm(training.gradient_alarm),
    )
    state.usage.append(state.code_usage())
    return state, StepContext(config, batches, refresh.item_tensors(tokenizer, table), schedule)


def last_stage(state: TrainingState, context: StepContext, refresh: TableRefresh, epochs_before: int) -> StepContext:
    """What the steps of the last stage read: the tokenizer stands still, and the recommender has a new optimiser with rates of its own."""
    config, steps = context.config, len(context.batches)
    training = config.training
    rate = training.last_stage_learning_rate or training.learning_rate / 3
    alone = replace(
        config,
        training=replace(training, epochs=training.last_stage_epochs, learning_rate=rate),
        joint=replace(config.joint, tokenizer="frozen"),
    )
    state.tokenizer.requires_grad_(False)
    state.tokenizer.zero_grad(set_to_none=True)
    first, total = epochs_before * steps, training.last_stage_epochs * steps
    state.optimisation = Optimisation(state.recommender, state.tokenizer, alone.training, alone.joint, total, first)
    codes_NM, suffix_N = refresh.on_device(state.table)
    return StepContext(alone, context.batches, ItemTensors(codes_NM, suffix_N, refresh.z(state.tokenizer)), context.schedule, first)


def learning_copy(tokenizer: Tokenizer, joint: JointModelConfig) -> Tokenizer:
    """A copy whose parameters ask for a gradient exactly where they learn."""
    prepared = copy.deepcopy(tokenizer)
    for name, parameter in prepared.named_parameters():
        learns = joint.tokenizer == "joint" and (name == "codebooks" or joint.train_encoder)
        parameter.requires_grad_(learns)
    return prepared


def built_recommender(config: RecommenderConfig, tokenizer: Tokenizer, seed: int, start: Mapping[str, Tensor] | None) -> Recommender:
    """A recommender whose initial weights depend on the seed alone, not on the rank; or the one whose tensors are `start`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = Recommender(config, tokenizer.codes, tokenizer.levels, suffix_values(tokenizer))
    if start is not None:
        wanted, found = ({name: tuple(t.shape) for name, t in tensors.items()} for tensors in (built.state_dict(), start))
        if wanted != found:
            name = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))[0]
            raise DigerError(
                f"warm start: the baseline's recommender has {name} of shape {found.get(name, 'none')}, these params ask for "
                f"{wanted.get(name, 'none')}: keep the recommender's and the tokenizer's sizes, or set retraining.start=scratch"
            )
        built.load_state_dict(start)
    return built
