"""Threads a worker = cores / workers unless told, and idle threads sleep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.engine import threads


@pytest.mark.parametrize(("workers", "available", "wanted"), [(1, 8, 8), (2, 8, 4), (3, 8, 2), (8, 8, 1), (16, 8, 1), (0, 4, 4)])
def test_cores_are_shared_out(monkeypatch, workers, available, wanted):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads.for_each(workers, available) == wanted


@pytest.mark.parametrize(("told", "wanted"), [("3", 3), ("3,1", 3), ("", 4), ("0", 4), ("many", 4)])
def test_the_environment_s_number_wins(monkeypatch, told, wanted):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert threads.for_each(2, 8) == wanted


@pytest.mark.parametrize(("quota", "wanted"), [("150000 100000", 2), ("max 100000", 8), ("50000 100000", 1), ("", 8), ("1600000 100000", 8)])
def test_a_container_s_quota_counts_as_its_cores(monkeypatch, quota, wanted):
    real = Path.read_text

    def read(self, *given, **named):
        return quota if str(self) == "/sys/fs/cgroup/cpu.max" else real(self, *given, **named)

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(threads, "_visible", lambda: 8)
    assert threads.cores() == wanted


def test_a_command_lets_idle_threads_sleep_before_torch_is_imported_and_leaves_what_is_told():
    program = "import sys, os; from orchestration.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass\n"
    program += "print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT'], os.environ['KMP_BLOCKTIME'])"
    given = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    for more, wanted in (({}, "False PASSIVE 0 0"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "False ACTIVE 0 0")):
        done = subprocess.run([sys.executable, "-c", program], env={**given, **more}, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == wanted
