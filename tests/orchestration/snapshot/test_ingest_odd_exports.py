"""Exports that went wrong on their way: each is refused by file and remedy, or read with a line that tells what is odd; nothing is lost unseen."""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import io
import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.orchestration.snapshot.test_ingest import call, refused, rows
from tests.orchestration.snapshot.test_ingest_exports import HEAD, T, file, table, times


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "snapshots" / "one"


def zipped(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("e.csv", content)
    return made.getvalue()


EVENTS = HEAD + b"u,a,%d\nv,b,%d\n" % (T, T + 1)


# A format that nothing here reads: no encoding and no mapping helps


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(EVENTS), "e.csv: is a zip archive or a spreadsheet (.xlsx); unpack it, or save the sheet as CSV"),
        (bz2.compress(EVENTS), "e.csv: is compressed with bzip2; unpack it"),
        (gzip.compress(gzip.compress(EVENTS)), "e.csv: is gzipped twice; unpack it"),
        (gzip.compress(zipped(EVENTS)), "e.csv: is a zip archive"),
        (b"ORC" + bytes(60), "e.csv: is an ORC file; export it as CSV or Parquet"),
        (b'{"user_id":"u","item_id":"a"}\n', "e.csv: holds JSON; write it as CSV or Parquet"),
        (b"<html><body>log in</body></html>", "e.csv: holds HTML or XML"),
        (b"\n" + EVENTS, "e.csv: its first line is empty; remove the lines before the names"),
        (b"\xef\xbb\xbf", "e.csv: its first line is empty"),
        (b"# of Monday\n" + EVENTS, "e.csv: its first line ('# of Monday') is no line of names"),
        (b"sep=,\n" + EVENTS, "e.csv: its first line ('sep=,') is no line of names"),
        (HEAD + b"u\0,a,1\n" + b"u,a,1\n" * 9, "e.csv: holds zero bytes, which no text does"),
        (HEAD, "e.csv: has no row that can be used"),
        (HEAD.rstrip(), "e.csv: has no row that can be used"),
    ],
)
def test_what_is_no_table_is_told_for_what_it_is(tmp_path: Path, out: Path, content: bytes, message: str) -> None:
    assert message in refused("table", "--interactions", file(tmp_path, content), "--out", out)
    assert not out.exists()


def test_a_byte_order_mark_names_its_encoding_and_that_reads_the_file(tmp_path: Path, out: Path) -> None:
    for encoding in ("utf-16", "utf-32"):
        path = file(tmp_path, EVENTS.decode().replace("v", "ü").encode(encoding))
        assert refused("table", "--interactions", path, "--out", out).endswith(f"pass --encoding {encoding}")
        table(path, out, "--encoding", encoding, "--overwrite")
        assert rows(out, "interactions")[1]["user_id"] == "ü"


# A quote that is never closed: the reader takes the rest of the file for one cell


@pytest.mark.parametrize("more", [(), ("--drop-invalid",)])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_quote_that_is_never_closed_is_refused_and_swallows_no_rows(tmp_path: Path, out: Path, more: tuple[str, ...], line_end: str) -> None:
    text = line_end.join(["item_id,title", "a,First", 'b,"Second', "c,Third", "d,Fourth", ""])
    items, events = file(tmp_path, text.encode(), "i.csv"), file(tmp_path, HEAD + b"u,a,1\nu,b,2\nu,c,3\n")
    message = refused("table", "--interactions", events, "--items", items, "--out", out, *more)
    assert "i.csv: a quote that opens after row 1 is never closed" in message
    note = file(tmp_path, b'user_id,item_id,timestamp,note\nu,a,1,"fine\nv,b,2,lost\nw,c,3,lost too\n')
    assert "e.csv: a quote that opens after row 0" in refused("table", "--interactions", note, "--out", out, *more), "in a column that nothing reads"
    short = file(tmp_path, HEAD + b'u,a,1\n"v,b,2\nw,c,3\n')
    assert "e.csv: a quote that opens after row" in refused("table", "--interactions", short, "--out", out, *more), "in a row of too few cells"


def test_a_quote_inside_a_cell_opens_nothing(tmp_path: Path, out: Path) -> None:
    items = file(tmp_path, b'item_id,title\na,19" screen\nb,"closed at the very end"', "i.csv")
    told = table(file(tmp_path, EVENTS), out, "--items", items)
    assert [row["title"] for row in rows(out, "items")] == ['19" screen', "closed at the very end"]
    assert "backslash" not in told
    items = file(tmp_path, b'item_id,title\na,"say \\"hi\\""\n', "i.csv")
    assert "i.csv: a quote stands after a backslash" in table(file(tmp_path, EVENTS), out, "--items", items, "--overwrite")


# Times


