"""A snapshot from the one before and a day's files: linear in the day, but for the copying of files.

Equal, byte for byte, to `diger ingest` of one file with the events of all days in their order and one with the items as they are now: full parts of
the events are copied, the last one is filled up, the catalogue is merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.item_ids import index_of
from diger_core.progress import Progress, Silent
from orchestration.snapshot.ingest.event_files import EventFiles, schema_of, tables
from orchestration.snapshot.ingest.events import Events
from orchestration.snapshot.ingest.item_files import ItemFiles
from orchestration.snapshot.ingest.item_merge import write_next
from orchestration.snapshot.ingest.overlap import Findings, Mask, Policy, judge
from orchestration.snapshot.ingest.previous import Previous
from orchestration.snapshot.ingest.source import Source, file_facts
from orchestration.snapshot.ingest.writer import read_events, replacing, told, write_document
from orchestration.snapshot.parts import reading_of
from orchestration.validation.columns import id_kind


@dataclass(frozen=True)
class Appended:
    """`counts`: for ingest.json; `line`: what the policies met and did."""

    counts: dict[str, int]
    line: str


def append_snapshot(
    previous: Previous,
    source: Source,
    out: Path,
    policy: Policy | None = None,
    *,
    without: pa.Array | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Appended:
    """Writes the snapshot `out`. `without`: ids, as text, of users whose events are left out, of the day and of what was before.

    Memory: the day, the ids of the catalogue, two parts of the events. Raises DigerError as `write_snapshot`, and for a day that does not fit the
    snapshot or that the policy refuses; then `out` is as it was.
    """
    policy, progress = policy or Policy(), progress or Silent()
    if out.absolute() == previous.path.absolute() or (out.exists() and out.samefile(previous.path)):
        raise DigerError(f"{out}: is the snapshot that is continued, and a snapshot never changes; choose another --out")
    with replacing(out, overwrite) as directory:
        events = read_events(source, previous.filters, previous.keep_rating, progress)
        name = next(iter(source.files.values())).name
        read, filtered = events.read, events.filtered
        left_out = _leave_out(events, without, name)
        schema = _schema(previous, schema_of(events), name)
        found = judge(pa.concat_tables(tables(events, schema)), previous.parts, policy, name, previous.path)
        if not found.kept.all():
            events.select(found.kept)
        old = _write_events(directory, previous, events, schema, without, progress)
        files = ItemFiles(directory, _catalogue(previous, old, events, schema), keep_waiting=True)
        described = write_next(files, previous, source, progress)
        replaced = described.pop("items_replaced")
        counts = {
            "interactions_read": read,
            "interactions_filtered": filtered,
            "interactions_outside_core": 0,
            "interactions": old.rows + len(events.user_E),
            "interactions_added": len(events.user_E),
            "interactions_late": found.late,
            "interactions_already_there": found.duplicates,
            "interactions_of_users_left_out": left_out + previous.rows - old.rows,
            "items": len(files.catalogue),
            "items_replaced": replaced,
            **described,
            **source.notes.counts(),
        }
        facts = [*previous.document["files"], *(file_facts(path, role) for role, path in source.files.items())]
        write_document(directory, source, told(source, previous.filters, previous.keep_rating), facts, counts)
    progress.message(f"{out}: {counts['interactions']:,} interactions, {counts['interactions_added']:,} of them new, and {counts['items']:,} items")
    return Appended(counts, _line(found, policy, counts, without is not None))


def _line(found: Findings, policy: Policy, counts: Mapping[str, int], without: bool) -> str:
    """What the policies met, on one line."""
    done = {"keep": "kept", "drop": "left out"}
    parts = [
        f"{found.late:,} late ({done[policy.late or 'keep']})",
        f"{found.duplicates:,} that the snapshot has already ({done[policy.duplicates]})",
    ]
    if without:
        parts.append(f"{counts['interactions_of_users_left_out']:,} of users in --without (left out, old ones too)")
    return f"events: {counts['interactions_added']:,} added, {', '.join(parts)}; items: {counts['items_replaced']:,} rows replaced by the day's"


def _leave_out(events: Events, without: pa.Array | None, name: str) -> int:
    """Takes the users' events out; returns how many."""
    if without is None:
        return 0
    kept = ~_of(events.user_ids, without)[events.user_E]
    if not kept.any():
        raise DigerError(f"{name}: all its events are of users in --without; give a file with events of others")
    events.select(kept)
    return int(np.count_nonzero(~kept))


