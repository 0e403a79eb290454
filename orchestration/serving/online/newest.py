"""Which data the service answers from: the newest snapshot that was prepared for the champion, else the data that the champion was made from.

A snapshot is prepared where the flow has reached `cold_start` with the same parameters, as every run and `diger recommend` do: then new items have
IDs and their events count. Nothing is computed here.
"""

from __future__ import annotations

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.engine.registry import registered
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME
from orchestration.params.sections import Params
from orchestration.serving.online.live import Sources

WANTED = ("sequences", "neighbours", "validated_items", "cold_start")
LOOK_BACK = 8  # snapshots, newest first, that are looked at
_CHANGING = (("snapshots",), ("records", "neighbours"), ("records", "cold_start"), ("pointers", "baseline"))


def newest_sources(store: Store, params: Params, bundle: str) -> Sources:
    """The artefacts of the newest prepared snapshot. A snapshot older than the champion's own is never taken."""
    own = Sources.own(store, bundle)
    for snapshot in registered(store)[: -LOOK_BACK - 1 : -1]:
        session = Session(store, params, snapshot)
        try:
            found = {name: session.find(BY_NAME[name]) for name in WANTED}
        except DigerError:
            continue  # it was not prepared, or did not pass its checks: an earlier one serves
        if found["sequences"].hash == own.sequences:
            return own
        if found["cold_start"].json("cold_start.json")["parent"] == bundle:
            return Sources(bundle, **{name: artefact.hash for name, artefact in found.items()})
    return own


def store_stamp(store: Store) -> str:
    """Changes whenever another snapshot may have been prepared: four listings, so that it can be asked every few seconds."""
    return "; ".join(str(len(store.root.list(*place))) for place in _CHANGING)
