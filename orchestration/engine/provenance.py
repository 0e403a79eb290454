"""What a record says beside the hashes: code, dependencies, machine. Never hashed into an artefact, never a secret."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

from diger_core.store.record import Code, Machine

PROJECT = Path(__file__).resolve().parents[2]
LOCK = PROJECT / "requirements.lock"


def _git(*arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@cache
def code() -> Code:
    """Commit, and the hash of uncommitted changes (None: a clean tree; "unknown" outside a checkout, where an image names its commit itself)."""
    commit = _git("rev-parse", "HEAD") or os.environ.get("DIGER_COMMIT", "").encode()
    changes = _git("diff", "HEAD", "--binary")
    dirty: str | None = "unknown" if changes is None else (hashlib.sha256(changes).hexdigest() if changes else None)
    lock = hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.exists() else None
    return {"commit": commit.decode().strip() if commit else "unknown", "dirty_diff": dirty, "lock": lock}


@cache
def machine() -> Machine:
    """Host, processor, accelerators and the versions that numbers depend on."""
    import numpy
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "accelerators": gpus,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
