"""Who is at work in a store: one lease for each piece of work, so that what removes never meets what computes or releases. On a disk and on S3.

A lease is a file `leases/<name>.json` with its owner, written before anything else is looked at; whoever then sees a live lease that excludes
its own takes its own back and waits. So of two that come together at most one works, whatever the order of their steps. The owner renews its
lease; one that is dead (its process is gone, or, where that cannot be seen from here, it has renewed nothing for `DEAD_AFTER` seconds of the
watcher's own clock) is removed by whoever meets it, also while it waits.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypedDict

from diger_core.errors import DigerError
from diger_core.store.files import Root
from diger_core.store.owner import Owner, ended, identity, near

SECTION = "leases"
RENEWED_EVERY, DEAD_AFTER = 10.0, 60.0  # seconds
TOLD_EVERY = 30.0
POLL = 0.5
Kind = Literal["stage", "champion", "gc", "forget"]
_REMOVES = ("gc", "forget")


class _Document(TypedDict):
    """`what`: the work in a few words; `renewed`: counts up while the owner lives."""

    kind: Kind
    what: str
    owner: Owner
    who: str
    since: str
    renewed: int


@dataclass(frozen=True)
class Lease:
    """One that lies in the store."""

    name: str
    kind: Kind
    what: str
    owner: Owner
    who: str
    since: str  # ISO 8601, by the owner's clock
    renewed: int

    def __str__(self) -> str:
        age = max(0, int((datetime.now(UTC) - datetime.fromisoformat(self.since)).total_seconds()))
        return f"{self.what} by {self.who} on {self.owner['host']} (process {self.owner['pid']}), for {age // 60}:{age % 60:02d} min"


def excludes(kind: Kind, other: Kind) -> bool:
    """Stages work beside each other and beside a change of champion; what removes, or changes the champion, works beside nothing else of these."""
    return kind in _REMOVES or other in _REMOVES or (kind, other) == ("champion", "champion")


class Held:
    """A lease that this process holds."""

    def __init__(self, root: Root, lease: Lease):
        self._root, self.lease = root, lease

    def confirm(self) -> None:
        """DigerError where others took this process for dead: it was stopped, or did not reach the store, for longer than `DEAD_AFTER`."""
        if not self._root.exists(SECTION, f"{self.lease.name}.json"):
            raise DigerError(
                f"{self.lease.what}: this process did not renew its lease for {DEAD_AFTER:g} s, others took it for dead and may have removed what "
                "it works on: run it again"
            )


@contextlib.contextmanager
def hold(root: Root, kind: Kind, what: str, wait: float | None = None, tell: Callable[[str], object] | None = None) -> Iterator[Held]:
    """Works under a lease of this kind.

    wait: seconds to wait for those that exclude it (None: as long as they live; 0: not at all), then a `DigerError` that names who is at work.
    tell: gets a line when the waiting begins, and now and then.
    """
    lease = _take(root, kind, what, wait, tell or (lambda text: None))
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(root, lease, over), name="diger-lease", daemon=True)
    renewing.start()
    try:
        yield Held(root, lease)
    finally:
        over.set()
        renewing.join()
        _remove(root, lease.name)


def at_work(root: Root) -> list[Lease]:
    """The leases in the store whose owners are not certainly dead. Changes nothing."""
    return [lease for lease in _read_all(root) if not _certainly_dead(lease)]


def _take(root: Root, kind: Kind, what: str, wait: float | None, tell: Callable[[str], object]) -> Lease:
    started, told, watched = time.monotonic(), -TOLD_EVERY, _Watch(root)
    while True:
        lease = _new(kind, what)
        others = watched.alive(lease)
        if not others:
            _write(root, lease, new=True)
            try:
                others = watched.alive(lease)
            except BaseException:
                _remove(root, lease.name)
                raise
            if not others:
                return lease
            _remove(root, lease.name)
        passed = time.monotonic() - started
        # An owner that cannot be seen from here gets the time to show that it lives.
        unsure = [other for other in others if not near(other.owner) and not watched.has_moved(other)]
        if wait is not None and passed >= wait and (not unsure or passed >= wait + 2 * DEAD_AFTER):
            raise DigerError(f"{root.url}: {what} cannot start beside {others[0]}: run it again when that is done")
        if time.monotonic() - told >= TOLD_EVERY:
            told = time.monotonic()
            tell(f"{what} waits for {others[0]}")
        time.sleep(POLL * random.uniform(0.5, 1.5))  # two that met must not meet again


class _Watch:
    """What one waiting process has seen of the others: when each was last seen to be renewed, by its own clock."""

    def __init__(self, root: Root):
        self._root = root
        self._seen: dict[str, tuple[int, float, bool]] = {}  # name -> (renewed, when that was first seen, whether it has ever changed)

    def alive(self, own: Lease) -> list[Lease]:
        """The others that exclude `own`; dead ones are removed from the store."""
        found = []
        for lease in _read_all(self._root):
            if lease.name == own.name or not excludes(own.kind, lease.kind):
                continue
            if _certainly_dead(lease) or self._silent(lease):
                _remove(self._root, lease.name)
            else:
                found.append(lease)
        return found

    def has_moved(self, lease: Lease) -> bool:
        return self._seen[lease.name][2] if lease.name in self._seen else False

    def _silent(self, lease: Lease) -> bool:
        now = time.monotonic()
        renewed, since, moved = self._seen.get(lease.name, (lease.renewed, now, False))
        if renewed != lease.renewed:
            since, moved = now, True
        self._seen[lease.name] = (lease.renewed, since, moved)
        return not near(lease.owner) and now - since > DEAD_AFTER


def _certainly_dead(lease: Lease) -> bool:
    return near(lease.owner) and ended(lease.owner)


def _new(kind: Kind, what: str) -> Lease:
    return Lease(f"{kind}-{uuid.uuid4().hex}", kind, what, identity(), _user(), datetime.now(UTC).isoformat(), 0)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def _write(root: Root, lease: Lease, new: bool = False) -> None:
    document: _Document = {
        "kind": lease.kind,
        "what": lease.what,
        "owner": lease.owner,
        "who": lease.who,
        "since": lease.since,
        "renewed": lease.renewed,
    }
    data = json.dumps(document, sort_keys=True).encode()
    if new:
        root.create(data, SECTION, f"{lease.name}.json")
    else:
        root.replace(data, SECTION, f"{lease.name}.json")


def _renew(root: Root, lease: Lease, over: threading.Event) -> None:
    renewed = 0
    while not over.wait(RENEWED_EVERY):
        renewed += 1
        # A store that takes nothing now (a full disk) costs the lease only where that lasts, and then `confirm` tells.
        with contextlib.suppress(DigerError):
            _write(root, Lease(**{**lease.__dict__, "renewed": renewed}))


def _remove(root: Root, name: str) -> None:
    with contextlib.suppress(DigerError):  # a store that takes nothing any more: the lease is dead with its process
        root.remove(SECTION, f"{name}.json")


def _read_all(root: Root) -> list[Lease]:
    found = []
    for file in root.list(SECTION):
        if not file.endswith(".json"):
            continue
        try:
            document: _Document = json.loads(root.read(SECTION, file))
            lease = Lease(file.removesuffix(".json"), **document)
            datetime.fromisoformat(lease.since)
            int(lease.owner["pid"])
            found.append(lease)
        except DigerError:
            if root.exists(SECTION, file):
                raise
        except (ValueError, TypeError, KeyError):  # cut short by a power loss, which ended its owner, too
            _remove(root, file.removesuffix(".json"))
    return found
