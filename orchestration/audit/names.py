"""What a person may type for a thing in the store: a hash or its beginning, a path, an alias, a stage, a snapshot, a row, an item's ID."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diger_core.errors import DigerError
from diger_core.ids import notation
from diger_core.store.artefact import MANIFEST
from orchestration.audit.id_rows import id_in, item_of
from orchestration.audit.index import Index, Release
from orchestration.graph import BY_NAME, STAGES

if TYPE_CHECKING:
    from diger_core.store.artefact import Artefact

_HASH = re.compile(r"[0-9a-f]{4,64}")
_CHAMPION = re.compile(r"champion(?:~(\d+))?")
WITH_ASSIGNMENT = tuple(stage.name for stage in STAGES if stage.holds_ids)
Kind = Literal["artefact", "release", "snapshot", "assignment", "commit"]


@dataclass(frozen=True)
class Thing:
    """What was meant. `value`: an artefact's hash, a snapshot's key, an assignment hash, a commit, or a log entry's number."""

    kind: Kind
    value: str
    row: int | None = None  # of `file`, where a row was asked for
    file: str | None = None
    item: str | None = None
    path: str | None = None  # of a table outside the store, which `value`, the champion of its time, has made


def resolve(index: Index, text: str) -> Thing:
    """The thing meant by `text`; `DigerError` with the candidates where there is none or more than one."""
    if text.startswith("item:"):
        return Thing("assignment", current_assignment(index), item=item_meant(index, text.removeprefix("item:")))
    path, separator, row = text.rpartition("#")
    if separator and row.isdigit():
        holder = _by_path(index, path) or resolve(index, path)
        return Thing(holder.kind, holder.value, int(row), holder.file, path=holder.path)
    champion = _CHAMPION.fullmatch(text)
    if champion:
        return Thing("release", str(_entry(index, int(champion[1] or 0)).number))
    if text in index.snapshots:
        return Thing("snapshot", text)
    if text in index.stages or text in BY_NAME:
        return Thing("artefact", newest(index, text))
    if _HASH.fullmatch(text):
        return _by_hash(index, text)
    if (numbers := notation.read(text)) is not None and len(numbers) > 1 and (item := _by_id(index, numbers)) is not None:
        return Thing("assignment", current_assignment(index), item=item)
    found = _by_path(index, text)
    if found is not None:
        return found
    keys = [key for key in index.snapshots if key.startswith(text)]
    if len(keys) == 1:
        return Thing("snapshot", keys[0])
    raise DigerError(
        f"{text!r}: nothing in {index.store.url} has this name: give a hash (4 digits or more), a path, a stage, `champion`, `champion~1`, "
        f"`item:ITEM`, an ID such as 17-203-88-0, FILE#ROW or a snapshot ({', '.join(list(index.snapshots)[-5:]) or 'none is registered'})"
    )


def item_meant(index: Index, text: str) -> str:
    """The item that `text` names: by its own id or, where it has the form of a semantic ID that the current assignment gave to an item, by that."""
    numbers = notation.read(text)
    if numbers is None or len(numbers) < 2 or any(id_in(artefact, text) is not None for artefact in _current(index)):
        return text
    return _by_id(index, numbers) or text


def _by_id(index: Index, numbers: tuple[int, ...]) -> str | None:
    """The item that has this ID in the current assignment, as text."""
    return next((str(item) for artefact in _current(index) if (item := item_of(artefact, numbers)) is not None), None)


def _current(index: Index) -> list[Artefact]:
    """Artefacts with the current assignment; none in a store without IDs."""
    if not index.releases and not any(made.stage == "semantic_ids" and made.artefact in index.present for made in index.made):
        return []
    holders = with_assignment(index, current_assignment(index))
    return [artefact for hash_ in holders[:1] if (artefact := index.artefact(hash_)) is not None]


def newest(index: Index, stage: str) -> str:
    """The hash of the stage's artefact whose record is the newest, of those that are still there."""
    for made in reversed(index.made):
        if made.stage == stage and made.artefact in index.present:
            return made.artefact
    raise DigerError(f"{index.store.url} holds no artefact of stage {stage}: run it, or give another --store")


def _entry(index: Index, back: int) -> Release:
    """The log's entry `back` steps before the newest."""
    if back >= len(index.releases):
        known = f"the champion log has {len(index.releases)} entries" if index.releases else "nothing was ever released"
        raise DigerError(f"champion{f'~{back}' if back else ''}: {known} in {index.store.url}: release a model first, or go back fewer steps")
    return index.releases[-1 - back]


# Hashes


def _by_hash(index: Index, prefix: str) -> Thing:
    """An artefact (by its own hash or its record's key), a snapshot's content, an assignment, or a commit, in this order."""
    artefacts = {hash_ for hash_ in [*index.present, *index.makers, *index.removed] if hash_.startswith(prefix)}
    artefacts |= {made.artefact for made in index.made if made.key.startswith(prefix)}
    if artefacts:
        return Thing("artefact", _only(prefix, artefacts, lambda hash_: _describe(index, hash_)))
    snapshots = {key for key, entry in index.snapshots.items() if _starts(entry, prefix)}
    if snapshots:
        return Thing("snapshot", _only(prefix, snapshots, str))
    assignments = {found for artefact in index.artefacts(WITH_ASSIGNMENT) if (found := assignment_of(artefact)).startswith(prefix)}
    if assignments:
        return Thing("assignment", _only(prefix, assignments, str))
    commits = {made.commit for made in index.made if made.commit and made.commit.startswith(prefix)}
    if commits:
        return Thing("commit", _only(prefix, commits, str))
    raise DigerError(
        f"{prefix}: no artefact, record, snapshot, ID assignment or commit in {index.store.url} begins with it: check the digits and --store"
    )


