"""DVC owns the bytes: each stage's out is its artefact's directory, hard-linked from the store, with the record that made it.

`dvc pull` in another clone brings these directories back; `adopt` then links them into the store, verified, so that nothing is recomputed and
`why` can answer. Nothing is copied on a local disk: DVC's cache holds the same inodes, as long as `hardlink` comes first in .dvc/config.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from diger_core.errors import DigerError
from diger_core.store import lease
from diger_core.store.artefact import MANIFEST, Artefact, artefact_hash
from diger_core.store.artefacts import Store
from diger_core.store.canonical import bytes_sha256, canonical_json
from diger_core.store.record import Record
from orchestration.engine.removal import was_forgotten
from orchestration.engine.runner import Result
from orchestration.graph import PIPELINE, STAGES
from orchestration.stage import Stage

RECORD, SNAPSHOT, POINTERS, BASELINE, LOG = "record.json", "snapshot.json", "pointers.json", "baseline.json", "champion"
BUNDLES = ("baseline", "champion", "anchor")  # inputs that are artefacts of stage bundle
_AGAIN = "remove {} and run dvc checkout or dvc pull (with verify = true on the remote)"


def link_artefact(store: Store, result: Result, directory: str | Path) -> None:
    """Makes `directory` hold the artefact's files, its record and snapshot entry, the fitted state that it used, and, last, its manifest."""
    target = Path(directory)
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    record = [r for r in store.records(result.stage.name, result.key) if r["artefact"] == result.artefact.hash][-1]
    _write(target / RECORD, record)
    _write(target / SNAPSHOT, _portable(store.document("snapshots", f"{record['snapshot']}.json")))
    arrived = store.pointer("baseline", record["snapshot"])
    if arrived is not None:  # also where it says that there was no champion: another clone must not find another one
        _write(target / BASELINE, {"snapshot": record["snapshot"], "pointer": arrived})
    for name in sorted(set(record["inputs"]) - set(result.stage.inputs)):
        fitted = store.artefact("bundle" if name in BUNDLES else name, record["inputs"][name])
        inner = target / name
        inner.mkdir()
        pointers = {n: store.document("pointers", name, n) for n in store.root.list("pointers", name) if n.endswith(".json")}
        _write(inner / POINTERS, {n: p for n, p in pointers.items() if fitted.hash in (p.get("artefact"), p.get("bundle"))})
        made = _maker(store, fitted)
        if made is not None:
            _write(inner / RECORD, {**made, "horizon": True})  # what it was made from may belong to another revision
        _link(fitted, inner)
    if result.stage.name == "release":
        _link_log(store, target / LOG)
    _link(result.artefact, target)


def _maker(store: Store, artefact: Artefact) -> Record | None:
    """The first record that led to the artefact, so that another clone can say where it came from."""
    records = [r for key in store.root.list("records", artefact.stage) for r in store.records(artefact.stage, key)]
    found = [record for record in records if record["artefact"] == artefact.hash]
    return min(found, key=lambda record: str(record["started_at"])) if found else None


def _link_log(store: Store, target: Path) -> None:
    """The champion log as it stands: another clone then knows the same champion."""
    target.mkdir()
    for name in store.root.list("champion"):
        if name.endswith(".json"):
            (target / name).write_bytes(store.root.read("champion", name))


def _portable(entry: dict[str, Any]) -> dict[str, Any]:
    """A snapshot inside the project is named from the project's root, so that the entry is right in every clone."""
    here, place = Path.cwd(), Path(entry["url"])
    return {**entry, "url": place.relative_to(here).as_posix()} if place.is_relative_to(here) else entry


def _link(artefact: Artefact, target: Path) -> None:
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
    for manifest_path in sorted([*Path(pipeline).glob(f"*/{MANIFEST}"), *Path(pipeline).glob(f"*/*/{MANIFEST}")]):
        manifest, directory = _read(manifest_path), manifest_path.parent
        if was_forgotten(store, manifest["hash"]):
            continue
        if store.find(manifest["stage"], manifest["hash"]) is None:
            _adopt_files(store, directory, manifest)
            count += 1
        _adopt_facts(store, directory, manifest["stage"])
    for path in sorted(Path(pipeline).glob(f"release/{LOG}/*.json")):
        # Only the same log may grow: behind another entry of that number, what follows belongs to another store's history.
        if not store.root.create(path.read_bytes(), "champion", path.name) and store.root.read("champion", path.name) != path.read_bytes():
            break
    return count


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        return document
    except ValueError as error:
        raise DigerError(f"{path}: not valid JSON: {_AGAIN.format(path.parent)}") from error


