"""The search for a decay schedule on the embedded shop, with and without pruning: what pruning saves, and whether it loses the better schedule.

    python -m benchmarks.search [--folder DIR] [--minutes N] [--studies pruned unpruned] [--set SECTION.KEY=VALUE] [--no-record]

Two studies by params.yaml: `decay_search` as it stands, and with `pruning: none`; same searcher, seed, trials and space. All lives in a
scratch folder. `--minutes`: starts no trial after that, lets the running ones end and stops; the same command continues from the journals. The
unpruned study takes over what the pruned one trained to its end: a training is a function of configuration and seed. What both trained
themselves, a pruned trial's epochs, is compared. The pruned study runs all of its trials, so that its time counts. Appends to results/search.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import record
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from orchestration.engine.console import console_progress
from orchestration.engine.registry import register
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME, STAGES, upstream
from orchestration.params.cluster import ClusterConfig
from orchestration.params.load import load_params
from orchestration.params.search import SearchConfig
from orchestration.search import decay_search as stage
from orchestration.search.journal import Journal, Told
from orchestration.search.study import Execute, Source
from orchestration.search.terminal import shown
from orchestration.snapshot.demo_shop import write_demo_snapshots

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "benchmarks" / "results"
STUDIES = {"pruned": (), "unpruned": ("decay_search.pruning=none",)}


class OutOfTime(Exception):
    """The minutes are over and trials are left."""


class Limited(Source):
    """A source that has nothing more to give after the deadline."""

    def __init__(self, source: Source, deadline: float) -> None:
        self.source, self.deadline = source, deadline

    def next(self) -> Any:
        return self.source.next() if time.monotonic() < self.deadline else None

    def done(self, trial: Any, score: float | None) -> None:
        self.source.done(trial, score)


class Pieces:
    """How long a study has run, in pieces, and how busy the machine was beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        saved = json.loads(path.read_text()) if path.exists() else {}
        self.rows: list[dict[str, float]] = saved.get("rows", [])
        self.borrowed: int = saved.get("borrowed", 0)

    @contextmanager
    def measured(self) -> Iterator[dict[str, float]]:
        """Adds a piece: the whole of it, and what the yielded row gets under `search`, the time of the search without the finalists."""
        row = {"search": 0.0}
        started, busy = time.monotonic(), busy_seconds()
        try:
            yield row
        finally:
            row |= {"seconds": time.monotonic() - started, "busy": busy_seconds() - busy, "load": os.getloadavg()[1]}
            self.rows.append(row)
            self.path.write_text(json.dumps({"rows": self.rows, "borrowed": self.borrowed}))

    def total(self, name: str) -> float:
        return float(sum(row[name] for row in self.rows))


@contextmanager
def limited(minutes: float | None, row: dict[str, float]) -> Iterator[None]:
    """Studies run in here start no trial after so many minutes, and end in OutOfTime where some are left."""
    original = stage.executor
    deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")

    def executor(config: SearchConfig, cluster: ClusterConfig, storage: str) -> Execute:
        execute = original(config, cluster, storage)

        def run(job: Any, source: Source, book: Any, prune: bool, known: Any) -> None:
            started = time.monotonic()
            try:
                execute(job, Limited(source, deadline), book, prune, known)
            finally:
                row["search"] += time.monotonic() - started if source.searcher is not None else 0.0
            if source.pending or source.numbers:
                raise OutOfTime

        return run

    stage.executor = executor
    try:
        yield
    finally:
        stage.executor = original


def busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used, since it started."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for a disk


def prepared(folder: Path, overrides: list[str], name: str, progress: Any) -> Session:
    """The session of a study, everything before the search already in its store."""
    snapshot = folder / "snapshots" / "demo-1"
    if not (snapshot / "_SUCCESS").exists():
        write_demo_snapshots(snapshot.parent)
    store = Store(folder / "store")
    params = load_params(str(PROJECT / "params.yaml"), [*overrides, *STUDIES[name]])
    session = Session(store, params, register(store, str(snapshot)), progress)
    needed = upstream({"decay_search"}) - {"decay_search"}
    for each in STAGES:
        if each.name in needed:
            session.materialise(each)
    return session


def borrow(journal: Journal, other: Journal) -> int:
    """Takes over the other journal's trainings that ended well and that this one lacks; how many."""
    known = {(told.trial.repeats, told.trial.seed, tuple(told.trial.config.items())) for told in journal.read().values() if told.state != "running"}
    taken = 0
    for told in other.read().values():
        trial = told.trial
        if told.state != "finished" or (trial.repeats, trial.seed, tuple(trial.config.items())) in known:
            continue
        journal.append("start", trial)
        for row in told.curve:
            journal.append("epoch", trial, row=row, cpu_seconds=round(told.cpu_seconds / len(told.rows), 3))
        journal.append("end", trial, rows=told.curve, state=told.state, reason=told.reason)
        taken += 1
    return taken


@dataclass(frozen=True)
class Ran:
    """A study that has ended. `pieces`: how it ran; `borrowed`: trainings that another study had run."""

    artefact: Artefact
    journal: Journal
    pieces: Pieces
    borrowed: int


