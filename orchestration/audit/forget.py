"""`diger forget USER`: one user's events out of everything that is stored.

Artefacts are immutable and named by their content, so each one that holds the user is written again without them, under its new name, with a record
that says what it replaces; a note under the old name leads to the new one, and the old one is removed. Models are not rewritten: what they learned
from the user can only be trained away, so each is named. The records hold a salted, slow hash of the user's id; the note of a removed table of
users also the row that was theirs, hidden by the id, by which artefacts that come later (from another clone, say) and still count by that table
are found.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diger_core.errors import DigerError
from diger_core.store import lease
from diger_core.store.artefact import Artefact, cache_directory
from diger_core.store.canonical import canonical_json, digest
from diger_core.store.record import Record
from orchestration.audit.documents import forget_packs
from orchestration.audit.forward import closure, period
from orchestration.audit.index import Index, Made
from orchestration.audit.rewriting import Subject, counts_users, row_filter, rows_of, without
from orchestration.engine import removal
from orchestration.engine.forgotten import pseudonym
from orchestration.engine.registry import Volume
from orchestration.graph import BY_NAME, ORDER, STAGES

if TYPE_CHECKING:
    from orchestration.audit.index import Release

MODELS = tuple(stage.name for stage in STAGES if stage.fits_events)


@dataclass
class Findings:
    """Where a user's events are, and which models saw them."""

    user: str
    holders: list[Artefact] = field(default_factory=list)  # rewritten, inputs before what was made from them
    pages: list[Artefact] = field(default_factory=list)  # removed: they show histories, or count users by a table that is gone
    models: list[tuple[str, str]] = field(default_factory=list)  # (stage, hash)
    releases: list[Release] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)  # outside the store, for a person to remove

    def as_json(self, index: Index) -> dict[str, Any]:
        return {
            "rewritten": [{"stage": a.stage, "hash": a.hash} for a in self.holders],
            "removed": [{"stage": a.stage, "hash": a.hash} for a in self.pages],
            "models": [{"stage": stage, "hash": hash_} for stage, hash_ in self.models],
            "releases": [{"number": e.number, "bundle": e.bundle, "until": period(index, e)[1]} for e in self.releases],
            "copies": self.copies,
        }


def find(index: Index, user: str) -> Findings:
    """Looks for the user in every stored table; changes nothing."""
    subjects = numbers_of(index, user)
    found = Findings(user)
    for artefact in index.artefacts():
        if artefact.stage == "report":
            continue
        number = _numbers(index, artefact, subjects)
        if row_filter(artefact, Subject(user, number)):
            found.holders.append(artefact)
        elif number is None and _of_removed_tables(index, artefact):
            found.pages.append(artefact)
    found.holders.sort(key=lambda a: (ORDER.get(a.stage, len(ORDER)), index.made_at(a.hash)))
    held = {a.hash for a in found.holders}
    samples = {a.hash for a in found.holders if a.stage == "evaluation"}
    found.pages += [a for a in index.artefacts(["report"]) if any(set(m.inputs.values()) & samples for m in index.makers.get(a.hash, []))]
    reached = closure(index, [hash_ for hash_ in held if index.present[hash_] in ("raw_interactions", "validated_interactions", "sequences")])
    found.models = sorted(
        ((index.stage_of(h), h) for h in reached if index.stage_of(h) in MODELS), key=lambda p: (ORDER.get(p[0], 99), index.made_at(p[1]))
    )
    found.releases = [entry for entry in index.releases if entry.bundle in reached]
    found.copies = _copies(index, user, found)
    return found


def user_number(sequences: Artefact, user: str) -> int | None:
    """The user's index in a `sequences` artefact."""
    rows = rows_of(sequences, "users.parquet", user)
    return int(rows[0]) if len(rows) else None


def _numbers(index: Index, artefact: Artefact, subjects: Mapping[str, int]) -> int | None:
    """The user's index in the numbering that the artefact's tables use: that of the `sequences` it was made from."""
    if artefact.hash in subjects:
        return subjects[artefact.hash]
    for made in index.makers.get(artefact.hash, []):
        if made.inputs.get("sequences") in subjects:
            return subjects[made.inputs["sequences"]]
    return None


def numbers_of(index: Index, user: str) -> dict[str, int]:
    """Hash of a `sequences` artefact -> the user's index in it: of those in the store, and of those that were removed for this user's sake."""
    found = {a.hash: number for a in index.artefacts(["sequences"]) if (number := user_number(a, user)) is not None}
    for hash_, note in _renumbered_away(index).items():
        if hash_ not in found and pseudonym(user, note["subject"]["salt"]) == note["subject"]:
            found[hash_] = int(note["row"]) ^ _mask(user, note["subject"]["salt"])
    return found