def _of(ids: pa.Array | pa.ChunkedArray, users: pa.Array) -> Mask:
    return np.asarray(pc.is_in(ids.cast(pa.large_string()), users).to_numpy(zero_copy_only=False), bool)


def _schema(previous: Previous, day: pa.Schema, name: str) -> pa.Schema:
    """That of all events together. DigerError where the day's columns or ids are of another kind."""
    there = previous.events
    for column in day.names:
        if column not in there.names:
            raise DigerError(
                f"{name}: column {column} is not in the events of {previous.path}; leave it out, or ingest all files together to take it up"
            )
    for column in there.names:
        if column not in day.names:
            raise DigerError(
                f"{name}: column {column} is missing, the events of {previous.path} have it; write it, or name it (--map {column}=COLUMN)"
            )
    fields = []
    for field in there:
        new, old = day.field(field.name).type, field.type
        if field.name in ("user_id", "item_id") and id_kind(new) != id_kind(old):
            raise DigerError(f"{name}: {field.name} holds {id_kind(new)}, in {previous.path} {id_kind(old)}; write the ids as there")
        wide = next((kind for kind in (pa.large_string(), pa.uint64()) if kind in (new, old)), old)
        fields.append(pa.field(field.name, wide))
    return pa.schema(fields)


@dataclass
class _Old:
    """What was written of the snapshot before: rows, and where users were left out the items that still have events, in the order of the first."""

    rows: int = 0
    items: pa.Array | None = None


def _write_events(directory: Path, previous: Previous, events: Events, schema: pa.Schema, without: pa.Array | None, progress: Progress) -> _Old:
    total = previous.rows + len(events.user_E)
    with EventFiles(directory, schema) as written:
        if without is None:
            _copy(written, previous, progress, total)
            old = _Old(written.rows)
        else:
            old = _stream(written, previous, without, progress, total)
        for table in tables(events, schema):
            written.write(table)
            progress.update("writing interactions", written.rows, total)
    return old


def _copy(written: EventFiles, previous: Previous, progress: Progress, total: int) -> None:
    """Parts that this version would write alike are copied; the last one, and files of other versions, are read by row groups and written again."""
    for part, footer in previous.parts.items():
        with reading_of(part):
            file = pq.ParquetFile(part)
        with file:
            if written.copies(footer, file.schema_arrow):
                written.copy(part)
            else:
                for group in range(footer.num_row_groups):
                    with reading_of(part):
                        table = file.read_row_group(group)
                    written.write(table)
        progress.update("copying interactions", written.rows, total)


def _stream(written: EventFiles, previous: Previous, without: pa.Array, progress: Progress, total: int) -> _Old:
    items: list[pa.Array] = []
    for table in previous.tables():
        table = table.filter(pa.array(~_of(table["user_id"], without)))
        items = [pc.unique(pa.chunked_array([*items, *table["item_id"].chunks], type=table.schema.field("item_id").type))]
        written.write(table)
        progress.update("copying interactions", written.rows, total)
    return _Old(written.rows, items[0])


def _catalogue(previous: Previous, old: _Old, events: Events, schema: pa.Schema) -> pa.Array:
    """Ids of the items with events: those of before, then those that had their first event on this day, in its order."""
    kind = pa.large_string() if pa.types.is_large_string(events.item_ids.type) else schema.field("item_id").type
    with reading_of(previous.items):
        ids = old.items if old.items is not None else pq.read_table(previous.items, columns=["item_id"])["item_id"].combine_chunks()
    ids, day = ids.cast(kind), events.item_ids.take(pc.unique(pa.array(events.item_E))).cast(kind)  # some of the day's events may be left out
    return pa.concat_arrays([ids, day.filter(pa.array(index_of(day, ids) < 0))])
