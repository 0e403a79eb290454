"""Parquet as other tools write it: types that nothing reads, nested columns, views, part directories, and what is no file at all."""

from __future__ import annotations

import datetime
import decimal
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diger_core.errors import DigerError
from diger_core.progress import Silent
from diger_core.store.artefacts import Store
from orchestration.cli import main
from orchestration.engine.registry import register
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from orchestration.snapshot.arrival import newest_event
from orchestration.snapshot.files import describe
from orchestration.snapshot.ingest.events import Filters, collect
from orchestration.snapshot.ingest.table import TableOptions, table_source
from tests.support.snapshot_material import interactions, items, vectors, write

N = 40
UNREAD: dict[str, Any] = {
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=n).bytes for n in range(N)], pa.binary(16))),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}"] * N)),
    "decimal": pa.array([decimal.Decimal("1.50")] * N, pa.decimal256(60, 2)),
    "duration": pa.array([datetime.timedelta(seconds=1)] * N),
    "time": pa.array([datetime.time(1)] * N),
    "half": pa.array(np.ones(N, np.float16)),
    "nested": pa.array([{"timestamp": 7, "item_id": [{"title": "x"}]}] * N),
    "map": pa.array([[("a", 1)]] * N, pa.map_(pa.string(), pa.int64())),
    "words": pa.array([["a"]] * N, pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    "list_view": pa.array([[1.0]] * N, pa.list_view(pa.float32())),
    "binary_view": pa.array([b"x"] * N, pa.binary_view()),
    "flag": pa.array([True] * N),
    "none": pa.nulls(N),
}


def validated(tmp_path: Path, *tables: pa.Table, **params: Any) -> dict[str, Any]:
    store = Store(tmp_path / "store")
    write(tmp_path / "snap", *tables)
    session = Session(store, build_params(params), register(store, str(tmp_path / "snap")))
    names = ("raw_items", "raw_interactions", "validated_items", "validated_interactions")
    return {name: session.materialise(BY_NAME[name]).artefact for name in names}


