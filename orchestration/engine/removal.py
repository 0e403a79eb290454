"""Taking an artefact out on purpose. A note says so first, so that the chain explains the gap instead of failing; records stay for ever.

An artefact must never look complete while it is half gone: on a local disk its directory is renamed away in one step, on an object store its
manifest goes first, and without one nothing counts an artefact. Whoever is killed in between leaves litter that the next `diger gc` removes.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from diger_core.errors import DigerError
from diger_core.store.artefact import MANIFEST, Artefact
from diger_core.store.artefacts import Store
from diger_core.store.canonical import jsonable
from diger_core.store.durable import make_directories
from diger_core.store.files import Root
from diger_core.store.record import seal

SECTION = "removed"
PAGES = "reports"  # the store's folder of pages that `diger report` wrote; any of them may be deleted at any time


def note(store: Store, stage: str, hash_: str, why: str, reason: str, replaced_by: str | None = None, **more: Any) -> None:
    """`removed/<hash>.json`: by which command, when, why, and what is left of the artefact under another hash. Never a user's id."""
    at = datetime.now(UTC).isoformat()
    value = jsonable({"artefact": hash_, "stage": stage, "why": why, "reason": reason, "at": at, "replaced_by": replaced_by, **more})
    value["seal"] = seal(value)
    data, name = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode(), f"{hash_}.json"
    if store.root.create(data, SECTION, name) or why != "forget" or was_forgotten(store, hash_):
        return
    store.root.remove(SECTION, name)  # collected once and made again since: that it was forgotten says more
    store.root.create(data, SECTION, name)


def was_forgotten(store: Store, hash_: str) -> bool:
    """Whether the artefact was taken out because it held a user who asked to be forgotten: no copy of it may come back."""
    return _noted(store, hash_).get("why") == "forget"


def left_of(store: Store, hash_: str) -> str:
    """The hash of what is left of an artefact since users were forgotten; its own where nothing was taken from it.

    The note counts, not whether the old one is still there: it is written first, and a killed `diger forget` leaves both.
    """
    seen = {hash_}
    while (left := _noted(store, hash_).get("replaced_by")) and left not in seen:
        seen.add(left)
        hash_ = left
    return hash_


def names_before(store: Store) -> dict[str, list[str]]:
    """Hash of what is left of an artefact -> the hashes that it had before users were forgotten. Reads every note."""
    notes = [store.document(SECTION, name) for name in store.root.list(SECTION) if name.endswith(".json")]
    left = {str(note["artefact"]): note["replaced_by"] for note in notes}
    found: dict[str, list[str]] = {}
    for name in left:
        hash_, seen = name, {name}
        while (following := left.get(hash_)) and following not in seen:
            seen.add(following)
            hash_ = following
            found.setdefault(hash_, []).append(name)
    return found


def present(store: Store, stage: str, hash_: str) -> Artefact:
    """The artefact, or what was left of it under another hash when users were forgotten; DigerError that names what is missing."""
    left = left_of(store, hash_)
    if left == hash_ or store.find(stage, left) is not None:
        return store.artefact(stage, left)
    raise DigerError(
        f"{store.url}/artefacts/{stage}/{left}: not in the store, and it is what `diger forget` left of {hash_[:12]}: restore it (dvc pull), "
        f"or run stage {stage} again"
    )


def _noted(store: Store, hash_: str) -> dict[str, Any]:
    name = f"{hash_}.json"
    return store.document(SECTION, name) if store.root.exists(SECTION, name) else {}


def refuse_forgotten(store: Store, what: str, inputs: Iterable[Artefact]) -> None:
    """DigerError where an input was taken out since it was looked up: what was made from it may hold a user who asked to be forgotten."""
    for artefact in inputs:
        if not store.root.exists("artefacts", artefact.stage, artefact.hash, MANIFEST):
            by = _noted(store, artefact.hash).get("why")
            raise DigerError(
                f"{what}: its input {artefact.stage} {artefact.hash[:12]} was removed meanwhile{f' by diger {by}' if by else ''}: "
                "nothing was stored; run it again"
            )
        _refuse_known(store, what, "input", artefact)


def refuse_return(store: Store, what: str, artefact: Artefact) -> None:
    """Takes out again, with a DigerError, what `diger forget` had removed and a run from files that still hold the user has made once more."""
    if was_forgotten(store, artefact.hash):
        take_out(store.root, "artefacts", artefact.stage, artefact.hash)
        _refuse_known(store, what, "result", artefact)


def _refuse_known(store: Store, what: str, part: str, artefact: Artefact) -> None:
    if was_forgotten(store, artefact.hash):
        raise DigerError(
            f"{what}: its {part} {artefact.stage} {artefact.hash[:12]} holds a user who asked to be forgotten: take the user out of the snapshot's "
            "files, and run on them as a new snapshot"
        )


def take_out(root: Root, *names: str) -> None:
    """Removes a directory of the store; doing it again after a crash is harmless."""
    path = root.at(*names)
    with root.faults(*names):
        if not root.is_local:
            manifest = f"{path}/{MANIFEST}"
            if root.fs.exists(manifest):
                root.fs.rm_file(manifest)
            root.remove_directory(*names)
            return
        if not os.path.isdir(path):
            return
        away = root.at("tmp", f"removed-{uuid.uuid4().hex}")
        make_directories(os.path.dirname(away))
        os.chmod(path, 0o755)
        os.rename(path, away)
        shutil.rmtree(away)
