"""The champion log: which bundle serves, since when and why. Append-only; the newest entry is the champion.

`<root>/champion/<nnnnnn>.json`, each created conditionally and never overwritten. Who is killed before an entry exists has changed nothing, who is
killed after it has changed everything: there is an old champion or a new one, never none. Two writers race for one number; the loser reads the
log again and decides again.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Literal

from diger_core.errors import Damaged, DigerError
from diger_core.store import lease
from diger_core.store.artefact import MANIFEST
from diger_core.store.artefacts import Store
from diger_core.store.canonical import jsonable
from diger_core.store.record import seal
from orchestration.verdict.gate.document import VERDICT, GateVerdict

SECTION = "champion"
FORMAT = 1
Action = Literal["release", "promote", "rollback"]
_NAME = re.compile(r"(\d{6})\.json")
_LONGEST_REASON = 1000
PATIENCE = 600.0  # seconds that a change of champion waits for `diger gc` or `diger forget`


@dataclass(frozen=True)
class Entry:
    """One change of champion. Hashes of artefacts: `bundle` and `previous` of stage bundle, `verdict` of gate, `release` of release."""

    number: int
    bundle: str
    verdict: str | None
    release: str | None
    previous: str | None
    action: Action
    reason: str
    at: str
    by: str
    forced: bool = False  # promoted by hand without an accepting verdict


def history(store: Store) -> list[Entry]:
    """All entries, oldest first. DigerError where one is damaged or missing in between."""
    last = _last_number(store)
    return [_read(store, number) for number in range(1, last + 1)]


def current(store: Store) -> Entry | None:
    """The newest entry, read from the store at this moment; None where nothing was ever released."""
    last = _last_number(store)
    return _read(store, last) if last else None


def origin(store: Store, bundle: str) -> Entry | None:
    """The entry that released `bundle`, or else the newest that made it champion; None where it never was."""
    named = [entry for entry in history(store) if entry.bundle == bundle]
    released = [entry for entry in named if entry.action == "release"]
    return next(reversed(released or named), None)


def outdated(wanted: str | None, entry: Entry | None) -> str | None:
    """Why a verdict against the bundle `wanted` allows no release now that `entry` is the newest; None where it still does."""
    if (entry.bundle if entry else None) == wanted:
        return None
    now = f"{entry.bundle[:12]} (entry {entry.number}: {entry.action} by {entry.by} at {entry.at[:19]})" if entry else "none"
    return f"the verdict is against champion {wanted[:12] if wanted else 'none'}, but the champion now is {now}: run gate again, then release"


def append(
    store: Store,
    bundle: str,
    action: Action,
    reason: str,
    *,
    verdict: str | None = None,
    release: str | None = None,
    forced: bool = False,
    check: Callable[[Entry | None], None] | None = None,
) -> Entry:
    """Makes `bundle` the champion; returns its entry, or the one that this very release has made before.

    `check` sees the champion that would be replaced and raises where the change is no longer right; it is asked again whenever another writer was
    faster. A bundle that cannot be loaded never becomes champion.
    """
    text = " ".join(reason.split())
    if not text or len(text) > _LONGEST_REASON:
        raise DigerError(f"a change of champion needs a reason of 1 to {_LONGEST_REASON} characters: say why, for the people who read the log later")
    with lease.hold(store.root, "champion", f"{action} of bundle {bundle[:12]}", PATIENCE, tell=_tell) as held:
        loaded = False
        while True:
            known = _sound(store)
            made = next((entry for entry in known if release is not None and _same_release(entry, bundle, verdict, release)), None)
            if made is not None:
                return made
            before = current(store)
            if check is not None:
                check(before)
            if not loaded:
                from orchestration.champion.bundle import load_bundle  # torch: who only reads the log need not wait for it

                load_bundle(store, bundle)
                loaded = True
            number, previous = (before.number + 1, before.bundle) if before else (1, None)
            entry = Entry(number, bundle, verdict, release, previous, action, text, datetime.now(UTC).isoformat(), _who(), forced)
            held.confirm()
            if store.root.create(_encode(entry), SECTION, f"{number:06d}.json"):
                return entry


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _sound(store: Store) -> list[Entry]:
    """The entries that can be read: a damaged old one, which `history` names, stops no change of champion."""
    found = []
    for number in range(1, _last_number(store) + 1):
        with contextlib.suppress(Damaged):
            found.append(_read(store, number))
    return found


def _same_release(entry: Entry, bundle: str, verdict: str | None, release: str) -> bool:
    """A release is repeated with its artefact, and also where only the report beside an equal verdict was written again."""
    return entry.release == release or (entry.action == "release" and verdict is not None and (entry.bundle, entry.verdict) == (bundle, verdict))


def promote(store: Store, bundle: str, reason: str, *, force: bool = False) -> Entry:
    """Makes a bundle champion by hand: with the newest accepting verdict against the present champion or, forced, without one."""

    def check(before: Entry | None) -> None:
        if before is not None and before.bundle == bundle:
            raise DigerError(f"bundle {bundle[:12]} is the champion already (entry {before.number} of {before.at[:19]})")
        against = before.bundle if before else None
        if not force and accepting_verdict(store, bundle, against) is None:
            raise DigerError(
                f"bundle {bundle[:12]} has no accepting verdict against the present champion ({against[:12] if against else 'none'}): "
                "materialise gate for its snapshot, or promote it with --force (the log keeps that); one that served before: diger rollback --to N"
            )

    at_present = current(store)
    found = accepting_verdict(store, bundle, at_present.bundle if at_present else None)
    return append(store, bundle, "promote", reason, verdict=found, forced=force and found is None, check=check)


def rollback(store: Store, reason: str, to: int | None = None) -> Entry:
    """Makes the bundle of entry `to` champion again; without `to`, the one before the present champion."""
    start = current(store)
    if start is None:
        raise DigerError(f"{store.url}: there is no champion to roll back from: release a bundle first")
    if to is not None and not 1 <= to <= start.number:
        raise DigerError(f"--to {to}: the log has the entries 1 to {start.number} (diger champion --history)")
    target = _read(store, to) if to is not None else next((entry for entry in reversed(_sound(store)) if entry.bundle == start.previous), None)
    if target is None:
        raise DigerError(f"champion {start.bundle[:12]} is the first one: there is nothing to roll back to; promote another bundle instead")
    if target.bundle == start.bundle:
        raise DigerError(f"entry {target.number} names bundle {target.bundle[:12]}, which is the champion already")

    def check(before: Entry | None) -> None:
        if before is None or before.number != start.number:
            raise DigerError(
                f"the champion changed meanwhile (entry {before.number if before else 0}): look at it with `diger champion` and decide again"
            )

    try:
        return append(store, target.bundle, "rollback", reason, verdict=target.verdict, check=check)
    except DigerError as error:
        told = _taken_out(store, target.bundle) or str(error)
        raise DigerError(f"no rollback to entry {target.number}, the champion stays {start.bundle[:12]}: {told}") from error


def _taken_out(store: Store, bundle: str) -> str | None:
    """What a missing bundle was removed by, where the store has a note of it; None where it was not removed on purpose, or is there again."""
    if not store.root.exists("removed", f"{bundle}.json") or store.root.exists("artefacts", "bundle", bundle, MANIFEST):
        return None
    found = store.document("removed", f"{bundle}.json")
    by = f"`diger {found['why']}` on {str(found['at'])[:10]}"
    return f"bundle {bundle[:12]} was removed by {by}: roll back to another entry (diger champion --history)"


def accepting_verdict(store: Store, bundle: str, against: str | None) -> str | None:
    """The hash of a stored gate artefact that accepts `bundle` against the champion `against`."""
    for hash_ in store.root.list("artefacts", "gate"):
        found = store.find("gate", hash_)
        if found is None:
            continue  # a gate that is being written
        document: GateVerdict = found.json(VERDICT)
        if (document["candidate"], document["champion"], document["verdict"]) == (bundle, against, "accept"):
            return hash_
    return None


def _last_number(store: Store) -> int:
    numbers = [int(match[1]) for name in store.root.list(SECTION) if (match := _NAME.fullmatch(name))]
    last = max(numbers, default=0)
    while store.root.exists(SECTION, f"{last + 1:06d}.json"):  # a listing may lag behind, on some object stores
        last += 1
    return last


def _who() -> str:
    """Who did it, as far as this machine knows; the process keeps two entries of one moment apart."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def _encode(entry: Entry) -> bytes:
    value = jsonable({"format": FORMAT, **asdict(entry)})
    return json.dumps({**value, "seal": seal(value)}, indent=1, sort_keys=True, ensure_ascii=False).encode()


def _read(store: Store, number: int) -> Entry:
    name = f"{number:06d}.json"
    where = f"{store.url}/{SECTION}/{name}"
    if not store.root.exists(SECTION, name):
        raise Damaged(f"{where}: missing, though later entries exist: restore it from a copy of the store")
    try:
        value = json.loads(store.root.read(SECTION, name))
        whole = value["seal"] == seal(value) and value["number"] == number
        entry = Entry(**{f.name: value[f.name] for f in fields(Entry)})
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise Damaged(f"{where}: damaged or edited (it does not fit its own seal): restore it from a copy of the store")
    return entry
