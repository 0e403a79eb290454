"""`diger gc`: what no release, report or pointer needs.

Kept are the bundles, verdicts and releases of the champion log, every report, what pointers name, recommendations that a kept bundle made,
whatever is younger than the least age, and all that these were made from, or what `diger forget` left of it. Records are never removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from diger_core.errors import DigerError
from diger_core.store import lease
from diger_core.store.files import Root
from orchestration.audit.index import EARLIER, Index
from orchestration.engine import removal


@dataclass(frozen=True)
class Rules:
    """What is kept. None: all of them."""

    releases: int | None = None
    reports: int | None = None
    age: timedelta = timedelta(days=7)


@dataclass
class Plan:
    """`keep`: hash -> why; `remove`: (stage, hash, bytes), what was made last first; `litter`: directories that no manifest completes."""

    keep: dict[str, str] = field(default_factory=dict)
    remove: list[tuple[str, str, int]] = field(default_factory=list)
    litter: list[tuple[tuple[str, ...], int]] = field(default_factory=list)
    running: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(size for *_, size in self.remove) + sum(size for _, size in self.litter)

    def as_json(self) -> dict[str, Any]:
        removed = [{"stage": stage, "hash": hash_, "bytes": size} for stage, hash_, size in self.remove]
        litter = [{"path": "/".join(names), "bytes": size} for names, size in self.litter]
        return {"keep": self.keep, "remove": removed, "litter": litter, "running": self.running, "bytes": self.bytes}


def plan(index: Index, rules: Rules) -> Plan:
    """Nothing is changed."""
    if damaged := index.damaged():
        raise DigerError(f"gc: {damaged[0]}: what a damaged file needs is unknown, so nothing is removed")
    now, found = datetime.now(UTC), Plan(running=running(index.root))
    sizes = _sizes(index.root, "artefacts")
    found.keep = _kept(index, rules, now)
    complete = {hash_ for hash_, stage in index.present.items() if f"{stage}/{hash_}/manifest.json" in sizes.names}
    unreachable = [hash_ for hash_ in complete if hash_ not in found.keep]
    for hash_ in sorted(unreachable, key=lambda h: (index.made_at(h), h), reverse=True):
        stage = index.present[hash_]
        found.remove.append((stage, hash_, sizes.below[f"{stage}/{hash_}"]))
    unfinished = [("artefacts", stage, hash_) for hash_, stage in index.present.items() if hash_ not in complete]
    found.litter = [entry for entry in _litter(index, unfinished) if now - _modified(index.root, entry[0]) >= rules.age]
    return found


def _kept(index: Index, rules: Rules, now: datetime) -> dict[str, str]:
    """Roots and all that they were made from. With fewer releases than all, an earlier release is not kept for the sake of a later one."""
    roots: dict[str, str] = {}
    entries = index.releases if rules.releases is None else index.releases[max(0, len(index.releases) - rules.releases) :]
    for entry in entries:
        for hash_ in (entry.bundle, entry.verdict, entry.release):
            if hash_:
                roots.setdefault(hash_, f"champion #{entry.number}")
    for made in index.made:
        if made.stage == "recommendations" and roots.keys() & set(made.inputs.values()):
            roots.setdefault(made.artefact, "recommendations of a kept champion")
    reports = [hash_ for hash_ in dict.fromkeys(m.artefact for m in index.made if m.stage == "report") if hash_ in index.present]
    roots |= dict.fromkeys(reports if rules.reports is None else reports[max(0, len(reports) - rules.reports) :], "a report")
    for name, value in index.pointers:
        hash_ = value.get("artefact") or value.get("bundle")
        if hash_ and (rules.releases is None or not name.startswith("baseline/")):
            roots.setdefault(str(hash_), f"pointer {name}")
    roots |= {h: f"younger than {rules.age}" for h in index.present if h not in roots and now - _made(index, h) < rules.age}
    return _closure(index, roots, through_earlier=rules.releases is None)


def _closure(index: Index, roots: dict[str, str], through_earlier: bool) -> dict[str, str]:
    keep, waiting = dict(roots), list(roots)
    while waiting:
        hash_ = waiting.pop()
        for made in index.makers.get(hash_, []):
            for name, source in made.inputs.items():
                if source not in keep and (through_earlier or name not in EARLIER):
                    keep[source] = keep[hash_] if keep[hash_].startswith("needed") else f"needed by {keep[hash_]}"
                    waiting.append(source)
        left = index.removed.get(hash_, {}).get("replaced_by")
        if left and left not in keep:  # what serves reads what `diger forget` left of it
            keep[left] = keep[hash_]
            waiting.append(left)
    return keep


def _made(index: Index, hash_: str) -> datetime:
    """When the artefact was last made; without a record, when it was stored."""
    if hash_ in index.makers:
        return datetime.fromisoformat(index.makers[hash_][-1].at)
    return _modified(index.root, ("artefacts", index.present[hash_]))


def running(root: Root) -> list[str]:
    """Stages that are at work on the store, each with its owner and age."""
    return [str(each) for each in lease.at_work(root) if each.kind == "stage"]


# What is no artefact


@dataclass(frozen=True)
class _Sizes:
    names: dict[str, int]
    below: dict[str, int]  # of every directory two levels down


def _sizes(root: Root, top: str) -> _Sizes:
    names, below = root.tree(top), dict[str, int]()
    for name, size in names.items():
        folder = "/".join(name.split("/")[:2])
        below[folder] = below.get(folder, 0) + size
    return _Sizes(names, below)


def _litter(index: Index, unfinished: Iterable[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Directories of tmp/, artefacts without a manifest, and checkpoints of computations that have their record or were given up."""
    root = index.root
    below = _sizes(root, "artefacts").below
    for names in unfinished:
        yield names, below.get("/".join(names[1:]), 0)
    for top in ("tmp", "checkpoints"):
        sizes = root.tree(top)
        for name in root.list(top):
            yield (top, name), sum(size for path, size in sizes.items() if path.split("/")[0] == name)


