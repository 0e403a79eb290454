"""What a store still says of users who asked to be forgotten: how many, and which snapshots' files hold one. Never who: an id can only be checked."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from diger_core.store.artefacts import Store
from orchestration.engine.registry import registered
from orchestration.engine.removal import SECTION

Pseudonym = Mapping[str, str]
_STAGE, _FILE = "raw_interactions", "interactions.parquet"


@dataclass(frozen=True)
class Forgotten:
    """`users`: salt -> pseudonym. `in_files`: SHA-256 of the interactions.parquet of a registered snapshot -> the salts of those whom it holds."""

    users: Mapping[str, Pseudonym] = field(default_factory=dict)
    in_files: Mapping[str, frozenset[str]] = field(default_factory=dict)


def forgotten(store: Store) -> Forgotten:
    """Read from the notes of `diger forget`, the records of the raw events and the registered snapshots; nothing where there are no notes."""
    notes = [store.document(SECTION, name) for name in store.root.list(SECTION) if name.endswith(".json")]
    notes = [note for note in notes if note["why"] == "forget" and "subject" in note]
    removed: dict[str, set[str]] = {}
    for note in notes:
        if note["stage"] == _STAGE:
            removed.setdefault(note["artefact"], set()).add(note["subject"]["salt"])
    holders: dict[str, set[str]] = {}
    for key in store.root.list("records", _STAGE) if removed else ():
        for record in store.records(_STAGE, key):
            if salts := removed.get(record["artefact"]):
                holders.setdefault(str(record["snapshot"]), set()).update(_all_of(record["artefact"], removed, notes) | salts)
    files = {entry.files[_FILE]["sha256"]: frozenset(holders[entry.key]) for entry in registered(store) if entry.key in holders}
    return Forgotten({note["subject"]["salt"]: note["subject"] for note in notes}, files)


def _all_of(hash_: str, removed: Mapping[str, set[str]], notes: Iterable[Mapping[str, str]]) -> set[str]:
    """Those who were taken out of what was left of it, too: the file holds them all."""
    following = {note["artefact"]: note.get("replaced_by") for note in notes}
    found: set[str] = set()
    seen = {hash_}
    while (left := following.get(hash_)) and left not in seen:
        found |= removed.get(left, set())
        seen.add(left)
        hash_ = left
    return found


def pseudonym(user: str, salt: str | None = None) -> dict[str, str]:
    """A salted hash that takes long to compute: whoever knows the id can check it, nobody can list the ids."""
    salt = salt or secrets.token_hex(16)
    made = hashlib.scrypt(user.encode(), salt=bytes.fromhex(salt), n=1 << 14, r=8, p=1, dklen=32).hex()
    return {"scrypt_16384_8_1": made, "salt": salt}


def unnamed(found: Forgotten, sha256: str, users: Iterable[str]) -> int:
    """How many of those whom the file of events with this hash holds are not among `users`."""
    given = list(users)
    return sum(all(pseudonym(user, salt) != found.users[salt] for user in given) for salt in found.in_files.get(sha256, ()))
