"""The search benchmark: studies in pieces, what the unpruned one takes over, and what is said of the two."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import search
from diger_core.store.artefacts import Store
from orchestration.search import decay_search as stage
from orchestration.search.journal import Journal, Trial
from orchestration.search.study import Source


def journal(folder: Path, name: str, trials: dict[int, tuple[str, list[float]]], repeats: int | None = None) -> Journal:
    """A study's journal with these trials: number -> (state, score of each epoch)."""
    made = Journal(Store(folder / "store"), name * 64)
    for number, (state, scores) in trials.items():
        trial = Trial(number, {"tau": float(number)}, 0, repeats)
        made.append("start", trial)
        rows = [{"epoch": epoch, "validation_ndcg_10": score} for epoch, score in enumerate(scores, 1)]
        for row in rows:
            made.append("epoch", trial, row=row, cpu_seconds=2.0)
        if state != "running":
            made.append("end", trial, rows=rows, state=state, reason=None)
    return made


def test_the_unpruned_study_takes_over_what_was_trained_to_its_end_and_nothing_else(tmp_path: Path) -> None:
    pruned = journal(tmp_path, "a", {1: ("finished", [0.1, 0.2]), 2: ("pruned", [0.1]), 3: ("running", [0.3]), 4: ("finished", [0.1, 0.4])})
    unpruned = journal(tmp_path, "b", {4: ("finished", [0.1, 0.4])})
    assert search.borrow(unpruned, pruned) == 1
    told = unpruned.read()
    assert {number: (t.state, t.score, t.cpu_seconds) for number, t in told.items()} == {4: ("finished", 0.4, 4.0), 1: ("finished", 0.2, 4.0)}
    assert search.borrow(unpruned, pruned) == 0, "once"


def test_curves_are_compared_where_both_studies_trained_them(tmp_path: Path) -> None:
    pruned = journal(tmp_path, "a", {1: ("finished", [0.5, 0.6]), 2: ("pruned", [0.1, 0.2]), 3: ("pruned", [0.3])})
    unpruned = journal(tmp_path, "b", {1: ("finished", [0.0, 0.0]), 2: ("finished", [0.1, 0.25, 0.3]), 3: ("finished", [0.3, 0.4, 0.5])})
    assert search.same_curves(pruned.read(), unpruned.read()) == (3, 2)


@pytest.mark.parametrize(("mean", "within"), [(0.071, True), (0.0655, True), (0.064, False)])
def test_the_pruned_winner_is_within_the_spread_or_below_it(mean: float, within: bool) -> None:
    pruned = {"mean": mean, "epochs": 30, "configuration": "a"}
    unpruned = {"mean": 0.07, "spread": 0.005, "epochs": 60, "configuration": "b"}
    said = search.compared(pruned, unpruned)
    assert (said["within"], said["epochs_saved"], said["same_winner"]) == (within, 0.5, False)


def test_a_study_that_is_out_of_time_lets_the_running_trials_end_and_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    clock = SimpleNamespace(now=0.0)

    def execute(job: Any, source: Source, book: Any, prune: bool, known: Any) -> None:
        while (trial := source.next()) is not None:
            ran.append(trial.number)
            clock.now += 40.0

    monkeypatch.setattr(stage, "executor", lambda *_: execute)
    monkeypatch.setattr(search.time, "monotonic", lambda: clock.now)
    source = Source([], lambda number: Trial(number, {}, 0), [1, 2, 3, 4], SimpleNamespace(tell=lambda *_: None))  # type: ignore[arg-type]
    row = {"search": 0.0}
    with pytest.raises(search.OutOfTime), search.limited(1.0, row):
        stage.executor(None, None, "")(None, source, None, True, {})  # type: ignore[arg-type]
    assert (ran, source.numbers, row["search"]) == ([1, 2], [3, 4], 80.0)
    with search.limited(None, row):
        stage.executor(None, None, "")(None, source, None, True, {})  # type: ignore[arg-type]
    assert ran == [1, 2, 3, 4]


def test_pieces_add_up_and_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "pieces.json"
    for _ in range(2):
        pieces = search.Pieces(path)
        with pieces.measured() as row:
            row["search"] = 1.5
    again = search.Pieces(path)
    assert len(again.rows) == 2
    assert again.total("search") == 3.0
    assert again.total("busy") >= 0
