"""Source -> snapshot directory: interactions.parquet, items.parquet, ingest.json and, last, _SUCCESS.

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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.item_ids import index_of
from diger_core.progress import Progress, Silent
from diger_core.store.files import make_directories, sync, sync_tree
from diger_core.store.owner import abandoned, signature
from orchestration.snapshot.ingest.events import Events, Filters, as_integers, collect, refuse_milliseconds, take_core
from orchestration.snapshot.ingest.source import Source, file_facts
from orchestration.validation.columns import id_kind

ROW_GROUP = 1_000_000


def write_snapshot(
    source: Source, out: Path, filters: Filters | None = None, *, keep_rating: bool = False, overwrite: bool = False, progress: Progress | None = None
) -> dict[str, int]:
    """Writes the snapshot `out` and returns its counts. `keep_rating`: the rating becomes the column `weight`.

    Memory: some 50 bytes an interaction and the distinct ids; texts are streamed, and only kept items' are written. Interactions keep the order
    of the file. An item without metadata gets null texts. Raises DigerError for bad input, an existing `out` without `overwrite`, and a disk
    that cannot be written; then `out` is as it was.
    """
    filters, progress = filters or Filters(), progress or Silent()
    _sweep(out)
    if out.exists() and not overwrite:
        raise DigerError(f"{out}: exists already; pass --overwrite to replace it, or choose another --out")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]) and not (out / "_SUCCESS").exists():
        raise DigerError(f"{out}: is no snapshot (there is no _SUCCESS in it), so --overwrite does not replace it; choose another --out")
    with _replacing(out) as directory:
        events = collect(source.interactions(progress), filters)
        refuse_milliseconds(events, next(iter(source.files.values())).name)
        if source.integer_ids:
            as_integers(events)
        dropped = take_core(events, filters.k_core, progress)
        if keep_rating:
            events.values["weight"] = events.values.pop("rating")
        user_ids, item_ids = events.user_ids, events.item_ids
        _write_interactions(directory / "interactions.parquet", events, user_ids, item_ids, progress)
        described = _write_items(directory / "items.parquet", source, item_ids, progress)
        counts = {
            "interactions_read": events.read,
            "interactions_filtered": events.filtered,
            "interactions_outside_core": dropped,
            "interactions": len(events.user_E),
            "users": len(user_ids),
            "items": len(item_ids),
            **described,
            **source.notes.counts(),
        }
        facts = [file_facts(path, role) for role, path in source.files.items()]
        _write_json(directory / "ingest.json", source, filters, keep_rating, facts, counts)
    progress.message(
        f"{out}: {counts['interactions']:,} interactions of {counts['users']:,} users and {counts['items']:,} items, "
        f"{counts['items_without_metadata']:,} of them without metadata"
    )
    return counts


def _write_interactions(path: Path, events: Events, user_ids: pa.Array, item_ids: pa.Array, progress: Progress) -> None:
    user_ids, item_ids = _plain(user_ids), _plain(item_ids)
    rows = len(events.user_E)
    schema = pa.schema(
        [("user_id", user_ids.type), ("item_id", item_ids.type)]
        + [(name, pa.int64()) for name in ("pos", "timestamp") if name in events.values]
        + ([("weight", pa.float32())] if "weight" in events.values else [])
        + ([("event_type", pa.string())] if events.event_type else [])
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, ROW_GROUP):
            part = slice(start, start + ROW_GROUP)
            columns: dict[str, Any] = {
                "user_id": user_ids.take(pa.array(events.user_E[part])),
                "item_id": item_ids.take(pa.array(events.item_E[part])),
            }
            columns |= {name: pa.array(values[part]) for name, values in events.values.items() if name in schema.names}
            if events.event_type:
                codes, kinds = events.event_type
                columns["event_type"] = kinds.take(pa.array(codes[part], mask=codes[part] < 0))
            writer.write_table(pa.table({field.name: columns[field.name].cast(field.type) for field in schema}, schema=schema))
            progress.update("writing interactions", min(start + ROW_GROUP, rows), rows)


def _plain(ids: pa.Array) -> pa.Array:
    """As `string`, which every reader knows; `large_string` stays where a row group could hold two gigabytes of ids."""
    if ids.type != pa.large_string() or (pc.max(pc.binary_length(ids)).as_py() or 0) * ROW_GROUP >= 2**31 or ids.nbytes >= 2**31:
        return ids
    return ids.cast(pa.string())


def _write_items(path: Path, source: Source, item_ids: pa.Array, progress: Progress) -> dict[str, int]:
    """The kept items with their metadata, then those without any. Where metadata repeats an item, its first row counts."""
    catalogue, seen = pa.chunked_array([item_ids]), np.zeros(len(item_ids), bool)
    item_ids = _plain(item_ids)
    rows = repeated = 0
    writer: pq.ParquetWriter | None = None
    try:
        for batch in source.items(progress) if source.items else ():
            rows += len(batch)
            found = _positions(batch.column("item_id"), catalogue, source)
            row = np.flatnonzero(found >= 0)
            _, first = np.unique(found[row], return_index=True)
            row = np.sort(row[first])
            row = row[~seen[found[row]]]
            again = np.setdiff1d(np.flatnonzero(found >= 0), row)
            repeated += len(again)
            _note_merged(source, batch, again)
            seen[found[row]] = True
            kept = batch.take(pa.array(row))
            kept = kept.drop_columns("item_id").add_column(0, "item_id", item_ids.take(pa.array(found[row])))
            writer = writer or pq.ParquetWriter(path, kept.schema, compression="zstd")
            writer.write_table(kept.cast(writer.schema))
        missing = np.flatnonzero(~seen)
        schema = writer.schema if writer else pa.schema([("item_id", item_ids.type)])
        writer = writer or pq.ParquetWriter(path, schema, compression="zstd")
        rest = [item_ids.take(pa.array(missing)) if name == "item_id" else pa.nulls(len(missing), schema.field(name).type) for name in schema.names]
        writer.write_table(pa.table(rest, schema=schema))
    finally:
        if writer:
            writer.close()
    return {"metadata_rows": rows, "metadata_rows_repeated": repeated, "items_without_metadata": len(missing)}


def _note_merged(source: Source, batch: pa.Table, again: np.ndarray) -> None:
    if len(again):
        source.notes.merged_example = source.notes.merged_example or repr(batch["item_id"][int(again[0])].as_py())[:80]
        source.notes.merged += len(again)


def _positions(ids: pa.ChunkedArray, catalogue: pa.ChunkedArray, source: Source) -> np.ndarray:
    """Where each metadata row's item stands in the catalogue; -1: not in it."""
    if id_kind(ids.type) != id_kind(catalogue.type):
        if not source.integer_ids:
            name, other = source.files["items"].name, id_kind(catalogue.type)
            raise DigerError(
                f"{name}: its item ids are {id_kind(ids.type)}, but those of the interactions are {other}; pass --integer-ids, or convert the file"
            )
        ids, catalogue = ids.cast(pa.large_string()), catalogue.cast(pa.large_string())
    return index_of(ids, catalogue)


def _write_json(path: Path, source: Source, filters: Filters, keep_rating: bool, facts: list[dict[str, str | int]], counts: dict[str, int]) -> None:
    options = {**asdict(filters), "keep_rating": keep_rating, "integer_ids": source.integer_ids, **source.options}
    document = {"format": source.format, "files": facts, "options": options, "counts": counts}
    path.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A new directory beside `out` that takes its place when the block ends well, and disappears when it does not."""
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
