"""Temporary directories that belong to a process: those of a process that was killed are removed when the next one starts."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

_OWNER = ".diger-owner"


def private_directory(prefix: str, parent: str | None = None) -> Path:
    """A new directory, readable by this user alone, that names its owner; first, what dead owners left beside it is removed."""
    base = Path(parent or tempfile.gettempdir())
    sweep(base)
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    (directory / _OWNER).write_text(json.dumps(identity(os.getpid())), encoding="utf-8")
    return directory


def sweep(base: Path) -> list[Path]:
    """Removes this user's private directories whose process has ended and which no process names on its command line (Ray's servers, which
    outlive a killed driver for some seconds); returns them."""
    stale = [path for path in base.glob("diger-*") if path.is_dir() and not path.is_symlink() and _abandoned(path)]
    if not stale:
        return []
    used = _command_lines()
    removed = [path for path in stale if not any(str(path) in line for line in used)]
    for path in removed:
        shutil.rmtree(path, ignore_errors=True)
    return removed


def ended(owner: dict[str, object]) -> bool:
    """Whether the process that `identity` described is certainly gone: one on another host never is."""
    return owner.get("host") == os.uname().nodename and identity(int(str(owner.get("pid", 0)))) != owner


def identity(pid: int) -> dict[str, object]:
    """A process id is used again after a while: its start time and the boot tell two owners apart."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        started, boot = "", ""
    return {"pid": pid, "started": started, "boot": boot, "host": os.uname().nodename}


def _abandoned(path: Path) -> bool:
    try:
        owner = json.loads((path / _OWNER).read_text(encoding="utf-8"))
        return path.stat().st_uid == os.getuid() and ended(owner)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # without a readable owner it is not ours to remove


def _command_lines() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().decode(errors="replace"))
        except OSError:
            continue  # it ended while the list was read
    return found
