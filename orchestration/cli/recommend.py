"""`diger recommend`: the champion's lists to a directory of the user's choice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from orchestration.cli.options import json_option, open_store, params_options, store_option

if TYPE_CHECKING:
    import pyarrow as pa


@click.command()
@click.option("--out", required=True, metavar="DIR_OR_URL", help="Where the Parquet shards go; a run that was cut off continues there.")
@click.option(
    "--users", multiple=True, metavar="FILE|ID", help="A file of user ids (Parquet, or one a line), or an id; may be repeated [default: all]."
)
@click.option(
    "--items", metavar="FILE", help="Recommend only these (in stock, sold in a region): Parquet with item_id, or one a line [default: all]."
)
@click.option("-k", "k", type=click.IntRange(1, 1000), help="Items for each user [default: recommendations.k].")
@click.option(
    "--seen",
    type=click.Choice(["keep", "remove"]),
    help="Items that the user had before stay in the lists, or are left out [default: recommendations.seen, by how often people come back to one].",
)
@click.option("--snapshot", metavar="DIR_OR_URL", help="Its events are the histories [default: from params].")
@params_options
@store_option
@json_option
def recommend(
    out: str,
    users: tuple[str, ...],
    items: str | None,
    k: int | None,
    seen: Literal["keep", "remove"] | None,
    snapshot: str | None,
    params_file: str | None,
    overrides: tuple[str, ...],
    store: str,
    as_json: bool,
) -> None:
    """Write the top items for all or given users, by the champion, from all events of the snapshot.

    Columns: user_id, item_id, rank, score. Users without history get the most popular items, without a score. New items take part as soon as
    cold start has given them IDs; nothing is trained.
    """
    from orchestration.engine.console import console_progress, print_json
    from orchestration.params.load import load_params
    from orchestration.serving.shards import counted

    params = load_params(params_file, overrides)
    with console_progress() as progress:
        document = to_directory(params, snapshot or params.snapshot, store, out, users, items, k, seen, progress)
    if as_json:
        print_json(document)
        return
    counts = document["counts"]
    print(
        f"{counted(counts['users'], 'user')}, {counts['users_without_history']:,} without history; {counted(counts['items'], 'item')} to choose from"
    )
    print(f"Champion {document['champion'][:12]}; {counted(len(document['shards']), 'shard')} in {out}")


def to_directory(
    params: Any,
    snapshot: str,
    store_url: str,
    out: str,
    users: tuple[str, ...],
    items: str | None,
    k: int | None,
    seen: Literal["keep", "remove"] | None,
    progress: Any,
) -> dict[str, Any]:
    """Brings the snapshot as far as cold start, computes what is missing below `out`, and writes recommendations.json last."""
    import json

    from diger_core.store.files import Root
    from orchestration.engine.registry import register
    from orchestration.engine.runner import Session, refuse_failed
    from orchestration.graph import BY_NAME, STAGES, upstream
    from orchestration.serving.lists import Request, removes_seen
    from orchestration.serving.recommendations import extra_inputs
    from orchestration.serving.shards import DOCUMENT, Shards
    from orchestration.serving.shards import recommend as compute

    store = open_store(store_url)
    champion = extra_inputs(params, store, {}, fit=False)["champion"]  # first: without one, nothing else is worth doing
    session = Session(store, params, register(store, snapshot), progress, {"launched_by": "diger recommend"})
    needed = upstream({"sequences", "neighbours", "cold_start"})
    for stage in STAGES:
        if stage.name in needed:
            refuse_failed(session.materialise(stage).artefact)
    sequences, config = session.find(BY_NAME["sequences"]), params.recommendations
    kinds = {name: sequences.table(f"{name}s.parquet")[f"{name}_id"].type for name in ("user", "item")}
    remove_seen, why = removes_seen(store, champion.hash, seen or config.seen)
    progress.message(f"recommendations: {why}")
    request = Request(
        url=store.url,
        bundle=champion.hash,
        sequences=sequences.hash,
        neighbours=session.find(BY_NAME["neighbours"]).hash,
        cold_start=session.find(BY_NAME["cold_start"]).hash,
        k=k or config.k,
        beams=max(config.beams, k or 0),
        shard_users=config.shard_users,
        batch_size=config.batch_size,
        remove_seen=remove_seen,
        users=read_ids(users, "user_id", kinds["user"], "--users") if users else None,
        items=read_ids((items,), "item_id", kinds["item"], "--items", only_files=True) if items else None,
    )
    root = Root(out)
    root.writable()
    made = compute(request, Shards(root), params.cluster, progress)
    document = {"key": request.key, "champion": champion.hash, "snapshot": session.snapshot.key, "k": request.k, "remove_seen": remove_seen}
    document |= made
    document.pop("reused_shards")
    if not root.create(json.dumps(document, indent=1, sort_keys=True).encode(), DOCUMENT):
        progress.message("recommendations: nothing has changed since they were written")
    return document


_FILES = (".txt", ".csv", ".tsv", ".parquet", ".json", ".gz")


def read_ids(given: tuple[str, ...], column: str, kind: pa.DataType, option: str, only_files: bool = False) -> pa.Array:
    """Distinct ids in the order given, in the catalogue's own type; DigerError names the file, or the id that is of another type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from diger_core.errors import DigerError

    parts = []
    for text in given:
        path = Path(text)
        if not _is_there(path):
            if only_files or "/" in text or path.suffix.lower() in _FILES:
                alone = "" if only_files else f"; an id that looks like this goes into such a file, a line for {text[:60]!r}"
                raise DigerError(f"{option} {text}: no such file: give a Parquet file with column {column}, or a text file with one id a line{alone}")
            parts.append(cast_ids(pa.array([text]), kind, option, text))
        elif path.suffix == ".parquet":
            parts.append(cast_ids(_column(path, column, option), kind, option, text))
        else:
            parts.append(cast_ids(pa.array(_lines(path, option), pa.string()), kind, option, text))
    ids = pc.unique(pa.concat_arrays(parts))
    if not len(ids):
        raise DigerError(f"{option}: no ids are given: an empty file recommends nothing")
    return ids