def ran(name: str, folder: Path, overrides: list[str], minutes: float | None, lender: Ran | None) -> Ran | None:
    """Runs what is left of a study; None where the time was too short."""
    with console_progress() as progress:
        session = prepared(folder, overrides, name, progress)
        key, _ = session.resolve(BY_NAME["decay_search"], fit=True)
        pieces, journal = Pieces(folder / f"pieces-{key[:16]}.json"), Journal(session.store, key)
        if session.store.lookup("decay_search", key) is None:
            if lender is not None:
                pieces.borrowed += borrow(journal, lender.journal)
            try:
                with pieces.measured() as row, limited(minutes, row):
                    session.materialise(BY_NAME["decay_search"])
            except OutOfTime:
                return None
        return Ran(session.find(BY_NAME["decay_search"]), journal, pieces, pieces.borrowed)


def figures(name: str, done: Ran) -> dict[str, Any]:
    """What is recorded of a study."""
    study, trials, pieces, borrowed = done.artefact.json("study.json"), done.journal.read(), done.pieces, done.borrowed
    # Of another study's trainings some may repeat a configuration that is no finalist here: they are in the journal and count for nothing.
    repeated = [told for told in trials.values() if told.trial.repeats in {finalist["trial"] for finalist in study["finalists"]}]
    trials = {n: told for n, told in trials.items() if told.trial.repeats is None or told in repeated}
    winner, cpu = study["winner"], sum(told.cpu_seconds for told in trials.values())
    return {
        "study": name,
        "trials": sum(told.trial.repeats is None for told in trials.values()),
        "settings": {n: study["settings"][n] for n in ("searcher", "pruning", "grace_epochs", "reduction", "finalists", "seeds")},
        "states": study["states"],
        "epochs": study["epochs"]["search"],
        "epochs_unpruned": study["epochs"]["search_without_pruning"],
        "epochs_of_finalists": sum(len(told.rows) for told in repeated),
        "borrowed": borrowed,
        "seconds": None if borrowed else round(pieces.total("seconds"), 1),
        "seconds_of_search": None if borrowed else round(pieces.total("search"), 1),
        "pieces": len(pieces.rows),
        "cpu_seconds": round(cpu, 1),
        "cpu_seconds_of_finalists": round(sum(told.cpu_seconds for told in repeated), 1),
        "others_cpu_seconds": None if borrowed else round(max(0.0, pieces.total("busy") - cpu), 1),
        "load": round(max((row["load"] for row in pieces.rows), default=0.0), 2),
        "cpus": os.cpu_count(),
        "winner": winner["trial"],
        "configuration": shown(winner["config"]),
        "scores": winner["scores"],
        "mean": winner["mean"],
        "spread": winner["spread"],
        "rows": [[told.trial.number, told.state, told.trial.seed, [row["validation_ndcg_10"] for row in told.curve]] for told in trials.values()],
    }


def same_curves(one: dict[int, Told], other: dict[int, Told]) -> tuple[int, int]:
    """(epochs of `one`'s pruned trials that both studies trained, those of them with equal figures)."""
    beside = {(told.trial.seed, tuple(told.trial.config.items())): told.rows for told in other.values()}
    pairs = [
        (row, beside[key][epoch])
        for told in one.values()
        if told.state == "pruned"
        for epoch, row in told.rows.items()
        if (key := (told.trial.seed, tuple(told.trial.config.items()))) in beside and epoch in beside[key]
    ]
    return len(pairs), sum(a == b for a, b in pairs)


def compared(pruned: dict[str, Any], unpruned: dict[str, Any]) -> dict[str, Any]:
    """Whether the pruned winner's mean over its seeds is at least the unpruned winner's less the spread of that one's seeds."""
    low = unpruned["mean"] - (unpruned["spread"] or 0.0)
    return {
        "study": "comparison",
        "epochs_saved": round(1 - pruned["epochs"] / unpruned["epochs"], 4),
        "same_winner": pruned["configuration"] == unpruned["configuration"],
        "difference": pruned["mean"] - unpruned["mean"],
        "spread": unpruned["spread"],
        "within": bool(pruned["mean"] >= low),
    }


def told(name: str, found: dict[str, Any]) -> None:
    """A line a study, for who waits."""
    means = f"{found['mean']:.4f} ± {found['spread'] or 0:.4f}"
    print(
        f"{name}: {found['epochs']} of {found['epochs_unpruned']} epochs, winner trial {found['winner']}, {means}, {found['cpu_seconds']:.0f} CPU s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "diger-benchmark-search", help="scratch: store, pieces")
    parser.add_argument("--minutes", type=float, help="start no trial after so many minutes; the same command continues")
    parser.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES), help="both are needed for a record")
    parser.add_argument("--set", nargs="*", default=[], help="parameters over params.yaml")
    parser.add_argument("--no-record", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    started, found = time.monotonic(), dict[str, Ran]()
    for name in given.studies:
        left = None if given.minutes is None else given.minutes - (time.monotonic() - started) / 60
        done = ran(name, given.folder, given.set, left, found.get("pruned")) if left is None or left > 0 else None
        if done is None:
            print("time is over: the same command continues", file=sys.stderr)
            sys.exit(75)
        found[name] = done
        told(name, figures(name, done))
    if len(found) == len(STUDIES) and not given.no_record:
        rows = {name: figures(name, done) for name, done in found.items()}
        both, equal = same_curves(found["pruned"].journal.read(), found["unpruned"].journal.read())
        for row in (*rows.values(), {**compared(rows["pruned"], rows["unpruned"]), "epochs_of_both": both, "equal": equal}):
            record("search", {**row, "changes": given.set}, RESULTS)


if __name__ == "__main__":
    main()