@pytest.mark.parametrize(
    ("values", "option"),
    [
        (["20240229", "20231231"], "--timestamp-format '%Y%m%d'"),
        (["20240229120000", "20231231235959"], "--timestamp-format '%Y%m%d%H%M%S'"),
        (["202402291200", "202312312359"], "--timestamp-format '%Y%m%d%H%M'"),
        (["20240229T120000Z", "20231231T235959Z"], "--timestamp-format '%Y%m%dT%H%M%SZ'"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_dates_written_as_numbers_are_no_seconds(tmp_path: Path, out: Path, values: list[str], option: str, kind: str) -> None:
    path = file(tmp_path, HEAD + "".join(f"u,{n},{value}\n" for n, value in enumerate(values)).encode())
    if kind == "parquet":
        column = pa.array([int(value) for value in values]) if values[0].isdigit() else pa.array(values)
        path = tmp_path / "e.parquet"
        pq.write_table(pa.table({"user_id": ["u", "u"], "item_id": ["0", "1"], "timestamp": column}), path)
    assert option in refused("table", "--interactions", path, "--out", out)
    table(path, out, "--timestamp-format", option.split("'")[1])
    days = [datetime.datetime.fromtimestamp(at, datetime.UTC).date().isoformat() for at in times(out)]
    assert days == ["2024-02-29", "2023-12-31"]


def test_day_numbers_of_a_spreadsheet_are_refused_and_an_order_may_be_any_number(tmp_path: Path, out: Path) -> None:
    path = file(tmp_path, HEAD + b"u,a,45292\nu,b,45293.5\n")
    assert "row 1: column timestamp holds 45292, which reads like the day number of a spreadsheet" in refused(
        "table", "--interactions", path, "--floor-timestamps", "--out", out
    )
    table(file(tmp_path, b"user_id,item_id,pos\nu,a,45292\nu,b,20240101\n"), out)
    assert [row["pos"] for row in rows(out, "interactions")] == [45292, 20240101]
    table(file(tmp_path, HEAD + b"u,a,20240101\nu,b,20249999\n"), out, "--overwrite")
    assert times(out) == [20240101, 20249999], "not all of them are dates"


def test_numbers_with_a_sign_and_decimals_are_times(tmp_path: Path, out: Path) -> None:
    table(file(tmp_path, HEAD + b"u,a,+%d\nu,b,-5\n" % T), out)
    assert times(out) == [T, -5]
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": pa.array([decimal.Decimal(T)], pa.decimal128(38, 0))}), path)
    table(path, out, "--overwrite")
    assert times(out) == [T]


@pytest.mark.parametrize("moment", ["99999999999999999999", "-99999999999999999999"])
def test_a_moment_beyond_64_bits_is_no_moment(tmp_path: Path, out: Path, moment: str) -> None:
    done = call("table", "--interactions", file(tmp_path, EVENTS), "--out", out, "--since", moment, ok=False)
    assert done.exit_code == 2
    assert "is no date" in done.output


# Ids


def test_whole_decimals_are_ids_where_asked_and_the_refusal_names_the_option(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "e.parquet"
    ids = [decimal.Decimal(2**60 + 1), decimal.Decimal(7)]
    pq.write_table(pa.table({"user_id": pa.array(ids, pa.decimal128(38, 0)), "item_id": [1, 2], "timestamp": [1, 2]}), path)
    assert "pass --integer-ids where all are whole numbers" in refused("table", "--interactions", path, "--out", out)
    table(path, out, "--integer-ids")
    assert [row["user_id"] for row in rows(out, "interactions")] == [2**60 + 1, 7]
    pq.write_table(pa.table({"user_id": [decimal.Decimal("1.5")], "item_id": [1], "timestamp": [1]}), path)
    assert "holds a value that is no integer" in refused("table", "--interactions", path, "--integer-ids", "--out", out, "--overwrite")


def test_words_for_a_missing_id_and_shortened_numbers_are_told_and_a_blank_is_no_id(tmp_path: Path, out: Path) -> None:
    told = table(file(tmp_path, HEAD + b"NULL,a,1\n\\N,1.23E+05,2\nnan,b,3\nAnn,c,4\n"), out)
    for word in ("'NULL'", "'\\\\N'", "'nan'"):
        assert f"column user_id holds {word}, kept as an id" in told
    assert "column item_id holds numbers as spreadsheets shorten them, such as '1.23E+05'" in told
    assert len(rows(out, "interactions")) == 4
    blank = file(tmp_path, HEAD + b"  ,a,1\nu,b,2\n")
    assert "row 1: column user_id holds no id" in refused("table", "--interactions", blank, "--out", out, "--overwrite")


def test_items_of_which_none_has_an_event_are_told(tmp_path: Path, out: Path) -> None:
    told = table(file(tmp_path, EVENTS), out, "--items", file(tmp_path, b"item_id,title\nx,X\ny,Y\n", "i.csv"))
    assert "i.csv: none of its 2 rows is of an item with events; compare its ids with those of the interactions, such as 'a'" in told
    assert "none of its" not in table(file(tmp_path, EVENTS), out, "--overwrite", "--items", file(tmp_path, b"item_id,title\nb,B\n", "i.csv"))


# Directories of parts


def parts(folder: Path, *columns: pa.Array) -> Path:
    """A part for each column of user ids."""
    folder.mkdir()
    for number, users in enumerate(columns):
        made = pa.table({"user_id": users, "item_id": ["a"] * len(users), "timestamp": [T + number] * len(users)})
        pq.write_table(made, folder / f"part-{number}.parquet")
    return folder


def test_ids_of_parts_of_two_kinds_are_refused_and_never_changed(tmp_path: Path, out: Path) -> None:
    mixed = parts(tmp_path / "mixed", pa.array([7]), pa.array(["007"]))
    assert "mixed/part-1.parquet: column user_id has type string, in part-0.parquet it has int64" in refused(
        "table", "--interactions", mixed, "--out", out
    )
    wide = parts(tmp_path / "wide", pa.array([7], pa.int32()), pa.array([2**40], pa.int64()))
    table(wide, out)
    assert [row["user_id"] for row in rows(out, "interactions")] == [7, 2**40]
    empty = parts(tmp_path / "empty", pa.nulls(0), pa.array(["u"]))
    table(empty, out, "--overwrite")
    assert [row["user_id"] for row in rows(out, "interactions")] == ["u"]


def test_no_file_among_the_parts_is_left_out_unseen(tmp_path: Path, out: Path) -> None:
    folder = parts(tmp_path / "e", pa.array(["u"]))
    for name in ("_SUCCESS", ".part-0.parquet.crc"):
        (folder / name).touch()
    table(folder, out)
    for name, message in (
        ("000001_0", "is no Parquet file"),
        ("part-1.csv", "is no Parquet file"),
        ("more", "is no Parquet file"),
        ("part-1.parquet", "is a link that leads nowhere"),
        ("part-2.parquet", "is a pipe"),
    ):
        odd = folder / name
        if "link" in message or name == "more":
            odd.symlink_to(folder if name == "more" else "nowhere")
        elif "pipe" in message:
            os.mkfifo(odd)
        else:
            odd.touch()
        assert f"{odd}: {message}" in refused("table", "--interactions", folder, "--out", out, "--overwrite")
        odd.unlink()


# Places and options


def test_only_this_machine_is_read_and_written(tmp_path: Path, out: Path) -> None:
    path = file(tmp_path, EVENTS)
    for arguments in (("--interactions", "s3://bucket/e.csv", "--out", out), ("--interactions", path, "--out", "s3://bucket/one")):
        done = call("table", *arguments, ok=False)
        assert done.exit_code == 2
        assert "is no place on this machine" in done.output


def test_a_column_is_mapped_once_and_one_column_is_not_user_and_item(tmp_path: Path, out: Path) -> None:
    path = file(tmp_path, EVENTS)
    twice = call("table", "--interactions", path, "--out", out, "--map", "user_id=a", "--map", "user_id=user_id", ok=False)
    assert "user_id is given twice" in twice.output
    assert "is mapped to user_id and to item_id" in refused("table", "--interactions", path, "--out", out, "--map", "item_id=user_id")


def test_a_link_that_leads_nowhere_is_no_place_for_a_snapshot(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert "is a link that leads nowhere" in refused("table", "--interactions", file(tmp_path, EVENTS), "--out", tmp_path / "link")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["e.csv", "link"]


# Public formats, whose commands have fewer options to name


def test_a_recbole_file_is_told_what_its_command_can_do(tmp_path: Path, out: Path) -> None:
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    for content, message in (
        (head.encode() + b"\xfc\ta\t1\n", "x.inter, line 2: not utf-8 text (invalid start byte); save it as UTF-8"),
        (head.encode("utf-16-le"), "holds zero bytes, as UTF-16 text does; export it as UTF-8"),
        (head.replace("\t", " ").encode() + b"u a 1\n", "x.inter, line 1: its fields are not separated by tabs"),
        (head.replace("\t", ";").encode() + b"u;a;1\n", "x.inter, line 1: its fields are not separated by tabs"),
    ):
        told = refused("recbole", "--inter", file(tmp_path, content, "x.inter"), "--out", out)
        assert message in told
        assert "--encoding" not in told
        assert "--delimiter" not in told


@pytest.mark.parametrize(("key", "value"), [("overall", "Infinity"), ("overall", "1" + "0" * 400), ("unixReviewTime", "-Infinity"), ("asin", '"  "')])
def test_a_value_of_a_review_that_nothing_can_hold_is_refused_by_line(tmp_path: Path, out: Path, key: str, value: str) -> None:
    good = {"reviewerID": '"A"', "asin": '"x"', "unixReviewTime": str(T), "overall": "5"}
    lines = ["{" + ", ".join(f'"{name}": {text}' for name, text in record.items()) + "}" for record in (good, good | {key: value})]
    path = file(tmp_path, ("\ufeff" + "\n".join(lines)).encode(), "r.json")
    assert f"r.json, line 2: key {key} holds" in refused("amazon", "--reviews", path, "--keep-rating", "--out", out)
    call("amazon", "--reviews", file(tmp_path, ("\ufeff" + lines[0]).encode(), "r.json"), "--out", out)
    assert rows(out, "interactions") == [{"user_id": "A", "item_id": "x", "timestamp": T}]
