"""Snapshots that arrive in a watched place: which are complete, which are new, and which one is to be processed next.

What is known of an arrival is its content, never a clock's tick: a place's fingerprint (names, sizes, times) spares reading the same files again,
the content hash says whether the bytes are known, and both are kept in the store by conditional creation, so that two watchers agree.

How new a snapshot is, is said by what validation accepted of it, once it had its run. Before, its file's newest event is only a claim, which counts
among those that wait: one event in the future, or times in milliseconds, holds nothing back once validation has seen it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cmp_to_key
from typing import Any

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from diger_core.store.canonical import canonical_json, digest
from diger_core.store.files import Root
from orchestration.engine.registry import Registered, register, registered, snapshot_key
from orchestration.graph import BY_NAME
from orchestration.params.arrival import ArrivalConfig
from orchestration.snapshot.files import SnapshotFiles, describe, open_root
from orchestration.snapshot.parts import listed, parts

MARKERS = ("_SUCCESS", "manifest.json")
PLACES, CONTENTS = "arrival", "arrival_content"  # kinds of pointers


@dataclass(frozen=True)
class Place:
    """A complete directory in the watched place. `completed`: when its marker was written, in seconds since 1970."""

    name: str
    url: str
    fingerprint: str
    completed: float


@dataclass(frozen=True)
class Arrival:
    """A snapshot's content. `newest`: its newest event's timestamp as the file has it, in Unix seconds where it is an Arrow timestamp; None where
    the file does not say. An upper bound of what validation can accept."""

    key: str
    content_hash: str
    newest: int | None
    completed: float


@dataclass(frozen=True)
class Look:
    """What one look found. `launch`: what is to be processed now; `quiet`: looking again tells nothing new before the listing changes."""

    listing: str
    launch: Arrival | None
    keys: tuple[str, ...]  # all registered ones in this place: the partitions that must exist
    said: tuple[str, ...]
    quiet: bool


def look(
    store: Store,
    config: ArrivalConfig,
    launched: Callable[[str], bool],
    *,
    busy: str | None = None,
    known_listing: str | None = None,
    all_registered: bool = False,
    dry: bool = False,
) -> Look:
    """Registers what is new in the watched place and chooses what is to be processed.

    launched: whether a snapshot key has had its run; busy: why nothing may start now; known_listing: the listing of a quiet look before;
    all_registered: choose among all registered snapshots, not only those in the watched place; dry: register nothing.
    """
    places, said = scan(config) if config.watch else ([], ["nothing is watched: set arrival.watch in params.yaml"])
    settings = {"older": config.allow_older, "store": store.url}
    listing = digest("arrival listing", canonical_json(settings), *said, *sorted(place.fingerprint for place in places))
    if listing == known_listing and not all_registered:
        return Look(listing, None, (), (*said, "nothing has changed since the last look"), True)
    arrivals, faults = _arrivals(store, config, places, dry)
    everything = _with_registered(store, arrivals)
    choice = everything if all_registered else {entry.content_hash: entry for entry in arrivals}.values()
    launch, reasons = _choose(store, choice, everything, launched, config.allow_older)
    quiet = launch is None and not faults
    if launch is not None and busy is not None:
        reasons.append(f"{launch.key} waits: {busy}")
        launch = None
    return Look(listing, launch, tuple(sorted({entry.key for entry in choice})), (*said, *faults, *reasons), quiet)


def scan(config: ArrivalConfig) -> tuple[list[Place], list[str]]:
    """(complete places, what is to be said of the others). Lists names, sizes and times only; reads no file."""
    root = open_root(config.watch or "")
    with root.faults():
        options = {} if root.is_local else {"refresh": True}
        entries = root.fs.ls(root.base, detail=True, **options)
        names = sorted(_name(entry) for entry in entries if entry["type"] == "directory" and not _name(entry).startswith((".", "_")))
        places, said = [], []
        if len(names) > config.look_at:
            said.append(f"{len(names) - config.look_at} directories before {names[-config.look_at]} are not looked at (arrival.look_at)")
        for name in names[-config.look_at :]:
            try:
                files = {_name(entry): entry for entry in root.fs.ls(root.at(name), detail=True, **options)}
            except DigerError as error:  # a name that no key may have, or a link that leads elsewhere
                said.append(str(error))
                continue
            marker = next((files[marker] for marker in MARKERS if marker in files), None)
            if marker is None:
                said.append(f"{name}: not complete yet ({' or '.join(MARKERS)} is missing)")
                continue
            try:
                print_ = sorted(f"{file} {each['size']} {each.get('ETag') or each.get('mtime')}" for file, each in _contents(root, name, files))
            except DigerError as error:
                said.append(str(error))
                continue
            places.append(Place(name, f"{root.url}/{name}", digest("arrival place", root.url, name, *print_), _time(marker)))
    return places, said


def _contents(root: Root, name: str, files: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The files of a place, and those in a directory of part files."""
    for file, entry in files.items():
        if file.endswith(".parquet") and entry["type"] == "directory":
            yield from listed(root, f"{name}/{file}")
        else:
            yield file, entry


def newest_event(url: str) -> int | None:
    """The largest timestamp by the Parquet footer's statistics: no row is read. None where there is none, or no number says it."""
    import pyarrow.parquet as pq

    root, found = open_root(url), list[int]()
    for part in parts(root, "interactions.parquet"):
        with root.faults(part), root.fs.open(root.at(part), "rb") as file:
            metadata = pq.ParquetFile(file).metadata
        if metadata.num_rows:  # an empty part, as Spark writes them, says nothing
            newest = _newest_of(metadata)
            if newest is None:
                return None
            found.append(newest)
    return max(found, default=None)