def _renumbered_away(index: Index) -> dict[str, dict[str, Any]]:
    """The notes of `sequences` that were removed because they held somebody."""
    return {hash_: note for hash_, note in index.removed.items() if note["stage"] == "sequences" and "row" in note}


def _of_removed_tables(index: Index, artefact: Artefact) -> bool:
    """Whether its rows count users by a table that was removed for somebody's sake: that one is in it still, and nobody else can be found in it."""
    gone = _renumbered_away(index)
    tables = [made.inputs["sequences"] for made in index.makers.get(artefact.hash, []) if "sequences" in made.inputs]
    return bool(tables) and all(table in gone for table in tables) and counts_users(artefact)


def _mask(user: str, salt: str) -> int:
    """What hides the row of a user from those who do not know the id: in a table of dense ids the row would be the id."""
    return int.from_bytes(hashlib.scrypt(user.encode(), salt=b"row" + bytes.fromhex(salt), n=1 << 14, r=8, p=1, dklen=7), "little")


# Doing it


def forget(index: Index, user: str, wait: float = 0.0, tell: Callable[[str], object] | None = None) -> tuple[Findings, dict[str, str]]:
    """Looks again, and removes what it finds, while no stage, no change of champion and no gc is at work; returns that, and old hash -> new hash.

    Interrupted, it is simply given again. wait, tell: as `lease.hold`.
    """
    with lease.hold(index.store.root, "forget", "diger forget", wait, tell):
        index.store.sweep()
        fresh = Index(index.store, cached=False)
        found = find(fresh, user)
        if damaged := fresh.damaged():
            raise DigerError(f"forget: {damaged[0]}: while a file cannot be read, nothing says that all of the user was found")
        return found, _forget(fresh, found)


def _forget(index: Index, found: Findings) -> dict[str, str]:
    """Writes, notes, then removes."""
    store, subject = index.store, pseudonym(found.user)
    numbers = numbers_of(index, found.user)
    replaced = {hash_: str(note["replaced_by"]) for hash_, note in index.removed.items() if note.get("replaced_by")}
    earlier = set(replaced)
    for artefact in found.holders:
        replaced[artefact.hash] = _rewrite(index, artefact, Subject(found.user, _numbers(index, artefact, numbers)), replaced, subject)
    for artefact in found.holders:
        removal.note(
            store,
            artefact.stage,
            artefact.hash,
            "forget",
            "held events of a user who asked to be forgotten",
            replaced[artefact.hash],
            subject=subject,
            **({"row": numbers[artefact.hash] ^ _mask(found.user, subject["salt"])} if artefact.stage == "sequences" else {}),
        )
    for artefact in found.pages:
        removal.note(store, artefact.stage, artefact.hash, "forget", "may show the history of a user who asked to be forgotten", subject=subject)
    for artefact in [*found.pages, *reversed(found.holders)]:
        if replaced.get(artefact.hash) != artefact.hash:
            removal.take_out(store.root, "artefacts", artefact.stage, artefact.hash)
            _uncache(artefact)
    forget_packs(store.root)  # they hold the manifests of what was removed
    if found.pages:
        store.root.remove_directory(removal.PAGES)  # copies of reports; whoever needs one writes it again
    return {old: new for old, new in replaced.items() if old not in earlier or old in {a.hash for a in found.holders}}


def was_forgotten(index: Index, user: str) -> bool:
    """Whether a note about this user is in the store."""
    seen = {entry["subject"]["salt"]: entry["subject"] for entry in index.removed.values() if "subject" in entry}
    return any(pseudonym(user, salt) == subject for salt, subject in seen.items())


def _rewrite(index: Index, artefact: Artefact, subject: Subject, replaced: Mapping[str, str], who: Mapping[str, str]) -> str:
    with index.store.writer(artefact.stage) as out:
        facts = without(artefact, subject, out)
        out.facts.update({**artefact.facts, **facts, "forgotten_users": int(artefact.facts.get("forgotten_users", 0)) + 1})
        made = index.store.publish(out)
    for each in index.makers.get(artefact.hash, []):
        _record(index, each, artefact, made, replaced, who)
    return made.hash


