"""Which process something in a store belongs to, and whether that process is certainly gone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict


class Owner(TypedDict):
    """A process id is used again after a while: its start time, the boot and the PID namespace tell two owners apart."""

    pid: int
    started: str
    boot: str
    host: str
    namespace: str


def identity(pid: int | None = None) -> Owner:
    """The owner that a process (default: this one) is; without start time where there is no such process, or only its zombie."""
    pid = os.getpid() if pid is None else pid
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        started = "" if fields[0] in "ZX" else fields[19]
    except OSError:
        started = ""
    return {"pid": pid, "started": started, "boot": _read("/proc/sys/kernel/random/boot_id"), "host": os.uname().nodename, "namespace": _namespace()}


def ended(owner: Mapping[str, Any]) -> bool:
    """Whether the process that `identity` described is certainly gone: one on another host, or in another container, never is."""
    if owner.get("host") != os.uname().nodename or owner.get("namespace", _namespace()) != _namespace():
        return False
    found = identity(int(str(owner.get("pid", 0))))
    return any(found[name] != owner.get(name) for name in ("started", "boot"))


def near(owner: Mapping[str, Any]) -> bool:
    """Whether the process runs, or ran, in this boot of this machine and in this container, so that `ended` is as good as seeing it."""
    here = identity()
    return bool(here["started"]) and all(owner.get(name) == here[name] for name in ("host", "namespace", "boot"))


def signature(pid: int | None = None) -> str:
    """A process in a file's name: host, process id, start time."""
    owner = identity(pid)
    return f"{owner['host']}-{owner['pid']}-{owner['started']}"


def abandoned(name: str) -> bool:
    """Whether a file's name holds the `signature` of a process of this machine that has ended."""
    found = re.search(rf"{re.escape(os.uname().nodename)}-(\d{{1,9}})-\d+", name)
    return found is not None and found[0] != signature(int(found[1]))


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