def _newest_of(metadata: Any) -> int | None:
    """Of the top-level column alone: the footer lists leaves, and a nested one may be called timestamp, too."""
    leaves = [index for index in range(metadata.num_columns) if metadata.schema.column(index).path == "timestamp"]
    if len(leaves) != 1:
        return None
    statistics = [metadata.row_group(group).column(leaves[0]).statistics for group in range(metadata.num_row_groups)]
    if not statistics or any(found is None or not found.has_min_max for found in statistics):
        return None
    newest = max(found.max for found in statistics)
    if isinstance(newest, datetime):
        return int((newest if newest.tzinfo else newest.replace(tzinfo=UTC)).timestamp())
    return newest if isinstance(newest, int) else None


def accepted(store: Store) -> dict[str, int | None]:
    """Snapshot key -> the newest event that validation accepted, in Unix seconds (None: its events have no times); refused snapshots are left out."""
    import pyarrow.parquet as pq

    stage, found = BY_NAME["validated_interactions"], dict[str, int | None]()
    assert stage.refuse is not None
    for key in store.root.list("records", stage.name):
        with contextlib.suppress(DigerError):  # refused, damaged or gone: no evidence
            for record in store.records(stage.name, key):
                artefact = store.artefact(stage.name, record["artefact"])
                stage.refuse(artefact)
                found[record["snapshot"]] = _newest_of(pq.read_metadata(artefact.path("interactions.parquet")))
    return found


def older(first: Arrival, second: Arrival) -> bool:
    """Whether `first` comes before `second` by what both claim: by newest event, and where these are equal or missing by completion."""
    if first.newest is not None and second.newest is not None and first.newest != second.newest:
        return first.newest < second.newest
    return first.completed < second.completed


def _arrivals(store: Store, config: ArrivalConfig, places: list[Place], dry: bool) -> tuple[list[Arrival], list[str]]:
    """(what the places hold, what could not be taken up yet). Files are read only of places that no look has read before."""
    found, faults, unread = [], [], config.at_most
    seen = {name.removesuffix(".json") for name in store.root.list("pointers", PLACES)}
    for place in sorted(places, key=lambda place: place.completed):
        if place.fingerprint in seen:
            pointer = store.pointer(PLACES, place.fingerprint)
            assert pointer is not None
            found.append(Arrival(**pointer))
        elif unread == 0:
            faults.append(f"{place.name}: waits for the next look (arrival.at_most)")
        else:
            unread -= 1
            try:
                found.append(_take_up(store, place, dry))
            except DigerError as error:
                faults.append(str(error))
    return found, faults


def _take_up(store: Store, place: Place, dry: bool) -> Arrival:
    """Reads a new place and registers it; bytes that are registered under another name keep that name."""
    described = describe(place.url)
    known = next((entry.key for entry in registered(store) if entry.content_hash == described.content_hash), None)
    arrival = Arrival(known or snapshot_key(place.url, described.content_hash), described.content_hash, newest_event(place.url), place.completed)
    if dry:
        return arrival
    if known is None:
        arrival = replace(arrival, key=_register(store, place, described).key)
    return Arrival(**store.create_pointer(PLACES, place.fingerprint, asdict(arrival)))


def _register(store: Store, place: Place, described: SnapshotFiles) -> Registered:
    """Of several places that hold the same bytes at the same moment, the first to claim them gives the name."""
    claim = store.create_pointer(CONTENTS, described.content_hash, {"url": place.url})
    return register(store, claim["url"], described if claim["url"] == place.url else None)


def _with_registered(store: Store, arrivals: Iterable[Arrival]) -> list[Arrival]:
    """The arrivals, and all other registered snapshots, each content once."""
    found = {entry.content_hash: entry for entry in arrivals}
    for entry in registered(store):
        if entry.content_hash not in found:
            try:
                newest = newest_event(entry.url)
            except DigerError:  # its place is gone, which makes it no worse as a registered snapshot
                newest = None
            found[entry.content_hash] = Arrival(entry.key, entry.content_hash, newest, datetime.fromisoformat(entry.registered_at).timestamp())
    return list(found.values())


def _choose(
    store: Store, choice: Iterable[Arrival], everything: list[Arrival], launched: Callable[[str], bool], allow_older: bool
) -> tuple[Arrival | None, list[str]]:
    """(the next to be processed, why others are not). By default the newest alone: what it has overtaken, it holds too."""
    waiting = sorted((entry for entry in choice if not launched(entry.key)), key=cmp_to_key(_order))
    if not waiting:
        return None, []
    reasons: list[str] = []
    if not allow_older:
        known = accepted(store)
        others = [replace(entry, newest=known[entry.key]) for entry in everything if entry.key in known] + waiting
        newer = {entry.key: next((other for other in others if other.key != entry.key and older(entry, other)), None) for entry in waiting}
        reasons += [f"{key}: older than {other.key}, not processed (arrival.allow_older)" for key, other in newer.items() if other]
        waiting = [entry for entry in waiting if newer[entry.key] is None]
    reasons += [f"{entry.key}: waits for {waiting[0].key}" for entry in waiting[1:]]
    return (waiting[0] if waiting else None), reasons


def _order(first: Arrival, second: Arrival) -> int:
    return int(older(second, first)) - int(older(first, second))


def _name(entry: Any) -> str:
    return str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]


def _time(entry: Any) -> float:
    found = entry.get("mtime", entry.get("LastModified"))
    return found.timestamp() if isinstance(found, datetime) else float(found or 0.0)
