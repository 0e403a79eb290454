"""Which data the service answers from: the newest snapshot that was prepared for the champion, else the data that the champion was made from.

A snapshot is prepared where the flow has reached `cold_start` with the same parameters, as every run does that gets there: then new items have
IDs and their events count. Nothing is computed here.

`diger forget` writes the sequences of a prepared snapshot again under another name; its neighbours, which are not written again, are found by the
name that the sequences had. A training would not take them: what it fits must not have seen who was forgotten.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from orchestration.engine.registry import Registered, registered
from orchestration.engine.removal import names_before
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME
from orchestration.params.sections import Params
from orchestration.serving.online.live import Sources

WANTED = ("sequences", "validated_items", "cold_start")
LOOK_BACK = 8  # snapshots, newest first, that are looked at
_CHANGING = (("snapshots",), ("records", "sequences"), ("records", "neighbours"), ("records", "cold_start"), ("pointers", "baseline"))


def newest_sources(store: Store, params: Params, bundle: str) -> Sources:
    """The artefacts of the newest prepared snapshot. A snapshot older than the champion's own is never taken."""
    return newest(store, params, bundle)[1]


def newest(store: Store, params: Params, bundle: str) -> tuple[Registered | None, Sources]:
    """The newest prepared snapshot with its artefacts; None with the champion's own data, where no snapshot leads to them with these parameters."""
    own = Sources.own(store, bundle)
    before = functools.cache(lambda: names_before(store))  # read where something is missing, and then once
    for snapshot in registered(store)[: -LOOK_BACK - 1 : -1]:
        session = Session(store, params, snapshot)
        try:
            found = {name: session.find(BY_NAME[name]) for name in WANTED}
            found["neighbours"] = _neighbours(session, lambda hash_: before().get(hash_, []))
        except DigerError:
            continue  # it was not prepared, or did not pass its checks: an earlier one serves
        if found["sequences"].hash == own.sequences:
            return snapshot, own
        if found["cold_start"].json("cold_start.json")["parent"] == bundle:
            return snapshot, Sources(bundle, **{name: artefact.hash for name, artefact in found.items()})
    return None, own


def _neighbours(session: Session, before: Callable[[str], Iterable[str]]) -> Artefact:
    """The neighbours of the session's sequences, or of those that they were before users were forgotten; DigerError where there are none."""
    stage = BY_NAME["neighbours"]
    try:
        return session.find(stage)
    except DigerError:
        named = {name: session.find(BY_NAME[name]).hash for name in stage.inputs}
        for hash_ in before(named["sequences"]):
            found = session.store.lookup(stage.name, session.key_of(stage, {**named, "sequences": hash_}))
            if found is not None:
                return found
        raise


def store_stamp(store: Store) -> str:
    """Changes whenever another snapshot may have been prepared: five listings, so that it can be asked every few seconds."""
    return "; ".join(str(len(store.root.list(*place))) for place in _CHANGING)
