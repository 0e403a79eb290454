"""How many threads a piece of work gets, and that threads with nothing to do sleep: on a busy or small machine both decide the speed."""

from __future__ import annotations

import math
import os
from pathlib import Path

# OpenMP's threads spin while they wait for one another. Where cores are shared with other work the ones that wait take the cores of those that
# compute: one training went from 22 to 2,000 rows/s without. Read when torch is first imported, so set before; inherited by Ray's workers.
_QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


def quiet() -> None:
    """Lets idle threads sleep, unless the environment says otherwise. In a container with a CPU quota below the machine's cores it also keeps torch
    to the quota."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if cores() < _visible():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def told() -> int | None:
    """The number of threads that the environment asks for (OMP_NUM_THREADS); None where it asks for none."""
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(value) if value.isdigit() and int(value) else None


def for_each(workers: int, available: int | None = None) -> int:
    """Threads of each of `workers` that share `available` cores (default: this machine's), at least one, unless the environment tells a number."""
    return told() or max(1, (available or cores()) // max(1, workers))


def cores() -> int:
    """Cores that this process may use: by its affinity, and by the CPU quota of its container."""
    return max(1, min(_visible(), _quota()))


def _visible() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> int:
    """Cores that the control groups' quota comes to, rounded up; very many where there is none."""
    for file, period in (("/sys/fs/cgroup/cpu.max", None), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us")):
        try:
            parts = Path(file).read_text(encoding="ascii").split()
            if period is not None:
                parts += Path(period).read_text(encoding="ascii").split()
            if int(parts[0]) > 0:
                return math.ceil(int(parts[0]) / int(parts[1]))
        except (OSError, ValueError, IndexError):
            continue  # no such file, or "max"
    return 1 << 20
