"""Source -> snapshot directory: interactions.parquet, items.parquet, waiting_items.parquet, ingest.json and, last, _SUCCESS.

Everything is written beside the target and renamed at the end, so that the target is there as a whole or not at all.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from diger_core.errors import DigerError
from diger_core.progress import Progress, Silent
from diger_core.store.durable import make_directories, sync, sync_tree
from diger_core.store.owner import abandoned, signature
from orchestration.snapshot.ingest.event_files import EventFiles, schema_of, tables
from orchestration.snapshot.ingest.events import Events, Filters, as_integers, collect, refuse_milliseconds, take_core
from orchestration.snapshot.ingest.item_files import ItemFiles, write_first
from orchestration.snapshot.ingest.source import FileFacts, Source, file_facts

DOCUMENT = "ingest.json"


def write_snapshot(
    source: Source, out: Path, filters: Filters | None = None, *, keep_rating: bool = False, overwrite: bool = False, progress: Progress | None = None
) -> dict[str, int]:
    """Writes the snapshot `out` and returns its counts. `keep_rating`: the rating becomes the column `weight`.

    Memory: some 50 bytes an interaction and the distinct ids; texts are streamed. Interactions keep the order
    of the file. An item without metadata gets null texts. Raises DigerError for bad input, an existing `out` without `overwrite`, and a disk
    that cannot be written; then `out` is as it was.
    """
    filters, progress = filters or Filters(), progress or Silent()
    with replacing(out, overwrite) as directory:
        events = read_events(source, filters, keep_rating, progress)
        dropped = take_core(events, filters.k_core, progress)
        with EventFiles(directory, schema_of(events)) as written:
            for table in tables(events, written.schema):
                written.write(table)
                progress.update("writing interactions", written.rows, len(events.user_E))
        files = ItemFiles(directory, events.item_ids, keep_waiting=filters.k_core <= 1)
        described = write_first(files, source, progress)
        counts = {
            "interactions_read": events.read,
            "interactions_filtered": events.filtered,
            "interactions_outside_core": dropped,
            "interactions": len(events.user_E),
            "users": len(events.user_ids),
            "items": len(events.item_ids),
            **described,
            **source.notes.counts(),
        }
        facts = [file_facts(path, role) for role, path in source.files.items()]
        write_document(directory, source, told(source, filters, keep_rating), facts, counts)
    progress.message(
        f"{out}: {counts['interactions']:,} interactions of {counts['users']:,} users and {counts['items']:,} items, "
        f"{counts['items_without_metadata']:,} of them without metadata"
    )
    return counts


def read_events(source: Source, filters: Filters, keep_rating: bool, progress: Progress) -> Events:
    """The source's events after the filters that look at one event alone, with ids of their final kind."""
    name = next(iter(source.files.values())).name
    events = collect(source.interactions(progress), filters, name)
    refuse_milliseconds(events, name)
    if source.integer_ids:
        as_integers(events)
    if keep_rating:
        events.values["weight"] = events.values.pop("rating")
    return events


def told(source: Source, filters: Filters, keep_rating: bool) -> dict[str, object]:
    """The options for ingest.json."""
    return {**asdict(filters), "keep_rating": keep_rating, "integer_ids": source.integer_ids, **source.options}


def write_document(directory: Path, source: Source, options: dict[str, object], facts: list[FileFacts], counts: dict[str, int]) -> None:
    document = {"format": source.format, "files": facts, "options": options, "counts": counts}
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (directory / DOCUMENT).write_text(text, encoding="utf-8")


@contextmanager
def replacing(out: Path, overwrite: bool) -> Iterator[Path]:
    """A new directory beside `out` that takes its place when the block ends well, and disappears when it does not.

    What runs that were killed have left is removed first. DigerError where `out` is there and may not be replaced.
    """
    _sweep(out)
    if out.exists() and not overwrite:
        raise DigerError(f"{out}: exists already; pass --overwrite to replace it, or choose another --out")
    if out.is_symlink() and not out.exists():
        raise DigerError(f"{out}: is a link that leads nowhere; remove it, or choose another --out")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]) and not (out / "_SUCCESS").exists():
        raise DigerError(f"{out}: is no snapshot (there is no _SUCCESS in it), so --overwrite does not replace it; choose another --out")
    partial, old = (out.parent / f".{out.name}.{kind}.{signature()}" for kind in ("partial", "replaced"))
    try:
        make_directories(os.path.abspath(out.parent))
        partial.mkdir()
        yield partial
        (partial / "_SUCCESS").write_bytes(b"")
        sync_tree(str(partial))
        if out.exists():
            out.rename(old)
        try:
            partial.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
        sync(os.path.abspath(out.parent))
    except OSError as error:
        raise DigerError(f"{out}: cannot be written ({error.strerror or error}); free some space, or choose another --out") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Removes what runs that were killed have left beside `out`; a snapshot that one had moved aside and not yet replaced goes back."""
    for left in sorted(out.parent.glob(f".{glob.escape(out.name)}.*")):
        if abandoned(left.name):
            if ".replaced." in left.name and not out.exists():
                left.rename(out)
            else:
                shutil.rmtree(left, ignore_errors=True)
