"""Temporary directories that belong to a process: those of a process that was killed are removed when the next one starts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from diger_core.store.owner import Owner, ended, identity

_OWNER = ".diger-owner"


def private_directory(prefix: str, parent: str | None = None) -> Path:
    """A new directory, readable by this user alone, that names its owner; first, what dead owners left beside it is removed."""
    base = Path(parent or tempfile.gettempdir())
    sweep(base)
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    (directory / _OWNER).write_text(json.dumps(identity()), encoding="utf-8")
    return directory


def sweep(base: Path) -> list[Path]:
    """Removes this user's private directories whose process has ended and which no process names on its command line (Ray's servers, which
    outlive a killed driver for some seconds); returns them."""
    stale = [path for path in base.glob("diger-*") if path.is_dir() and not path.is_symlink() and _abandoned(path)]
    if not stale:
        return []
    used = _command_lines()
    removed = [path for path in stale if not any(str(path) in line for line in used.values())]
    for path in removed:
        shutil.rmtree(path, ignore_errors=True)
    return removed


def family(directory: str) -> list[Owner]:
    """The processes that name the directory on their command line, and all that descend from them."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
    found = {pid for pid, line in _command_lines().items() if directory in line and pid != os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return [identity(pid) for pid in sorted(found)]


def end_processes(processes: list[Owner], seconds: float) -> None:
    """Waits until the processes have ended; kills those that have not after `seconds`."""
    deadline = time.monotonic() + seconds
    while (alive := [each for each in processes if not ended(each)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for each in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each["pid"], signal.SIGKILL)


def _abandoned(path: Path) -> bool:
    try:
        owner = json.loads((path / _OWNER).read_text(encoding="utf-8"))
        return path.stat().st_uid == os.getuid() and ended(owner)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # without a readable owner it is not ours to remove


def _command_lines() -> dict[int, str]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[int(entry.parent.name)] = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue  # it ended while the list was read
    return found
