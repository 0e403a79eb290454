"""`diger ingest`: each format taken exactly, filters and the k-core, one clear line for bad input, and nothing half-written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from diger_core.errors import DigerError
from orchestration.snapshot.ingest.commands import ingest

REVIEWS_2014 = [
    {"reviewerID": "A1", "asin": "0000013714", "unixReviewTime": 1400000000, "overall": 5.0, "reviewText": "fine"},
    {"reviewerID": "A1", "asin": "B000000002", "unixReviewTime": 1400000100, "overall": 2.0},
    {"reviewerID": "Ü2", "asin": "0000013714", "unixReviewTime": 1500000000, "overall": 4.0},
]
METADATA_2014 = [
    "{'asin': '0000013714', 'title': \"Cook's knife\", 'brand': 'Halvenmoor', 'categories': [['Kitchen', 'Knives'], ['Gifts']]}",
    "{'asin': 'B000000009', 'title': 'bought by nobody'}",
]


def lines_of(path: Path, records: list[Any]) -> Path:
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def call(*arguments: object, ok: bool = True) -> Result:
    result = CliRunner().invoke(ingest, [str(a) for a in arguments])
    assert not ok or result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*arguments: object) -> str:
    """The message of the DigerError that the command line prints as one line."""
    result = call(*arguments, ok=False)
    assert isinstance(result.exception, DigerError), (result.exit_code, result.output, result.exception)
    assert "\n" not in str(result.exception)
    return str(result.exception)


def rows(snapshot: Path, name: str) -> list[dict[str, Any]]:
    assert (snapshot / "_SUCCESS").exists()
    return pq.read_table(snapshot / f"{name}.parquet").to_pylist()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "snapshots" / "one"


# Amazon


def test_amazon_2014_reads_gzip_and_python_literals(tmp_path: Path, out: Path) -> None:
    reviews, metadata = lines_of(tmp_path / "reviews.json.gz", REVIEWS_2014), lines_of(tmp_path / "meta.json.gz", METADATA_2014)
    call("amazon", "--reviews", reviews, "--metadata", metadata, "--out", out)
    assert rows(out, "interactions") == [
        {"user_id": "A1", "item_id": "0000013714", "timestamp": 1400000000},
        {"user_id": "A1", "item_id": "B000000002", "timestamp": 1400000100},
        {"user_id": "Ü2", "item_id": "0000013714", "timestamp": 1500000000},
    ]
    assert rows(out, "items") == [
        {"item_id": "0000013714", "title": "Cook's knife", "brand": "Halvenmoor", "categories": "Kitchen > Knives; Gifts"},
        {"item_id": "B000000002", "title": None, "brand": None, "categories": None},
    ]


def test_ingest_json_names_format_files_without_directories_hashes_and_counts(tmp_path: Path, out: Path) -> None:
    import hashlib

    reviews = lines_of(tmp_path / "reviews.json", REVIEWS_2014)
    call("amazon", "--reviews", reviews, "--min-rating", 4, "--out", out)
    facts = json.loads((out / "ingest.json").read_text())
    assert facts["format"] == "amazon-2014"
    digest = hashlib.sha256(reviews.read_bytes()).hexdigest()
    assert facts["files"] == [{"role": "reviews", "name": "reviews.json", "bytes": reviews.stat().st_size, "sha256": digest}]
    assert facts["options"]["min_rating"] == 4
    assert {k: facts["counts"][k] for k in ("interactions_read", "interactions_filtered", "interactions", "users", "items")} == {
        "interactions_read": 3, "interactions_filtered": 1, "interactions": 2, "users": 2, "items": 1,
    }  # fmt: skip
    assert str(tmp_path) not in (out / "ingest.json").read_text()


def test_amazon_2018_reads_the_category_list(tmp_path: Path, out: Path) -> None:
    reviews = lines_of(tmp_path / "r.json", [r | {"verified": True, "vote": "1,024"} for r in REVIEWS_2014])
    metadata = lines_of(tmp_path / "m.json", [{"asin": "0000013714", "title": "Knife", "brand": "", "category": ["Kitchen", "Knives"]}])
    call("amazon", "--reviews", reviews, "--metadata", metadata, "--out", out)
    assert json.loads((out / "ingest.json").read_text())["format"] == "amazon-2018"
    assert rows(out, "items")[0] == {"item_id": "0000013714", "title": "Knife", "brand": None, "categories": "Kitchen > Knives"}


def test_amazon_2023_floors_milliseconds_to_seconds_and_takes_the_store_as_brand(tmp_path: Path, out: Path) -> None:
    reviews = lines_of(tmp_path / "r.jsonl", [{"user_id": "AE", "asin": "child", "parent_asin": "B07", "timestamp": 1588687728923, "rating": 4.0}])
    metadata = lines_of(tmp_path / "m.jsonl", [{"parent_asin": "B07", "title": "Lamp", "store": "Larkspindle", "categories": ["Home", "Light"]}] * 2)
    call("amazon", "--reviews", reviews, "--metadata", metadata, "--keep-rating", "--out", out)
    assert rows(out, "interactions") == [{"user_id": "AE", "item_id": "B07", "timestamp": 1588687728, "weight": 4.0}]
    assert rows(out, "items") == [{"item_id": "B07", "title": "Lamp", "brand": "Larkspindle", "categories": "Home > Light"}]


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        ('{"reviewerID": "A1", "asin": "B1", ', ["line 4", "not a JSON object"]),
        ('{"reviewerID": "A1", "unixReviewTime": 1}', ["line 4", "key asin is missing"]),
        ('{"reviewerID": "A1", "asin": 7, "unixReviewTime": 1}', ["line 4", "key asin holds 7"]),
        ('{"reviewerID": "A1", "asin": "B1", "unixReviewTime": "soon"}', ["line 4", "unixReviewTime", "soon"]),
        ('{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1.5}', ["line 4", "unixReviewTime", "whole number"]),
        ('{"reviewerID": "\\ud800", "asin": "B1", "unixReviewTime": 1}', ["line 4", "reviewerID", "surrogate"]),
        ("[1, 2]", ["line 4", "list"]),
        ("__import__('os').system('false')", ["line 4", "not a JSON object"]),
    ],
)
def test_a_bad_review_is_named_by_file_and_line_and_nothing_is_written(tmp_path: Path, out: Path, bad: str, parts: list[str]) -> None:
    message = refused("amazon", "--reviews", lines_of(tmp_path / "r.json", [*REVIEWS_2014, bad]), "--out", out)
    assert all(part in message for part in ["r.json", *parts]), message
    assert not out.exists()
    assert list(out.parent.iterdir()) == []


def test_a_blank_line_counts_in_the_line_number_but_is_no_error(tmp_path: Path, out: Path) -> None:
    assert "line 5" in refused("amazon", "--reviews", lines_of(tmp_path / "r.json", [*REVIEWS_2014, "", "{"]), "--out", out)
    call("amazon", "--reviews", lines_of(tmp_path / "r.json", [*REVIEWS_2014, "", ""]), "--out", out)


def test_bytes_that_are_no_utf8_are_named_by_line(tmp_path: Path, out: Path) -> None:
    (tmp_path / "r.json").write_bytes(json.dumps(REVIEWS_2014[0]).encode() + b'\n{"reviewerID": "\xff"}\n')
    assert "r.json, line 2: not UTF-8" in refused("amazon", "--reviews", tmp_path / "r.json", "--out", out)


def test_a_truncated_gzip_stream_is_refused(tmp_path: Path, out: Path) -> None:
    path = lines_of(tmp_path / "r.json.gz", REVIEWS_2014 * 500)
    path.write_bytes(path.read_bytes()[:-40])
    assert "r.json.gz: the gzip stream is cut off" in refused("amazon", "--reviews", path, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("content", [b"", b'{"user": 1}\n'])
def test_empty_and_foreign_files_are_refused(tmp_path: Path, out: Path, content: bytes) -> None:
    (tmp_path / "r.json").write_bytes(content)
    assert "r.json" in refused("amazon", "--reviews", tmp_path / "r.json", "--out", out)
    assert "cannot be read" in refused("amazon", "--reviews", tmp_path / "missing.json", "--out", out)


def test_metadata_of_another_release_is_refused(tmp_path: Path, out: Path) -> None:
    reviews, metadata = lines_of(tmp_path / "r.json", REVIEWS_2014), lines_of(tmp_path / "m.json", [{"parent_asin": "B1"}])
    message = refused("amazon", "--reviews", reviews, "--metadata", metadata, "--out", out)
    assert "m.json, line 1" in message
    assert "amazon-2014" in message


# RecBole


def recbole(tmp_path: Path, inter: str, item: str = "item_id:token\ttitle:token_seq\tyear:float\nx\tA title\t1990\n") -> list[object]:
    (tmp_path / "d.inter").write_text(inter)
    (tmp_path / "d.item").write_text(item)
    return ["recbole", "--inter", tmp_path / "d.inter", "--item", tmp_path / "d.item"]


HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def test_recbole_keeps_tokens_as_text_and_quotes_as_they_are(tmp_path: Path, out: Path) -> None:
    files = recbole(
        tmp_path, HEADER + '007\t"x\t3\t881250949\n7\ty\t5\t8.8125095e8\n', 'item_id:token\ttitle:token_seq\tv:float_seq\n"x\tA "b\t1 2\n'
    )
    call(*files, "--out", out)
    assert rows(out, "interactions") == [
        {"user_id": "007", "item_id": '"x', "timestamp": 881250949},
        {"user_id": "7", "item_id": "y", "timestamp": 881250950},
    ]
    assert rows(out, "items") == [{"item_id": '"x', "title": 'A "b'}, {"item_id": "y", "title": None}]


def test_recbole_refuses_fractions_of_a_second_unless_told_to_drop_them(tmp_path: Path, out: Path) -> None:
    files = recbole(tmp_path, HEADER + "1\tx\t3\t10\n1\tx\t3\t881250949.5\n")
    message = refused(*files, "--out", out)
    assert "d.inter, row 2: column timestamp" in message
    assert "--floor-timestamps" in message
    call(*files, "--floor-timestamps", "--out", out)
    assert [row["timestamp"] for row in rows(out, "interactions")] == [10, 881250949]


def test_recbole_fields_under_other_names_are_mapped(tmp_path: Path, out: Path) -> None:
    files = recbole(tmp_path, "u:token\tbusiness_id:token\tdate:float\n1\tx\t5\n", "business_id:token\tname:token_seq\nx\tCafé\n")
    call(*files, "--map", "user_id=u", "--map", "item_id=business_id", "--map", "timestamp=date", "--map-items", "title=name", "--out", out)
    assert rows(out, "interactions") == [{"user_id": "1", "item_id": "x", "timestamp": 5}]
    assert rows(out, "items") == [{"item_id": "x", "title": "Café"}]


def test_a_header_without_types_and_a_row_of_another_width_are_refused(tmp_path: Path, out: Path) -> None:
    assert "d.inter, line 1: field 'user_id' has no type" in refused(*recbole(tmp_path, "user_id\titem_id\n1\t2\n"), "--out", out)
    assert "d.inter" in refused(*recbole(tmp_path, HEADER + "1\tx\t3\t1\n1\tx\n"), "--out", out)


# Tables

MAP = ("--map", "user_id=who", "--map", "item_id=what", "--map", "timestamp=at")


def csv(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz"])
def test_ids_of_a_csv_file_are_text_exactly_as_they_stand(tmp_path: Path, out: Path, name: str) -> None:
    ids = ["007", "7", "1e5", "9223372036854775808", "NA", "null", " x", "ｘ", "пaypal", "true", "x" * 10_000]
    path = csv(tmp_path / name, "who,what,at\n" + "".join(f"{i},{i},{n}\n" for n, i in enumerate(ids)))
    call("table", "--interactions", path, *MAP, "--out", out)
    assert [(r["user_id"], r["item_id"], r["timestamp"]) for r in rows(out, "interactions")] == [(i, i, n) for n, i in enumerate(ids)]
    assert [r["item_id"] for r in rows(out, "items")] == ids


def test_integer_ids_become_the_type_that_holds_them_exactly(tmp_path: Path, out: Path) -> None:
    path = csv(tmp_path / "e.csv", f"who,what,at\n-5,{2**63},1\n7,3,2\n")
    items = csv(tmp_path / "i.csv", f"what,title\n{2**63},big\n3,small\n")
    call("table", "--interactions", path, "--items", items, *MAP, "--integer-ids", "--out", out)
    table = pq.read_table(out / "interactions.parquet")
    assert (table.schema.field("user_id").type, table.schema.field("item_id").type) == (pa.int64(), pa.uint64())
    assert table["item_id"].to_pylist() == [2**63, 3]
    assert rows(out, "items") == [{"item_id": 2**63, "title": "big"}, {"item_id": 3, "title": "small"}]


def test_an_id_that_an_integer_would_change_is_refused_by_name(tmp_path: Path, out: Path) -> None:
    path = csv(tmp_path / "e.csv", "who,what,at\n007,1,1\n")
    assert "'007'" in refused("table", "--interactions", path, *MAP, "--integer-ids", "--out", out)


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint64(), pa.string()])
def test_parquet_ids_keep_their_values(tmp_path: Path, out: Path, kind: pa.DataType) -> None:
    values: list[Any] = {pa.int32(): [-1, 2], pa.uint64(): [2**64 - 1, 2], pa.string(): ["01", "1"]}[kind]
    pq.write_table(pa.table({"who": pa.array(values, kind), "what": pa.array(values, kind), "at": [1, 2]}), tmp_path / "e.parquet")
    pq.write_table(pa.table({"what": pa.array(values[::-1], kind), "title": ["b", "a"]}), tmp_path / "i.parquet")
    call("table", "--interactions", tmp_path / "e.parquet", "--items", tmp_path / "i.parquet", *MAP, "--out", out)
    assert [r["user_id"] for r in rows(out, "interactions")] == values
    assert rows(out, "items") == [{"item_id": values[1], "title": "b"}, {"item_id": values[0], "title": "a"}]


def test_float_ids_are_refused(tmp_path: Path, out: Path) -> None:
    pq.write_table(pa.table({"who": [1.0], "what": [1], "at": [1]}), tmp_path / "e.parquet")
    assert "column who has type double" in refused("table", "--interactions", tmp_path / "e.parquet", *MAP, "--out", out)


def test_item_ids_of_another_kind_are_refused_with_the_remedy(tmp_path: Path, out: Path) -> None:
    pq.write_table(pa.table({"who": [1], "what": [1], "at": [1]}), tmp_path / "e.parquet")
    items = csv(tmp_path / "i.csv", "what,title\n1,knife\n")
    arguments = ("table", "--interactions", tmp_path / "e.parquet", "--items", items, *MAP, "--out", out)
    assert "--integer-ids" in refused(*arguments)
    call(*arguments, "--integer-ids")
    assert rows(out, "items") == [{"item_id": 1, "title": "knife"}]


def test_all_mapped_columns_arrive_and_quoted_text_survives(tmp_path: Path, out: Path) -> None:
    path = csv(tmp_path / "e.csv", "who;what;at;n;w;k\na;b;2020-01-01T00:00:01Z;4;0.5;view\n")
    items = csv(tmp_path / "i.csv", 'what;name\nb;"semi; ""quoted""\nsecond line"\n')
    more = ("--map", "pos=n", "--map", "weight=w", "--map", "event_type=k", "--map-items", "title=name", "--delimiter", ";")
    call("table", "--interactions", path, "--items", items, *MAP, *more, "--out", out)
    assert rows(out, "interactions") == [{"user_id": "a", "item_id": "b", "pos": 4, "timestamp": 1577836801, "weight": 0.5, "event_type": "view"}]
    assert rows(out, "items") == [{"item_id": "b", "title": 'semi; "quoted"\nsecond line'}]


def test_milliseconds_are_refused_until_the_unit_is_named(tmp_path: Path, out: Path) -> None:
    path = csv(tmp_path / "e.csv", "who,what,at\na,b,1588687728923\n")
    assert "--timestamp-unit" in refused("table", "--interactions", path, *MAP, "--out", out)
    call("table", "--interactions", path, *MAP, "--timestamp-unit", "ms", "--out", out)
    assert rows(out, "interactions")[0]["timestamp"] == 1588687728


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("who,what,at\na,b,1\n,b,2\n", ["row 2", "column who", "no id"]),
        ("who,what,at\na,b,1\na,b,soon\n", ["row 2", "column at", "'soon'"]),
        ("who,what,at\na,b,1\na,b,\n", ["row 2", "column at", "no value", "--drop-invalid"]),
        ("who,what,at\na,b,1\na,b\n", ["row 2: has 2 cells in place of 3 ('a,b')", "--drop-invalid"]),
        ("who,thing,at\na,b,1\n", ["column what is missing", "who, thing, at"]),
    ],
)
def test_a_bad_csv_row_is_named(tmp_path: Path, out: Path, text: str, parts: list[str]) -> None:
    message = refused("table", "--interactions", csv(tmp_path / "e.csv", text), *MAP, "--out", out)
    assert all(part in message for part in ["e.csv", *parts]), message
    assert not out.exists()


def test_truncated_parquet_and_gzip_are_refused(tmp_path: Path, out: Path) -> None:
    pq.write_table(pa.table({"who": ["a"] * 1000, "what": ["b"] * 1000, "at": [1] * 1000}), tmp_path / "e.parquet")
    zipped = csv(tmp_path / "e.csv.gz", "who,what,at\n" + "".join(f"a,b{n * 7919 % 9973},{n}\n" for n in range(5000)))
    for path in (tmp_path / "e.parquet", zipped):
        path.write_bytes(path.read_bytes()[:-400])
        assert path.name in refused("table", "--interactions", path, *MAP, "--out", out)


def test_a_table_without_time_and_a_mapping_to_nothing_are_refused(tmp_path: Path, out: Path) -> None:
    path = csv(tmp_path / "e.csv", "user_id,item_id\na,b\n")
    assert "no order" in refused("table", "--interactions", path, "--out", out)
    assert call("table", "--interactions", path, "--map", "when=x", "--out", out, ok=False).exit_code == 2
