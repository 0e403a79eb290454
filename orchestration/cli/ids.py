"""`diger assign` and `diger ids diff`: IDs for new items without training, and what changed between two tables."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from orchestration.cli.options import json_option, next_steps, open_store, params_options, store_option

if TYPE_CHECKING:
    import pyarrow as pa

    from diger_core.store.artefact import Artefact
    from diger_core.store.artefacts import Store
    from orchestration.champion.bundle import BundleDocument

_TABLES = {
    "bundle": "id_table.parquet",
    "cold_start": "id_table.parquet",
    "semantic_ids": "semantic_ids.parquet",
    "joint_model": "id_table.parquet",
    "frozen_model": "id_table.parquet",
}


@click.command()
@click.argument("source", metavar="SNAPSHOT_OR_PARQUET")
@click.option("--bundle", "chosen", default="champion", show_default=True, metavar="HASH", help="The bundle whose tokenizer assigns.")
@click.option("--out", metavar="FILE", help="Write the whole table, old IDs and new, as Parquet.")
@click.option("--limit", default=20, show_default=True, help="Show at most so many new items.")
@params_options
@store_option
@json_option
def assign(
    source: str, chosen: str, out: str | None, limit: int, params_file: str | None, overrides: tuple[str, ...], store: str, as_json: bool
) -> None:
    """Give new items semantic IDs under the champion's tokenizer, without training. No existing ID changes.

    SNAPSHOT_OR_PARQUET is a snapshot (directory or s3:// URL) or one Parquet file with item_id and the text columns.
    """
    from diger_core.ids.notation import id_of
    from orchestration.champion.bundle import load_bundle
    from orchestration.change.cold_start import no_room
    from orchestration.change.new_ids import child_assignment, encode_new
    from orchestration.engine.console import print_json, print_table
    from orchestration.params.load import load_params
    from orchestration.serving.titles import Titles, short

    config = load_params(params_file, overrides).embeddings
    opened = open_store(store)
    bundle = load_bundle(opened, named_bundle(opened, chosen).hash)
    items, vectors = _read_items(source)
    ids, vectors_nD = encode_new(bundle, items, config, vectors)
    child = child_assignment(bundle, ids, vectors_nD)
    if out is not None:
        _write(child.arrow(), child.assignment, out)
    new = child.arrow(new_only=True)
    rows = [{**row, "id": id_of(row), "title": title} for row, title in zip(new.to_pylist(), Titles.of_table(items)(new["item_id"]), strict=True)]
    if as_json:
        found = {"bundle": bundle.hash, "assignment_hash": child.assignment, "kept": len(child.item_ids) - len(rows), "new": rows}
        print_json({**found, "without_id": child.no_room})
        return
    cut = f", the first {limit:,} of them" if len(rows) > limit else ""
    title = f"{len(rows):,} new item{'s' * (len(rows) != 1)} under bundle {bundle.hash[:12]}{cut}; {len(child.item_ids) - len(rows):,} IDs unchanged"
    print_table(title, ["item_id", "title", "ID"], [[str(row["item_id"]), short(row["title"]), str(row["id"])] for row in rows[:limit]])
    if child.no_room:
        print(no_room(child, bundle))
    if out is None and rows:
        next_steps(store, (f"diger assign {shlex.quote(source)} --out FILE", "the whole table, old IDs and new"))


@click.group()
def ids() -> None:
    """Compare tables of semantic IDs."""


@ids.command("diff")
@click.argument("old")
@click.argument("new")
@click.option("--limit", default=10, show_default=True, help="Show at most so many items whose ID moved, those with most events first.")
@click.option("--migration", "out", metavar="FILE", help="Write the migration (item_id, status, old and new codes) as Parquet.")
@store_option
@json_option
def diff(old: str, new: str, limit: int, out: str | None, store: str, as_json: bool) -> None:
    """Which IDs were kept, moved, added and removed from OLD to NEW.

    Each is `champion`, `champion~1`, `previous`, a snapshot, an assignment's hash, the hash (or its beginning) of an artefact with an ID table, or
    a Parquet file. Shares are weighted by the training events of NEW's data, where NEW is a bundle.
    """
    from diger_core.ids.id_diff import changed_histories, id_diff, migration
    from orchestration.engine.console import print_json

    opened = open_store(store)
    (before, _), (after, holder) = named_table(opened, old), named_table(opened, new)
    change = migration(before, after)
    traffic = _traffic(opened, holder)
    report = id_diff(change, traffic[0] if traffic else None)
    report["histories"] = changed_histories(change, traffic[1], traffic[0]["item_id"]) if traffic else None
    report["moved"] = _moved(opened, change, traffic[0] if traffic else None, limit)
    if out is not None:
        _write(change, None, out)
    if as_json:
        print_json(report)
        return
    _show_diff(report, old, new, weighed=traffic is not None)
    if out is None and report["counts"]["moved"]:
        next_steps(store, (f"diger ids diff {shlex.quote(old)} {shlex.quote(new)} --migration FILE", "old and new IDs"))


def _show_diff(report: dict[str, Any], old: str, new: str, weighed: bool) -> None:
    from orchestration.engine.console import print_table
    from orchestration.serving.titles import short

    counts, shares, weighted = report["counts"], report["shares"], report["weighted"]
    rows = [[told, f"{counts[key]:,}", f"{shares[key]:.1%}", f"{weighted[key]:.1%}"] for key, told in _TOLD.items()]
    for level, (share, heavy) in enumerate(zip(shares["level_differs"], weighted["level_differs"], strict=True), start=1):
        rows.append([f"code {level} differs", "", f"{share:.1%}", f"{heavy:.1%}"])
    rows += [["added", f"{counts['added']:,}", "", ""], ["removed", f"{counts['removed']:,}", "", ""]]
    print_table(f"IDs from {old} to {new}", ["", "items", "of common items", "by traffic" if weighed else "unweighted"], rows)
    if report["moved"]:
        moved = [[str(row["item_id"]), short(row["title"]), row["old"], row["new"]] for row in report["moved"]]
        print_table(f"Moved: {len(moved)} of {counts['moved']:,}", ["item_id", "title", "old ID", "new ID"], moved)
    if report["histories"]:
        found = report["histories"]
        print(f"{found['changed_users']:,} of {found['users']:,} users have an item with another ID in their history")


def _moved(store: Store, change: pa.Table, weights: pa.Table | None, limit: int) -> list[dict[str, Any]]:
    """Items whose codes changed, those with most events first: item_id, title (by the newest catalogue), old and new ID."""
    import numpy as np
    import pyarrow.compute as pc

    from diger_core.ids.notation import id_of
    from diger_core.item_ids import index_of
    from orchestration.audit.id_rows import title_in
    from orchestration.audit.index import Index

    rows = change.filter(pc.equal(change["status"], "moved"))
    if not len(rows) or not limit:
        return []
    traffic = np.zeros(len(rows))
    if weights is not None:
        traffic = np.append(weights["weight"].to_numpy(), 0.0)[index_of(rows["item_id"], weights["item_id"])]
    index, chosen = Index(store), rows.take(np.argsort(-traffic, kind="stable")[:limit]).to_pylist()
    return [
        {"item_id": row["item_id"], "title": title_in(index, str(row["item_id"])), "old": id_of(row, "old_"), "new": id_of(row, "new_")}
        for row in chosen
    ]


_TOLD = {"kept": "whole ID kept", "suffix": "only the suffix differs", "moved": "a code differs"}


def named_bundle(store: Store, name: str) -> Artefact:
    """`champion`, `previous` (the one before it), or the beginning of a bundle's hash."""
    from diger_core.errors import DigerError
    from orchestration.champion.baseline import find_bundle
    from orchestration.champion.log import current

    if name not in ("champion", "previous"):
        return find_bundle(store, name)
    entry = current(store)
    hash_ = None if entry is None else entry.bundle if name == "champion" else entry.previous
    if hash_ is None:
        raise DigerError(f"{store.url} has no {name} bundle yet: release one, or name a bundle by its hash")
    return store.artefact("bundle", hash_)


def named_table(store: Store, name: str) -> tuple[pa.Table, Artefact | None]:
    """The ID table that `name` leads to, and its artefact."""
    from pathlib import Path

    import pyarrow.parquet as pq

    from diger_core.errors import DigerError

    if name.endswith(".parquet"):
        if not Path(name).is_file():
            raise DigerError(f"{name}: no such file: give an existing Parquet file with item_id, code_1.., suffix")
        return pq.read_table(name), None
    if name in ("champion", "previous"):
        artefact = named_bundle(store, name)
        return artefact.table(_TABLES["bundle"]), artefact
    found = [(stage, hash_) for stage in _TABLES for hash_ in store.root.list("artefacts", stage) if len(name) >= 6 and hash_.startswith(name)]
    if len(found) > 1:
        many = ", ".join(f"{stage} {hash_[:12]}" for stage, hash_ in found)
        raise DigerError(f"{name!r} names several artefacts: {many}: give more digits")
    artefact = store.artefact(*found[0]) if found else _resolved(store, name)
    return artefact.table(_TABLES[artefact.stage]), artefact


def _resolved(store: Store, name: str) -> Artefact:
    """The artefact with an ID table behind anything that `diger why` takes; of a snapshot or an assignment the newest one, a bundle first."""
    from diger_core.errors import DigerError
    from orchestration.audit.index import Index
    from orchestration.audit.names import resolve, with_assignment

    index = Index(store)
    thing = resolve(index, name)
    hashes = [thing.value]
    if thing.kind == "release":
        hashes = [entry.bundle for entry in index.releases if str(entry.number) == thing.value]
    elif thing.kind == "snapshot":
        hashes = [made.artefact for made in index.made if made.snapshot == thing.value]
    elif thing.kind == "assignment":
        hashes = with_assignment(index, thing.value)
    for stage in _TABLES:
        for hash_ in reversed(hashes):
            artefact = index.artefact(hash_) if index.present.get(hash_) == stage else None
            if artefact is not None and _TABLES[stage] in artefact.names:
                return artefact
    raise DigerError(
        f"{name!r} names no artefact with an ID table in {store.url}: give a {', '.join(_TABLES)}, a snapshot that was trained on, champion, "
        "champion~1 or a .parquet file"
    )


def _traffic(store: Store, holder: Artefact | None) -> tuple[Any, Any] | None:
    """(item_id and weight, sequences) of the data that a bundle was made from, where the store still holds them."""
    if holder is None or holder.stage != "bundle":
        return None
    import pyarrow as pa

    from diger_core.data.sequences import Sequences
    from diger_core.data.splits import training_counts
    from orchestration.engine.removal import left_of

    bundle: BundleDocument = holder.json("bundle.json")
    sequences = store.find("sequences", left_of(store, bundle["components"]["sequences"]))
    if sequences is None:
        return None
    seq = Sequences.from_arrays(sequences.arrays("sequences.safetensors"))
    return pa.table({"item_id": sequences.table("items.parquet")["item_id"], "weight": training_counts(seq).astype(float)}), seq


def _read_items(source: str) -> tuple[pa.Table, pa.Table | None]:
    """(items, vectors where the snapshot brings them) of a snapshot or of one Parquet file, local or remote."""
    import tempfile
    from pathlib import Path

    import pyarrow.parquet as pq

    from diger_core.errors import DigerError
    from orchestration.snapshot.files import fetch, open_root

    folder, name = (source.rpartition("/")[0] or ".", source.rpartition("/")[2]) if source.endswith(".parquet") else (source, "items.parquet")
    root = open_root(folder)
    if not root.exists(name):
        raise DigerError(f"{source}: holds no {name}: give a snapshot's directory or URL, or a Parquet file of items")
    with tempfile.TemporaryDirectory() as scratch:
        tables = []
        for file in dict.fromkeys((name, "vectors.parquet")):
            if root.exists(file):
                tables.append(pq.read_table(fetch(folder, file, Path(scratch) / file)))
    if "item_id" not in tables[0].column_names:
        raise DigerError(f"{source}: column item_id is missing (there are: {', '.join(tables[0].column_names)}): rename or add it")
    return tables[0], tables[1] if len(tables) > 1 else None


def _write(table: pa.Table, assignment: str | None, path: str) -> None:
    import pyarrow.parquet as pq

    from diger_core.store.faults import describe_os_error
    from orchestration.champion.model_artefact import with_assignment

    try:
        pq.write_table(with_assignment(table, assignment) if assignment else table, path)
    except OSError as error:
        raise describe_os_error(error, path) from error
