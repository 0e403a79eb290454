"""Which registered snapshot the champion's lists are made from where none is named, and whether another one is older than the champion's own."""

from __future__ import annotations

import contextlib

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.engine.registry import Registered, lookup
from orchestration.params.sections import Params


def made_from(store: Store, bundle: str) -> Registered | None:
    """The snapshot that the bundle was made from; None where no record says so, as in a store that holds what `dvc pull` brought."""
    keys: list[str | None] = []
    for key in store.root.list("records", "bundle"):
        with contextlib.suppress(DigerError):  # another bundle's record that is damaged hides nothing
            keys += [record.get("snapshot") for record in store.records("bundle", key) if record["artefact"] == bundle]
    known = [key for key in keys if key and store.root.exists("snapshots", f"{key}.json")]
    return lookup(store, known[-1]) if known else None


def served(store: Store, params: Params, bundle: str) -> Registered:
    """The snapshot that `diger serve` answers from: the newest that was prepared for the champion, else its own. DigerError where none is known."""
    from orchestration.serving.online.newest import newest

    found = newest(store, params, bundle)[0] or made_from(store, bundle)
    if found is None:
        raise DigerError(f"{store.url}: no record says which snapshot the champion {bundle[:12]} was made from: name one with --snapshot DIR_OR_URL")
    return found


def newer_than(store: Store, bundle: str, snapshot: Registered) -> str | None:
    """The key of the bundle's own snapshot, where that came after `snapshot`: then a retraining on `snapshot` would be a step back."""
    own = made_from(store, bundle)
    return own.key if own is not None and own.number > snapshot.number else None
