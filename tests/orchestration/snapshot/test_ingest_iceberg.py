"""An Iceberg table is read as its current snapshot: its directory holds the files of older ones, too, and deletes that are files of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diger_core.errors import DigerError
from diger_core.store.files import Root
from orchestration.cli import main
from orchestration.snapshot import parts
from orchestration.snapshot.ingest import iceberg
from orchestration.snapshot.ingest.source import file_facts, part_files

pytest.importorskip("pyiceberg", reason="needs pyiceberg: pip install 'diger[iceberg]'")


def events(users: range) -> pa.Table:
    return pa.table(
        {"user_id": [f"u{user}" for user in users], "item_id": [f"i{user % 3}" for user in users], "timestamp": [1_700_000_000] * len(users)}
    )


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """Ten events, overwritten by four; two are appended, one is deleted (its file is written again)."""
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("shop", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/ware house")
    catalog.create_namespace("shop")
    made = catalog.create_table("shop.events", schema=events(range(1)).schema)
    made.append(events(range(10)))
    made.overwrite(events(range(4)))
    made.append(events(range(10, 12)))
    made.delete("user_id = 'u2'")
    return made


def at(table: Any) -> Path:
    return Path(table.location().removeprefix("file://"))


def ingested(table: Any, out: Path, *options: str) -> list[str]:
    main(["ingest", "table", "--interactions", str(at(table)), "--out", str(out), *options])
    return sorted(pq.read_table(out / "interactions.parquet")["user_id"].to_pylist())


def with_deletes(table: Any, monkeypatch: pytest.MonkeyPatch, kind: str, deleted: pa.Table) -> None:
    """Commits a file of deletes as an engine that merges on reading does: pyiceberg reads such files, and writes none."""
    from pyiceberg import manifest
    from pyiceberg.typedef import Record

    path = at(table) / "data" / "deletes.parquet"
    pq.write_table(deleted, path)
    file = manifest.DataFile.from_args(
        content=manifest.DataFileContent[kind], file_path=f"file://{path}", file_format=manifest.FileFormat.PARQUET, partition=Record(),
        record_count=len(deleted), file_size_in_bytes=path.stat().st_size,
    )  # fmt: skip
    file.spec_id = 0
    with monkeypatch.context() as patch:
        patch.setattr(manifest.ManifestWriterV2, "content", lambda self: manifest.ManifestContent.DELETES)
        with table.transaction() as change, change.update_snapshot().fast_append() as append:
            append.append_data_file(file)


def positions(table: Any, users: list[str]) -> pa.Table:
    """Where these users' rows stand, as a file of deletes says it."""
    found = []
    for task in table.scan().plan_files():
        rows = pq.read_table(task.file.file_path.removeprefix("file://"))["user_id"].to_pylist()
        found += [(task.file.file_path, rows.index(user)) for user in users if user in rows]
    schema = pa.schema(
        [
            pa.field("file_path", pa.string(), False, {"PARQUET:field_id": "2147483546"}),
            pa.field("pos", pa.int64(), False, {"PARQUET:field_id": "2147483545"}),
        ]
    )
    return pa.table({"file_path": [path for path, _ in found], "pos": [place for _, place in found]}, schema=schema)


def test_only_the_current_snapshot_is_ingested(table: Any, tmp_path: Path) -> None:
    assert len(list(at(table).glob("data/*.parquet"))) == 4
    assert ingested(table, tmp_path / "snapshot") == ["u0", "u1", "u10", "u11", "u3"]
    assert len(part_files(at(table))) == 2
    before = file_facts(at(table), "interactions")["sha256"]
    table.append(events(range(20, 21)))
    assert file_facts(at(table), "interactions")["sha256"] != before