def _is_there(path: Path) -> bool:
    """Whether a file, or anything else that must not be taken for an id, has this name."""
    try:
        return path.exists()
    except (OSError, ValueError):  # an id that no file can be called by: too long, or with a NUL
        return False


def _lines(path: Path, option: str) -> list[str]:
    """The lines that hold something, without a byte order mark and the spaces around."""
    from diger_core.errors import DigerError
    from diger_core.store.regular import require_regular

    require_regular(path, f"{option} {path}")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DigerError(f"{option} {path}, line {line}: not UTF-8 text: save it as UTF-8") from error
    return [stripped for line in text.splitlines() if (stripped := line.strip())]


def _column(path: Path, column: str, option: str) -> pa.Array:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from diger_core.errors import DigerError
    from diger_core.store.regular import require_regular

    require_regular(path, f"{option} {path}")
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if names.count(column) != 1:
                found = f"has no column {column} (it has {', '.join(names[:20])}): rename or add it"
                raise DigerError(f"{option} {path}: {found if column not in names else f'column {column} exists twice: keep one'}")
            values = file.read(columns=[column])[column].combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise DigerError(f"{option} {path}: cannot be read as Parquet: write it again") from error
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.null_count:
        raise DigerError(f"{option} {path}: column {column} holds {values.null_count} nulls: remove those rows")
    return values


def cast_ids(values: pa.Array, kind: pa.DataType, option: str, source: str) -> pa.Array:
    """Text becomes a number where the catalogue's ids are numbers; a number never becomes text (leading zeros would be lost)."""
    import pyarrow as pa

    from diger_core.errors import DigerError

    if pa.types.is_integer(values.type) and not pa.types.is_integer(kind):
        raise DigerError(f"{option} {source}: the ids are numbers, the catalogue's are texts: store them as they are in the catalogue")
    try:
        return values.cast(kind)
    except pa.ArrowInvalid as error:
        raise DigerError(
            f"{option} {source}: an id is not of the catalogue's type {kind} ({str(error).splitlines()[0][:120]}): correct it"
        ) from error
