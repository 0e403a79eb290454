"""Trials on Ray Tune: function trainables under ASHA, one CPU each, as many at once as the cluster has room for.

Ray's own files lie in the run's scratch directory and are never read again: what is known of a study is its journal (orchestration/search).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from diger_core.errors import DigerError
from orchestration.on_ray.session import alongside, ray_session, root_cause
from orchestration.params.cluster import ClusterConfig
from orchestration.params.search import SearchConfig
from orchestration.search.journal import Told, Trial
from orchestration.search.study import Book, Execute, Source
from orchestration.search.trial import run_trial
from orchestration.training.job import Job

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # its snapshots are of no use here
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "30",  # a pruned trial ends at its next report; until then its worker cannot be used again
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a store given by a relative path stays where it is
}
Event = Callable[[], None]


def executor(config: SearchConfig, cluster: ClusterConfig, storage: str) -> Execute:
    """Trials on Ray Tune; with 0 workers one after another in this process."""

    def here(job: Job, source: Source, book: Book, prune: bool, known: Mapping[int, Told]) -> None:
        _one_by_one(job, source, book, Halving(config, job.model.training.epochs, known) if prune else None)

    def on_ray(job: Job, source: Source, book: Book, prune: bool, known: Mapping[int, Told]) -> None:
        _on_ray(job, source, book, Halving(config, job.model.training.epochs, known) if prune else None, config, cluster, storage)

    return here if cluster.workers == 0 else on_ray


class Halving:
    """Ray's ASHA over epochs, made to remember: it is told of the journal's trials before it judges new ones.

    A trial that has half of its epochs behind it is trained to its end: to stop it would save little, and only trials that reach their end can
    become finalists.
    """

    def __init__(self, config: SearchConfig, epochs: int, known: Mapping[int, Told]) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        self.scheduler: Any = AsyncHyperBandScheduler(
            time_attr="epoch",
            metric="score",
            mode="max",
            max_t=max(epochs // 2, config.grace_epochs),  # of the rungs; `stop_last_trials` false: not of a trial
            grace_period=config.grace_epochs,
            reduction_factor=config.reduction,
            stop_last_trials=False,
        )
        for told in known.values():
            if told.trial.repeats is None:
                for row in told.curve:
                    self.stops(told.trial, int(row["epoch"]), row["validation_ndcg_10"])

    def stops(self, trial: Trial, epoch: int, score: float | None) -> bool:
        """Whether the trial is not worth another epoch."""
        stands_for = SimpleNamespace(trial_id=f"journal-{trial.number}")
        if stands_for.trial_id not in self.scheduler._trial_info:
            self.scheduler.on_trial_add(None, stands_for)
        decision = self.scheduler.on_trial_result(None, stands_for, {"epoch": epoch, "score": score})
        return bool(decision == self.scheduler.STOP)


class _Pruned(BaseException):
    """Ends a trial in this process."""


def _one_by_one(job: Job, source: Source, book: Book, halving: Halving | None) -> None:
    job = replace(job.with_training(device="auto"), threads=None)
    while (trial := source.next()) is not None:
        book.start(trial)

        def on_epoch(row: dict[str, Any], cpu_seconds: float, trial: Trial = trial) -> None:
            book.epoch(trial, row, cpu_seconds)
            last = row["epoch"] >= job.model.training.epochs
            if halving is not None and halving.stops(trial, row["epoch"], row["validation_ndcg_10"]) and not last:
                raise _Pruned

        try:
            state, reason = run_trial(job, trial, on_epoch)
        except _Pruned:
            state, reason = "pruned", None
        book.end(trial, state, reason)
        source.done(trial, book.told[trial.number].score)


# On Ray


def _trainable(config: dict[str, Any], job: Job) -> None:
    """One trial. `report` does not return where the scheduler has stopped the trial: the thread ends there."""
    from ray import tune

    def on_epoch(row: dict[str, Any], cpu_seconds: float) -> None:
        tune.report({"epoch": row["epoch"], "score": row["validation_ndcg_10"], "row": row, "cpu_seconds": cpu_seconds})

    state, reason = run_trial(job, Trial(**config), on_epoch)
    tune.report({"ended": state, "reason": reason})


def _on_ray(job: Job, source: Source, book: Book, halving: Halving | None, config: SearchConfig, cluster: ClusterConfig, storage: str) -> None:
    """The calling thread writes the journal and delivers the progress, so an interrupt reaches it; Tune's loop runs beside it."""
    os.environ.update(_ENVIRONMENT)
    with ray_session(cluster) as ray:
        from ray import tune

        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it has to say is told by the study
        available = ray.cluster_resources()
        if config.gpus_per_trial > available.get("GPU", 0):
            wanted = f"decay_search.gpus_per_trial = {config.gpus_per_trial:g}"
            raise DigerError(f"{wanted}, but the cluster has {available.get('GPU', 0):g} GPUs: set it to 0, or add GPUs")
        job = replace(job.with_training(device="auto" if config.gpus_per_trial else "cpu"), threads=1)
        bridge = _Bridge(source, book, job.model.training.epochs)
        trainable = tune.with_resources(tune.with_parameters(_trainable, job=job), {"cpu": 1, "gpu": config.gpus_per_trial})
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_search_algorithm(bridge), num_samples=-1, reuse_actors=True, scheduler=None if halving is None else halving.scheduler,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=f"study-{job.key[:16]}", storage_path=storage, verbose=0, callbacks=[_listener(bridge)],
                failure_config=tune.FailureConfig(max_failures=cluster.max_failures),
            ),
        )  # fmt: skip
        failed = alongside("fit-decay_search", tuner.fit, bridge.deliver, stop=bridge.stopping.set)
        bridge.deliver()
    if failed is not None:
        raise DigerError(f"decay_search: the search failed: {root_cause(failed)}") from failed


