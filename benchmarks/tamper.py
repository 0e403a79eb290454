"""Accidents and tampering: ways to damage a store, and what `diger why --verify` must say about each. Used by the bench table and by the tests."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from diger_core.store.artefacts import Store
from orchestration.audit.chain import chain
from orchestration.audit.index import Index
from orchestration.audit.names import resolve
from orchestration.audit.verify import Outcome, verify_chain

Names = tuple[str, ...]


@dataclass
class Damage:
    """Changes files of a store below every safeguard, and puts them back."""

    store: Store
    kept: dict[Names, bytes | None] = field(default_factory=dict)

    def read(self, names: Names) -> bytes:
        return self.store.root.read(*names)

    def write(self, names: Names, data: bytes) -> None:
        self._keep(names)
        self._put(names, data)

    def remove(self, names: Names) -> None:
        self._keep(names)
        self.store.root.fs.rm_file(self.store.root.at(*names))

    def undo(self) -> None:
        for names, data in self.kept.items():
            if data is not None:
                self._put(names, data)
            elif self.store.root.exists(*names):
                self.store.root.fs.rm_file(self.store.root.at(*names))
        self.kept.clear()

    def _keep(self, names: Names) -> None:
        if names not in self.kept:
            self.kept[names] = self.read(names) if self.store.root.exists(*names) else None

    def _put(self, names: Names, data: bytes) -> None:
        path, root = self.store.root.at(*names), self.store.root
        if root.is_local and root.exists(*names):
            root.fs.rm_file(path)  # a new inode: a hard link elsewhere keeps its bytes
        root.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        root.fs.pipe_file(path, data)


@dataclass
class Scene:
    """A store, a chain in it, and the same stages of another run."""

    damage: Damage
    what: str  # what is asked about: the chain that must notice
    run: dict[str, str]  # stage -> artefact hash, of the run behind `what`
    other: dict[str, str]

    def file(self, stage: str, name: str | None = None, run: dict[str, str] | None = None) -> Names:
        """A file of the stage's artefact, by name or the largest one."""
        artefact = self.damage.store.artefact(stage, (run or self.run)[stage])
        entry = artefact.files[name] if name else max(artefact.manifest["files"], key=lambda f: int(f["bytes"]))
        return ("artefacts", stage, artefact.hash, entry["path"])

    def manifest(self, stage: str, run: dict[str, str] | None = None) -> Names:
        return ("artefacts", stage, (run or self.run)[stage], "manifest.json")

    def record(self, stage: str) -> Names:
        made = Index(self.damage.store, cached=False).makers[self.run[stage]][0]
        return ("records", *made.path.split("/"))


@dataclass(frozen=True)
class Case:
    """`apply` damages the scene and returns words that some fault must hold, all of them in one line; `passes`: a note, no fault."""

    name: str
    apply: Callable[[Scene], list[str]]
    content: bool = False
    passes: bool = False


def outcome(scene: Scene, content: bool = False) -> Outcome:
    """What `diger why --verify` finds; a fault that keeps the chain from being read at all counts like any other."""
    index = Index(scene.damage.store, cached=False)
    found = verify_chain(index, chain(index, resolve(index, scene.what)), content)
    found.faults += index.faults
    return found


def try_case(scene: Scene, case: Case) -> tuple[bool, str]:
    """(the case did what it should, the line that says so)."""
    with undone(scene):
        words = case.apply(scene)
        found = outcome(scene, case.content)
    lines = found.notes if case.passes else found.faults
    said = [line for line in lines if all(word in line for word in words)]
    right = bool(said) and (not found.faults if case.passes else bool(found.faults))
    return right, said[0] if said else "; ".join(lines) or "nothing was said"


@contextlib.contextmanager
def undone(scene: Scene) -> Iterator[None]:
    asked = scene.what
    try:
        yield
    finally:
        scene.what = asked
        scene.damage.undo()


# The cases