def _starts(entry: dict, prefix: str) -> bool:  # type: ignore[type-arg]
    hashes = [entry.get("content_hash", ""), *(file.get("sha256", "") for file in entry.get("files", {}).values())]
    return any(str(hash_).startswith(prefix) for hash_ in hashes)


def _only(prefix: str, found: Iterable[str], describe) -> str:  # type: ignore[no-untyped-def]
    names = sorted(found)
    if len(names) > 1:
        shown = "".join(f"\n  {describe(name)}" for name in names[:20])
        more = f"\n  and {len(names) - 20} more" if len(names) > 20 else ""
        raise DigerError(f"{prefix}: begins {len(names)} hashes: give more digits{shown}{more}")
    return names[0]


def _describe(index: Index, hash_: str) -> str:
    return f"{hash_[:16]}  {index.stage_of(hash_, 'removed')}  {index.made_at(hash_)[:19]}"


def assignment_of(artefact: Artefact) -> str:
    """The ID assignment that the artefact says it holds; empty where it says none."""
    return str(artefact.facts.get("assignment_hash", ""))


def with_assignment(index: Index, assignment: str) -> list[str]:
    """Hashes of the artefacts that hold this assignment, oldest first."""
    found = [artefact.hash for artefact in index.artefacts(WITH_ASSIGNMENT) if assignment_of(artefact) == assignment]
    return sorted(found, key=index.made_at)


def current_assignment(index: Index) -> str:
    """The champion's assignment, or the newest table's where nothing was released."""
    hash_ = index.releases[-1].bundle if index.releases else newest(index, "semantic_ids")
    artefact = index.artefact(hash_)
    if artefact is None:
        raise DigerError(f"{index.store.url}: {hash_[:12]}, which holds the current IDs, is missing: restore it (dvc pull), or release again")
    return assignment_of(artefact)


# Paths


def _by_path(index: Index, text: str) -> Thing | None:
    """An artefact's directory or a file in it, in the store, below pipeline/, or a copy of a file that some artefact holds."""
    parts = [part for part in text.removeprefix("file://").replace("\\", "/").split("/") if part not in ("", ".")]
    if "artefacts" in parts and _inside(index, text):
        rest = parts[len(parts) - parts[::-1].index("artefacts") :]
        if len(rest) >= 2 and len(rest[1]) == 64:
            return Thing("artefact", rest[1], file=rest[2] if len(rest) > 2 else None)
    if "://" in text:
        return None
    path = Path(text)
    for directory, file in ((path, None), (path.parent, path.name)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return Thing("artefact", str(json.loads((directory / MANIFEST).read_bytes())["hash"]), file=file)
    if os.path.isfile(path):  # False, too, for what can be no path at all
        return _recommended(index, path) or _by_bytes(index, path)
    return _snapshot_at(index, path)


def _snapshot_at(index: Index, path: Path) -> Thing | None:
    """The registered snapshot whose bytes lie in a directory."""
    from orchestration.snapshot.files import describe

    if not os.path.exists(path / "interactions.parquet"):
        return None
    here = describe(path).content_hash
    for key, entry in reversed(index.snapshots.items()):
        if entry.get("content_hash") == here:
            return Thing("snapshot", key)
    raise DigerError(f"{path}: a snapshot that {index.store.url} does not know, or whose bytes changed since: register it with `diger snapshot add`")


def _inside(index: Index, text: str) -> bool:
    if index.root.is_local:
        return Path(text.removeprefix("file://")).absolute().is_relative_to(index.root.base)
    return text.startswith(index.store.url + "/")


def _recommended(index: Index, path: Path) -> Thing | None:
    """A shard that `diger recommend --out` wrote: the document beside it names the champion, the snapshot and the shard's SHA-256."""
    from diger_core.store.canonical import bytes_sha256
    from orchestration.serving.shards import DOCUMENT

    try:
        document = json.loads((path.parent / DOCUMENT).read_bytes())
        champion, shards = str(document["champion"]), {str(entry["file"]): str(entry["sha256"]) for entry in document["shards"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if path.name not in shards:
        return None
    if bytes_sha256(path) != shards[path.name]:
        raise DigerError(f"{path}: changed since `diger recommend` wrote it (SHA-256 differs from {DOCUMENT} beside it): write it again")
    if champion not in index.present and champion not in index.makers and champion not in index.removed:
        raise DigerError(
            f"{path}: made by champion {champion[:12]}, which {index.store.url} does not know: give the --store that it was written from"
        )
    return Thing("artefact", champion, path=str(path))


def _by_bytes(index: Index, path: Path) -> Thing:
    """The newest artefact that holds a file with these very bytes."""
    from diger_core.store.canonical import bytes_sha256

    sha256 = bytes_sha256(path)
    found = [(artefact, entry["name"]) for artefact in index.artefacts() for entry in artefact.manifest["files"] if entry["sha256"] == sha256]
    if not found:
        raise DigerError(
            f"{path}: no artefact of {index.store.url} holds a file with its bytes (SHA-256 {sha256[:12]}): changed since, or another store's"
        )
    artefact, name = max(found, key=lambda pair: (index.made_at(pair[0].hash), pair[1]))
    return Thing("artefact", artefact.hash, file=name)