def _record(index: Index, each: Made, old: Artefact, new: Artefact, replaced: Mapping[str, str], who: Mapping[str, str]) -> None:
    """The old record with the new artefact and inputs, under the key that a run from those inputs looks up."""
    record = index.record(each)
    inputs = {name: _newest(hash_, replaced) for name, hash_ in each.inputs.items()}
    key = _key(index, record, inputs) if _key(index, record, each.inputs) == each.key else each.key
    if any(known["artefact"] == new.hash for known in index.store.records(each.stage, key)):
        return
    own = ("format", "stage", "key", "number", "seal")
    kept = {name: value for name, value in record.items() if name not in own}
    forgotten = {"replaces": old.hash, "subject": who, "at": datetime.now(UTC).isoformat()}
    made = {"artefact": new.hash, "manifest": new.manifest_hash, "inputs": inputs}
    index.store.append_record(each.stage, key, {**kept, **made, "forgotten": forgotten})


def _newest(hash_: str, replaced: Mapping[str, str]) -> str:
    """What is left of an artefact after all that replaced it; artefacts that came later may name one that was replaced long ago."""
    seen = {hash_}
    while hash_ in replaced and replaced[hash_] not in seen:
        hash_ = replaced[hash_]
        seen.add(hash_)
    return hash_


def _key(index: Index, record: Record, inputs: Mapping[str, str]) -> str:
    """As the runner computes it."""
    named, snapshot = dict(inputs), index.snapshots.get(str(record.get("snapshot")), {})
    if "snapshot_file" in record:
        named["snapshot"] = record["snapshot_file"]
    if BY_NAME[record["stage"]].names_snapshot:
        named["snapshot_key"] = str(record["snapshot"])
    file = BY_NAME[record["stage"]].volume_of
    if file is not None:
        previous = snapshot.get("compared")
        named["previous_rows"] = str(None if previous is None else Volume(int(previous["rows"][file]), previous["key"]))
    return digest("record", record["stage"], record["code_version"], canonical_json(record["params"]), canonical_json(named))


def _uncache(artefact: Artefact) -> None:
    """Local copies of an object store's files."""
    for entry in artefact.manifest["files"]:
        shutil.rmtree(cache_directory() / "files" / entry["sha256"], ignore_errors=True)


# Copies elsewhere


def _copies(index: Index, user: str, found: Findings) -> list[str]:
    """Places outside the store that still hold the user: a person removes them, since others may rely on them."""
    gone = {a.hash for a in [*found.holders, *found.pages]}
    copies = []
    raw = {made.snapshot for made in index.made if made.artefact in gone and made.stage == "raw_interactions"}
    for key in sorted(key for key in raw if key in index.snapshots):
        url = index.snapshots[key]["url"]
        if _holds(url, user):
            copies.append(f"{url}/interactions.parquet (snapshot {key}): write it again without the user, register it, and run the flow on it")
    for path in index.root.tree("checkpoints"):
        if path.endswith(".parquet") and _in_file(index, ("checkpoints", *path.split("/")), user):
            key = path.split("/")[0]
            copies.append(f"{index.store.url}/checkpoints/{key} (of an unfinished run): finish that run, or `diger gc --delete --min-age 0`")
    for manifest in sorted(Path("pipeline").glob("*/manifest.json")):
        with contextlib.suppress(ValueError, OSError):
            if any(f'"hash":"{hash_}"' in manifest.read_text(encoding="utf-8") for hash_ in gone):
                copies.append(f"{manifest.parent} (tracked by DVC): run `dvc repro`, then `dvc gc --workspace --cloud` for its cache and remotes")
    return list(dict.fromkeys(copies))


def _in_file(index: Index, names: tuple[str, ...], user: str) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from orchestration.audit.rewriting import matching

    table = pq.read_table(pa.BufferReader(index.root.read(*names)))
    return "user_id" in table.column_names and bool(matching(table["user_id"], user).any())


def _holds(url: str, user: str) -> bool:
    """Whether a snapshot's events still hold the user; a place that cannot be read any more holds nothing that could be removed."""
    import pyarrow.parquet as pq

    from orchestration.audit.rewriting import matching
    from orchestration.snapshot.files import open_root
    from orchestration.snapshot.parts import parts

    try:
        root = open_root(url)
        if not root.exists("interactions.parquet"):
            return False
        for part in parts(root, "interactions.parquet"):
            with root.faults(part), root.fs.open(root.at(part), "rb") as f:
                if matching(pq.read_table(f, columns=["user_id"])["user_id"], user).any():
                    return True
        return False
    except DigerError:
        return False
