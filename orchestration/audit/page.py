"""A chain as one self-contained page in the report's style: faults first, the picture, then the tree with each node's record folded under it.

No scripts; every value is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from diger_core.errors import DigerError
from orchestration.audit.chain import Chain, load
from orchestration.audit.index import Index
from orchestration.audit.picture import STYLE, picture
from orchestration.audit.tree import Line, headline, lines, origin, remarks, what

if TYPE_CHECKING:
    from orchestration.audit.verify import Outcome

_STYLE = """
.sheet { max-width: 1280px; margin: 0 auto; padding: 1.4rem 1.5rem 4rem; }
.sheet ul { list-style: none; margin: 0; padding-left: 1rem; border-left: 1px solid var(--line); }
.sheet main > ul { border: 0; padding: 0; }
.sheet li { margin: .35rem 0; }
.sheet code, .sheet pre { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.sheet pre { white-space: pre-wrap; background: var(--soft); padding: .6rem; border-radius: 4px; }
.sheet .stage { margin: 0; font-size: 1em; font-weight: 600; color: var(--ink); }
.remark, .elsewhere { color: var(--muted); font-size: .9em; }
.fault { color: var(--worse); font-weight: 600; }
.sound { color: var(--better); font-weight: 600; }
.sheet summary { cursor: pointer; }
li:target > .stage { text-decoration: underline; text-decoration-color: var(--link); text-decoration-thickness: 3px; }
@media (max-width: 640px) { .sheet { padding: 1rem .8rem 3rem; } .sheet ul { padding-left: .5rem; } }
"""


def write_page(path: str, index: Index, chain: Chain, outcome: Outcome | None) -> None:
    """Writes the page to a local file; `DigerError` where that cannot be done."""
    try:
        Path(path).write_text("".join(_page(index, chain, outcome)), encoding="utf-8")
    except OSError as error:
        raise DigerError(f"{path}: the page cannot be written ({error.strerror}): give another --html FILE") from error


def _page(index: Index, chain: Chain, outcome: Outcome | None) -> Iterator[str]:
    load(index, chain.nodes.values())
    root = chain.nodes[chain.root]
    title = escape(headline("", root, short=True))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    css = (resources.files("orchestration.verdict.report") / "style.css").read_text(encoding="utf-8")
    yield f'<meta name="viewport" content="width=device-width"><title>Why {title}</title><style>{css}{STYLE}{_STYLE}</style></head>'
    yield f'<body class="sheet"><header><h1>Why {title}</h1><p class="remark">{len(chain.nodes)} nodes, from the store '
    yield f"<code>{escape(index.store.url)}</code>. Hashes are SHA-256.</p></header>"
    yield from _verdict(chain, outcome)
    yield "<main>"
    yield picture(chain, list(lines(chain)))
    yield "<h2>Step by step</h2>"
    yield from _tree(index, list(lines(chain, whole=True)))
    yield "</main></body></html>\n"


def _verdict(chain: Chain, outcome: Outcome | None) -> Iterator[str]:
    faults = list(dict.fromkeys([*chain.problems, *(outcome.faults if outcome else [])]))
    if outcome is not None:
        yield f'<p class="{"fault" if faults else "sound"}">{escape(outcome.summary)}</p>'
    if faults:
        yield "<ul>" + "".join(f'<li class="fault">{escape(fault)}</li>' for fault in faults) + "</ul>"
    if outcome is not None and outcome.notes:
        yield "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in outcome.notes) + "</ul>"


def _tree(index: Index, shown: list[Line]) -> Iterator[str]:
    """Nested lists."""
    depth = -1
    for line in shown:
        now = line.depth
        yield "<ul>" if now > depth else "</li>" + "</ul></li>" * (depth - now)
        depth = now
        yield from _node(index, line)
    yield "</li></ul>" * (depth + 1)


def _node(index: Index, line: Line) -> Iterator[str]:
    node = line.node
    facts = "".join(f'<div class="{"fault" if r.startswith("FAULT") else "remark"}">{escape(r)}</div>' for r in remarks(index, node))
    others = ", ".join(f'<a href="#{escape(other.id)}">{escape(headline(name, other, short=True))}</a>' for name, other in line.elsewhere)
    record = {"hash": node.hash, "record": node.record, **node.detail}
    yield f'<li id="{escape(node.id)}"><span class="stage" title="{escape(what(node.stage))}">{escape(headline(line.name, node))}</span> '
    yield f'<span class="remark">{escape(" · ".join(origin(node).values()))}</span>{facts}'
    yield f'<div class="elsewhere">also from: {others}</div>' if others else ""
    yield f"<details><summary>record</summary><pre>{escape(json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False))}</pre></details>"
