"""What every benchmark shares: the data, the figures' provenance, timing."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor

from diger_core.data.sequences import Sequences


@dataclass(frozen=True)
class Data:
    name: str
    sequences: Sequences
    item_ids: pa.Array
    vectors_ND: Tensor
    real_vectors: bool


def load(folder: Path) -> Data:
    """The folder that `benchmarks.prepare` made. Without vectors.safetensors: random vectors, good for speed alone."""
    seq = Sequences.from_tensors(load_file(folder / "sequences.safetensors"))
    ids = pq.read_table(folder / "items.parquet")["item_id"].combine_chunks()
    path = folder / "vectors.safetensors"
    if path.exists():
        return Data(folder.name, seq, ids, load_file(path)["vectors"].float(), True)
    return Data(folder.name, seq, ids, torch.randn(seq.items, 384, generator=torch.Generator().manual_seed(0)), False)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], repeats: int = 3, warmup: int = 1) -> float:
    """The median wall-clock time of `work`, the device waited for before and after."""
    for _ in range(warmup):
        work()
    taken = []
    for _ in range(repeats):
        wait()
        started = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def at_once() -> int:
    """How many runs share the device: their times say nothing of one alone (`benchmarks.gpu.several` tells its children)."""
    return int(os.environ.get("BENCH_AT_ONCE", "1"))


def provenance() -> dict[str, Any]:
    """Where and with what a figure was measured."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": os.environ.get("BENCH_COMMIT") or _commit(),
        "command": " ".join(["python -m", *_module(), *sys.argv[1:]]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    """The processor's name and the cores that this process may use."""
    try:
        known = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        known = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{known[0] if known else platform.processor() or platform.machine()}, {cores} cores"


def _module() -> list[str]:
    spec = sys.modules["__main__"].__spec__
    return [spec.name.removesuffix(".__main__")] if spec is not None else [Path(sys.argv[0]).name]


def _commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def record(kind: str, figures: dict[str, Any], folder: Path) -> None:
    """Appends one line to <folder>/<kind>.jsonl and shows it."""
    line = json.dumps({"kind": kind, **figures, **provenance()}, sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{kind}.jsonl", "a", encoding="utf-8") as f:
        f.write(line + "\n")
    print(kind, json.dumps({k: v for k, v in figures.items() if k != "rows"}, sort_keys=True), flush=True)
