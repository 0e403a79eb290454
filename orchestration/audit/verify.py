"""Verification: bytes against manifests, manifests against names, records against their seals, and every link between them.

Files are hashed by several threads (hashlib lets go of the interpreter's lock) with large reads; from an object store they are streamed, not
kept. Every fault names the file, what was expected, what was found, and what to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact, cache_directory
from diger_core.store.canonical import bytes_sha256, digest
from diger_core.store.content_hash import file_hash
from diger_core.store.durable import make_directories
from diger_core.store.record import seal
from orchestration.audit import links
from orchestration.audit.chain import Chain, Node, load
from orchestration.audit.index import Index, Made

BLOCK = 1 << 20  # a reading stays in the processor's cache until it is hashed
REMOTE_THREADS = 16
IN_ONE = 32 << 20  # bytes of an object that are asked for in one request


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


class Journal:
    """Which artefacts an interrupted `diger verify` has found sound, and how their files stood before it read them: a scratch file outside the
    store, removed when the run is complete."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.at = path, ""
        self._done: dict[str, str] = {}
        if path.exists():
            self.at = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            lines = [line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines()]
            self._done = {words[0]: words[1] for words in lines if len(words) == 2}  # a line cut short by a crash counts for nothing
        self._marks: dict[str, str] = {}
        self._file = open(path, "a", encoding="ascii", buffering=1)  # noqa: SIM115

    def untouched(self, index: Index) -> set[str]:
        """The artefacts that were verified and whose files stand as they did; notes how all stand before any is read."""
        hashes = list(index.present)
        self._marks = dict(zip(hashes, index.each(lambda hash_: _standing(index, hash_), hashes), strict=True))
        return {hash_ for hash_ in hashes if self._marks[hash_] and self._done.get(hash_) == self._marks[hash_]}

    def add(self, hash_: str) -> None:
        if self._marks.get(hash_):
            self._file.write(f"{hash_} {self._marks[hash_]}\n")

    def close(self) -> None:
        self._file.close()
        self.path.unlink()


def _standing(index: Index, hash_: str) -> str:
    """What changes whenever a file of the artefact is written, replaced or copied: sizes, times and inodes, or an object store's entity tags.
    Empty where that cannot be told."""
    root, place = index.root, index.root.at("artefacts", index.present[hash_], hash_)
    if root.is_local:
        try:
            stats = {entry.name: os.stat(entry.path) for entry in os.scandir(place)}
        except OSError:  # damaged; the verification itself says how
            return ""
        parts = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev) for name, s in sorted(stats.items())]
    else:
        with root.faults("artefacts", index.present[hash_], hash_):
            found = root.fs.ls(place, detail=True, refresh=True)
        if not all(entry.get("ETag") for entry in found):
            return ""
        tags = sorted((str(entry["name"]), int(entry["size"]), str(entry["ETag"])) for entry in found)
        return digest("standing", json.dumps(tags))
    return digest("standing", json.dumps(parts))


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

    def check(pair: tuple[Artefact, Mapping[str, Any]]) -> _File:
        return _file(*pair, outcome.content) if trusted[pair[0].hash] else _named_content(*pair)

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


@dataclass(frozen=True)
class _File:
    bytes: int
    fault: str | None = None
    note: str | None = None