def test_columns_that_nothing_reads_may_have_any_type(tmp_path: Path) -> None:
    catalogue, events = items(), interactions()
    for name, column in UNREAD.items():
        catalogue = catalogue.append_column(name, column)
        if name != "words":
            events = events.append_column(name, pa.concat_arrays([column] * (len(events) // N)))
    made = validated(tmp_path, events, catalogue)
    assert made["validated_items"].table("items.parquet").num_rows == N
    told = next(c["message"] for c in made["validated_items"].json("checks.json")["checks"] if c["name"] == "columns_ignored")
    assert all(name in told for name in UNREAD)
    assert not made["raw_items"].verify()


@pytest.mark.parametrize("kind", [pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_and_ids_of_every_text_type_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    def text(values: list[Any]) -> pa.Array:
        return (
            pa.array([f"id-{value}" for value in values]).dictionary_encode()
            if pa.types.is_dictionary(kind)
            else pa.array([f"id-{value}" for value in values], kind)
        )

    events = interactions()
    events = events.set_column(0, "user_id", text(events["user_id"].to_pylist())).set_column(1, "item_id", text(events["item_id"].to_pylist()))
    catalogue = items().set_column(0, "item_id", text(list(range(N)))).set_column(1, "title", text(list(range(N))))
    made = validated(tmp_path, events, catalogue)
    assert made["validated_interactions"].table("interactions.parquet").num_rows == len(events)
    assert made["validated_items"].table("items.parquet")["title"].to_pylist()[0] == "id-0"


def test_vectors_of_a_list_view_are_read(tmp_path: Path) -> None:
    given = vectors(N)
    viewed = given.set_column(1, "vector", pa.array(given["vector"].to_pylist(), pa.list_view(pa.float32())))
    made = validated(tmp_path, interactions(), items(), viewed)
    assert made["validated_items"].table("vectors.parquet").num_rows == N


def test_a_column_that_is_there_twice_is_one_line_before_any_work(tmp_path: Path) -> None:
    title = pa.array(["x"] * N)
    write(tmp_path / "snap", interactions(), pa.Table.from_arrays([pa.array(range(N)), title, title], names=["item_id", "title", "title"]))
    with pytest.raises(DigerError, match=r"items\.parquet: column title exists 2 times; keep one of them"):
        describe(tmp_path / "snap")


def in_parts(snap: Path, name: str, *tables: pa.Table) -> Path:
    """The file as a directory of parts, with the marks that the writing tools leave beside them."""
    folder = snap / name
    folder.unlink(missing_ok=True)
    folder.mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"part-{number:05d}.snappy.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part-00000.snappy.parquet.crc").write_bytes(b"crc")
    return folder


def test_part_directories_are_read_as_one_file(tmp_path: Path) -> None:
    events, catalogue = interactions(), items()
    whole = validated(tmp_path, events, catalogue)
    snap = tmp_path / "snap"
    in_parts(snap, "interactions.parquet", events.slice(0, 70), events.slice(0, 0), events.slice(70))
    in_parts(snap, "items.parquet", *(catalogue.slice(n, 10) for n in range(0, N, 10)))
    found = describe(snap)
    assert (found.files["interactions.parquet"].rows, found.files["items.parquet"].rows) == (len(events), N)
    session = Session(Store(tmp_path / "store"), build_params({}), register(Store(tmp_path / "store"), str(snap)))
    for stage in ("raw_items", "raw_interactions"):  # the same rows in the same order are the same artefact
        assert session.materialise(BY_NAME[stage]).artefact.hash == whole[stage].hash
    assert newest_event(str(snap)) == max(events["timestamp"].to_pylist())


def test_a_changed_part_is_another_snapshot_and_is_not_read_as_the_old_one(tmp_path: Path) -> None:
    catalogue = items()
    snap = write(tmp_path / "snap", interactions(), catalogue)
    folder = in_parts(snap, "items.parquet", catalogue.slice(0, 20), catalogue.slice(20))
    store = Store(tmp_path / "store")
    first = register(store, str(snap))
    (folder / "part-00001.snappy.parquet").rename(folder / "part-2.parquet")
    assert describe(snap).content_hash != first.content_hash
    with pytest.raises(DigerError, match=r"items\.parquet: its bytes changed since the snapshot was registered"):
        Session(store, build_params({}), first).materialise(BY_NAME["raw_items"])


def test_integers_of_two_widths_in_two_parts_are_the_wider_ones(tmp_path: Path) -> None:
    catalogue = items()
    snap = write(tmp_path / "snap", interactions(), catalogue)
    narrow = catalogue.slice(0, 20)
    in_parts(snap, "items.parquet", narrow.set_column(0, "item_id", narrow["item_id"].cast(pa.int32())), catalogue.slice(20))
    assert describe(snap).files["items.parquet"].columns["item_id"] == "int64"


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda folder: (folder / "part-1.parquet").touch(), r"items\.parquet/part-1\.parquet: is empty \(0 bytes\)"),
        (lambda folder: (folder / "part-1.parquet").write_bytes(b"PAR1"), r"items\.parquet/part-1\.parquet: not a complete Parquet file"),
        (lambda folder: (folder / "000001_0").write_bytes(b"x"), r"items\.parquet/000001_0: is no Parquet file .* take it out"),
        (
            lambda folder: pq.write_table(items().drop(["title"]), folder / "part-1.parquet"),
            r"part-1\.parquet: column title is missing",
        ),
        (
            lambda folder: pq.write_table(items().set_column(0, "item_id", pa.array(["x"] * N)), folder / "part-1.parquet"),
            r"part-1\.parquet: column item_id has type string, in .* it has int64; write all parts alike",
        ),
        (lambda folder: (folder / "kind=lamp").mkdir(), r"column kind stands in the directory's name alone; write it into the files"),
        (lambda folder: os.mkfifo(folder / "part-1.parquet"), r"part-1\.parquet: is a pipe, not a regular file"),
        (lambda folder: (folder / "part-00000.snappy.parquet").unlink(), r"items\.parquet: is a directory without Parquet files"),
    ],
    ids=["0 bytes", "cut", "no Parquet", "a column less", "another type", "partitioned", "pipe", "nothing"],
)
def test_a_part_that_is_not_like_the_others_is_named(tmp_path: Path, break_it: Callable[[Path], Any], told: str) -> None:
    snap = write(tmp_path / "snap", interactions(), items())
    break_it(in_parts(snap, "items.parquet", items()))
    with pytest.raises(DigerError, match=told):
        describe(snap)


def test_ingest_takes_a_column_from_directory_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = interactions()
    for place, name in enumerate(("view", "put%20in%20cart", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "events" / f"event_type={name}"
        folder.mkdir(parents=True)
        pq.write_table(events.slice(10 * place, 10), folder / "part-0.parquet")
    given = ["ingest", "table", "--interactions", str(tmp_path / "events")]
    main([*given, "--event-types", "put in cart", "--out", str(tmp_path / "carts")])
    assert "events: column event_type is taken from its directories' names" in "".join(capsys.readouterr())
    carts = pq.read_table(tmp_path / "carts" / "interactions.parquet")
    assert sorted(carts["item_id"].to_pylist()) == sorted(events["item_id"].slice(10, 10).to_pylist())
    main([*given, "--out", str(tmp_path / "all")])
    assert pq.read_table(tmp_path / "all" / "interactions.parquet").num_rows == 30


def test_ingest_refuses_parts_of_which_some_alone_have_a_directory_column(tmp_path: Path) -> None:
    for name in ("event_type=view", "rest"):
        (tmp_path / "events" / name).mkdir(parents=True)
        pq.write_table(interactions(), tmp_path / "events" / name / "part-0.parquet")
    source = table_source(tmp_path / "events", None, TableOptions({}, {}, event_types=("view",)))
    with pytest.raises(DigerError, match="part-0.parquet: column event_type is not there once"):
        list(source.interactions(Silent()))


def test_a_pipe_in_a_snapshot_is_refused_at_once(tmp_path: Path) -> None:
    snap = write(tmp_path / "snap", interactions(), items())
    (snap / "items.parquet").unlink()
    os.mkfifo(snap / "items.parquet")
    with pytest.raises(DigerError, match=r"items\.parquet: is a pipe, not a regular file"):
        describe(snap)


def test_a_small_file_of_countless_equal_values_is_refused_before_it_takes_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snap = write(tmp_path / "snap", interactions(), items())
    column = pa.array(np.zeros(2_000_000, np.int64))
    pq.write_table(pa.table({"user_id": column, "item_id": column, "timestamp": column}), snap / "interactions.parquet")
    assert (snap / "interactions.parquet").stat().st_size < 100_000
    monkeypatch.setattr("orchestration.snapshot.files.installed", lambda: 20 << 20)
    with pytest.raises(DigerError, match=r"interactions\.parquet: 2,000,000 rows take 0\.0 GiB in memory at least, this machine has 0\.0"):
        describe(snap)
    monkeypatch.setattr("orchestration.snapshot.ingest.events.installed", lambda: 20 << 20)
    source = table_source(snap / "interactions.parquet", None, TableOptions({}, {}))
    with pytest.raises(DigerError, match="interactions do not fit into this machine's memory"):
        collect(source.interactions(Silent()), Filters())


def test_rows_and_columns_have_a_limit_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snap = write(tmp_path / "snap", interactions(), items())
    monkeypatch.setattr("orchestration.snapshot.files.MAX_ROWS", 199)
    with pytest.raises(DigerError, match="has 200 rows, at most 199 are read"):
        describe(snap)
    monkeypatch.setattr("orchestration.snapshot.files.MAX_ROWS", 200)
    monkeypatch.setattr("orchestration.snapshot.files.MAX_COLUMNS", 2)
    with pytest.raises(DigerError, match="has 3 columns"):
        describe(snap)
