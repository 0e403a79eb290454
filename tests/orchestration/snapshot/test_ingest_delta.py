"""A Delta table is read as its newest version: its directory holds the files of older ones, too."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diger_core.errors import DigerError
from diger_core.store.files import Root
from orchestration.cli import main
from orchestration.snapshot import parts
from orchestration.snapshot.ingest import delta
from orchestration.snapshot.ingest.source import part_files

deltalake = pytest.importorskip("deltalake", reason="needs deltalake: pip install 'diger[delta]'")


def events(users: range) -> pa.Table:
    return pa.table(
        {"user_id": [f"u{user}" for user in users], "item_id": [f"i{user % 3}" for user in users], "timestamp": [1_700_000_000] * len(users)}
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Version 0: ten events, replaced by version 1: four; version 2 appends two."""
    folder = tmp_path / "a table"
    deltalake.write_deltalake(str(folder), events(range(10)))
    deltalake.write_deltalake(str(folder), events(range(4)), mode="overwrite")
    deltalake.write_deltalake(str(folder), events(range(10, 12)), mode="append")
    return folder


def test_only_the_newest_version_is_ingested(table: Path, tmp_path: Path) -> None:
    assert len(list(table.glob("*.parquet"))) == 3
    main(["ingest", "table", "--interactions", str(table), "--out", str(tmp_path / "snapshot")])
    found = pq.read_table(tmp_path / "snapshot" / "interactions.parquet")["user_id"].to_pylist()
    assert sorted(found) == ["u0", "u1", "u10", "u11", "u2", "u3"]


def test_a_table_that_its_files_alone_do_not_tell_is_refused(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wanted:
        min_reader_version, reader_features = 3, ["deletionVectors", "timestampNtz"]

    monkeypatch.setattr(deltalake.DeltaTable, "protocol", lambda self: Wanted())
    with pytest.raises(DigerError, match="is a Delta table with deletionVectors, which its files alone do not tell: write its newest"):
        part_files(table)


def test_without_deltalake_it_is_refused_and_not_read_as_plain_files(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "find_spec", lambda name: None)
    with pytest.raises(DigerError, match=r"older versions: pip install 'diger\[delta\]'"):
        part_files(table)


def test_a_table_without_a_file_is_told(table: Path) -> None:
    deltalake.DeltaTable(str(table)).delete()
    with pytest.raises(DigerError, match="is a Delta table whose newest version holds no file"):
        part_files(table)


def test_a_damaged_log_is_told(table: Path) -> None:
    for entry in (table / "_delta_log").iterdir():
        entry.write_text("{", encoding="utf-8")
    with pytest.raises(DigerError, match="its Delta log cannot be read"):
        part_files(table)


def test_a_snapshot_is_no_delta_table(table: Path, tmp_path: Path) -> None:
    (tmp_path / "snap").mkdir()
    table.rename(tmp_path / "snap" / "interactions.parquet")
    with pytest.raises(DigerError, match="is a Delta table, which also holds older versions: make a snapshot with diger ingest table"):
        parts.parts(Root(tmp_path / "snap"), "interactions.parquet")
