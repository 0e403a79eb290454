"""The whole flow with snapshot and store on a real S3 server; no secret is left anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diger_core.store.artefacts import Store
from orchestration.graph import FLOW
from tests.support.dvc_project import TINY
from tests.support.s3 import SECRET
from tests.support.snapshot_material import interactions, items, write

pytestmark = [pytest.mark.s3, pytest.mark.slow]


def diger(folder: Path, *arguments: str) -> str:
    """`diger` in a process of its own, with the server's environment; standard output and error together."""
    done = subprocess.run(
        [sys.executable, "-c", "from orchestration.cli import main; main()", *arguments],
        cwd=folder,
        env={**os.environ, "DAGSTER_HOME": str(folder / "dagster"), "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def leaks(content: bytes) -> bool:
    """The canary secret, as it is or as SQLite and JSON may write it."""
    return any(SECRET.encode(encoding) in content for encoding in ("utf-8", "utf-16-le"))


def test_the_flow_on_s3_is_reused_as_a_whole_and_leaves_no_secret(s3_bucket, tmp_path):
    import s3fs

    fs = s3fs.S3FileSystem(use_listings_cache=False)
    local = write(tmp_path / "local", interactions(), items())
    for path in local.iterdir():
        fs.put_file(str(path), f"{s3_bucket}/snap/{path.name}")
    (tmp_path / "params.yaml").write_text(TINY)
    where = ("--snapshot", f"{s3_bucket}/snap", "--store", f"{s3_bucket}/store")

    first = diger(tmp_path, "run", *where)
    assert "Verdict: " in first
    objects = fs.find(s3_bucket)
    second = diger(tmp_path, "run", *where)
    assert all(f"{stage.name}: unchanged, reused" in second for stage in FLOW)
    fs.invalidate_cache()
    assert fs.find(s3_bucket) == objects

    rows = json.loads(diger(tmp_path, "lookup", *where, "--item", "7", "--json"))
    assert [row["item_id"] for row in rows] == [7]
    store = Store(f"{s3_bucket}/store")
    for stage in FLOW:
        keys = store.root.list("records", stage.name)
        assert len(keys) == 1
        (record,) = store.records(stage.name, keys[0])
        assert not store.artefact(stage.name, record["artefact"]).verify()
        assert record["artefact"] in first or record["artefact"][:12] in first

    assert not leaks((first + second).encode())
    assert [name for name in objects if leaks(fs.cat_file(name))] == []
    kept = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any(p.suffix == ".db" for p in kept), "Dagster's databases were not searched"
    assert [p for p in kept if leaks(p.read_bytes())] == []