def flip(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def _flipped(stage: str) -> Case:
    def apply(scene: Scene) -> list[str]:
        names = scene.file(stage)
        scene.damage.write(names, flip(scene.damage.read(names)))
        return ["/".join(names), "bytes differ", "expected SHA-256", "found"]

    return Case(f"one bit flipped in {stage}", apply)


def _truncated(scene: Scene) -> list[str]:
    names = scene.file("joint_model", "model.safetensors")
    data = scene.damage.read(names)
    scene.damage.write(names, data[: len(data) // 2])
    return ["/".join(names), f"{len(data) // 2:,} bytes", f"expected {len(data):,}"]


def _deleted_file(scene: Scene) -> list[str]:
    names = scene.file("sequences", "users.parquet")
    scene.damage.remove(names)
    return ["/".join(names), "missing", "restore it"]


def _deleted_input(scene: Scene) -> list[str]:
    for names in [scene.manifest("embeddings"), *[scene.file("embeddings", n) for n in ("vectors.safetensors", "texts.parquet")]][::-1]:
        scene.damage.remove(names)
    return ["artefacts/embeddings/" + scene.run["embeddings"], "embeddings"]


def _swapped(scene: Scene) -> list[str]:
    ours, theirs = (scene.file("semantic_ids", "semantic_ids.parquet", run) for run in (scene.run, scene.other))
    data = scene.damage.read(ours), scene.damage.read(theirs)
    scene.damage.write(ours, data[1])
    scene.damage.write(theirs, data[0])
    return ["/".join(ours), "bytes differ"]


def _replaced(scene: Scene) -> list[str]:
    """Another model's whole artefact under this one's name."""
    artefact = scene.damage.store.artefact("joint_model", scene.other["joint_model"])
    for name in artefact.names:
        source = scene.file("joint_model", name, scene.other)
        scene.damage.write((*source[:2], scene.run["joint_model"], source[3]), scene.damage.read(source))
    scene.damage.write(scene.manifest("joint_model"), scene.damage.read(scene.manifest("joint_model", scene.other)))
    return ["/".join(scene.manifest("joint_model")), "does not hash to its name"]


def _edited_manifest(scene: Scene) -> list[str]:
    names = scene.manifest("joint_model")
    value = json.loads(scene.damage.read(names))
    scene.damage.write(names, json.dumps({**value, "facts": {**value["facts"], "epochs": 99}}).encode())
    return ["/".join(names), "damaged or edited"]


def _edited_record(scene: Scene) -> list[str]:
    names = scene.record("joint_model")
    value = json.loads(scene.damage.read(names))
    scene.damage.write(names, json.dumps({**value, "inputs": {**value["inputs"], "tokenizer": scene.other["tokenizer"]}}).encode())
    return ["/".join(names), "edited or damaged", "seal"]


def _edited_snapshot(scene: Scene) -> list[str]:
    key = Index(scene.damage.store, cached=False).makers[scene.run["raw_items"]][0].snapshot
    names = ("snapshots", f"{key}.json")
    value = json.loads(scene.damage.read(names))
    value["files"]["items.parquet"]["sha256"] = "0" * 64
    scene.damage.write(names, json.dumps(value).encode())
    return ["/".join(names), "edited or damaged"]


def _edited_log(scene: Scene) -> list[str]:
    names = ("champion", "000002.json")
    value = json.loads(scene.damage.read(names))
    scene.damage.write(names, json.dumps({**value, "bundle": scene.other["bundle"]}).encode())
    return ["/".join(names), "edited or damaged"]


def _mixed_bundle(scene: Scene) -> list[str]:
    """A bundle with another model's ID table, its manifest made again and its name fitted: only the links can tell."""
    store = scene.damage.store
    ours, theirs = (store.artefact("bundle", run["bundle"]) for run in (scene.run, scene.other))
    with store.writer("bundle") as out:
        out.facts.update(ours.facts)
        for name in ours.names:
            source = theirs if name == "id_table.parquet" else ours
            out.file(name, source.path(name), source.files[name]["sort_by"])
        mixed = store.publish(out)
    for entry in mixed.manifest["files"]:
        scene.damage.kept[("artefacts", "bundle", mixed.hash, entry["path"])] = None
    scene.damage.kept[("artefacts", "bundle", mixed.hash, "manifest.json")] = None
    scene.what = mixed.hash
    return [mixed.hash, "different ID assignments", "id_table.parquet", "model.safetensors"]


def _reencoded(stage: str, file: str, order: bool) -> Callable[[Scene], list[str]]:
    """The same rows under another compression and in reverse order."""

    def apply(scene: Scene) -> list[str]:
        names = scene.file(stage, file)
        table = pq.read_table(io.BytesIO(scene.damage.read(names)))
        target = io.BytesIO()
        pq.write_table(table.take(list(range(len(table)))[::-1]) if order else table, target, compression="snappy", row_group_size=16)
        scene.damage.write(names, target.getvalue())
        return ["/".join(names)]

    return apply


def _and(apply: Callable[[Scene], list[str]], *words: str) -> Callable[[Scene], list[str]]:
    return lambda scene: [*apply(scene), *words]


_CLASSES = ("raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences", "embeddings", "tokenizer")
_CLASSES += ("frozen_model", "joint_model", "semantic_ids", "evaluation", "bundle", "gate", "report", "release")
_ROWS = _reencoded("semantic_ids", "semantic_ids.parquet", order=True)
_ORDERED = _reencoded("raw_items", "items.parquet", order=True)
CASES: tuple[Case, ...] = (
    *(_flipped(stage) for stage in _CLASSES),
    Case("model file cut in half", _truncated),
    Case("a file deleted", _deleted_file),
    Case("an input's whole artefact deleted", _deleted_input),
    Case("two ID tables swapped", _swapped),
    Case("a model replaced by another under the same name", _replaced),
    Case("a manifest's fact edited", _edited_manifest),
    Case("a record's input edited", _edited_record),
    Case("a registered snapshot's hash edited", _edited_snapshot),
    Case("a log entry's bundle edited", _edited_log),
    Case("bundles mixed, manifest made anew", _mixed_bundle),
    Case("Parquet re-encoded and re-ordered, bytes asked", _and(_ROWS, "bytes differ", "--verify=content")),
    Case("Parquet re-encoded and re-ordered, content asked", _and(_ROWS, "re-encoded", "equal content", "passes"), content=True, passes=True),
    Case("Parquet re-ordered where order is content", _and(_ORDERED, "bytes differ", "and so does its content"), content=True),
)


def copy_store(source: Store, target: Store) -> None:
    """The same artefacts, records, snapshots, pointers and log in another place, by way of publishing."""

    def publish(stage: str, hash_: str) -> None:
        artefact = source.artefact(stage, hash_)
        with target.writer(stage) as out:
            out.facts.update(artefact.facts)
            for name in artefact.names:
                out.file(name, artefact.path(name), artefact.files[name]["sort_by"])
            target.publish(out)

    def create(names: Names) -> None:
        target.root.create(source.root.read(*names), *names)

    small = [(top, *path.split("/")) for top in ("records", "snapshots", "pointers", "champion") for path in source.root.tree(top)]
    with ThreadPoolExecutor(8) as pool:
        for stage in source.root.list("artefacts"):
            list(pool.map(lambda hash_, stage=stage: publish(stage, hash_), source.root.list("artefacts", stage)))
        list(pool.map(create, small))
