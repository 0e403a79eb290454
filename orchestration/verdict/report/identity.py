"""Which run a page is about: the snapshot, which is content, and what only the records know (when, by which code, in which run, after which)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestration.verdict.report.found import Found

UI = "http://127.0.0.1:3000"  # `diger ui` by default


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
    return Identity(made.snapshot or "unknown snapshot", tuple(facts), found.released)
