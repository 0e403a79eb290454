"""Full training runs side by side on one device, a process for each: `python -m benchmarks.gpu.several sdud:0 sdud:1 frozen:0 ... [-- --set ...]`.

One run of this size leaves most of a large device idle: its kernels are short. Processes under NVIDIA's Multi-Process Service share the device
kernel by kernel; without the service (it is started here where the driver has it) they take turns and gain nothing. Everything after `--` goes to
`benchmarks.gpu quality` (or `sasrec`, for runs of that name); each run writes its own lines.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def service() -> bool:
    """Starts the Multi-Process Service for this process's children; False where it cannot be had."""
    folder = tempfile.mkdtemp(prefix="mps-")
    os.environ |= {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
    try:
        done = subprocess.run(["nvidia-cuda-mps-control", "-d"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        print(f"no Multi-Process Service: {problem}", flush=True)
        return False
    print(f"Multi-Process Service: {done.returncode} {done.stdout}{done.stderr}", flush=True)
    return done.returncode == 0


def stop_service() -> None:
    subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, timeout=20, check=False)


def main() -> None:
    own, _, passed = (list(part) for part in _split(sys.argv[1:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="VARIANT:SEED[:LABEL:key=value,key=value]")
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=540.0, help="the whole command's time; what has not begun by then is not run")
    parser.add_argument("--no-service", action="store_true", help="processes take turns (for comparison)")
    given = parser.parse_args(own)
    begun, waiting, running = time.monotonic(), list(given.runs), {}
    os.environ["BENCH_AT_ONCE"] = str(given.at_once)
    served = not given.no_service and service()
    logs = Path(tempfile.mkdtemp(prefix="several-"))
    while waiting or running:
        left = given.seconds - (time.monotonic() - begun)
        while waiting and len(running) < given.at_once and left > 30:
            run = waiting.pop(0)
            running[run] = _start(run, passed, left - 15, logs)
        time.sleep(0.5)
        for run, process in list(running.items()):
            if process.poll() is not None:
                del running[run]
                print(f"{time.monotonic() - begun:.0f} s: {run} ended with {process.returncode}", flush=True)
                print((logs / run.replace("/", "_")).read_text()[-1200:], flush=True)
        if left < -20:
            for process in running.values():
                process.kill()
        if left <= 30 and not running:
            break
    if waiting:
        print("not begun:", *waiting, flush=True)
    if served:
        stop_service()


def _split(words: list[str]) -> tuple[list[str], str, list[str]]:
    place = words.index("--") if "--" in words else len(words)
    return words[:place], "--", words[place + 1 :]


def _start(run: str, passed: list[str], seconds: float, logs: Path) -> subprocess.Popen[bytes]:
    variant, seed, label, changes = (*run.split(":", 3), "", "")[:4]
    kind = ["sasrec"] if variant == "sasrec" else ["quality", "--variants", variant, "--seconds", f"{seconds:.0f}"]
    command = [sys.executable, "-m", "benchmarks.gpu", *kind, *passed, "--seeds", seed]
    command += ["--label", label, "--set", *changes.split(",")] if label else []
    with open(logs / run.replace("/", "_"), "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    main()
