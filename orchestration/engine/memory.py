"""How much memory there is, and the most that a piece of work held: provenance for its record, never part of a result."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path
from typing import Any

MIB = 2**20
MARKS = Path("/proc/self/clear_refs")


def installed() -> int:
    """Bytes of memory that this process may use at most: the machine's, or what its container is given."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such container, or no limit ("max")
            found.append(int(Path(limit).read_text(encoding="ascii")))
    return min(found)


class PeakMemory:
    """Counts from its making on: this process's resident memory and, where torch runs on a GPU, the tensors there. Other processes do not count.

    Linux sets a process's high-water mark back to what it holds now on request; where that is refused, the peak is that of the process so far.
    """

    def __init__(self) -> None:
        with contextlib.suppress(OSError):  # no Linux, or not allowed
            MARKS.write_text("5")
        gpu = _gpu()
        if gpu is not None:
            gpu.reset_peak_memory_stats()

    def mebibytes(self) -> dict[str, float]:
        """peak_memory_mb, and peak_gpu_memory_mb where a GPU is in use."""
        unit = 1 if sys.platform == "darwin" else 1024
        found = {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB, 1)}
        gpu = _gpu()
        if gpu is not None:
            found["peak_gpu_memory_mb"] = round(gpu.max_memory_allocated() / MIB, 1)
        return found


def _gpu() -> Any:
    """torch.cuda where this process has used it already; asking must not load torch or start a GPU."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
