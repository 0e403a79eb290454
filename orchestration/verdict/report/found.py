"""From what a person types to a stored report: its inputs, and what the records say about the work behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from diger_core.errors import DigerError
from diger_core.store.record import Record
from orchestration.graph import BY_NAME
from orchestration.verdict.gate.document import VERDICT, GateVerdict
from orchestration.verdict.gate.shown import flat
from orchestration.verdict.report.material import Material

if TYPE_CHECKING:
    from orchestration.audit.index import Index, Made


@dataclass(frozen=True)
class Cost:
    """What one stage took, as its record says; None where the record does not say."""

    stage: str
    seconds: float | None
    rows_per_second: float | None
    peak_memory_mb: float | None  # of the process that did the work; of rank 0 where workers did
    peak_gpu_memory_mb: float | None
    workers: int | None
    host: str
    commit: str


@dataclass(frozen=True)
class Found:
    """A stored report and the records of the stages that it was made from."""

    index: Index
    made: Made

    @property
    def hash(self) -> str:
        return self.made.artefact

    @cached_property
    def record(self) -> Record:
        return self.index.record(self.made)

    @cached_property
    def material(self) -> Material:
        inputs = {}
        for name, hash_ in self.made.inputs.items():
            artefact = self.index.artefact(hash_)
            if artefact is None:
                raise DigerError(
                    f"report {self.hash[:12]}: its input {name} {hash_[:12]} is not in {self.index.store.url}: pull it, or run the flow again"
                )
            inputs[name] = artefact
        return Material(inputs)

    @cached_property
    def released(self) -> int | None:
        """The number of the log's entry that released the judged bundle by this verdict; None where none did."""
        gate = self.made.inputs.get("gate")
        entries = (entry.number for entry in self.index.releases if gate is not None and entry.verdict == gate and entry.action == "release")
        return next(entries, None)

    @cached_property
    def previous(self) -> Made | None:
        """The report of the champion that this run's gate compared with; None where there is none in the store."""
        gate = self.material.gate
        if gate is None or gate["champion"] is None:
            return None
        reports = (made for made in self.index.made if made.stage == "report" and made.artefact in self.index.present)
        return next((made for made in reports if judged(self.index, made) == gate["champion"]), None)

    @cached_property
    def _makers(self) -> dict[str, Made]:
        """Stage -> the record that made it, of everything behind the report that belongs to this run (not what lies behind earlier releases)."""
        from orchestration.audit.index import EARLIER

        found: dict[str, Made] = {}
        waiting = [(self.made.stage, self.made)]
        while waiting:
            stage, made = waiting.pop()
            if stage in found:
                continue
            found[stage] = made
            for name, hash_ in made.inputs.items():
                maker = self.index.maker(hash_, self.made.snapshot)
                if name not in EARLIER and maker is not None:
                    waiting.append((maker.stage, maker))
        return found

    @cached_property
    def costs(self) -> list[Cost]:
        """In the order of the flow."""
        order = [stage for stage in BY_NAME if stage in self._makers]
        return [_cost(stage, self.index.record(self._makers[stage])) for stage in order]

    @cached_property
    def params(self) -> dict[str, Any]:
        """section.key -> value, of every parameter that a record behind the report names."""
        values: dict[str, Any] = {}
        for made in self._makers.values():
            for section, given in (self.index.record(made).get("params") or {}).items():
                values |= flat(given, section)
        return values


def overrides(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """section.key=value of every recorded parameter that is another one in the present params (both flat, as `Found.params`)."""
    return [f"{key}={json.dumps(value)}" for key, value in sorted(recorded.items()) if key in present and present[key] != value]


def _cost(stage: str, record: Record) -> Cost:
    notes = record.get("notes") or {}
    return Cost(
        stage,
        record.get("seconds"),
        notes.get("rows_per_second"),
        notes.get("peak_memory_mb") or record.get("peak_memory_mb"),
        notes.get("peak_gpu_memory_mb") or record.get("peak_gpu_memory_mb"),
        notes.get("workers"),
        str((record.get("machine") or {}).get("host", "")),
        str((record.get("code") or {}).get("commit") or "")[:8],
    )


def find_report(index: Index, text: str) -> Found:
    """The report meant by `text`: a hash (of the report, or of anything that a report was made from), a snapshot's key or directory, the path
    of a stored page, `champion`, `champion~1`, or `report` for the newest. The newest report where several answer."""
    from orchestration.audit.names import resolve

    thing = resolve(index, text)
    reports = [made for made in index.made if made.stage == "report" and made.artefact in index.present]
    if thing.kind == "snapshot":
        fitting = [made for made in reports if made.snapshot == thing.value]
    elif thing.kind == "release":
        entry = next(entry for entry in index.releases if str(entry.number) == thing.value)
        fitting = [made for made in reports if judged(index, made) == entry.bundle]
        fitting = [made for made in fitting if made.inputs.get("gate") == entry.verdict] or fitting  # its gate may have judged again since
    else:
        own = [made for made in reports if made.artefact == thing.value]
        fitting = own or [made for made in reports if thing.value in _behind(index, made)]
    if not fitting:
        raise DigerError(f"{text!r}: no report in {index.store.url} belongs to it: run the flow for it first, or name the report by its hash")
    return Found(index, fitting[-1])


def _behind(index: Index, report: Made) -> set[str]:
    """Hashes of all that the report's own run made or read; what lies behind the release that it started from or was compared with is another's."""
    from orchestration.audit.index import EARLIER

    found: set[str] = set()
    waiting = [report]
    while waiting:
        for name, hash_ in waiting.pop().inputs.items():
            maker = index.maker(hash_, report.snapshot)
            if name not in EARLIER and hash_ not in found:
                found.add(hash_)
                waiting += [] if maker is None else [maker]
    return found


def judged(index: Index, made: Made) -> str | None:
    """The bundle that the report's gate judged."""
    gate = index.artefact(made.inputs["gate"]) if "gate" in made.inputs else None
    verdict: GateVerdict | None = gate.json(VERDICT) if gate is not None else None
    return verdict["candidate"] if verdict is not None else None
