"""The core needs torch, numpy, pyarrow, safetensors and fsspec, and nothing else that may or may not be installed."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
NEEDED = ("torch", "numpy", "pyarrow", "safetensors", "fsspec")
BLOCK = """
import importlib, sys
for name in ("scipy", "yaml", "matplotlib", "sklearn", "pydantic", "s3fs", "tqdm"):
    sys.modules[name] = None  # the needed ones use some of these where they find them; they must do without
for name in ("torch", "numpy", "pyarrow.parquet", "pyarrow.compute", "pyarrow.dataset", "safetensors.torch", "fsspec"):
    importlib.import_module(name)
sys.modules["pandas"] = None  # only now: what looks for it by find_spec stumbles over None
before = {name.partition(".")[0] for name in sys.modules} | set(sys.stdlib_module_names) | {"diger_core"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in before:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCK + code], cwd=PROJECT, capture_output=True, text=True, check=False)


def test_every_module_of_the_core_imports_with_everything_else_blocked():
    names = sorted(".".join(p.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__") for p in (PROJECT / "diger_core").rglob("*.py"))
    chosen = [name for name in names if not name.endswith("triton_kernels")]  # a kernel needs Triton, and is imported only where there is one
    done = run(f"for name in {chosen!r}: importlib.import_module(name)\n")
    assert done.returncode == 0, done.stderr


def test_what_is_not_needed_is_really_blocked():
    tried = (
        "for name in ('pandas', 'click'):\n    try:\n        importlib.import_module(name)\n    except ImportError as error:\n        print(error)\n"
    )
    assert run(tried).stdout.splitlines() == ["import of pandas halted; None in sys.modules", "blocked: click"]
