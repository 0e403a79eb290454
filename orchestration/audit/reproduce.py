"""`diger reproduce X`: the recorded code, params and snapshot, run again in a scratch store, and each result compared with the recorded one.

What a stage takes beside its inputs (a fitted encoder, an earlier release) is given as it was; everything else is built from the snapshot's bytes.
The user's store is only read.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from orchestration.audit.chain import Chain, Node, chain, load
from orchestration.audit.compare import compare
from orchestration.audit.index import Index
from orchestration.audit.names import Thing
from orchestration.champion.baseline import BASELINE
from orchestration.engine import provenance
from orchestration.engine.registry import FILES_OF
from orchestration.graph import BY_NAME, ORDER

if TYPE_CHECKING:
    from orchestration.champion.bundle import BundleDocument

# Runs with the recorded commit's own modules: it uses only what every version of the runner offers.
_DRIVER = """
import json, sys
given = json.load(sys.stdin)
from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from orchestration.engine.registry import lookup
from orchestration.engine.runner import Session
try:
    store = Store(given["store"])
    session = Session(store, build_params(given["params"]), lookup(store, given["snapshot"]))
    for name in given["stages"]:
        result = session.materialise(BY_NAME[name])
        print("BUILT " + json.dumps([name, result.artefact.hash, result.seconds]), flush=True)
except DigerError as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True)
class How:
    """`here`: this checkout's code; `allow_dirty`: the recorded commit without its uncommitted changes; `snapshot`: raw files from elsewhere."""

    here: bool = False
    allow_dirty: bool = False
    snapshot: str | None = None
    keep: str | None = None


@dataclass
class Stage:
    name: str
    recorded: str
    rebuilt: str
    seconds: float
    differences: list[str]