def _file(artefact: Artefact, entry: Mapping[str, Any], content: bool) -> _File:
    """One file: its SHA-256 and, with `content`, its canonical hash."""
    where, names = f"{artefact.directory}/{entry['path']}", ("artefacts", artefact.stage, artefact.hash, entry["path"])
    remedy = f"restore it (dvc pull), or remove {artefact.directory} and run stage {artefact.stage} again"
    try:
        found, size = hash_bytes(artefact, names, int(entry["bytes"]))
    except FileNotFoundError:
        return _File(0, f"{where}: missing: expected {entry['bytes']:,} bytes with SHA-256 {entry['sha256']}: {remedy}")
    except DigerError as error:
        return _File(0, str(error))
    if found == entry["sha256"] and not content:
        _known_good(artefact, entry, names)
        return _File(size)
    canonical = _canonical(artefact, entry, names) if content else ""
    if found == entry["sha256"]:
        if canonical == entry["canonical"]:
            _known_good(artefact, entry, names)
            return _File(size)
        wrong = (
            f"{where}: its bytes are those of the manifest, their canonical hash is not: expected {entry['canonical']}, found {canonical}: {remedy}"
        )
        return _File(size, wrong)
    if canonical == entry["canonical"]:
        _known_good(artefact, entry, names, found)
        return _File(size, note=f"{where}: re-encoded: other bytes (SHA-256 {found[:12]}), equal content (canonical {canonical[:12]}): passes")
    cut = f" ({size:,} bytes, expected {entry['bytes']:,})" if size != entry["bytes"] else ""
    other = f", and so does its content: {canonical}" if content else "; --verify=content says whether the content is equal"
    return _File(size, f"{where}: its bytes differ{cut}: expected SHA-256 {entry['sha256']}, found {found}{other}: {remedy}")


def _named_content(artefact: Artefact, entry: Mapping[str, Any]) -> _File:
    """One file whose manifest was edited: only its content can be told, which the artefact's name covers."""
    where, names = f"{artefact.directory}/{entry['path']}", ("artefacts", artefact.stage, artefact.hash, entry["path"])
    canonical = _canonical(artefact, entry, names)
    if canonical == entry["canonical"]:
        return _File(0)
    return _File(0, f"{where}: its content is not what the artefact is named after: expected canonical hash {entry['canonical']}, found {canonical}")


def _known_good(artefact: Artefact, entry: Mapping[str, Any], names: tuple[str, ...], reencoded: str | None = None) -> None:
    """The links that are read next need not hash the file once more; of a re-encoded object (its own SHA-256) they read a copy of these bytes."""
    if artefact.root.is_local:
        artefact.mark_verified(entry["name"], Path(artefact.root.at(*names)))
    elif reencoded is not None:
        local = cache_directory() / "files" / reencoded / entry["name"]
        make_directories(str(local.parent))
        artefact.root.download(local, *names)
        if bytes_sha256(local) == reencoded:
            artefact.mark_verified(entry["name"], local)


def hash_bytes(artefact: Artefact, names: tuple[str, ...], expected: int) -> tuple[str, int]:
    """(SHA-256, bytes) of a stored file of about `expected` bytes. FileNotFoundError where it is missing."""
    root, sha, size = artefact.root, hashlib.sha256(), 0
    path = root.at(*names)
    with root.faults(*names):
        if root.is_local and not os.path.exists(path):
            raise _missing(path)
        if root.is_local:
            buffer = bytearray(BLOCK)
            view = memoryview(buffer)
            with open(path, "rb", buffering=0) as f:
                while count := f.readinto(buffer):
                    sha.update(view[:count])
                    size += count
        elif expected <= IN_ONE:
            try:
                block = root.fs.cat_file(path)
            except FileNotFoundError:
                raise _missing(path) from None
            sha.update(block)
            size = len(block)
        else:
            if not root.fs.exists(path):
                raise _missing(path)
            with root.fs.open(path, "rb", block_size=8 * BLOCK, cache_type="readahead") as f:
                while block := f.read(8 * BLOCK):
                    sha.update(block)
                    size += len(block)
    return sha.hexdigest(), size


class _Gone(DigerError, FileNotFoundError):
    """Passes through `faults` as it is."""


def _missing(path: str) -> FileNotFoundError:
    return _Gone(f"{path}: missing")


def _canonical(artefact: Artefact, entry: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The canonical hash, or, of a file that cannot be read as its kind, words that no hash equals."""
    try:
        if artefact.root.is_local:
            return file_hash(artefact.root.at(*names), entry["sort_by"])
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / entry["name"]
            artefact.root.download(local, *names)
            return file_hash(local, entry["sort_by"])
    except DigerError:
        return "unreadable"


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
