"""Verification: bytes against manifests, manifests against names, records against their seals, and every link between them.

Files are hashed by several threads (file_check.py). Every fault names the file, what was expected, what was found, and what to do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from diger_core.store.record import seal
from orchestration.audit import links
from orchestration.audit.chain import Chain, Node, load
from orchestration.audit.file_check import FileCheck, check_content, check_file
from orchestration.audit.index import Index, Made
from orchestration.audit.journal import Journal

REMOTE_THREADS = 16


@dataclass
class Outcome:
    """`faults`: one line each; `notes`: what is unusual but sound."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    artefacts: int = 0
    records: int = 0
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    content: bool = False
    passed_over: int = 0  # artefacts that an interrupted run had verified and whose files have not been touched since
    interrupted_at: str = ""

    @property
    def summary(self) -> str:
        """The verdict first, in lines of a terminal's 80 columns."""
        speed = self.bytes / max(self.seconds, 1e-9) / 1e6
        what = "bytes, links and canonical content" if self.content else "bytes and links"
        verdict = f"{len(self.faults)} FAULT{'S' if len(self.faults) > 1 else ''}" if self.faults else "all as recorded"
        return (
            f"{verdict}: {self.artefacts:,} artefacts ({self.files:,} files, {self.bytes:,} bytes), {self.records:,} records\n"
            f"{what} verified in {self.seconds:.2f} s{f', {speed:,.0f} MB/s' if speed >= 1 else ''}{self._earlier}"
        )

    @property
    def _earlier(self) -> str:
        if not self.passed_over:
            return ""
        return (
            f"\n{self.passed_over:,} more were verified by the run that was interrupted at {self.interrupted_at} and\n"
            "not read again: their files are untouched since (--again reads them)"
        )

    def as_json(self) -> dict[str, Any]:
        return {**self.__dict__, "passed": not self.faults}


def verify_chain(index: Index, found: Chain, content: bool = False) -> Outcome:
    """Everything on the way from the chain's root to the snapshots."""
    outcome, started = Outcome(content=content), time.perf_counter()
    index.distrust()
    nodes = list(found.nodes.values())
    load(index, nodes)
    hashes = [node.hash for node in nodes if node.kind == "artefact" and node.status in ("present", "damaged")]
    outcome.faults += [node.problem for node in nodes if node.problem and node.status == "missing"]
    outcome.notes += [f"{node.stage} {node.hash[:12]} cannot be verified: {_removal(node)}" for node in nodes if node.status == "removed"]
    outcome.faults += links.removals(index, [node.hash for node in nodes if node.status == "removed"])
    _artefacts(index, hashes, outcome)
    _records(index, [node.made for node in nodes if node.made is not None], outcome)
    for node in nodes:
        if node.kind == "snapshot" and node.status == "present":
            outcome.faults += links.snapshot(index, node.hash)
        if node.kind == "release":
            outcome.faults += links.release(index, int(node.detail["number"]))
    outcome.faults += [node.problem for node in nodes if node.problem and node.status == "present" and node.problem not in outcome.faults]
    outcome.seconds = time.perf_counter() - started
    return outcome


def _removal(node: Node) -> str:
    from orchestration.audit.tree import removal_line

    return removal_line(node.detail["removed"])


def verify_store(index: Index, content: bool = False, journal: Journal | None = None) -> Outcome:
    """Every artefact, record, snapshot and log entry; what `journal` says was verified before and is untouched is not read again."""
    outcome, started = Outcome(content=content), time.perf_counter()
    index.distrust()
    done = journal.untouched(index) if journal is not None else set()
    hashes = [hash_ for hash_ in index.present if hash_ not in done]
    if journal is not None and done:
        outcome.passed_over, outcome.interrupted_at = len(done), journal.at
    _artefacts(index, hashes, outcome, journal)
    _records(index, index.made, outcome)
    outcome.faults += index.damaged()
    for key in index.snapshots:
        outcome.faults += links.snapshot(index, key)
    for entry in index.releases:
        outcome.faults += links.release(index, entry.number)
    outcome.faults += links.removals(index, index.removed)
    outcome.faults += [*links.missing(index), *links.unrecorded(index), *links.unentered(index)]
    if journal is not None:
        journal.close()
    outcome.seconds = time.perf_counter() - started
    return outcome


# Artefacts


def _artefacts(index: Index, hashes: list[str], outcome: Outcome, journal: Journal | None = None) -> None:
    """All files of all artefacts, largest first, so that no thread is left with a long one at the end."""
    opened: dict[str, Artefact] = {}
    sound: dict[str, bool] = {}
    for hash_ in hashes:
        try:
            artefact = index.artefact(hash_)
        except DigerError as error:
            outcome.faults.append(str(error))
            continue
        if artefact is None:
            outcome.notes.append(_unfinished(index, hash_))
        else:
            opened[hash_] = artefact
            edited = links.manifest(index, artefact)
            outcome.faults += edited
            sound[hash_] = not edited
    work = [(artefact, entry) for artefact in opened.values() for entry in artefact.manifest["files"]]
    work.sort(key=lambda pair: -int(pair[1]["bytes"]))
    left = {hash_: len(artefact.manifest["files"]) for hash_, artefact in opened.items()}
    trusted = dict(sound)

    def check(pair: tuple[Artefact, Mapping[str, Any]]) -> FileCheck:
        return check_file(*pair, outcome.content) if trusted[pair[0].hash] else check_content(*pair)

    with ThreadPoolExecutor(os.cpu_count() or 2 if index.root.is_local else REMOTE_THREADS) as pool:
        for (artefact, _), result in zip(work, pool.map(check, work), strict=True):
            outcome.files += 1
            outcome.bytes += result.bytes
            outcome.faults += [result.fault] if result.fault else []
            outcome.notes += [result.note] if result.note else []
            left[artefact.hash] -= 1
            sound[artefact.hash] = sound[artefact.hash] and result.fault is None
            if not left[artefact.hash] and sound[artefact.hash]:
                inner = links.artefact(index, artefact)
                outcome.faults += inner
                if journal is not None and not inner:
                    journal.add(artefact.hash)
    outcome.artefacts += len(opened)


def _unfinished(index: Index, hash_: str) -> str:
    return f"{index.store.url}/artefacts/{index.present[hash_]}/{hash_}: no manifest: never finished, so nothing counts it; `diger gc` removes it"


# Records


def _records(index: Index, made: Iterable[Made], outcome: Outcome) -> None:
    for each in made:
        outcome.records += 1
        where = f"{index.store.url}/records/{each.path}"
        try:
            record = index.record(each)
        except DigerError as error:
            outcome.faults.append(str(error))
            continue
        number = record.get("number")
        place = f"{record.get('stage')}/{record.get('key')}/{number:06d}.json" if isinstance(number, int) else "no number"
        if record.get("seal") != seal(record):
            outcome.faults.append(
                f"{where}: edited or damaged: expected seal {record.get('seal')}, found {seal(record)}: restore it from a copy (dvc pull)"
            )
        elif place != each.path:
            outcome.faults.append(f"{where}: another record's bytes (of {place}): restore it from a copy of the store (dvc pull)")
