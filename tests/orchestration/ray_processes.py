"""The processes that a test's Ray cluster has started."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def workers(title: str) -> list[int]:
    """Process ids of this process's Ray workers whose title contains `title`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if title in (entry / "cmdline").read_bytes().decode(errors="replace") and os.getpid() in ancestors(int(entry.name)):
                    found.append(int(entry.name))
    return sorted(found)


def train_workers() -> list[int]:
    return workers("RayTrainWorker")


def tune_workers() -> list[int]:
    return workers("ImplicitFunc")


def marked(mark: str) -> list[int]:
    """Processes that inherited the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found
