"""Temporary directories of killed processes are removed, and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from orchestration.engine.scratch import private_directory, sweep

MAKE = "import sys; from orchestration.engine.scratch import private_directory; print(private_directory('diger-', sys.argv[1]), flush=True); input()"


def start(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    owner = subprocess.Popen([sys.executable, "-c", MAKE, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    return owner, Path(owner.stdout.readline().strip())


def test_the_next_start_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    killed, left = start(tmp_path)
    alive, kept = start(tmp_path)
    killed.kill()
    killed.wait()
    assert left.is_dir()
    mine = private_directory("diger-", str(tmp_path))
    assert not left.exists()
    assert kept.is_dir()
    assert mine.is_dir()
    assert mine.stat().st_mode & 0o077 == 0
    alive.communicate("\n")
    assert alive.returncode == 0


def test_a_directory_that_a_living_process_still_names_stays(tmp_path: Path) -> None:
    killed, left = start(tmp_path)
    killed.kill()
    killed.wait()
    program = "print('up', flush=True); input()"
    server = subprocess.Popen([sys.executable, "-c", program, f"--temp_dir={left}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    server.stdout.readline()  # its command line can be read from now on
    assert sweep(tmp_path) == []
    server.communicate("\n")
    assert sweep(tmp_path) == [left]


def test_directories_of_others_and_without_an_owner_stay(tmp_path: Path) -> None:
    for name, owner in {
        "diger-a": "{}",
        "diger-b": "no json",
        "diger-c": json.dumps({"pid": 1, "started": "0", "boot": "", "host": "elsewhere"}),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / ".diger-owner").write_text(owner)
    (tmp_path / "diger-d").mkdir()
    assert sweep(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 4


def test_an_id_that_another_process_has_now_is_no_owner(tmp_path: Path) -> None:
    owner, left = start(tmp_path)
    found = json.loads((left / ".diger-owner").read_text())
    (left / ".diger-owner").write_text(json.dumps({**found, "started": "1"}))
    assert sweep(tmp_path) == [left]
    owner.communicate("\n")
