"""A chain as a picture: what came first at the left, what was asked for at the right, in inline SVG that needs no script and no file.

A column for each group of the graph, with its nodes one below the other; lines lead from an input to what was made with it. Text has one size on
every screen: a narrow one scrolls the picture sideways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from orchestration.audit.chain import Chain, Node
from orchestration.audit.index import EARLIER
from orchestration.audit.tree import SHORT, Line, headline
from orchestration.graph import BY_NAME, ORDER
from orchestration.stage import GROUPS

EARLIER_COLUMN = "earlier release"
WIDE, HIGH, GAP_X, GAP_Y, TOP = 110, 40, 26, 14, 30  # pixels of a node, between nodes, and of the columns' names
FITS = 16  # characters of a box
OF_STAGE = {"encoder": "features", "snapshot": "snapshot", "champion": "serving"}  # what is no stage of the graph
STYLE = """
.lineage { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; background: var(--soft); margin: 1rem 0; }
.lineage svg { display: block; margin: .6rem auto; }
.lineage text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.lineage .hash { font: 11px ui-monospace, monospace; fill: var(--muted); }
.lineage .column { fill: var(--muted); font-weight: 600; }
.lineage rect { fill: var(--page); stroke: var(--line); }
.lineage .asked rect { stroke: var(--link); stroke-width: 2; }
.lineage .bad rect { stroke: var(--worse); stroke-width: 2; }
.lineage path { fill: none; stroke: var(--grey); stroke-opacity: .28; }
.lineage path.main { stroke: var(--link); stroke-opacity: .8; stroke-width: 1.5; }
@media print { .lineage svg { width: 100%; height: auto; } }
"""


@dataclass(frozen=True)
class Place:
    """Where a node stands: its left upper corner."""

    x: int
    y: int


def picture(chain: Chain, shown: list[Line]) -> str:
    """The figure; nodes link to their entries below (#id)."""
    names = {line.node.id: line.name for line in shown}
    columns: dict[str, list[Node]] = {}
    for line in shown:
        columns.setdefault(_column(line), []).append(line.node)
    ordered = [name for name in (EARLIER_COLUMN, *GROUPS) if name in columns]
    places = {}
    for number, column in enumerate(ordered):
        columns[column].sort(key=lambda node: (ORDER.get(node.stage, -1 if node.kind == "snapshot" else len(ORDER)), node.id))
        for row, node in enumerate(columns[column]):
            places[node.id] = Place(8 + number * (WIDE + GAP_X), TOP + row * (HIGH + GAP_Y))
    width = 20 + len(ordered) * WIDE + (len(ordered) - 1) * GAP_X  # with room for a bow at the right
    height = TOP + max(len(nodes) for nodes in columns.values()) * (HIGH + GAP_Y)
    told = f"The chain from left to right: {len(places)} nodes in the columns {', '.join(ordered)}"
    body = "".join((*_heads(ordered), *_edges(chain, shown, places), *(_box(chain, chain.nodes[id_], names[id_], at) for id_, at in places.items())))
    svg = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{escape(told)}">{body}</svg>'
    return f'<div class="lineage" tabindex="0" role="region" aria-label="The chain as a picture, which scrolls sideways">{svg}</div>'


def _column(line: Line) -> str:
    if line.name in EARLIER:
        return EARLIER_COLUMN
    declared = BY_NAME.get(line.node.stage)
    return declared.group if declared is not None else OF_STAGE.get(line.node.stage, GROUPS[0])


def _heads(columns: list[str]) -> Iterator[str]:
    for number, name in enumerate(columns):
        yield f'<text class="column" x="{8 + number * (WIDE + GAP_X)}" y="18">{escape(name)}</text>'


def _edges(chain: Chain, shown: list[Line], places: dict[str, Place]) -> Iterator[str]:
    """From the right of what was taken to the left of what was made; within a column a bow beside it. The tree's own edges stand out."""
    tree = set()
    path: list[str] = []
    for line in shown:
        path[line.depth :] = [line.node.id]
        if line.depth:
            tree.add((line.node.id, path[line.depth - 1]))
    drawn = [(source, user) for user in places for _, source in chain.nodes[user].inputs if source in places]
    for source, user in sorted(drawn, key=lambda pair: pair in tree):
        a, b = places[source], places[user]
        kind = ' class="main"' if (source, user) in tree else ""
        if a.x < b.x:
            x1, x2 = a.x + WIDE, b.x
            curve = f"M{x1} {a.y + HIGH // 2}C{(x1 + x2) // 2} {a.y + HIGH // 2} {(x1 + x2) // 2} {b.y + HIGH // 2} {x2} {b.y + HIGH // 2}"
        else:  # in one column, or back to an earlier one
            bow = a.x + WIDE + GAP_X // 2
            curve = f"M{a.x + WIDE} {a.y + HIGH // 2}C{bow} {a.y + HIGH // 2} {bow} {b.y + HIGH // 2} {b.x + WIDE} {b.y + HIGH // 2}"
        yield f'<path{kind} d="{curve}"/>'


def _box(chain: Chain, node: Node, name: str, at: Place) -> str:
    state = "bad" if node.problem else "asked" if node.id == chain.root else ""
    title, below = _label(node)
    box = f'<rect x="{at.x}" y="{at.y}" width="{WIDE}" height="{HIGH}" rx="6"/>'
    first = f'<text x="{at.x + 7}" y="{at.y + 17}">{escape(title)}</text>'
    second = f'<text class="hash" x="{at.x + 7}" y="{at.y + 32}">{escape(below)}</text>'
    hint = f"<title>{escape(headline(name, node))}</title>"
    return f'<a href="#{escape(node.id)}" class="{state}">{hint}{box}{first}{second}</a>'


def _label(node: Node) -> tuple[str, str]:
    """Two lines that fit the box."""
    if node.kind == "release":
        return f"champion #{node.detail['number']}", str(node.detail["action"])
    if node.kind == "snapshot":
        name, _, digits = node.hash.rpartition("-")
        return _cut(name), digits
    state = "" if node.status == "present" else f" {node.status}"
    return _cut({"validated_interactions": "validated_events"}.get(node.stage, node.stage)), node.hash[:SHORT] + state


def _cut(text: str) -> str:
    return text if len(text) <= FITS else f"{text[: FITS - 1]}…"