def _adopt_files(store: Store, directory: Path, manifest: dict[str, Any]) -> None:
    edited = f"{directory / MANIFEST}: does not hash to the name that it gives: {_AGAIN.format(directory)}"
    if artefact_hash(manifest["stage"], manifest["files"], manifest["facts"]) != manifest["hash"]:
        raise DigerError(edited)
    with lease.hold(store.root, "stage", f"adoption of {directory}"), store.writer(manifest["stage"]) as out:
        out.facts.update(manifest["facts"])
        for entry in manifest["files"]:
            source = directory / entry["name"]
            if not source.exists():
                raise DigerError(f"{source}: named by its manifest but missing: {_AGAIN.format(directory)}")
            if bytes_sha256(source) != entry["sha256"]:
                raise DigerError(f"{source}: its bytes are not those of its manifest (SHA-256 differs): {_AGAIN.format(directory)}")
            out.link(entry["name"], source, entry["sort_by"])
        artefact = store.publish(out)
    if artefact.hash != manifest["hash"]:
        raise DigerError(edited)


def _adopt_facts(store: Store, directory: Path, stage: str) -> None:
    if (directory / SNAPSHOT).exists():
        entry = _read(directory / SNAPSHOT)
        store.root.create(canonical_json(entry), "snapshots", f"{entry['key']}.json")
    if (directory / POINTERS).exists():
        for name, value in _read(directory / POINTERS).items():
            store.create_pointer(directory.name, name.removesuffix(".json"), value)
    if (directory / BASELINE).exists():
        arrived = _read(directory / BASELINE)
        store.create_pointer("baseline", arrived["snapshot"], arrived["pointer"])
    if (directory / RECORD).exists():
        record = _read(directory / RECORD)
        if not any(r["artefact"] == record["artefact"] for r in store.records(stage, record["key"])):
            own = ("format", "stage", "key", "number", "seal")
            store.append_record(stage, record["key"], {name: value for name, value in record.items() if name not in own})


def dvc(*arguments: str) -> str:
    """Runs DVC's command line, telemetry off; returns its output, or raises with DVC's own reason."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()[-300:]]
        raise DigerError(f"dvc {' '.join(arguments)}: {lines[0]}")
    return done.stdout


def track(*paths: str | Path) -> bool:
    """`dvc add` for snapshot directories, so that `dvc push` carries them; `False`, and nothing done, where the working directory has no DVC."""
    if not (Path(".dvc").is_dir() and Path(".git").exists()):
        return False
    dvc("--wait-for-lock", "add", "--quiet", *(str(path) for path in paths))
    return True


# The two dvc.yaml files, written from the graph

FILES = {"dvc.yaml": False, "on_demand/dvc.yaml": True}
_HEADS = {
    "dvc.yaml": "# Written from orchestration/graph.py by `make docs`, for `dvc repro`, `dvc exp run` and `dvc push`.\n"
    "# Each out is a stage's artefact, hard-linked from the store.\n",
    "on_demand/dvc.yaml": "# Written from orchestration/graph.py by `make docs`: stages that run on demand.\n"
    "# A file of their own, because `dvc repro` alone runs all of ./dvc.yaml: `dvc repro on_demand/dvc.yaml:recommendations`, or `:decay_search`,\n"
    "# `:tuned_model`, `:training_comparison`.\n",
}
_CURVES = {"Validation NDCG@10": ("validation_ndcg_10", ("joint_model", "frozen_model")), "Sigma": ("sigma", ("joint_model",))}


def dvc_yaml(name: str) -> str:
    """The text of one of `FILES`."""
    import yaml

    chosen = [stage for stage in STAGES if bool(stage.on_demand) == FILES[name]]
    entries = {stage.name: _entry(stage, FILES[name]) for stage in chosen}
    whole: dict[str, Any] = {"stages": entries}
    if not FILES[name]:
        metrics = [f"pipeline/{stage.name}/{file}" for stage in chosen for file in stage.dvc_metrics]
        plots = [{title: {"x": "epoch", "y": {f"pipeline/{m}/curves.json": key for m in models}}} for title, (key, models) in _CURVES.items()]
        whole = {"vars": ["params.yaml"], **whole, "metrics": metrics, "plots": plots}
    return _HEADS[name] + str(yaml.safe_dump(whole, sort_keys=False, width=140))


def _entry(stage: Stage, on_demand: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"wdir": ".."} if on_demand else {}
    entry["cmd"] = f"diger stage {stage.name} --link {PIPELINE}/{stage.name}"
    entry["deps"] = [f"pipeline/{name}" for name in stage.inputs] or ["${snapshot}"]
    if stage.params:
        entry["params"] = list(stage.params)
    return {**entry, "outs": [f"pipeline/{stage.name}"]}


if __name__ == "__main__":
    for file in FILES:
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(dvc_yaml(file), encoding="utf-8")