@dataclass
class Reproduction:
    """Each stage's hashes; `notes` say what was not the same about this run."""

    commit: str
    stages: list[Stage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return all(stage.recorded == stage.rebuilt for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        return {"equal": self.equal, "commit": self.commit, "notes": self.notes, "stages": [stage.__dict__ for stage in self.stages]}

    def text(self) -> Iterator[str]:
        yield from (f"note: {note}" for note in self.notes)
        for stage in self.stages:
            same = "bit-equal" if stage.recorded == stage.rebuilt else f"DIFFERS: recorded {stage.recorded[:12]}"
            yield f"{stage.name:<24} {stage.rebuilt[:12]}  {same}  ({stage.seconds:.1f} s)"
            yield from (f"    {line}" for line in stage.differences)
        count = sum(stage.recorded != stage.rebuilt for stage in self.stages)
        yield f"{len(self.stages)} stages rebuilt with {self.commit}: " + ("all content hashes equal" if not count else f"{count} differ")


def rebuild(index: Index, thing: Thing, how: How) -> Reproduction:
    """Rebuilds the artefact; a release stands for its bundle, an assignment for the model that holds it."""
    if thing.kind == "release":
        thing = Thing("artefact", next(entry.bundle for entry in index.releases if str(entry.number) == thing.value))
    found = chain(index, thing)
    target = found.nodes[found.root]
    built, given = _split(found)
    load(index, [*built, *given])
    if target.stage not in BY_NAME or not target.record.get("params"):
        raise DigerError(f"{target.stage} {target.hash[:12]}: no record of a stage says how it was made, so it cannot be made again")
    result = Reproduction("this checkout" if how.here else f"commit {str(target.record['code']['commit'])[:12]}")
    result.notes += _notes(target, built, how)
    with _scratch(how.keep) as scratch, _code(target.record["code"], how, scratch) as code:
        store = Store(scratch / "store")
        _lend(index, store, given, target)
        _snapshot(index, store, built, target, how, scratch)
        hashes = _run(
            code, scratch, {"store": store.url, "params": _params(index, built), "snapshot": target.record["snapshot"], "stages": _names(built)}
        )
        for node in built:
            rebuilt, seconds = hashes[node.stage]
            differences = [] if rebuilt == node.hash or node.status != "present" else _differences(index, store, node, rebuilt)
            result.stages.append(Stage(node.stage, node.hash, rebuilt, seconds, differences))
    return result


def _split(found: Chain) -> tuple[list[Node], list[Node]]:
    """(nodes to build, in the flow's order; artefacts that their stages take beside their inputs)."""
    built: dict[str, Node] = {}
    given: dict[str, Node] = {}
    waiting = [found.root]
    while waiting:
        node = found.nodes[waiting.pop()]
        if node.id in built or node.kind != "artefact":
            continue
        built[node.id] = node
        declared = BY_NAME[node.stage].inputs if node.stage in BY_NAME else ()
        for name, id_ in node.inputs:
            if name in declared:
                waiting.append(id_)
            elif found.nodes[id_].kind == "artefact":
                given[id_] = found.nodes[id_]
    return sorted(built.values(), key=lambda node: ORDER.get(node.stage, -1)), list(given.values())


def _names(built: list[Node]) -> list[str]:
    return [node.stage for node in built]


def _notes(target: Node, built: list[Node], how: How) -> Iterator[str]:
    here, there = provenance.machine(), target.record.get("machine") or {}
    changed = [key for key in ("processor", "accelerators", "torch", "numpy", "python") if here.get(key) != there.get(key)]
    if changed:
        yield "another machine or other libraries, so floating point may differ: " + ", ".join(
            f"{k} {there.get(k)} -> {here.get(k)}" for k in changed
        )
    code = target.record["code"]
    if code.get("lock") != provenance.code()["lock"]:
        yield "requirements.lock is not that of the recorded run"
    if code.get("dirty_diff") and not how.here:
        yield f"the recorded run had uncommitted changes (SHA-256 of their diff: {str(code['dirty_diff'])[:12]}), which are not in its commit"
    if how.here and (provenance.code()["commit"], provenance.code()["dirty_diff"]) != (code["commit"], code.get("dirty_diff")):
        yield f"this checkout is not the code of the recorded run (commit {str(code['commit'])[:12]})"
    others = [n.stage for n in built if (n.record.get("code") or {}).get("commit") != code["commit"]]
    if others:
        yield f"recorded from other commits than {target.stage}: {', '.join(others)}"


# The scratch store


@contextlib.contextmanager
def _scratch(keep: str | None) -> Iterator[Path]:
    if keep is not None:
        place = Path(keep).absolute()
        if place.exists() and any(place.iterdir()):
            raise DigerError(f"{keep}: exists and is not empty: give another --keep DIR")
        place.mkdir(parents=True, exist_ok=True)
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="diger-reproduce-") as folder:
        yield Path(folder)


def _lend(index: Index, store: Store, given: list[Node], target: Node) -> None:
    """Copies what the stages are given, the pointers to it, and the champion log as it was when the target was made."""
    for node in given:
        artefact = index.artefact(node.hash)
        if artefact is None:
            raise DigerError(f"{node.stage} {node.hash[:12]}, which the run was given, is missing from {index.store.url}: restore it (dvc pull)")
        _copy(artefact, store)
        bundle: BundleDocument | None = artefact.json("bundle.json") if "bundle.json" in artefact.names else None
        for hash_ in bundle["components"].values() if bundle is not None else ():  # a warm start looks at what the earlier release was made from
            part = index.artefact(hash_)
            if part is not None:
                _copy(part, store)
    lent = {node.hash for node in given}
    for name, value in index.pointers:
        kind, _, key = name.partition("/")
        if value.get("artefact") in lent or (kind == "baseline" and key == target.record["snapshot"]):
            store.create_pointer(kind, key, value)
    for entry in index.releases:
        if entry.at <= str(target.record["started_at"]):
            store.root.create(index.root.read("champion", f"{entry.number:06d}.json"), "champion", f"{entry.number:06d}.json")


def _copy(artefact: Artefact, store: Store) -> None:
    with store.writer(artefact.stage) as out:
        out.facts.update(artefact.facts)
        for name in artefact.names:
            out.file(name, artefact.path(name), artefact.files[name]["sort_by"])
        if store.publish(out).hash != artefact.hash:
            raise DigerError(f"{artefact.directory}: its content does not have its name's hash: `diger verify` says what is wrong")


def _snapshot(index: Index, store: Store, built: list[Node], target: Node, how: How, scratch: Path) -> None:
    """Registers the snapshot in the scratch store, with files from the raw artefacts or from where the user says."""
    entry = dict(index.snapshots[target.record["snapshot"]])
    if how.snapshot is None:
        folder = scratch / "snapshot"
        folder.mkdir()
        for node in built:
            artefact = index.artefact(node.hash) if node.stage in FILES_OF else None
            for name in artefact.names if artefact is not None else ():
                shutil.copyfile(artefact.path(name), folder / name)  # type: ignore[union-attr]
            if node.stage in FILES_OF and artefact is None:
                raise DigerError(
                    f"{node.stage} {node.hash[:12]} is not in {index.store.url} any more: give the snapshot's files with --snapshot DIR (dvc pull)"
                )
    entry["url"] = how.snapshot and str(Path(how.snapshot).absolute() if "://" not in how.snapshot else how.snapshot) or str(scratch / "snapshot")
    store.root.create(json.dumps(entry).encode(), "snapshots", f"{entry['key']}.json")


def _params(index: Index, built: list[Node]) -> dict[str, Any]:
    """All recorded sections; two stages of one run always agree. Stages that took no baseline do not record the section that chooses it: where the
    snapshot had found a champion, that choice was "none"."""
    sections: dict[str, Any] = {}
    for node in built:
        for name, value in (node.record.get("params") or {}).items():
            if sections.setdefault(name, value) != value:
                raise DigerError(
                    f"the records of the chain have two values of section {name}: the stages were not made by one run; reproduce them one by one"
                )
        sections["cluster"] = node.record.get("cluster") or sections.get("cluster") or {}
    found = dict(index.pointers).get(f"{BASELINE}/{built[-1].record['snapshot']}", {}).get("bundle")
    if found is not None and not any(name == BASELINE for node in built for name, _ in node.inputs):
        sections["retraining"] = {"baseline": "none"}
    return {name: _numbers(value) for name, value in sections.items()}


def _numbers(value: Any) -> Any:
    """Infinities, which JSON holds as words."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    return float(value) if value in ("inf", "-inf", "nan") else value


# The code


@contextlib.contextmanager
def _code(code: Mapping[str, Any], how: How, scratch: Path) -> Iterator[Path]:
    """A checkout of the recorded commit, removed afterwards; with `here`, this one."""
    if how.here:
        yield provenance.PROJECT
        return
    if code.get("dirty_diff") and not how.allow_dirty:
        raise DigerError(
            f"the recorded run had uncommitted changes on top of {str(code['commit'])[:12]}: --allow-dirty continues with the commit alone, "
            "--here with the code of this checkout"
        )
    tree = scratch / "code"
    _git("worktree", "add", "--detach", "--quiet", str(tree), str(code["commit"]))
    try:
        yield tree
    finally:
        _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], cwd=provenance.PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DigerError(
            f"git {' '.join(arguments[:2])}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}: fetch the recorded commit into "
            f"{provenance.PROJECT}, or use this checkout's code with --here"
        )


def _run(code: Path, scratch: Path, given: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """Stage -> (hash, seconds). The driver's own messages go to standard error as they come."""
    environment = {**os.environ, "PYTHONPATH": str(code), "DIGER_CACHE": str(scratch / "cache")}
    with subprocess.Popen(
        [sys.executable, "-c", _DRIVER], cwd=code, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        output, errors = process.communicate(json.dumps(given))
    if process.returncode:
        reason = (errors.strip().splitlines() or ["the driver failed"])[-1]
        raise DigerError(f"the run could not be built again: {reason}")
    built = [json.loads(line.removeprefix("BUILT ")) for line in output.splitlines() if line.startswith("BUILT ")]
    return {name: (hash_, seconds) for name, hash_, seconds in built}


def _differences(index: Index, store: Store, node: Node, rebuilt: str) -> list[str]:
    recorded = index.artefact(node.hash)
    return compare(recorded, store.artefact(node.stage, rebuilt)) if recorded is not None else []