class _Bridge:
    """What Tune's objects share with the calling thread. Tune also writes them into its own files: this part stays out of those."""

    def __init__(self, source: Source, book: Book, epochs: int) -> None:
        self.source, self.book, self.epochs = source, book, epochs
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.trials: dict[str, Trial] = {}  # by Ray's name of them
        self.scores: dict[str, float] = {}
        self.stopping = threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        return object, ()

    def deliver(self) -> None:
        """Takes down what has happened, in the calling thread."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.events.get_nowait()()

    def next(self, ray_trial: str) -> dict[str, Any] | None:
        trial = self.source.next()
        if trial is None:
            return None
        self.trials[ray_trial] = trial
        return asdict(trial)

    def reported(self, ray_trial: str, result: dict[str, Any]) -> None:
        ours, book = self.trials[ray_trial], self.book
        if result.get("ended") is not None:
            state, reason = result["ended"], result["reason"]
            self.events.put(lambda: book.end(ours, state, reason))
        elif result.get("row") is not None:
            row, seconds = dict(result["row"]), float(result["cpu_seconds"])
            self.scores[ray_trial] = max(row["validation_ndcg_10"], self.scores.get(ray_trial, 0.0))
            self.events.put(lambda: book.epoch(ours, row, seconds))

    def stopped(self, ray_trial: str) -> None:
        """The trial is over; where it did not say so itself, the scheduler has ended it."""
        ours, book = self.trials[ray_trial], self.book

        def end() -> None:
            told = book.told[ours.number]
            if told.state == "running":
                book.end(ours, "finished" if len(told.rows) >= self.epochs else "pruned")

        self.events.put(end)


def _search_algorithm(bridge: _Bridge) -> Any:
    from ray.tune.search import Searcher

    class FromSource(Searcher):
        """Tune's view of our source."""

        def suggest(self, trial_id: str) -> Any:
            return bridge.next(trial_id) or Searcher.FINISHED

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            bridge.source.done(bridge.trials[trial_id], None if error else bridge.scores.get(trial_id))

        def save(self, checkpoint_path: str) -> None:
            """Nothing: a study is resumed from its journal."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing: see `save`."""

    return FromSource(metric="score", mode="max")


def _listener(bridge: _Bridge) -> Any:
    import ray
    from ray.tune import Callback

    class Interrupted(Exception):
        """Ends Tune's loop."""

    class Listener(Callback):
        """Tune's thread only notes what happens, and ends where the study is interrupted: Tune has no other way to say so from outside."""

        def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
            if bridge.stopping.is_set():
                for trial in trials:
                    if trial.temporary_state.ray_actor is not None:
                        ray.kill(trial.temporary_state.ray_actor)  # Tune would wait for the end of its epoch
                raise Interrupted

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ours = bridge.trials[trial.trial_id]
            bridge.events.put(lambda: bridge.book.start(ours))

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
            bridge.reported(trial.trial_id, result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            bridge.stopped(trial.trial_id)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ours, file = bridge.trials[trial.trial_id], Path(trial.error_file or "")
            reason = root_cause(RuntimeError(file.read_text(encoding="utf-8"))) if file.is_file() else "its worker was lost"
            bridge.events.put(lambda: bridge.book.end(ours, "failed", reason))

    return Listener()
