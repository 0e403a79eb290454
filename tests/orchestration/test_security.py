"""No pickle in the code or in a store, paths that stay in their store, and a credential that appears nowhere."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from diger_core.store.files import Root, safe_name
from orchestration.audit.index import Index
from orchestration.audit.names import resolve
from orchestration.engine.registry import lookup
from orchestration.snapshot.files import open_root

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = ("diger_core", "orchestration", "assets", "serving", "benchmarks")
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
UNSAFE_CALLS = {"torch.load", "torch.save", "torch.package.PackageImporter", "pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load"}
BUILT_IN = {"eval", "exec", "compile", "__import__"}


def unsafe(tree: ast.AST) -> list[str]:
    """What a source could run code from data with, as "line: name"."""
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            names = [str(node.module)]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            allows = [k for k in node.keywords if k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False)]
            if name in UNSAFE_CALLS or name in BUILT_IN or allows or any(k.arg == "shell" for k in node.keywords):
                names = [name]
        found += [f"{getattr(node, 'lineno', 0)}: {name}" for name in names]
    return found


def test_no_source_can_load_a_pickle_or_run_data():
    files = [path for folder in SOURCES for path in (PROJECT / folder).rglob("*.py")]
    assert len(files) > 100
    found = {str(p.relative_to(PROJECT)): bad for p in files if (bad := unsafe(ast.parse(p.read_text(encoding="utf-8"))))}
    assert found == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch; torch.load('x')",
        "np.load('x', allow_pickle=True)",
        "eval('1')",
        "run('x', shell=True)",
    ],
)
def test_the_scan_sees_what_it_looks_for(code):
    assert unsafe(ast.parse(code))


def pickled(data: bytes) -> bool:
    """A pickle of protocol 2 or later, or a torch archive."""
    return (data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")) or data[:4] == b"PK\x03\x04" or b"data.pkl" in data[:4096]


def test_no_file_of_a_store_is_a_pickle(audit_world):
    import pickle

    import torch

    assert pickled(pickle.dumps({"a": 1}))
    buffer = __import__("io").BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    assert pickled(buffer.getvalue())
    files = [path for path in Path(audit_world.store.root.base).rglob("*") if path.is_file() and path.suffix != ".lock"]
    kinds = {path.suffix for path in files}
    assert kinds <= {".json", ".parquet", ".safetensors", ".html", ".md", ".png"}, kinds
    assert [str(path) for path in files if pickled(path.read_bytes())] == []


# Paths


HOSTILE = ["..", "../x", "a/../../x", "/etc/passwd", "s3://other/x", "file:///etc/passwd", "a\0b", "a\nb", ".hidden", "", "x" * 300, "a b", "~root"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_one_component_below_its_root(name):
    with pytest.raises(DigerError, match="not a usable name"):
        safe_name(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_question_leaves_the_store(audit_world, tmp_path, name):
    index = Index(audit_world.store, cached=False)
    with pytest.raises(DigerError):
        resolve(index, name)
    with pytest.raises(DigerError):
        lookup(audit_world.store, name)
    with pytest.raises(DigerError):
        audit_world.store.artefact("raw_items", name)


def test_a_manifest_cannot_point_outside_its_artefact(audit_world, tmp_path):
    store = audit_world.copy(tmp_path)
    (tmp_path / "secret.txt").write_text("secret")
    names = ("artefacts", "raw_items", audit_world.runs[0]["raw_items"], "manifest.json")
    path = Path(store.root.at(*names))
    value = json.loads(path.read_bytes())
    value["files"][0]["path"] = "../../../../secret.txt"  # `path` is no part of the name's hash
    path.unlink()
    path.write_text(json.dumps(value))
    with pytest.raises(DigerError, match="not a usable name"):
        store.artefact("raw_items", names[2]).path(value["files"][0]["name"])


def test_a_symbolic_link_out_of_the_store_is_refused(audit_world, tmp_path):
    store = audit_world.copy(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (Path(store.root.base) / "artefacts" / "linked").symlink_to(outside)
    for action in (lambda: store.root.list("artefacts", "linked"), lambda: store.root.create(b"x", "artefacts", "linked", "x")):
        with pytest.raises(DigerError, match="symbolic link"):
            action()
    assert list(outside.iterdir()) == []
    assert not [name for name in store.root.tree() if name.startswith("artefacts/linked/")]


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/x", "https://user:password@host/x"])
def test_credentials_in_a_url_are_refused_unseen(url):
    with pytest.raises(DigerError) as caught:
        open_root(url)
    assert "secret" not in str(caught.value)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("url", ["no-such-scheme://x", "zip://x::file:///etc/passwd"])
def test_another_scheme_is_no_way_in(url):
    with pytest.raises(DigerError):
        Root(url).list()


# Secrets


def test_an_error_of_the_object_store_shows_no_credential():
    from diger_core.store.faults import describe_os_error

    message = str(describe_os_error(OSError("SignatureDoesNotMatch secret_key=canary-7f3a, Signature: abc; token = canary-7f3a"), "s3://b/x"))
    assert "canary-7f3a" not in message


@pytest.mark.s3
@pytest.mark.slow
def test_the_audit_of_a_store_on_s3_leaves_no_secret(s3_bucket, tmp_path, audit_world):
    """The flow's own test is test_flow_s3.py; this one asks every question about such a store, and looks at all that they print and cache."""
    from benchmarks.tamper import copy_store
    from tests.support.s3 import SECRET

    copy_store(audit_world.store, Store(f"{s3_bucket}/store"))
    page = tmp_path / "page.html"
    questions = [
        ["why", "champion", "--verify", "--html", str(page)],
        ["why", "champion", "--json"],
        ["where-used", audit_world.snapshots[1].key],
        ["item", "3", "--history"],
        ["verify"],
        ["gc", "--min-age", "0", "--delete"],
        ["forget", "5", "--yes"],
        ["why", "champion", "--verify"],
    ]
    environment = {**os.environ, "DIGER_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(PROJECT)}
    for question in questions:
        done = subprocess.run(
            [sys.executable, "-c", "from orchestration.cli import main; main()", *question, "--store", f"{s3_bucket}/store"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, f"{question}: {done.stdout[-500:]}{done.stderr}"
        assert SECRET not in done.stdout + done.stderr, question
    refused = subprocess.run(
        [sys.executable, "-c", "from orchestration.cli import main; main()", "why", "champion", "--store", f"{s3_bucket}/store"],
        capture_output=True,
        text=True,
        env={**environment, "AWS_SECRET_ACCESS_KEY": SECRET + "-wrong"},
        check=False,
        cwd=tmp_path,
    )
    assert refused.returncode == 1
    assert SECRET not in refused.stdout + refused.stderr
    assert [str(p) for p in tmp_path.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()] == []
    store = Store(f"{s3_bucket}/store")
    leaks = [name for name in store.root.tree() if SECRET.encode() in store.root.read(*name.split("/"))]
    assert leaks == []
