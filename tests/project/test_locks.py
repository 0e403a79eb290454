"""The two lists of pinned dependencies: what running needs, and what tests and linters need beside it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def locks():
    spec = importlib.util.spec_from_file_location("locks", PROJECT / ".ci" / "locks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(PROJECT / name, tmp_path)
    return tmp_path


def test_the_locks_agree_with_pyproject(locks):
    assert locks.disagreements(PROJECT) == []


def test_the_lock_for_running_has_no_tool_of_development(locks):
    running = locks.pins(PROJECT / "requirements.lock")
    assert {"torch", "ray", "dagster", "dvc", "optuna", "transformers"} <= running.keys()
    assert not {"pytest", "ruff", "mypy", "playwright", "pre-commit", "hypothesis"} & running.keys()


def test_what_pyproject_asks_for_and_no_pin_fulfils_is_named(locks, folder):
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(text.replace('"optuna>=4.5"', '"optuna>=99"').replace('"hypothesis>=', '"absent>='), encoding="utf-8")
    (folder / "requirements-dev.lock").write_text(
        (folder / "requirements-dev.lock").read_text(encoding="utf-8") + "torch==2.13.0\n", encoding="utf-8"
    )
    told = locks.disagreements(folder)
    assert ["torch" in told[0], "optuna 5" in told[1], "absent (nothing)" in told[2]] == [True] * 3


def test_what_is_installed_is_written_as_two_lists_without_an_overlap(locks, folder, capsys):
    for name in ("requirements.lock", "requirements-dev.lock"):
        (folder / name).write_text("", encoding="utf-8")
    locks.write(folder)
    assert locks.disagreements(folder) == []
    assert "requirements.lock: " in capsys.readouterr().out


def test_an_extra_leads_to_what_it_needs_and_to_nothing_else(locks):
    assert "s3fs" not in locks.closure([Requirement("fsspec")])
    assert "s3fs" in locks.closure([Requirement("dvc-s3")])
    assert "python-multipart" not in locks.closure([Requirement("starlette")])


@pytest.mark.parametrize(
    ("stable", "said"),
    [(Version("1.4.0"), "stable 1.4.0 exists"), (Version("1.3.8"), "no stable release yet"), (None, "the package index cannot be reached")],
)
def test_a_release_candidate_is_compared_with_the_stable_releases(locks, monkeypatch, folder, stable, said):
    text = (folder / "requirements.lock").read_text(encoding="utf-8")
    (folder / "requirements.lock").write_text(text.replace("omegaconf==2.4.1rc1", "omegaconf==2.4.1"), encoding="utf-8")
    monkeypatch.setattr(locks, "newest_stable", lambda name: stable)
    (line,) = locks.release_candidates(folder)
    assert line.startswith("hydra-core 1.4.0rc3: ")
    assert said in line


def test_pips_answer_is_read_and_its_silence_too(locks, monkeypatch):
    def answer(text):
        return lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=text, stderr="")

    monkeypatch.setattr(locks.subprocess, "run", answer("hydra-core (1.3.8)\nAvailable versions: 1.3.8, 1.10.0, 1.3.7\n  LATEST: 1.3.8\n"))
    assert locks.newest_stable("hydra-core") == Version("1.10.0")
    monkeypatch.setattr(locks.subprocess, "run", answer(""))
    assert locks.newest_stable("hydra-core") is None


def test_another_word_than_write_or_check_is_refused():
    done = subprocess.run([sys.executable, str(PROJECT / ".ci" / "locks.py"), "chek"], capture_output=True, text=True, check=False)
    assert (done.returncode, "write|check" in done.stderr) == (1, True)
