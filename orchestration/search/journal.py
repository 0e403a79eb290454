"""The journal of a study: what was tried and what came of it, append-only, in the store. It alone is what a stopped study is resumed from.

    <root>/studies/<study>/study.json                    what the study is; created once
    <root>/studies/<study>/journal/<nnnnnn>-<trial>.json  one entry each: a trial's start, an epoch, its end

Every entry is created conditionally (never overwritten), names its trial's configuration and carries a SHA-256 over its own fields; an entry
that does not verify is passed over with a warning, and costs what it said, not the study.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from diger_core.errors import DigerError
from diger_core.progress import Progress, Silent
from diger_core.store.artefacts import Store
from diger_core.store.canonical import canonical_json, digest, jsonable
from orchestration.search.space import Config, ordered

SECTION = "studies"
FORMAT = 1
State = Literal["running", "finished", "pruned", "collapsed", "diverged", "failed"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One training: its number in the study, its configuration and its seed; `repeats`: the trial that it repeats on another seed."""

    number: int
    config: Config
    seed: int
    repeats: int | None = None


@dataclass
class Told:
    """What the journal knows of a trial. `rows`: one an epoch, by epoch; a trial that was started again overwrites its own."""

    trial: Trial
    rows: dict[int, Row] = field(default_factory=dict)
    state: State = "running"
    reason: str | None = None
    cpu_seconds: float = 0.0  # of all attempts; a cost, no result

    @property
    def curve(self) -> list[Row]:
        return [self.rows[epoch] for epoch in sorted(self.rows)]

    @property
    def best(self) -> Row | None:
        """The epoch with the highest validation NDCG@10: the state that training would keep."""
        rated = [row for row in self.curve if row.get("validation_ndcg_10") is not None]
        return max(rated, key=lambda row: row["validation_ndcg_10"]) if rated else None

    @property
    def score(self) -> float | None:
        best = self.best
        return None if best is None else float(best["validation_ndcg_10"])


class Journal:
    """The journal of one study. One writer at a time (the runner holds the study's lock); readers at any time."""

    def __init__(self, store: Store, study: str, progress: Progress | None = None) -> None:
        self.store, self.study, self.progress = store, study, progress or Silent()
        self._next: int | None = None

    def describe(self, description: Mapping[str, Any]) -> None:
        """Says what the study is; the first description stays."""
        self.store.root.create(_sealed({"format": FORMAT, "study": self.study, **description}), SECTION, self.study, "study.json")

    def append(self, event: str, trial: Trial, **values: Any) -> None:
        """Adds an entry under the next free number."""
        if self._next is None:
            names = self._names()
            self._next = int(names[-1].partition("-")[0]) + 1 if names else 1
        while True:
            about = {
                "number": self._next,
                "event": event,
                "trial": trial.number,
                "config": trial.config,
                "seed": trial.seed,
                "repeats": trial.repeats,
            }
            name = f"{self._next:06d}-{trial.number:04d}.json"
            self._next += 1
            if self.store.root.create(_sealed({**about, **values}), SECTION, self.study, "journal", name):
                return

    def read(self) -> dict[int, Told]:
        """All trials by number, in the order in which they were started."""
        found: dict[int, Told] = {}
        for entry in self.entries():
            trial = Trial(entry["trial"], ordered(entry["config"]), entry["seed"], entry["repeats"])
            told = found.setdefault(trial.number, Told(trial))
            if entry["event"] == "start":
                told.rows, told.state, told.reason = {}, "running", None
            elif entry["event"] == "epoch":
                told.rows[int(entry["row"]["epoch"])] = entry["row"]
                told.cpu_seconds += entry["cpu_seconds"]
            elif entry["event"] == "end":
                told.rows = {int(row["epoch"]): row for row in entry["rows"]}
                told.state, told.reason = entry["state"], entry["reason"]
        return found

    def entries(self) -> list[dict[str, Any]]:
        """The entries that verify, oldest first."""
        found = []
        for name in self._names():
            entry = _opened(self.store.root.read(SECTION, self.study, "journal", name))
            if entry is None:
                self.progress.message(f"warning: {self.store.url}/{SECTION}/{self.study}/journal/{name}: damaged, passed over")
            else:
                found.append(entry)
        return found

    def _names(self) -> list[str]:
        return [name for name in self.store.root.list(SECTION, self.study, "journal") if name.endswith(".json")]


def studies(store: Store) -> list[dict[str, Any]]:
    """The descriptions of all studies of a store, oldest first."""
    found = [
        _opened(store.root.read(SECTION, name, "study.json")) for name in store.root.list(SECTION) if store.root.exists(SECTION, name, "study.json")
    ]
    return sorted((d for d in found if d is not None), key=lambda d: (str(d.get("created_at")), d["study"]))


def described(store: Store, beginning: str) -> dict[str, Any]:
    """The description of the one study whose name begins so; DigerError where there is none, or more than one."""
    fitting = [d for d in studies(store) if beginning and d["study"].startswith(beginning)]
    if len(fitting) != 1:
        names = ", ".join(d["study"][:12] for d in (fitting or studies(store))) or "none"
        what = "several studies begin so" if fitting else "no study of this store begins so"
        raise DigerError(f"study {beginning!r}: {what} ({names}): `diger tune --list` shows them")
    return fitting[0]


def _seal(entry: Mapping[str, Any]) -> str:
    return digest("journal", canonical_json({name: value for name, value in entry.items() if name != "seal"}))


def _sealed(entry: Mapping[str, Any]) -> bytes:
    plain = jsonable(dict(entry))
    return json.dumps({**plain, "seal": _seal(plain)}, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _opened(data: bytes) -> dict[str, Any] | None:
    """The entry, or None where its bytes are not what was written."""
    try:
        entry = json.loads(data)
        return entry if entry["seal"] == _seal(entry) else None
    except (ValueError, KeyError, TypeError):
        return None
