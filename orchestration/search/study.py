"""A study from its journal to its winner: trials under the searcher and the pruning, then the best configurations on more seeds.

Everything that decides what happens next is read from the journal, so a study that was stopped, however it was stopped, continues where it stopped:
trials that ended are kept, the others start again with their own configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from diger_core.errors import DigerError
from diger_core.progress import Progress
from orchestration.params.search import SearchConfig
from orchestration.search.journal import Journal, Row, State, Told, Trial
from orchestration.search.ranking import finalists
from orchestration.search.searchers import Searcher, searcher
from orchestration.search.space import present
from orchestration.search.terminal import ended_line, trials_table
from orchestration.training.job import Job

TABLE_EVERY = 120.0  # seconds between two tables of the trials so far


@dataclass
class Book:
    """Takes down what happens: in the journal first, then for people."""

    journal: Journal
    progress: Progress
    epochs: int  # of a full trial
    trials: int  # in all, where none is pruned
    told: dict[int, Told] = field(default_factory=dict)
    tabled: float = field(default_factory=time.monotonic)

    def start(self, trial: Trial) -> None:
        self.journal.append("start", trial)
        self.told[trial.number] = Told(trial, cpu_seconds=self.told[trial.number].cpu_seconds if trial.number in self.told else 0.0)

    def epoch(self, trial: Trial, row: Row, cpu_seconds: float) -> None:
        self.journal.append("epoch", trial, row=row, cpu_seconds=round(cpu_seconds, 3))
        told = self.told[trial.number]
        told.rows[int(row["epoch"])] = row
        told.cpu_seconds += cpu_seconds
        best = max((t.score for t in self.told.values() if t.score is not None), default=0.0)
        done = sum(len(t.rows) if t.state == "running" else self.epochs for t in self.told.values())
        running = sum(t.state == "running" for t in self.told.values())
        self.progress.update("decay_search", min(done, self.trials * self.epochs - 1), self.trials * self.epochs, best=best, running=running)
        if time.monotonic() - self.tabled >= TABLE_EVERY:
            self.tabled = time.monotonic()
            self.progress.message(trials_table("Trials so far", self.told.values(), self.epochs))

    def end(self, trial: Trial, state: State, reason: str | None = None) -> None:
        told = self.told[trial.number]
        told.state, told.reason = state, reason
        self.journal.append("end", trial, rows=told.curve, state=state, reason=reason)
        self.progress.message(ended_line(told, self.epochs))


class Source:
    """The next trial, until there is none: first those that a stopped study left unfinished, then what the searcher proposes."""

    def __init__(self, pending: list[Trial], propose: Callable[[int], Trial | None], numbers: list[int], tell: Searcher | None = None) -> None:
        self.pending, self.propose, self.numbers, self.searcher = list(pending), propose, list(numbers), tell

    def next(self) -> Trial | None:
        if self.pending:
            return self.pending.pop(0)
        return self.propose(self.numbers.pop(0)) if self.numbers else None

    def done(self, trial: Trial, score: float | None) -> None:
        if self.searcher is not None:
            self.searcher.tell(trial.number - 1, trial.config, score)  # the first trial is nobody's proposal


class Execute(Protocol):
    """Runs trials until the source has no more, and tells the book; with `prune`, given what the journal knows already."""

    def __call__(self, job: Job, source: Source, book: Book, prune: bool, known: Mapping[int, Told]) -> None: ...


def study(job: Job, config: SearchConfig, journal: Journal, execute: Execute, progress: Progress) -> dict[int, Told]:
    """Runs what is left of the study and returns all its trials. DigerError where no winner can be named."""
    epochs = job.model.training.epochs
    known = {number: told for number, told in journal.read().items() if told.state not in ("running", "failed")}
    unfinished = [told.trial for number, told in journal.read().items() if number not in known]
    if known or unfinished:
        progress.message(f"decay_search: study {journal.study[:12]} continues: {len(known)} trials are kept, {len(unfinished)} start again")
    book = Book(journal, progress, epochs, config.trials + config.finalists * config.seeds, dict(known))

    searched = [number for number, told in known.items() if told.trial.repeats is None]
    pending = [trial for trial in unfinished if trial.repeats is None]
    taken = {*searched, *(trial.number for trial in pending)}
    proposer = searcher(config, job.model.joint.schedule.name, known)

    def propose(number: int) -> Trial | None:
        if number == 1:
            return Trial(1, present(config.space, job.model.joint), job.model.training.seed)
        proposed = proposer.propose(number - 1)
        return None if proposed is None else Trial(number, proposed, job.model.training.seed)

    numbers = [number for number in range(1, config.trials + 1) if number not in taken]
    if pending or numbers:
        execute(job, Source(pending, propose, numbers, proposer), book, config.pruning == "asha", known)
    best = finalists(book.told, config.finalists)
    if not best:
        reasons = sorted({told.reason for told in book.told.values() if told.reason})
        raise DigerError(f"decay_search: none of {len(book.told)} trials ended well: {reasons[0] if reasons else 'see the journal'}")
    progress.message(trials_table("Trials of the search", book.told.values(), epochs))
    repeats = _repeats(book.told, unfinished, best, config, job.model.training.seed)
    if repeats:
        execute(job, Source(repeats, lambda _: None, []), book, False, {})
    progress.update("decay_search", book.trials * epochs, book.trials * epochs)
    failed = [t for t in book.told.values() if t.trial.repeats is not None and t.state == "failed"]
    if failed:
        raise DigerError(
            f"decay_search: {len(failed)} trainings of the finalists failed ({failed[0].reason}): fix that and run the same command again; "
            f"it continues with study {journal.study[:12]}"
        )
    return book.told


def _repeats(told: Mapping[int, Told], unfinished: list[Trial], best: list[Told], config: SearchConfig, seed: int) -> list[Trial]:
    """The finalists on other seeds, as far as the journal lacks them."""
    wanted = [(finalist, seed + 1 + i) for i in range(config.seeds) for finalist in best]
    known = {(t.trial.repeats, t.trial.seed) for t in told.values()}
    left = {(trial.repeats, trial.seed): trial for trial in unfinished if trial.repeats is not None}
    number = max([*told, *(trial.number for trial in left.values()), config.trials])
    found = []
    for finalist, other in wanted:
        pair = (finalist.trial.number, other)
        if pair in known:
            continue
        if pair not in left:
            number += 1
        found.append(left.get(pair) or Trial(number, finalist.trial.config, other, finalist.trial.number))
    return found
