"""A chain as text for a terminal, and as plain values for JSON and the page."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diger_core.errors import DigerError
from diger_core.store.record import Record
from orchestration.audit.chain import Chain, Node, load
from orchestration.audit.index import EARLIER, Index
from orchestration.graph import BY_NAME
from orchestration.verdict.gate.document import VERDICT, GateVerdict

SHORT = 12
WIDTH = 80
_TOGETHER = "\u00a0"  # a space at which no line breaks

Edges = dict[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Line:
    """A node where it is shown first: `branch` is what stands before it, `elsewhere` are inputs that have their own line in another place."""

    depth: int
    branch: str
    below: str
    name: str
    node: Node
    children: bool
    elsewhere: list[tuple[str, Node]]
    folded: int  # nodes behind it that are not shown


def lines(chain: Chain, whole: bool = False, deepest: int | None = None) -> Iterator[Line]:
    """Depth first; each node once. Without `whole`, an earlier release that a run started from is named and its own past is folded; so is what lies
    deeper than `deepest` steps."""
    children, elsewhere, folded = _spanning(chain, whole)
    waiting = [(chain.root, "", "", "", 0)]
    while waiting:
        id_, name, branch, below, depth = waiting.pop()
        others = [(n, chain.nodes[i]) for n, i in elsewhere[id_]]
        inner, hidden = children[id_], folded.get(id_, 0)
        if depth == deepest and inner:
            inner, hidden = [], _below(children, id_)
        yield Line(depth, branch, below, name, chain.nodes[id_], bool(inner), others, hidden)
        for position, (input_name, input_id) in reversed(list(enumerate(inner))):
            last = position == len(inner) - 1
            waiting.append((input_id, input_name, below + ("└ " if last else "├ "), below + ("  " if last else "│ "), depth + 1))


def _below(children: Edges, id_: str) -> int:
    """Nodes that hang below one in the tree."""
    waiting, count = [id_], 0
    while waiting:
        inner = children[waiting.pop()]
        waiting += [input_id for _, input_id in inner]
        count += len(inner)
    return count


def _spanning(chain: Chain, whole: bool) -> tuple[Edges, Edges, dict[str, int]]:
    """(each node's inputs that are shown under it, those that are shown elsewhere, how many nodes are folded behind it)."""
    children: Edges = {chain.root: []}
    elsewhere: Edges = {chain.root: []}
    folded: dict[str, int] = {}
    seen = {chain.root}
    path = [(chain.root, iter(chain.nodes[chain.root].inputs))]
    while path:
        id_, inputs = path[-1]
        name, input_id = next(inputs, ("", ""))
        if not input_id:
            path.pop()
        elif input_id in seen:
            elsewhere[id_].append((name, input_id))
        else:
            seen.add(input_id)
            children[id_].append((name, input_id))
            children[input_id], elsewhere[input_id] = [], []
            node = chain.nodes[input_id]
            if name in EARLIER and not whole:
                folded[input_id] = _behind(chain, input_id)
            else:
                path.append((input_id, iter(node.inputs)))
    return children, elsewhere, folded


def _behind(chain: Chain, id_: str) -> int:
    seen, waiting = {id_}, [id_]
    while waiting:
        fresh = [i for _, i in chain.nodes[waiting.pop()].inputs if i not in seen]
        seen.update(fresh)
        waiting += fresh
    return len(seen) - 1


def text(index: Index, chain: Chain, whole: bool = False, deepest: int | None = None) -> Iterator[str]:
    """The tree in 80 columns. Code, machine, run and each parameter that is not its default stand where they differ from what was said before."""
    context: dict[str, str] = {}
    shown_lines = list(lines(chain, whole, deepest))
    load(index, [line.node for line in shown_lines])
    for line in shown_lines:
        node = line.node
        shown = {key: value for key, value in origin(node).items() if context.get(key) != value}
        context.update(shown)
        params = {name: value for name, value in changed_params(node.record.get("params") or {}).items() if context.get(name) != str(value)}
        context.update({name: str(value) for name, value in params.items()})
        bar = line.below + ("│ " if line.children else "  ")
        yield from wrapped(headline(line.name, node), line.branch, bar)
        if shown:
            yield from wrapped("  ".join(shown.values()), bar)
        for remark in remarks(index, node):
            yield from wrapped(remark, bar)
        if params:
            yield from wrapped("params: " + ", ".join(f"{name}={_said(value)}" for name, value in params.items()), bar)
        if line.elsewhere:
            others = ", ".join(headline(n, other, short=True).replace(" ", _TOGETHER) for n, other in line.elsewhere)
            yield from wrapped(f"also from: {others}", bar)
        if line.folded:
            option = "--all" if line.name in EARLIER else "a larger --depth"
            yield from wrapped(f"{line.folded} nodes further back: diger why {node.hash[:SHORT]} (or {option})", bar)


def wrapped(told: str, branch: str, bar: str | None = None) -> list[str]:
    """The text behind its branch, broken where it would go beyond the width; what follows stands behind `bar`. A word longer than that stays whole:
    paths and commands are copied."""
    bar = branch if bar is None else bar
    width = max(WIDTH, len(branch) + 30)
    rows = textwrap.wrap(told, width, initial_indent=branch, subsequent_indent=f"{bar}  ", break_long_words=False, break_on_hyphens=False)
    return [row.replace(_TOGETHER, " ") for row in rows] or [branch]


def _said(value: Any) -> str:
    """A parameter's value as params.yaml writes it."""
    return {True: "true", False: "false", None: "null"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)


def headline(name: str, node: Node, short: bool = False) -> str:
    if node.kind == "release":
        return f"champion #{node.detail['number']} ({node.detail['action']})  {when(node)}"
    if node.kind == "snapshot":
        return f"snapshot {node.hash}" + ("" if short else f"  registered {when(node)}")
    label = node.stage if not name or name == node.stage else f"{name}: {node.stage}"
    base = f"{label} {node.hash[:SHORT]}"
    state = "" if node.status == "present" else f"  {node.status.upper()}"
    return base + state if short else f"{base}{state}  {when(node)}".rstrip()


def when(node: Node) -> str:
    return str(node.record.get("started_at", ""))[:16].replace("T", " ")


def origin(node: Node) -> dict[str, str]:
    """What a computation ran on and from, in the words of the tree."""
    record, found = node.record, dict[str, str]()
    code = record.get("code")
    if code:
        found["code"] = f"code {str(code['commit'])[:8]}" + (" + uncommitted changes" if code.get("dirty_diff") else "")
    machine = record.get("machine")
    if machine:
        found["machine"] = f"on {machine.get('host')}" + (f" ({', '.join(machine['accelerators'])})" if machine.get("accelerators") else "")
    run = record.get("dagster_run_id")
    if run:
        found["run"] = f"run {str(run)[:8]}"
    return found


def remarks(index: Index, node: Node) -> Iterator[str]:
    """Lines under a node: what its bytes are, the verdict, a fault."""
    if node.kind == "release":
        yield f"{node.detail['reason']} (by {node.detail['by']})"
    if node.kind == "snapshot" and node.status == "present":
        yield f"{node.detail['url']}"
        for name, file in sorted(node.detail["files"].items()):
            yield f"{name}  sha256 {file['sha256'][:SHORT]}  {file['rows']:,} rows"
    if node.kind == "artefact":
        if "assignment" in node.detail:
            yield f"ID assignment {node.detail['assignment'][:SHORT]}"
        if node.stage == "gate" and node.status == "present":
            yield gate_line(index, node.hash)
        if node.record.get("study"):
            yield promotion_line(node.record)
        if node.others:
            yield f"equal content came from {node.others} other computation{'s' if node.others > 1 else ''}"
    if node.status == "removed":
        yield removal_line(node.detail["removed"])
    if node.status == "elsewhere":
        yield "not in this clone: `dvc pull` at the revision that made it brings it"
    if node.problem:
        yield f"FAULT {node.problem}"


def removal_line(entry: dict[str, Any]) -> str:
    moved = f"; what is left of it is {str(entry['replaced_by'])[:SHORT]}" if entry.get("replaced_by") else ""
    return f"removed on purpose by `diger {entry['why']}` on {str(entry['at'])[:19].replace('T', ' ')}: {entry['reason']}{moved}"


def promotion_line(record: Record) -> str:
    """Which trial of which study gave a promoted model its configuration."""
    study, artefact = str(record["study"])[:SHORT], str(record.get("decay_search"))[:SHORT]
    return f"configuration of trial {record.get('trial')} of study {study}: diger tune --resume {study}; diger why {artefact}"


def gate_line(index: Index, hash_: str) -> str:
    """The verdict and the rules that failed."""
    try:
        artefact = index.artefact(hash_)
        verdict: GateVerdict | None = artefact.json(VERDICT) if artefact is not None else None
    except (DigerError, ValueError) as error:
        return f"FAULT the verdict cannot be read: {error}"
    if verdict is None:
        return "the verdict is missing"
    try:
        failed = [f"{rule['name']}: {rule['message']}" for rule in verdict["rules"] if not rule["passed"]]
        against = f"against {str(verdict['champion'])[:SHORT]}" if verdict.get("champion") else "with no champion to beat"
        return f"verdict {verdict['verdict']} {against}, {len(verdict['rules'])} rules" + (f"; failed: {'; '.join(failed)}" if failed else "")
    except (KeyError, TypeError, AttributeError):
        return "FAULT the verdict cannot be read: its fields are not those of a verdict: it was edited"


def changed_params(sections: dict[str, Any]) -> dict[str, Any]:
    """section.key -> value, of those that are not the defaults."""
    found = dict[str, Any]()
    for section, values in sections.items():
        found.update(_changed(section, values, _defaults().get(section, {})))
    return found


@functools.cache
def _defaults() -> dict[str, Any]:
    """Section -> its defaults; built once, since a chain has thousands of records."""
    import dataclasses

    from orchestration.params.sections import Params

    return {section: values for section, values in dataclasses.asdict(Params()).items() if isinstance(values, dict)}


def _changed(prefix: str, values: Any, usual: Any) -> dict[str, Any]:
    if isinstance(values, dict) and isinstance(usual, dict):
        return {k: v for name, value in values.items() for k, v in _changed(f"{prefix}.{name}", value, usual.get(name)).items()}
    plain = list(usual) if isinstance(usual, tuple) else usual
    return {} if values == plain or values == _text(plain) else {prefix: values}


def _text(value: Any) -> Any:
    """As JSON holds it: infinities are words there."""
    return repr(value) if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


def as_json(index: Index, chain: Chain) -> dict[str, Any]:
    """Everything, for machines: nodes by id with their whole records."""
    load(index, chain.nodes.values())
    nodes = {
        id_: {
            "kind": node.kind,
            "stage": node.stage,
            "hash": node.hash,
            "status": node.status,
            "problem": node.problem,
            "inputs": [{"name": name, "node": target} for name, target in node.inputs],
            "other_records": node.others,
            "changed_params": changed_params(node.record.get("params") or {}),
            "record": node.record,
            **node.detail,
        }
        for id_, node in chain.nodes.items()
    }
    return {"root": chain.root, "nodes": nodes}


def what(stage: str) -> str:
    declared = BY_NAME.get(stage)
    return declared.description if declared else ""
