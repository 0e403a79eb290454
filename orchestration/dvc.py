"""DVC owns the bytes: each stage's out is its artefact's directory, hard-linked from the store, with the record that made it.

`dvc pull` in another clone brings these directories back; `adopt` then links them into the store, verified, so that nothing is recomputed and
`why` can answer. Nothing is copied on a local disk; DVC's cache is hard-linked too (.dvc/config).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diger_core.canonical import canonical_json
from diger_core.errors import DigerError
from diger_core.store import MANIFEST, Artefact, Store
from orchestration.runner import Result

PIPELINE = "pipeline"  # where dvc.yaml's outs lie
RECORD, SNAPSHOT, POINTERS = "record.json", "snapshot.json", "pointers.json"


def link_artefact(store: Store, result: Result, directory: str | Path) -> None:
    """Makes `directory` hold the artefact's files, its manifest, record and snapshot entry, and the fitted state that it used."""
    target = Path(directory)
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    record = [r for r in store.records(result.stage.name, result.key) if r["artefact"] == result.artefact.hash][-1]
    _link(store, result.artefact, target)
    _write(target / RECORD, record)
    _write(target / SNAPSHOT, json.loads(store.root.read("snapshots", f"{record['snapshot']}.json")))
    for name in sorted(set(record["inputs"]) - set(result.stage.inputs)):
        fitted = store.artefact(name, record["inputs"][name])
        inner = target / name
        inner.mkdir()
        _link(store, fitted, inner)
        pointers = {n: json.loads(store.root.read("pointers", name, n)) for n in store.root.list("pointers", name) if n.endswith(".json")}
        _write(inner / POINTERS, {n: p for n, p in pointers.items() if p["artefact"] == fitted.hash})


def _link(store: Store, artefact: Artefact, target: Path) -> None:
    for name in artefact.names:
        source = artefact.path(name)
        try:
            os.link(source, target / name)
        except OSError:  # another file system: the copy has the same bytes
            shutil.copyfile(source, target / name)
    _write(target / MANIFEST, artefact.manifest)


def _write(path: Path, value: Any) -> None:
    path.write_bytes(canonical_json(value) + b"\n")


def adopt(store: Store, pipeline: str | Path = PIPELINE) -> int:
    """Links artefacts that `dvc pull` has restored into the store, with their records; returns how many were missing there."""
    count = 0
    for directory in _directories(Path(pipeline)):
        manifest = json.loads((directory / MANIFEST).read_bytes())
        stage, hash_ = manifest["stage"], manifest["hash"]
        if store.find(stage, hash_) is None:
            _adopt_files(store, directory, manifest)
            count += 1
        _adopt_facts(store, directory, stage)
    return count


def _directories(pipeline: Path) -> Iterator[Path]:
    for manifest in sorted([*pipeline.glob(f"*/{MANIFEST}"), *pipeline.glob(f"*/*/{MANIFEST}")]):
        yield manifest.parent


def _adopt_files(store: Store, directory: Path, manifest: dict[str, Any]) -> None:
    with store.writer(manifest["stage"]) as out:
        out.facts.update(manifest["facts"])
        for entry in manifest["files"]:
            source = directory / entry["name"]
            if not source.exists():
                raise DigerError(f"{source}: named by its manifest but missing: run dvc pull again")
            out.link(entry["name"], source, entry["sort_by"])
        artefact = store.publish(out)
    if artefact.hash != manifest["hash"]:
        raise DigerError(f"{directory}: its content is not what its manifest names (got {artefact.hash[:12]}): run dvc pull again, with verify = true on the remote")


def _adopt_facts(store: Store, directory: Path, stage: str) -> None:
    if (directory / RECORD).exists():
        record = json.loads((directory / RECORD).read_bytes())
        if not any(r["artefact"] == record["artefact"] for r in store.records(stage, record["key"])):
            own = ("format", "stage", "key", "number")
            store.append_record(stage, record["key"], {name: value for name, value in record.items() if name not in own})
    if (directory / SNAPSHOT).exists():
        entry = json.loads((directory / SNAPSHOT).read_bytes())
        store.root.create(canonical_json(entry), "snapshots", f"{entry['key']}.json")
    if (directory / POINTERS).exists():
        for name, value in json.loads((directory / POINTERS).read_bytes()).items():
            store.create_pointer(stage, name.removesuffix(".json"), value)


def dvc(*arguments: str) -> str:
    """Runs DVC's command line, telemetry off, waiting for its lock; returns its output, or raises with DVC's own reason."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()[-300:]]
        raise DigerError(f"dvc {arguments[0]}: {lines[0]}")
    return done.stdout


def track(path: str | Path) -> None:
    """`dvc add` for a snapshot directory."""
    dvc("--wait-for-lock", "add", "--quiet", str(path))
