"""An item's semantic IDs over time: every assignment that a store holds, what the item was called in it, and why that changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diger_core.errors import DigerError
from orchestration.audit.id_rows import id_in, row_of
from orchestration.audit.index import Index
from orchestration.audit.names import WITH_ASSIGNMENT, assignment_of

if TYPE_CHECKING:
    from diger_core.store.artefact import Artefact


@dataclass(frozen=True)
class Episode:
    """The item in one assignment. `id` is None where the item is not in that table; `why` says what changed since the episode before."""

    assignment: str
    at: str
    id: tuple[int, ...] | None
    holders: list[str]  # artefacts, oldest first
    snapshots: list[str]
    released: list[int]  # numbers of log entries
    why: str


def history(index: Index, item: str, every: bool = True) -> list[Episode]:
    """Every assignment of the store, oldest first; with `every` off, only those that were released."""
    holders: dict[str, list[Artefact]] = {}
    for artefact in index.artefacts(WITH_ASSIGNMENT):
        if artefact.stage != "frozen_model" and assignment_of(artefact):
            holders.setdefault(assignment_of(artefact), []).append(artefact)
    ordered = sorted(holders.items(), key=lambda pair: min(index.made_at(a.hash) for a in pair[1]))
    episodes: list[Episode] = []
    for assignment, found in ordered:
        found.sort(key=lambda a: index.made_at(a.hash))
        released = [entry.number for entry in index.releases if entry.bundle in {a.hash for a in found}]
        if every or released:
            episodes.append(_episode(index, item, assignment, found, released, episodes[-1] if episodes else None))
    if not any(episode.id for episode in episodes):
        raise DigerError(f"item {item!r} is in none of the {len(episodes)} ID assignments of {index.store.url}: check its spelling")
    return episodes


def _episode(index: Index, item: str, assignment: str, found: list[Artefact], released: list[int], before: Episode | None) -> Episode:
    id_ = next((known for artefact in found if (known := id_in(artefact, item)) is not None), None)
    hashes = [artefact.hash for artefact in found]
    snapshots = sorted({str(made.snapshot) for hash_ in hashes for made in index.makers.get(hash_, []) if made.snapshot})
    why = _reason(index, item, id_, hashes, before)
    return Episode(assignment, index.made_at(hashes[0]), id_, hashes, snapshots, released, why)


def _reason(index: Index, item: str, id_: tuple[int, ...] | None, hashes: list[str], before: Episode | None) -> str:
    if before is None:
        return "the first assignment of this store" if id_ else "not in the catalogue yet"
    if id_ is None:
        return "not in this catalogue" if before.id else "still not in the catalogue"
    if before.id is None:
        child = any(index.stage_of(hash_) == "cold_start" for hash_ in hashes)
        return "new: ID given under the champion's tokenizer, all others kept" if child else "new in this catalogue"
    if before.id == id_:
        return "unchanged"
    if len(before.id) != len(id_):
        return f"another number of levels: {len(before.id) - 1} before, {len(id_) - 1} now"
    if before.id[:-1] == id_[:-1]:
        return "only the suffix: another item of the same prefix holds the old one, or a released table reserves it"
    level = next(level for level, pair in enumerate(zip(before.id, id_, strict=True)) if pair[0] != pair[1]) + 1
    causes = _causes(index, item, hashes, before.holders)
    return f"moved from level {level} on: {causes}"


def _causes(index: Index, item: str, hashes: list[str], earlier: list[str]) -> str:
    """What the two assignments do not share, nearest cause first."""
    from orchestration.audit.chain import chain
    from orchestration.audit.names import Thing

    now, then = (_by_stage(index, set(chain(index, Thing("artefact", _origin(index, group[0]))).nodes)) for group in (hashes, earlier))
    texts = [_text_hash(index, stages.get("embeddings"), item) for stages in (then, now)]
    causes = []
    if None not in texts and texts[0] != texts[1]:
        causes.append("its text or vector changed")
    if then.get("encoder") != now.get("encoder"):
        causes.append(f"another encoder ({str(now.get('encoder'))[:12]})")
    if then.get("tokenizer") != now.get("tokenizer"):
        causes.append(f"another tokenizer ({str(then.get('tokenizer'))[:12]} before, {str(now.get('tokenizer'))[:12]} now)")
    elif then.get("joint_model") != now.get("joint_model"):
        causes.append(f"joint training moved the codebooks ({str(now.get('joint_model'))[:12]})")
    return ", ".join(causes) or "the records do not say"


def _origin(index: Index, hash_: str) -> str:
    """The artefact that gave the IDs; those of a cold start are its champion's, but for the new items."""
    made = index.makers.get(hash_, [])
    inputs = made[0].inputs if made and made[0].stage == "cold_start" else {}
    return inputs.get("champion", hash_)


def _by_stage(index: Index, hashes: set[str]) -> dict[str, str]:
    """Stage -> its newest artefact among `hashes`."""
    return {index.stage_of(hash_): hash_ for hash_ in sorted(hashes, key=index.made_at) if ":" not in hash_}


def _text_hash(index: Index, embeddings: str | None, item: str) -> str | None:
    artefact = index.artefact(embeddings) if embeddings else None
    row = row_of(artefact, "texts.parquet", item) if artefact is not None and "texts.parquet" in artefact.names else None
    return str(row["text_hash"]) if row else None
