"""The thing asked for, in its own words, before its chain: a row of recommendations, an item's ID; and the releases that it went into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from diger_core.errors import DigerError
from diger_core.ids.notation import written
from orchestration.audit.forward import closure, period
from orchestration.audit.id_rows import id_in, title_in
from orchestration.audit.index import Index
from orchestration.audit.names import Thing, with_assignment

if TYPE_CHECKING:
    import pyarrow as pa


def as_json(index: Index, thing: Thing) -> dict[str, Any]:
    return {"kind": thing.kind, "value": thing.value, **({"row": _row(index, thing)} if thing.row is not None else {}), **_item(index, thing)}


def text(index: Index, thing: Thing) -> Iterator[str]:
    if thing.row is not None:
        values = ", ".join(f"{name}={value}" for name, value in _row(index, thing).items())
        yield f"row {thing.row}: {values[:400]}"
    if thing.path is not None:
        yield f"{thing.path}: written by `diger recommend` with champion {thing.value[:12]}"
    if thing.item is not None:
        from orchestration.serving.titles import named  # reads tables, for which questions about names must not wait

        found = _item(index, thing)
        yield f"item {named(thing.item, title_in(index, thing.item))}: ID {written(found['id'])}, assignment {thing.value[:12]}"


def _row(index: Index, thing: Thing) -> dict[str, Any]:
    """The row, with user and item indices of an evaluation's sample left as they are."""
    if thing.path is not None:
        import pyarrow.parquet as pq

        return _at(pq.read_table(thing.path), thing, thing.path)
    artefact = index.artefact(thing.value)
    if artefact is None:
        raise DigerError(f"{thing.value[:12]}: not in the store any more")
    tables = [name for name in artefact.names if name.endswith(".parquet")]
    file = thing.file if thing.file in tables else next((name for name in ("recommendations.parquet", *tables) if name in tables), None)
    if file is None:
        raise DigerError(f"{artefact.directory} holds no table: give the path of a Parquet file before #")
    return _at(artefact.table(file), thing, f"{artefact.directory}/{file}")


def _at(table: pa.Table, thing: Thing, where: str) -> dict[str, Any]:
    assert thing.row is not None
    if thing.row >= len(table):
        raise DigerError(f"{where}: has {len(table)} rows, numbered from 0; there is no row {thing.row}")
    row: dict[str, Any] = table.slice(thing.row, 1).to_pylist()[0]
    return row


def _item(index: Index, thing: Thing) -> dict[str, Any]:
    if thing.item is None:
        return {}
    for hash_ in with_assignment(index, thing.value):
        artefact = index.artefact(hash_)
        found = id_in(artefact, thing.item) if artefact is not None else None
        if found is not None:
            return {"item": thing.item, "id": list(found)}
    raise DigerError(
        f"item {thing.item!r} has no ID in assignment {thing.value[:12]}: check its spelling; `diger item {thing.item} --history` asks all"
    )


def _start(thing: Thing, index: Index) -> list[str]:
    if thing.kind == "assignment":
        return with_assignment(index, thing.value)
    return [thing.value] if thing.kind == "artefact" else []


def releases_json(index: Index, thing: Thing) -> dict[str, Any]:
    """Gate verdicts and log entries that depend on the thing."""
    found = closure(index, _start(thing, index))
    gates = [hash_ for hash_ in found if index.present.get(hash_) == "gate"]
    return {"entries": [entry.__dict__ for entry in index.releases if entry.bundle in found], "gates": gates}


def released(index: Index, thing: Thing) -> Iterator[str]:
    """What became of it: the verdicts that it met, and the times when it served."""
    from orchestration.audit.tree import gate_line

    if thing.kind not in ("artefact", "assignment"):
        return
    found = closure(index, _start(thing, index))
    entries = [entry for entry in index.releases if entry.bundle in found]
    for hash_ in sorted((h for h in found if index.present.get(h) == "gate"), key=index.made_at):
        yield f"gate {hash_[:12]}: {gate_line(index, hash_)}"
    for entry in entries:
        start, end = period(index, entry)
        until = f"until {end[:19].replace('T', ' ')}" if end else "and still serves"
        yield f"served as champion #{entry.number} ({entry.action}) from {start[:19].replace('T', ' ')} {until}"
