"""The training loop of `frozen_model` and `joint_model`: one loop, whose step differs (docs/method.md, sections 3, 5 and 7).

    every step:   share of rows -> losses -> gradients summed over the ranks -> clip, AdamW -> schedule
    every epoch:  ID table anew, noise-free -> monitors and alarm -> validation -> best state -> checkpoint

All ranks run the same code on the same state; only the recommender's rows and the validation users are split among them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import torch
from torch import Tensor

from diger_core.config import JointModelConfig, RecommenderConfig, TableConfig, TrainingConfig
from diger_core.data.batches import Batch, Batches
from diger_core.data.sequences import Sequences
from diger_core.errors import CollapseError
from diger_core.fast.captured import CapturedStep, obstacle
from diger_core.ids.id_table import IdTable
from diger_core.ids.stability import Hold
from diger_core.progress import Progress, Silent
from diger_core.recommender.model import Recommender
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.checkpoint import Checkpoint
from diger_core.training.distillation import TeacherTargets
from diger_core.training.distributed import Distributed
from diger_core.training.joint_step import LOSSES, PER_LEVEL, Catalogue, frozen_outcome, joint_outcome, statistics
from diger_core.training.monitors import GradientAlarm, by_level, code_counts
from diger_core.training.optimisation import Optimisation
from diger_core.training.schedules import State, build_schedule
from diger_core.training.state import (
    Best,
    Position,
    built_recommender,
    capture,
    fingerprint,
    learning_copy,
    reproducible,
    restore,
    restore_generators,
    training_device,
)
from diger_core.training.validation import TableRefresh, Validation

CHECK_EVERY = 50  # steps between two looks at the device: for the progress line and for a loss that is no longer finite
OnCheckpoint = Callable[[Checkpoint], None]


@dataclass(frozen=True)
class Trained:
    """The best state by validation NDCG@10, with its own table.

    `alarm`: why training stopped early and unplanned (collapse, divergence), or None; `best_epoch` 0: no epoch was better than the start.
    """

    recommender: Recommender
    tokenizer: Tokenizer
    table: IdTable
    curves: list[dict]
    best_epoch: int
    alarm: str | None
    schedule_state: State = field(default_factory=dict)
    best_ndcg: float = -1.0  # validation NDCG@10 of that state
    rows_per_second: float = 0.0
    usage_EMK: Tensor | None = None  # int32: items on each code of each level, in the table before training and after each epoch; None: frozen codes


def train(
    vectors_ND: Tensor,
    sequences: Sequences,
    item_ids: pa.Array,
    tokenizer: Tokenizer,
    recommender_config: RecommenderConfig,
    training_config: TrainingConfig,
    joint_config: JointModelConfig,
    table_config: TableConfig,
    *,
    previous: IdTable | None = None,
    reserved: Tensor | None = None,
    held: Hold | None = None,
    start: Mapping[str, Tensor] | None = None,
    teacher: TeacherTargets | None = None,
    distributed: Distributed | None = None,
    progress: Progress | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    checkpoint_steps: int | None = None,
    resume: Checkpoint | None = None,
) -> Trained:
    """Trains a recommender on `sequences`, together with a copy of `tokenizer` (joint) or on its fixed codes (frozen).

    vectors_ND: the items' vectors in the order of `item_ids`. `previous`: the last released ID table in the same
    order, -1 in the rows of new items; `reserved` [R, M+1]: tuples of released tables, whose suffixes no other item gets; `held`: how far items may
    move from `previous`. `start`: a trained recommender's tensors to go on from (a warm start); it is then evaluated first, and counts as epoch 0.
    `teacher`: draws some of the rows' targets (`distillation.py`).
    `on_checkpoint` is called on every rank after every `checkpoint_every` epochs (and every `checkpoint_steps` steps) with the complete state.
    `resume`: such a state of the same configuration and data; the result equals an uninterrupted run's. Raises DigerError where it does not fit.
    """
    device = training_device(training_config)
    ranks = distributed or Distributed()
    with reproducible(training_config, device, ranks):
        loop = Loop(
            vectors_ND, sequences, item_ids, tokenizer, recommender_config, training_config, joint_config, table_config,
            previous, reserved, ranks, device, progress or Silent(), on_checkpoint, checkpoint_steps, held, start, teacher,
        )  # fmt: skip
        if resume is not None:
            loop.resume(resume)
        return loop.run()


class Loop:
    """The state of one training run. `run` is the loop; everything it changes is in `capture`'s checkpoint."""

    def __init__(
        self,
        vectors_ND: Tensor,
        sequences: Sequences,
        item_ids: pa.Array,
        tokenizer: Tokenizer,
        recommender_config: RecommenderConfig,
        training: TrainingConfig,
        joint: JointModelConfig,
        table: TableConfig,
        previous: IdTable | None,
        reserved: Tensor | None,
        ranks: Distributed,
        device: torch.device,
        progress: Progress,
        on_checkpoint: OnCheckpoint | None,
        checkpoint_steps: int | None,
        held: Hold | None = None,
        start: Mapping[str, Tensor] | None = None,
        teacher: TeacherTargets | None = None,
    ) -> None:
        self.training, self.joint, self.ranks, self.device, self.progress = training, joint, ranks, device, progress
        self.item_ids, self.on_checkpoint, self.checkpoint_steps = item_ids, on_checkpoint, checkpoint_steps
        self.learns, self.name = joint.tokenizer == "joint", "joint_model" if joint.tokenizer == "joint" else "frozen_model"
        self.fingerprint = fingerprint(
            recommender_config,
            training,
            joint,
            table,
            sequences,
            item_ids,
            tokenizer,
            previous=previous,
            reserved=reserved,
            held=held,
            start=start,
            teacher=teacher,
        )
        self.tokenizer = learning_copy(tokenizer, joint).to(device)
        self.batches = Batches(sequences, training.batch_size, recommender_config.history, training.seed, teacher=teacher, crop=training.crop)
        self.total_steps = training.epochs * len(self.batches)
        self.recommender = built_recommender(recommender_config, tokenizer, training.seed, start).to(device)
        self.warm = start is not None
        self.optimisation = Optimisation(self.recommender, self.tokenizer, training, joint, self.total_steps)
        self.schedule = build_schedule(joint.schedule, tokenizer.codes, self.total_steps)
        self.state: State = self.schedule.initial(tokenizer.levels, tokenizer.codes, self.total_steps, device) if self.learns else {}
        self.refresh = TableRefresh(vectors_ND, item_ids, table, joint, previous, reserved, device, held)
        self.table = self.refresh(self.tokenizer, None)
        self.refresh.check(self.refresh.monitors(self.tokenizer, self.table, None))
        self.catalogue = Catalogue(*self.refresh.on_device(self.table), **self.refresh.step_inputs(self.tokenizer))
        self.validation = Validation(sequences, training, ranks, device)
        self.sums = torch.zeros(len(LOSSES) + len(PER_LEVEL) * tokenizer.levels + 1, device=device)  # over the epoch; the last: gradient norms
        self.gradients = GradientAlarm(training.gradient_alarm)
        self.position = Position()
        self.curves: list[dict] = []
        self.usage = [self.code_usage()]
        self.best = Best.of(self.recommender, self.tokenizer, self.table)
        self.trained_rows, self.seconds = 0, 0.0
        self.captured: CapturedStep | None = None

    def run(self) -> Trained:
        """Epochs until the last one, the early stop or an alarm; then the best state, put back into the modules."""
        alarm = None
        self.use_graphs()
        self.evaluate_start()
        while alarm is None and self.position.epoch < self.training.epochs and self.position.stale < self.training.patience:
            try:
                self._epoch()
                self.end_of_epoch()
            except CollapseError as stopped:
                alarm = str(stopped)
                self.progress.message(f"warning: {self.name}: {alarm}; the state of epoch {self.best.epoch} is kept")
        if alarm is None and self.position.epoch < self.training.epochs:
            self.progress.message(f"{self.name}: early stop after epoch {self.position.epoch}; the best was epoch {self.best.epoch}")
        table = self.best.load(self.recommender, self.tokenizer)
        speed = self.trained_rows / self.seconds if self.seconds else 0.0
        usage_EMK = torch.stack(self.usage) if self.learns else None
        return Trained(
            self.recommender.eval(), self.tokenizer.eval(), table, self.curves, self.best.epoch, alarm, self.state, self.best.ndcg, speed, usage_EMK
        )  # fmt: skip

    def evaluate_start(self) -> None:
        """A warm start is a result: later epochs must be better to replace it."""
        if not self.warm or self.position.step or self.best.ndcg >= 0:
            return
        self.recommender.eval()
        self.tokenizer.eval()
        figures = self.validation(self.recommender, self.table)
        self.best = Best.of(self.recommender, self.tokenizer, self.table, 0, figures["validation_ndcg_10"])
        told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self.progress.message(f"{self.name}: the start, before any training: {told}")

    def _epoch(self) -> None:
        """The remaining batches of the current epoch."""
        for _ in self.epoch_steps():
            pass

    def epoch_steps(self) -> Iterator[None]:
        """The remaining batches of the current epoch, one at each step of the iteration: several runs can share a device in turns."""
        self.recommender.train()
        self.tokenizer.train()
        started, rows = time.perf_counter(), 0
        for index, count in self._steps():
            rows += count
            self.position.batch, self.position.step = index + 1, self.position.step + 1
            if self.position.step % CHECK_EVERY == 0:
                self._look(started, rows)
            if self.checkpoint_steps and self.position.step % self.checkpoint_steps == 0 and self.position.batch < len(self.batches):
                self._checkpoint()
            yield
        self._look(started, rows)
        self.trained_rows, self.seconds = self.trained_rows + rows, self.seconds + time.perf_counter() - started

    def use_graphs(self) -> None:
        """`training.compile`: CUDA graphs of the whole step, where they can be had."""
        if not self.training.compile:
            return
        reason = obstacle(self)
        if reason is None:
            self.captured = CapturedStep(self)
        elif self.ranks.main:
            self.progress.message(f"{self.name}: training.compile is ignored: {reason}")

    def _steps(self) -> Iterator[tuple[int, int]]:
        """Takes the remaining steps of the epoch; (index of the batch, its rows over all ranks) after each."""
        if self.captured is not None:
            yield from self.captured.epoch(self.position.epoch, self.position.batch, self.position.step)
            return
        for batch in self.batches.epoch(self.position.epoch, self.position.batch):
            self.step(batch.share(self.ranks).to(self.device))
            yield batch.index, len(batch.target_B)

    def step(self, batch: Batch) -> None:
        """One step on this rank's rows of a batch. Nothing in it waits for the device."""
        bf16 = self.training.precision == "bf16"
        self.optimisation.set_rates(self.position.step)
        if self.learns:
            outcome = joint_outcome(
                self.recommender, self.tokenizer, self.catalogue, batch, self.joint, self.schedule, self.state,
                seed=self.training.seed, world=self.ranks.world, bf16=bf16,
            )  # fmt: skip
        else:
            outcome = frozen_outcome(self.recommender, self.catalogue, batch, bf16=bf16)
        self.optimisation.zero_grad()
        outcome.loss.backward()
        loss, loss_gen = outcome.loss.detach().clone(), outcome.loss_gen.clone()
        gradients = [p.grad for p in self.optimisation.parameters if p.grad is not None]
        self.ranks.sum_([*gradients, loss, loss_gen])
        norm = self.optimisation.step()
        if outcome.det_VM is not None:
            self.state = self.schedule.update(self.state, loss_gen, outcome.det_VM, batch.mask_V)
        self.sums += torch.cat((torch.stack((loss, loss_gen, outcome.loss_vq, outcome.loss_recon)), outcome.figures_3M.flatten(), norm[None]))

    def use_table(self) -> None:
        """Gives the current ID table to the step."""
        self.catalogue.set_table(*self.refresh.on_device(self.table))

    def code_usage(self) -> Tensor:
        """int32 [M, K]: items on each code of the current ID table."""
        return code_counts(self.table.codes_NM, self.tokenizer.codes).to("cpu", torch.int32)

    def guard(self) -> list[float]:
        """The epoch's sums so far; CollapseError where one is not finite. Waits for the device: between steps only, and not at each."""
        sums = self.sums.tolist()
        if not all(math.isfinite(value) for value in sums):
            raise CollapseError(
                f"the loss or its gradient was not finite within the {CHECK_EVERY} steps before step {self.position.step}: "
                "lower training.learning_rate or joint_model.codebook_learning_rate"
            )
        return sums

    def _look(self, started: float, rows: int) -> None:
        """Shows the loss; stops where it is no longer finite, or the gradient has exploded."""
        sums = self.guard()
        exploded = self.gradients.check(sums[-1], self.position.batch)
        if exploded:
            raise CollapseError(f"{exploded}, within the {CHECK_EVERY} steps before step {self.position.step}: lower training.learning_rate")
        means = statistics(sums, self.tokenizer.levels, self.position.batch)
        speed = rows / max(1e-9, time.perf_counter() - started)
        shown: dict[str, float | str] = {name: round(means[name], 4) for name in ("loss_gen", "sigma")[: 1 + self.learns]}
        if self.learns and self.curves:
            shown["perplexity"] = by_level(self.curves[-1]["perplexity"])
        self.progress.update(self.name, self.position.step, self.total_steps, **shown, rows_per_second=round(speed))

    def end_of_epoch(self) -> None:
        """Table, monitors, validation, best state, checkpoint."""
        self.recommender.eval()
        self.tokenizer.eval()
        steps, epoch = len(self.batches), self.position.epoch + 1
        row: dict = {"epoch": epoch, "step": self.position.step}
        row |= statistics(self.sums.tolist(), self.tokenizer.levels, steps)
        before = self.table
        if self.learns:
            self.table = self.refresh(self.tokenizer, before)
            self.use_table()
        row |= {"validation_recall_10": None, "validation_ndcg_10": None, **self.refresh.monitors(self.tokenizer, self.table, before)}
        self.curves.append(row)
        self.usage.append(self.code_usage())
        self.refresh.check(row)
        if epoch % self.training.evaluate_every == 0 or epoch == self.training.epochs:
            row |= self.validation(self.recommender, self.table)
            self._keep_best(epoch, row["validation_ndcg_10"])
        self.sums.zero_()
        self.gradients.new_epoch()
        self.position.epoch, self.position.batch = epoch, 0
        names = {"loss_gen": "loss", "validation_recall_10": "recall@10", "validation_ndcg_10": "ndcg@10"}
        shown = {short: f"{row[name]:.4f}" for name, short in names.items() if row[name] is not None}
        speed = f"{self.trained_rows / max(1e-9, self.seconds):.0f} rows/s"
        told = ", ".join(f"{name} {value}" for name, value in shown.items())
        codes = f"perplexity {by_level(row['perplexity'])}, {row['unique_prefixes']} prefixes"
        self.progress.message(f"{self.name}: epoch {epoch}/{self.training.epochs}: {told}, {codes}, {speed}")
        if epoch % self.training.checkpoint_every == 0 or epoch == self.training.epochs:
            self._checkpoint()

    def _keep_best(self, epoch: int, ndcg: float) -> None:
        if ndcg > self.best.ndcg:
            self.best, self.position.stale = Best.of(self.recommender, self.tokenizer, self.table, epoch, ndcg), 0
        else:
            self.position.stale += 1

    def _checkpoint(self) -> None:
        if self.on_checkpoint is not None:
            self.on_checkpoint(capture(self))

    def resume(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint's state: the next step is the one that would have followed it."""
        restore(self, checkpoint)
        restore_generators(self, checkpoint)
        self.progress.message(f"{self.name}: resumed at epoch {self.position.epoch + 1}, step {self.position.step} of {self.total_steps}")
