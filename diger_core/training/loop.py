"""The training loop of `frozen_model` and `joint_model`: one loop, whose step differs (docs/method.md, sections 3, 5 and 7).

    every step:   share of rows -> losses -> gradients summed over the ranks -> clip, AdamW -> schedule
    every epoch:  ID table refreshed, noise-free -> monitors and alarm -> validation -> best state -> checkpoint

All ranks run the same code on the same state; only the recommender's rows and the validation users are split among them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diger_core.config import ModelConfig
from diger_core.data.batches import Batch
from diger_core.errors import CollapseError
from diger_core.fast.captured import CapturedStep, obstacle
from diger_core.ids.id_table import IdTable
from diger_core.progress import Progress, Silent
from diger_core.recommender.history_input import table_tokens
from diger_core.recommender.model import Recommender
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.checkpoint import Checkpoint
from diger_core.training.device import reproducible, training_device
from diger_core.training.distributed import Distributed
from diger_core.training.inputs import TrainingInputs
from diger_core.training.joint_step import frozen_outcome, joint_outcome, statistics
from diger_core.training.model_selection import ModelSelection
from diger_core.training.monitors import by_level
from diger_core.training.resume import checkpoint_of, restore, restore_generators
from diger_core.training.state import begin, last_stage
from diger_core.training.table_refresh import TableRefresh

CHECK_EVERY = 50  # steps between two looks at the device: for the progress line and for a loss that is no longer finite
OnCheckpoint = Callable[[Checkpoint], None]


@dataclass(frozen=True)
class Trained:
    """The best state by validation NDCG@10, with its own table; the last state where nobody is there to validate on.

    `alarm`: why training stopped early and unplanned (collapse, divergence), or None; `best_epoch` 0: no epoch was better than the start.
    """

    recommender: Recommender
    tokenizer: Tokenizer
    table: IdTable
    curves: list[dict[str, Any]]
    best_epoch: int
    alarm: str | None
    best_ndcg: float = -1.0  # validation NDCG@10 of that state
    rows_per_second: float = 0.0
    z_Ne: Tensor | None = None  # float32: the encoded items of that state, where the history input is soft and needs them
    usage_EMK: Tensor | None = None  # int32: items on each code of each level, in the table before training and after each epoch; None: frozen codes


def train(
    inputs: TrainingInputs,
    config: ModelConfig,
    *,
    distributed: Distributed | None = None,
    progress: Progress | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    checkpoint_steps: int | None = None,
    resume: Checkpoint | None = None,
) -> Trained:
    """Trains a recommender, together with a copy of the tokenizer (`joint.tokenizer` joint) or on its fixed codes (frozen).

    A run with `inputs.start` is evaluated before its first step; that counts as epoch 0. `on_checkpoint` is called on every rank after every
    `checkpoint_every` epochs (and every `checkpoint_steps` steps) with the complete state. `resume`: such a state of the same configuration and
    data; the result equals an uninterrupted run's. Raises DigerError where it does not fit.
    """
    device, ranks = training_device(config.training), distributed or Distributed()
    with reproducible(config.training, device, ranks):
        loop = Loop(inputs, config, ranks=ranks, device=device, progress=progress, on_checkpoint=on_checkpoint, checkpoint_steps=checkpoint_steps)
        if resume is not None:
            loop.resume(resume)
        return loop.run()


class Loop:
    """One training run. `state` is all that it changes and what its checkpoints hold; `context` is what its steps read."""

    def __init__(
        self,
        inputs: TrainingInputs,
        config: ModelConfig,
        *,
        ranks: Distributed | None = None,
        device: torch.device | None = None,
        progress: Progress | None = None,
        on_checkpoint: OnCheckpoint | None = None,
        checkpoint_steps: int | None = None,
    ) -> None:
        self.inputs, self.config, self.training = inputs, config, config.training
        self.ranks, self.device, self.progress = ranks or Distributed(), device or training_device(config.training), progress or Silent()
        self.on_checkpoint, self.checkpoint_steps = on_checkpoint, checkpoint_steps
        self.name = "joint_model" if config.learns else "frozen_model"
        self.refresh = TableRefresh(inputs, config, self.device)
        self.state, self.context = begin(inputs, config, self.refresh, self.device)
        self.refresh.check(self.refresh.monitors(self.state.tokenizer, self.state.table, None))
        self.validation = ModelSelection(inputs.sequences, config.training, self.ranks, self.device)
        self.learns, self.validates = config.learns, len(self.validation.users_T) > 0
        self.trained_rows, self.seconds = 0, 0.0
        self.captured: CapturedStep | None = None

    def run(self) -> Trained:
        """Epochs until the last one, the early stop or an alarm; the last stage; then the best state, put back into the modules."""
        state = self.state
        self.use_graphs()
        self.evaluate_start()
        alarm = self._epochs()
        if alarm is None and self.training.last_stage_epochs and state.position.last_from < 0:
            self._begin_last_stage()
            alarm = self._epochs()
        self.captured = None  # its graphs hold memory, and the ranks' communicator
        table = state.best.load(state.recommender, state.tokenizer)
        speed = self.trained_rows / self.seconds if self.seconds else 0.0
        usage_EMK = torch.stack(state.usage) if self.learns else None
        return Trained(
            state.recommender.eval(), state.tokenizer.eval(), table, state.curves, state.best.epoch, alarm, state.best.ndcg, speed,
            self.refresh.z(state.tokenizer), usage_EMK,
        )  # fmt: skip

    @property
    def last_epoch(self) -> int:
        """Of the stage that the run is in."""
        last_from = self.state.position.last_from
        return self.training.epochs if last_from < 0 else last_from + self.training.last_stage_epochs

    def _epochs(self) -> str | None:
        """Epochs of the present stage until its last one, the early stop or an alarm, which is returned."""
        state, at = self.state, self.state.position
        while at.epoch < self.last_epoch and at.stale < self.training.patience:
            try:
                self._epoch()
                self.end_of_epoch()
            except CollapseError as stopped:
                self.progress.message(f"warning: {self.name}: {stopped}; the state of epoch {state.best.epoch} is kept")
                return str(stopped)
        if at.epoch < self.last_epoch:
            self.progress.message(f"{self.name}: early stop after epoch {at.epoch}; the best was epoch {state.best.epoch}")
        return None

    def _begin_last_stage(self) -> None:
        """From the best state, whose ID table is the final one."""
        state, at = self.state, self.state.position
        state.table = state.best.load(state.recommender, state.tokenizer)
        at.last_from, at.stale = at.epoch, 0
        self._enter_last_stage()
        self.use_graphs()
        told = f"{self.training.last_stage_epochs} epochs of the recommender alone from the state of epoch {state.best.epoch}"
        self.progress.message(f"{self.name}: last stage: {told}")

    def _enter_last_stage(self) -> None:
        self.context = last_stage(self.state, self.context, self.refresh, self.state.position.last_from)
        self.config = self.context.config

    def evaluate_start(self) -> None:
        """A warm start is a result: later epochs must be better to replace it."""
        state = self.state
        if self.inputs.start is None or not self.validates or state.position.step or state.best.ndcg >= 0:
            return
        state.train(False)
        figures = self.validation(state.recommender, state.table, self.history_tokens())
        state.keep_best(0, figures["validation_ndcg_10"])
        told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self.progress.message(f"{self.name}: the start, before any training: {told}")

    def _epoch(self) -> None:
        """The remaining batches of the current epoch."""
        for _ in self.epoch_steps():
            pass

    def epoch_steps(self) -> Iterator[None]:
        """The remaining batches of the current epoch, one at each step of the iteration: several runs can share a device in turns."""
        state, at = self.state, self.state.position
        state.train()
        started, rows = time.perf_counter(), 0
        for index, count in self._steps():
            rows += count
            at.batch, at.step = index + 1, at.step + 1
            if at.step % CHECK_EVERY == 0:
                self._look(started, rows)
            if self.checkpoint_steps and at.step % self.checkpoint_steps == 0 and at.batch < len(self.context.batches):
                self._checkpoint()
            yield
        self._look(started, rows)
        self.trained_rows, self.seconds = self.trained_rows + rows, self.seconds + time.perf_counter() - started

    def use_graphs(self) -> None:
        """`training.compile`: CUDA graphs of the whole step, where they can be had."""
        if not self.training.compile:
            return
        reason = obstacle(self.state, self.context, self.ranks)
        if reason is None:
            self.captured = CapturedStep(self.state, self.context, self.ranks)
        elif self.ranks.main:
            self.progress.message(f"{self.name}: training.compile is ignored: {reason}")

    def _steps(self) -> Iterator[tuple[int, int]]:
        """Takes the remaining steps of the epoch; (index of the batch, its rows over all ranks) after each."""
        if self.captured is not None:
            yield from self.captured.epoch(self.state.position.epoch, self.state.position.batch, self.state.position.step)
            return
        for batch in self.context.batches.epoch(self.state.position.epoch, self.state.position.batch):
            self.step(batch.share(self.ranks).to(self.device))
            yield batch.index, len(batch.target_B)

    def step(self, batch: Batch) -> None:
        """One step on this rank's rows of a batch. Nothing in it waits for the device."""
        state, context = self.state, self.context
        bf16 = self.training.precision == "bf16"
        state.optimisation.set_rates(state.position.step)
        if self.config.learns:
            outcome = joint_outcome(
                state.recommender, state.tokenizer, context.items, batch, self.config.joint, context.schedule, state.schedule,
                seed=self.training.seed, world=self.ranks.world, bf16=bf16,
            )  # fmt: skip
        else:
            outcome = frozen_outcome(state.recommender, state.tokenizer, context.items, batch, bf16=bf16)
        state.optimisation.zero_grad()
        outcome.loss.backward()
        loss, loss_gen = outcome.loss.detach().clone(), outcome.loss_gen.clone()
        gradients = [p.grad for p in state.optimisation.parameters if p.grad is not None]
        self.ranks.sum_([*gradients, loss, loss_gen])
        norm = state.optimisation.step()
        if outcome.det_VM is not None:
            state.schedule = context.schedule.update(state.schedule, loss_gen, context.schedule.observe(outcome.det_VM))
        state.sums += torch.cat((torch.stack((loss, loss_gen, outcome.loss_vq, outcome.loss_recon)), outcome.figures_3M.flatten(), norm[None]))

    def use_table(self) -> None:
        """Gives the current ID table to the step."""
        self.context.items.set_table(*self.refresh.on_device(self.state.table))

    def history_tokens(self) -> Tensor | None:
        """The items' tokens in a history by the present state, where they are no look-ups."""
        state = self.state
        return table_tokens(state.recommender, state.table, state.tokenizer, self.refresh.z(state.tokenizer))

    def guard(self) -> list[float]:
        """The epoch's sums so far; CollapseError where one is not finite. Waits for the device: between steps only, and not at each."""
        sums = self.state.sums.tolist()
        if not all(math.isfinite(value) for value in sums):
            raise CollapseError(
                f"the loss or its gradient was not finite within the {CHECK_EVERY} steps before step {self.state.position.step}: "
                "lower training.learning_rate or joint_model.codebook_learning_rate"
            )
        return sums

    def _look(self, started: float, rows: int) -> None:
        """Shows the loss; stops where it is no longer finite, or the gradient has exploded."""
        state, at = self.state, self.state.position
        sums = self.guard()
        exploded = state.gradients.check(sums[-1], at.batch)
        if exploded:
            raise CollapseError(f"{exploded}, within the {CHECK_EVERY} steps before step {at.step}: lower training.learning_rate")
        means = statistics(sums, state.tokenizer.levels, at.batch)
        speed = rows / max(1e-9, time.perf_counter() - started)
        shown: dict[str, float | str] = {name: round(means[name], 4) for name in ("loss_gen", "sigma")[: 1 + self.config.learns]}
        if self.config.learns and state.curves:
            shown["perplexity"] = by_level(state.curves[-1]["perplexity"])
        self.progress.update(self.name, at.step, self.context.total_steps, **shown, rows_per_second=round(speed))

    def end_of_epoch(self) -> None:
        """Table, monitors, validation, best state, checkpoint."""
        state = self.state
        state.train(False)
        steps, epoch = len(self.context.batches), state.position.epoch + 1
        row: dict[str, Any] = {"epoch": epoch, "step": state.position.step}
        row |= statistics(state.sums.tolist(), state.tokenizer.levels, steps)
        before = state.table
        if self.config.learns:
            state.table = self.refresh(state.tokenizer, before)
            self.use_table()
        row |= {"validation_recall_10": None, "validation_ndcg_10": None, **self.refresh.monitors(state.tokenizer, state.table, before)}
        state.curves.append(row)
        state.usage.append(state.code_usage())
        self.refresh.check(row)
        if not self.validates:
            state.keep_best(epoch, state.best.ndcg)
        elif epoch % self.training.evaluate_every == 0 or epoch == self.last_epoch:
            row |= self.validation(state.recommender, state.table, self.history_tokens())
            self._keep_best(epoch, row["validation_ndcg_10"])
        state.sums.zero_()
        state.gradients.new_epoch()
        state.position.epoch, state.position.batch = epoch, 0
        names = {"loss_gen": "loss", "validation_recall_10": "recall@10", "validation_ndcg_10": "ndcg@10"}
        shown = {short: f"{row[name]:.4f}" for name, short in names.items() if row[name] is not None}
        speed = f"{self.trained_rows / max(1e-9, self.seconds):.0f} rows/s"
        told = ", ".join(f"{name} {value}" for name, value in shown.items())
        codes = f"perplexity {by_level(row['perplexity'])}, {row['unique_prefixes']} prefixes"
        self.progress.message(f"{self.name}: epoch {epoch}/{self.last_epoch}: {told}, {codes}, {speed}")
        if epoch % self.training.checkpoint_every == 0 or epoch == self.last_epoch:
            self._checkpoint()

    def _keep_best(self, epoch: int, ndcg: float) -> None:
        if ndcg > self.state.best.ndcg:
            self.state.keep_best(epoch, ndcg)
            self.state.position.stale = 0
        else:
            self.state.position.stale += 1

    def _checkpoint(self) -> None:
        if self.on_checkpoint is not None:
            self.guard()
            self.on_checkpoint(checkpoint_of(self.state, self.inputs.item_ids, self.ranks))

    def resume(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint's state: the next step is the one that would have followed it."""
        self.state.position.last_from = int(checkpoint.state.get("last_from", -1))
        if self.state.position.last_from >= 0:
            self._enter_last_stage()  # its optimiser is the one whose state is restored
        restore(self.state, checkpoint, self.inputs.item_ids)
        self.use_table()
        if not restore_generators(checkpoint, self.training.seed, self.device, self.ranks) and self.ranks.main:
            self.progress.message("resumed on other ranks or another device: dropout continues with new, equally reproducible draws")
        at = self.state.position
        self.progress.message(f"{self.name}: resumed at epoch {at.epoch + 1}, step {at.step} of {self.context.total_steps}")