def test_rows_that_a_file_of_deletes_names_are_left_out(table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file_facts(at(table), "interactions")["sha256"]
    with_deletes(table, monkeypatch, "POSITION_DELETES", positions(table, ["u0", "u11"]))
    assert ingested(table, tmp_path / "snapshot") == ["u1", "u10", "u3"]
    assert file_facts(at(table), "interactions")["sha256"] != before


def test_deletes_by_value_are_refused_and_not_overlooked(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_deletes(table, monkeypatch, "EQUALITY_DELETES", pa.table({"user_id": ["u0"]}))
    with pytest.raises(DigerError, match=r"is an Iceberg table that cannot be read \(.*equality deletes.*\): write its rows as Parquet"):
        part_files(at(table))


def test_columns_that_were_renamed_widened_and_added_are_read_by_the_newest_schema(table: Any, tmp_path: Path) -> None:
    from pyiceberg.types import StringType

    with table.update_schema() as change:
        change.rename_column("user_id", "customer")
        change.add_column("event_type", StringType())
    table.append(pa.table({"customer": ["u50"], "item_id": ["i1"], "timestamp": [1_700_000_000], "event_type": ["view"]}))
    out = tmp_path / "snapshot"
    assert ingested(table, out, "--map", "user_id=customer") == ["u0", "u1", "u10", "u11", "u3", "u50"]
    found = pq.read_table(out / "interactions.parquet")
    assert sorted(filter(None, found["event_type"].to_pylist())) == ["view"]


def test_the_order_of_rows_is_that_of_the_files(table: Any) -> None:
    both = [pa.concat_tables(iceberg.iceberg_batches(at(table), ["user_id"]))["user_id"].to_pylist() for _ in range(2)]
    assert both[0] == both[1]
    assert len(both[0]) == 5


def test_without_pyiceberg_it_is_refused_and_not_read_as_plain_files(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iceberg, "find_spec", lambda name: None)
    with pytest.raises(DigerError, match=r"files of older versions: pip install 'diger\[iceberg\]', or write its rows"):
        part_files(at(table))
    with pytest.raises(SystemExit):
        main(["ingest", "table", "--interactions", str(at(table)), "--out", str(at(table).parent / "out")])


def test_a_table_without_a_row_file_is_told(table: Any) -> None:
    table.delete()
    with pytest.raises(DigerError, match="whose current snapshot holds no file"):
        part_files(at(table))


def test_a_copied_table_names_the_files_of_the_first_one_and_is_refused(table: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(at(table), tmp_path / "copy")
    with pytest.raises(DigerError, match="that says it lies in file://.*/events: give it there, or write"):
        part_files(copy)


def changed(table: Any, change: Any) -> None:
    """The newest metadata file, written again."""
    newest = iceberg._newest(at(table))
    document = json.loads(newest.read_text())
    change(document)
    newest.write_text(json.dumps(document))


def test_nothing_is_fetched_from_elsewhere(table: Any) -> None:
    def elsewhere(document: dict[str, Any]) -> None:
        for snapshot in document["snapshots"]:
            snapshot["manifest-list"] = "s3://somebody/metadata/snap.avro"

    changed(table, lambda document: document["properties"].update({"py-io-impl": "os.system"}))
    assert len(part_files(at(table))) == 2
    changed(table, elsewhere)
    with pytest.raises(DigerError, match="names a file elsewhere, s3://somebody/metadata/snap.avro"):
        part_files(at(table))


def test_damaged_and_ambiguous_metadata_are_told(table: Any) -> None:
    newest = iceberg._newest(at(table))
    shutil.copy(newest, newest.with_name(newest.name.partition("-")[0] + "-other.metadata.json"))
    with pytest.raises(DigerError, match="two newest metadata files, .*: only its catalog knows which counts"):
        part_files(at(table))
    newest.with_name("v99.metadata.json").write_text("{", encoding="utf-8")
    with pytest.raises(DigerError, match="is an Iceberg table that cannot be read"):
        part_files(at(table))


def test_a_snapshot_is_no_iceberg_table(table: Any, tmp_path: Path) -> None:
    (tmp_path / "snap").mkdir()
    at(table).rename(tmp_path / "snap" / "interactions.parquet")
    with pytest.raises(DigerError, match="is of an Iceberg table, which also holds older data: make a snapshot with diger ingest table"):
        parts.parts(Root(tmp_path / "snap"), "interactions.parquet")
