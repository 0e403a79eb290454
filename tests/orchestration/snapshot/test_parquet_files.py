"""Parquet as other tools write it: types that nothing reads, nested columns, views, part directories, and what is no file at all."""

from __future__ import annotations

import datetime
import decimal
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.engine.registry import register
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from orchestration.snapshot.files import describe
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


def test_a_directory_of_parts_names_the_command_that_reads_it(tmp_path: Path) -> None:
    from tests.orchestration.snapshot.test_ingest import call, rows

    snap = write(tmp_path / "snap", interactions(), items())
    for name in ("interactions", "items"):
        (snap / f"{name}.parquet").rename(snap / "part-0.parquet")
        (snap / f"{name}.parquet").mkdir()
        (snap / "part-0.parquet").rename(snap / f"{name}.parquet" / "part-0.parquet")
    with pytest.raises(DigerError, match="is a directory of part files") as refused:
        describe(snap)
    arguments = str(refused.value).split("diger ingest ")[1].replace("DIR", str(tmp_path / "one")).split()
    call(*arguments)
    assert len(rows(tmp_path / "one", "items")) == N
    describe(tmp_path / "one")


def test_a_pipe_in_a_snapshot_is_refused_at_once(tmp_path: Path) -> None:
    snap = write(tmp_path / "snap", interactions(), items())
    (snap / "items.parquet").unlink()
    os.mkfifo(snap / "items.parquet")
    with pytest.raises(DigerError, match=r"items\.parquet: is a pipe, not a regular file"):
        describe(snap)


def test_rows_and_columns_have_a_limit_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snap = write(tmp_path / "snap", interactions(), items())
    monkeypatch.setattr("orchestration.snapshot.files.MAX_ROWS", 199)
    with pytest.raises(DigerError, match="has 200 rows, at most 199 are read"):
        describe(snap)
    monkeypatch.setattr("orchestration.snapshot.files.MAX_ROWS", 200)
    monkeypatch.setattr("orchestration.snapshot.files.MAX_COLUMNS", 2)
    with pytest.raises(DigerError, match="has 3 columns"):
        describe(snap)
