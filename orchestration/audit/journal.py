"""The journal of a verification: what an interrupted `diger verify` has found sound, so that the next one does not read it again."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from diger_core.store.canonical import digest
from orchestration.audit.index import Index


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
