"""The targets that the pages name, run by make in a clone, as a newcomer runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone of the last commit that finds this interpreter's environment installed, and imports its own code."""
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, check=False).returncode:
        pytest.skip("not a git checkout: there is nothing to clone")
    root = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(PROJECT), str(root)], check=True)
    (root / ".venv").symlink_to(sys.prefix)
    return root


MAKE = ("make", "--no-print-directory", "-o", ".venv/.ready", "-o", ".venv/.ready-dev")  # -o: the environment counts as ready


DAY = ["The first time", "Every day", "Before a commit", "Releases and measurements"]


def environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DIGER_", "DAGSTER_", "GIT_", "DVC_", "MAKE", "MFLAGS"))}
    named = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "test"), ("EMAIL", "test@example.org"))}
    return kept | named | {"PYTHONPATH": str(root), "HOME": str(root.parent), "COLUMNS": "120"}


def run(root: Path, *command: str, ok: bool = True) -> str:
    """Standard output and error together."""
    done = subprocess.run(
        command, cwd=root, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=1700
    )
    assert (done.returncode == 0) == ok, done.stdout
    return done.stdout


def test_make_alone_lists_its_targets_each_with_a_line_of_help():
    listed = subprocess.run(MAKE, cwd=PROJECT, env=environment(PROJECT), capture_output=True, text=True, check=True).stdout.splitlines()
    targets = next(line for line in (PROJECT / "Makefile").read_text(encoding="utf-8").splitlines() if line.startswith(".PHONY:")).split()[1:]
    described = [line.split() for line in listed if line.startswith("  make ")]
    assert [words[1] for words in described] == targets[1:]
    assert all(len(words) > 3 for words in described)
    assert [line for line in listed if line and not line.startswith(" ")] == DAY


@pytest.mark.slow
def test_make_docs_finds_nothing_to_change(clone: Path):
    run(clone, *MAKE, "docs")
    assert run(clone, "git", "status", "--porcelain", "docs", "dvc.yaml", "on_demand", "tests") == ""


@pytest.mark.slow
def test_make_demo_ends_with_a_second_release_and_the_pages_pictures(clone: Path):
    told = run(clone, *MAKE, "demo")
    assert "The demo in short" in told
    assert "released as champion #2" in told
    page = Path(clone / next(line for line in told.splitlines() if "Report: " in line).split("Report: ")[1].strip())
    assert "<h2" in page.read_text(encoding="utf-8")
    diger = (sys.executable, "-c", "from orchestration.cli import main; main()")
    assert "no run was started" in run(clone, *diger, "run", "--snapshot", "data/snapshots/demo-2")
    drawn = set(re.findall(r"pictures/([\w-]+\.png)", (clone / "docs" / "concepts.md").read_text(encoding="utf-8")))
    before = {path.name: path.stat().st_mtime_ns for path in (clone / "docs" / "pictures").glob("*.png")}
    run(clone, sys.executable, "-m", "docs.pictures", "--store", "store")
    after = {path.name: path.stat().st_mtime_ns for path in (clone / "docs" / "pictures").glob("*.png")}
    assert before.keys() == after.keys()
    assert {name for name in after if after[name] > before[name]} == drawn


@pytest.mark.slow
def test_make_ui_serves_the_demo_snapshots(clone: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([*MAKE, "ui", f"ARGS=--port {port}"], cwd=clone, env=environment(clone), start_new_session=True) as server:
        try:
            query = json.dumps({"query": "{ version }"}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", query, {"Content-Type": "application/json"})
            deadline = time.monotonic() + 120
            while True:
                try:
                    with urllib.request.urlopen(request, timeout=5) as answer:
                        assert "version" in json.load(answer)["data"]
                    break
                except OSError:
                    assert time.monotonic() < deadline, "the UI did not answer"
                    assert server.poll() is None, "make ui ended"
                    time.sleep(1)
            assert sorted(path.name.rpartition("-")[0] for path in (clone / "store" / "snapshots").glob("*.json")) == ["demo-1", "demo-2"]
        finally:
            os.killpg(server.pid, signal.SIGINT)
            server.wait(60)


def test_the_hooks_refuse_a_commit_that_the_linters_refuse(clone: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("pre_commit")
    run(clone, sys.executable, "-m", "pre_commit", "install")
    monkeypatch.setenv("SKIP", "mypy")  # a minute for a clone without a cache; `make lint` runs it
    (clone / "orchestration" / "later.py").write_text("import os\nx = 1\n", encoding="utf-8")
    run(clone, "git", "add", "orchestration/later.py")
    told = run(clone, "git", "commit", "-m", "unused import", ok=False)
    assert "F401" in told
    (clone / "orchestration" / "later.py").write_text('"""Nothing."""\n', encoding="utf-8")
    run(clone, "git", "add", "orchestration/later.py")
    run(clone, "git", "commit", "-m", "clean")
