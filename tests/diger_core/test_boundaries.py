"""Who may import what: the core stands alone, and the linter notices when it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
FOREIGN = (
    "dagster",
    "ray",
    "dvc",
    "great_expectations",
    "sklearn",
    "scipy",
    "pandas",
    "transformers",
    "matplotlib",
    "pydantic",
    "click",
    "rich",
    "s3fs",
)


def test_the_core_imports_nothing_of_the_pipeline():
    modules = sorted(".".join(p.relative_to(PROJECT).with_suffix("").parts) for p in (PROJECT / "diger_core").rglob("*.py"))
    names = [m.removesuffix(".__init__") for m in modules if not m.endswith("triton_kernels")]  # needs Triton
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"found = [m for m in {(*FOREIGN, 'orchestration', 'assets')!r} if m in sys.modules]\nsys.exit(' '.join(found) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("diger_core/x.py", "import pandas"),
        ("diger_core/x.py", "from orchestration.graph import STAGES"),
        ("orchestration/x.py", "import dagster as dg"),
        ("orchestration/x.py", "def f():\n    import ray"),
        ("orchestration/stages/x.py", "import matplotlib"),
        ("orchestration/engine/runner.py", "import pickle"),
    ],
)
def test_the_linter_refuses_an_import_that_crosses_a_boundary(place, line):
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID,S", "--stdin-filename", str(PROJECT / place), "-"]
    done = subprocess.run(command, input=f"{line}\n", capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 1
    assert "TID25" in done.stdout
