"""Backwards: everything that a thing was made from, down to the registered bytes of its snapshots.

The chain is a graph: each artefact is one node, however many others used it. Where several computations led to equal content, the one of the
asker's own snapshot is followed, else the first; the others are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from diger_core.errors import DigerError
from diger_core.store.record import Record
from orchestration.audit.index import Index, Made, Release
from orchestration.audit.names import Thing, assignment_of, with_assignment
from orchestration.graph import BY_NAME, ORDER

Status = Literal["present", "missing", "damaged", "removed", "elsewhere"]


@dataclass
class Node:
    """An artefact, a snapshot or an entry of the champion log."""

    id: str
    kind: Literal["artefact", "snapshot", "release"]
    stage: str
    hash: str
    status: Status
    record: Record = field(default_factory=Record)
    others: int = 0  # further records that led to the same content
    inputs: list[tuple[str, str]] = field(default_factory=list)  # (name, node id), what was made last first
    detail: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None  # why it is missing or damaged, and what to do
    made: Made | None = None
    loaded: bool = False


@dataclass
class Chain:
    """`root`: the id of the node asked for; `nodes` by id, each after at least one of its users."""

    root: str
    nodes: dict[str, Node]

    @property
    def problems(self) -> list[str]:
        return [node.problem for node in self.nodes.values() if node.problem and node.status != "removed"]


def chain(index: Index, thing: Thing) -> Chain:
    """Follows the records from the thing asked for."""
    root = _start(index, thing)
    nodes: dict[str, Node] = {}
    waiting: list[tuple[str, str, str | None]] = [(root, "", None)]
    while waiting:
        id_, name, snapshot = waiting.pop()
        if id_ in nodes:
            continue
        node = _node(index, id_, name, snapshot)
        nodes[id_] = node
        below = node.record.get("snapshot") or snapshot
        waiting += [(input_id, input_name, below) for input_name, input_id in node.inputs]
    _beyond_the_horizon(nodes)
    return Chain(root, nodes)


def _beyond_the_horizon(nodes: dict[str, Node]) -> None:
    """What only inputs given by another revision were made from is not missing here: `dvc pull` at that revision brings it."""
    users: dict[str, list[Node]] = {}
    for node in nodes.values():
        for _, id_ in node.inputs:
            users.setdefault(id_, []).append(node)
    for id_, node in nodes.items():
        by = users.get(id_, [])
        if node.status == "missing" and by and all(user.status == "elsewhere" or (user.made is not None and user.made.horizon) for user in by):
            node.status, node.problem = "elsewhere", None


def _start(index: Index, thing: Thing) -> str:
    if thing.kind == "assignment":
        holders = with_assignment(index, thing.value)
        if not holders:
            raise DigerError(f"assignment {thing.value[:12]}: no artefact of {index.store.url} holds it any more")
        made = [hash_ for hash_ in holders if index.stage_of(hash_) != "bundle"]
        return (made or holders)[-1]  # the table, which knows the model
    if thing.kind == "commit":
        raise DigerError(f"{thing.value[:12]} is a code commit: `diger where-used {thing.value[:12]}` shows what was made with it")
    return f"{thing.kind}:{thing.value}" if thing.kind != "artefact" else thing.value


def _node(index: Index, id_: str, name: str, snapshot: str | None) -> Node:
    kind, _, value = id_.rpartition(":")
    if kind == "release":
        return _release_node(index, id_, next(entry for entry in index.releases if str(entry.number) == value))
    if kind == "snapshot":
        return _snapshot_node(index, id_, value)
    return _artefact_node(index, id_, name, snapshot)


def _release_node(index: Index, id_: str, entry: Release) -> Node:
    inputs = [("release", entry.release), ("gate", entry.verdict), ("bundle", entry.bundle)]
    named = [(name, hash_) for name, hash_ in inputs if hash_]
    detail = {"number": entry.number, "action": entry.action, "reason": entry.reason, "by": entry.by, "previous": entry.previous}
    return Node(id_, "release", "champion", "", "present", {"started_at": entry.at}, inputs=named, detail=detail)


def _snapshot_node(index: Index, id_: str, key: str) -> Node:
    entry = index.snapshots.get(key)
    if entry is None:
        problem = f"{index.store.url}/snapshots/{key}.json: missing: register the snapshot again with `diger snapshot add`"
        return Node(id_, "snapshot", "snapshot", key, "missing", problem=problem)
    detail = {
        "url": entry["url"],
        "content_hash": entry["content_hash"],
        "files": entry["files"],
        "previous": (entry.get("previous") or {}).get("key"),
    }
    return Node(id_, "snapshot", "snapshot", key, "present", {"started_at": entry.get("registered_at", "")}, detail=detail)


def _artefact_node(index: Index, hash_: str, name: str, snapshot: str | None) -> Node:
    """The node without its record and manifest: `load` reads those of the nodes that are shown."""
    stage, made = index.stage_of(hash_, name), index.maker(hash_, snapshot)
    node = Node(hash_, "artefact", stage, hash_, "present", made=made)
    if made is not None:
        node.others = len(index.makers[hash_]) - 1
        node.inputs = _inputs(index, stage, made)
        node.record = {"started_at": made.at}
        if made.snapshot is not None:
            node.record["snapshot"] = made.snapshot
    if hash_ not in index.present and hash_ in index.removed:
        node.status, node.detail = "removed", {"removed": index.removed[hash_]}
    elif hash_ not in index.present:
        node.status = "missing"
        node.problem = f"{index.store.url}/artefacts/{stage}/{hash_}: missing: restore it (dvc pull), or run stage {stage} again"
    elif made is None:
        node.problem = (
            f"{index.store.url}/records/{stage}: no record says what made {hash_[:12]}: restore the records from a copy of the store (dvc pull)"
        )
    return node


def load(index: Index, nodes: Iterable[Node]) -> None:
    """Reads the records and manifests of these nodes from the store."""
    index.each(lambda node: _load(index, node), [node for node in nodes if node.kind == "artefact" and not node.loaded])


def _load(index: Index, node: Node) -> None:
    node.loaded = True
    if node.made is not None:
        try:
            node.record = index.record(node.made)
        except DigerError as error:
            node.problem = str(error)
    if node.status != "present":
        return
    where = f"{index.store.url}/artefacts/{node.stage}/{node.hash}"
    try:
        artefact = index.artefact(node.hash)
    except DigerError as error:
        node.status, node.problem = "damaged", str(error)
        return
    if artefact is None:
        node.status, node.problem = "missing", f"{where}: has no manifest, so it was never finished: run stage {node.stage} again"
        return
    node.detail = {"facts": dict(artefact.facts), "files": [dict(entry) for entry in artefact.manifest["files"]], "directory": where}
    if assignment_of(artefact):
        node.detail["assignment"] = assignment_of(artefact)


def _inputs(index: Index, stage: str, made: Made) -> list[tuple[str, str]]:
    """What was made last comes first, so that a chain reads as a path and the rest as references to it."""
    named = sorted(made.inputs.items(), key=lambda pair: (-ORDER.get(index.stage_of(pair[1], pair[0]), -1), pair[0]))
    declared = BY_NAME.get(stage)
    if made.snapshot and (declared is not None and not declared.inputs):
        named.append(("snapshot", f"snapshot:{made.snapshot}"))
    return named