def _modified(root: Root, names: tuple[str, ...]) -> datetime:
    """The newest change below a directory; now, where nothing is known."""
    path = root.at(*names)
    with root.faults(*names):
        if root.is_local:
            times = [os.stat(folder).st_mtime for folder, _, _ in os.walk(path)]
            return datetime.fromtimestamp(max(times), UTC) if times else datetime.now(UTC)
        found = [entry["LastModified"] for entry in root.fs.find(path, detail=True, refresh=True).values()]
        return max(found, default=datetime.now(UTC))


def execute(index: Index, rules: Rules, agreed: Plan, wait: float = 0.0, tell: Callable[[str], object] | None = None) -> Plan:
    """Removes what the agreed plan and a fresh one both name; returns that. No stage, no change of champion and no `diger forget` is at work
    meanwhile: DigerError where one still is after `wait` seconds (tell: as `lease.hold`)."""
    with lease.hold(index.store.root, "gc", "diger gc", wait, tell):
        return _execute(index, rules, agreed)


def _execute(index: Index, rules: Rules, agreed: Plan) -> Plan:
    store = index.store
    store.sweep()
    if not store.root.is_local:
        store.root.abandon_uploads("artefacts")  # nobody is at work: whoever has begun them is gone
    fresh = plan(Index(store, cached=False), rules)
    again = {hash_ for _, hash_, _ in fresh.remove}
    litter = {names for names, _ in fresh.litter}
    done = Plan(fresh.keep, [entry for entry in agreed.remove if entry[1] in again], [entry for entry in agreed.litter if entry[0] in litter])
    with ThreadPoolExecutor(8) as pool:
        reason = "no release, report or pointer needed it"
        list(pool.map(lambda entry: removal.note(store, entry[0], entry[1], "gc", reason), done.remove))
        list(pool.map(lambda entry: removal.take_out(store.root, "artefacts", entry[0], entry[1]), done.remove))
        list(pool.map(lambda entry: removal.take_out(store.root, *entry[0]), done.litter))
    return done
