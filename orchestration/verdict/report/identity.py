"""Which run a page is about: the snapshot, which is content, and what only the records know (when, by which code, in which run, after which)."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from orchestration.verdict.report.text import printable

if TYPE_CHECKING:
    from orchestration.verdict.report.found import Found

UI = "http://127.0.0.1:3000"  # `diger ui` by default
COMPARED = "/diger/compared"  # below it `diger ui` shows a report beside that of the champion that its run was compared with


@dataclass(frozen=True)
class Link:
    """A name, and where it leads; only the name where that is not known."""

    text: str
    url: str | None = None


@dataclass(frozen=True)
class Identity:
    """The stored page knows the snapshot alone, so that its bytes follow from its inputs."""

    snapshot: str
    facts: tuple[Link, ...] = ()
    released: int | None = None  # the number of the release that made the judged bundle champion

    @property
    def state(self) -> str | None:
        return None if self.released is None else f"released as champion #{self.released}"

    @property
    def line(self) -> str:
        """The facts as HTML, with their links; empty for the stored page."""
        told = " · ".join(
            f'<a href="{escape(fact.url)}">{escape(printable(fact.text))} ↗</a>' if fact.url else escape(printable(fact.text)) for fact in self.facts
        )
        return f'<p class="identity">{told}</p>' if told else ""


def told_in(html: str, identity: Identity) -> str:
    """A stored page with the line that a copy has, in its header."""
    name = "</small></h1>\n"
    return html.replace(f"{name}</header>", f"{name}{identity.line}</header>", 1)


def recorded(found: Found, previous: str | None = None, ui: str = UI) -> Identity:
    """With all that the records say. `previous`: the address of the page of the champion that this run was compared with."""
    made, record = found.made, found.record
    facts = [Link(f"{made.at[:16].replace('T', ' ')} UTC")]
    if made.commit:
        facts.append(Link(f"code {made.commit[:8]}"))
    run = record.get("dagster_run_id")
    if run:
        facts.append(Link(f"run {str(run)[:8]}", f"{ui}/runs/{run}"))
    before = found.previous
    if before is not None:
        facts.append(Link(f"previous {before.snapshot or before.artefact[:12]}", previous))
        facts.append(Link("compared", f"{ui}{COMPARED}/{made.artefact}"))
    return Identity(made.snapshot or "unknown snapshot", tuple(facts), found.released)
