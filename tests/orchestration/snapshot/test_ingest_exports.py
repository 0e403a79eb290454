"""Exports as people have them: each is read as it is, or with the option that its refusal names."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diger_core.errors import DigerError
from orchestration.snapshot.ingest.commands import ingest
from orchestration.snapshot.ingest.notes import Notes, Place
from orchestration.snapshot.ingest.times import Times, formats_of
from tests.orchestration.snapshot.test_ingest import call, refused, rows

T = 1_700_000_000
HEAD = b"user_id,item_id,timestamp\n"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "snapshots" / "one"


def file(tmp_path: Path, content: bytes, name: str = "e.csv") -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def times(out: Path) -> list[int]:
    return [row["timestamp"] for row in rows(out, "interactions")]


def table(path: Path, out: Path, *more: object) -> str:
    return call("table", "--interactions", path, "--out", out, *more).output


# Read as they are


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfuser_id,item_id,timestamp\nu1,a,%d\nu2,b,%d\n" % (T, T + 1),
        b"user_id,item_id,timestamp\r\nu1,a,%d\r\nu2,b,%d\r\n" % (T, T + 1),
        b"user_id,item_id,timestamp\ru1,a,%d\ru2,b,%d\r" % (T, T + 1),
        b"user_id, item_id, timestamp\nu1, a, %d\nu2, b, %d\n" % (T, T + 1),
        b'"user_id","item_id","timestamp"\n"u1","a",%d\n"u2","b",%d' % (T, T + 1),
        b"user_id,item_id,timestamp\nu1,a,2023-11-14 22:13:20\nu2,b,2023-11-14 22:13:21\n",
        b"user_id,item_id,timestamp\nu1,a,2023-11-14 22:13:20 UTC\nu2,b,2023-11-14T22:13:21Z\n",
        b"user_id,item_id,timestamp\nu1,a,2023-11-15T00:13:20+02:00\nu2,b,2023-11-14 20:13:21 -0200\n",
        b"user_id,item_id,timestamp\nu1,a,%d.0\nu2,b,%d\n" % (T, T + 1),
    ],
)
def test_an_export_is_read_as_it_is(tmp_path: Path, out: Path, content: bytes) -> None:
    told = table(file(tmp_path, content), out)
    assert [(r["user_id"], r["item_id"]) for r in rows(out, "interactions")] == [("u1", "a"), ("u2", "b")]
    assert times(out) == [T, T + 1]
    assert "nothing was dropped, floored or merged" in told


def test_a_quoted_name_with_a_newline_in_the_header_and_in_a_title_is_kept(tmp_path: Path, out: Path) -> None:
    items = file(tmp_path, b'item_id,"long\ntitle"\na,"Kettle\nwith lid"\nb,"Say ""hi"""\n', "i.csv")
    table(file(tmp_path, HEAD + b"u1,a,%d\nu1,b,%d\n" % (T, T)), out, "--items", items)
    assert [row["long\ntitle"] for row in rows(out, "items")] == ["Kettle\nwith lid", 'Say "hi"']


# Refused, and read with the option that the refusal names


@pytest.mark.parametrize(
    ("content", "named", "wanted"),
    [
        (HEAD + b"u1,a,3/14/24 8:26\nu1,b,3/15/24 8:26\n", "--timestamp-format '%m/%d/%y %H:%M'", [1710404760, 1710491160]),
        (HEAD + b"u1,a,14.03.2024 08:26\nu1,b,15.03.2024 08:26\n", "--timestamp-format '%d.%m.%Y %H:%M'", [1710404760, 1710491160]),
        (HEAD + b"u1,a,1700000000117\nu1,b,1700000004164\n", "--timestamp-unit ms", [T, T + 4]),
        (HEAD + b"u1,a,1700000000.117\nu1,b,1700000004\n", "--floor-timestamps", [T, T + 4]),
        (HEAD + b"u1,a,2023-11-14T22:13:20.5Z\nu1,b,2023-11-14T22:13:24Z\n", "--floor-timestamps", [T, T + 4]),
        (b"user_id;item_id;timestamp\nu1;a;%d\nu1;b;%d\n" % (T, T + 4), "--delimiter ';'", [T, T + 4]),
        (b"user_id\titem_id\ttimestamp\nu1\ta\t%d\nu1\tb\t%d\n" % (T, T + 4), "--delimiter '\\t'", [T, T + 4]),
        (b"u1,a,%d\nu1,b,%d\n" % (T, T + 4), "--columns user_id,item_id,timestamp", None),
        (b"7,8,%d\n7,9,%d\n" % (T, T + 4), "--columns user_id,item_id,timestamp", [T, T + 4]),
        (b"user,sku,timestamp\nu1,a,%d\nu1,b,%d\n" % (T, T + 4), "--map user_id=user --map item_id=sku", [T, T + 4]),
        (HEAD + b"u1,a,%d\n,b,%d\nu1,b,%d\n" % (T, T, T + 4), "--drop-invalid", [T, T + 4]),
        (HEAD + b"u1,a,%d\nu1,b,%d,x\nu1,b,%d\n" % (T, T, T + 4), "--drop-invalid", [T, T + 4]),
    ],
)  # fmt: skip
def test_the_option_that_a_refusal_names_reads_the_file(tmp_path: Path, out: Path, content: bytes, named: str, wanted: list[int] | None) -> None:
    path = file(tmp_path, content)
    message = refused("table", "--interactions", path, "--out", out)
    if wanted is None:  # one number among three cells is no evidence that names are missing
        assert "--map user_id=COLUMN" in message
        return
    assert named in message
    options = [part.strip("'").replace("'", "") for part in re.findall(r"--?[^\s']+|'[^']*'|[^\s']+", named)]
    table(path, out, *options)
    assert times(out) == wanted


def test_bytes_of_another_encoding_name_their_line_and_the_option(tmp_path: Path, out: Path) -> None:
    path = file(tmp_path, HEAD + b"Ann,a,1\nJ\xfcrgen,a,%d\n" % T)
    message = refused("table", "--interactions", path, "--out", out)
    assert "e.csv, line 3: not utf-8 text" in message
    assert "--encoding" in message
    table(path, out, "--encoding", "cp1252")
    assert rows(out, "interactions")[1]["user_id"] == "Jürgen"
    assert "no encoding of text" in call("table", "--interactions", path, "--out", out, "--encoding", "rot13", ok=False).output
    items = file(tmp_path, b"item_id,title\na,Cr\xe8me\n", "i.csv")
    message = refused("table", "--interactions", file(tmp_path, HEAD + f"J\u00fcrgen,a,{T}\n".encode()), "--items", items, "--out", tmp_path / "two")
    assert "i.csv, line 2: not utf-8 text" in message
    assert "pass --items-encoding cp1252" in message, "the interactions are in UTF-8, and their ids must not change"


def test_utf_16_names_its_option(tmp_path: Path, out: Path) -> None:
    text = HEAD.decode() + f"u1,a,{T}\n"
    for encoding, name in (("utf-16", "utf-16"), ("utf-16-le", "utf-16-le")):
        path = file(tmp_path, text.encode(encoding))
        assert "--encoding" in refused("table", "--interactions", path, "--out", out)
        table(path, out, "--encoding", name, "--overwrite")
        assert times(out) == [T]


def test_the_items_may_have_another_encoding_and_delimiter(tmp_path: Path, out: Path) -> None:
    events = file(tmp_path, HEAD + "Jürgen,a,1\n".encode())
    items = file(tmp_path, b"a;Br\xfbl\xe9e\n", "i.csv")
    table(events, out, "--items", items, "--items-delimiter", ";", "--items-encoding", "latin-1", "--items-columns", "item_id,title")
    assert rows(out, "interactions")[0]["user_id"] == "Jürgen"
    assert rows(out, "items") == [{"item_id": "a", "title": "Brûlée"}]


def test_a_decimal_comma_is_read_where_it_is_told(tmp_path: Path, out: Path) -> None:
    path = file(tmp_path, b"user_id;item_id;rating;timestamp\nu1;a;4,5;%d\n" % T)
    assert "'4,5', which is no number; pass --decimal-comma" in refused(
        "table", "--interactions", path, "--delimiter", ";", "--keep-rating", "--out", out
    )
    table(path, out, "--delimiter", ";", "--keep-rating", "--decimal-comma")
    assert rows(out, "interactions")[0]["weight"] == 4.5


def test_dropped_rows_are_counted_by_their_reason(tmp_path: Path, out: Path) -> None:
    bad = b",a,1\nu1,,1\nu1,b,\nu1,b,soon\nu1,b,2024-02-31\nu1,b,1,2,3\n"
    told = table(file(tmp_path, HEAD + b"u1,a,%d\n" % T + bad), out, "--drop-invalid")
    assert times(out) == [T]
    for part in ("1 row (no user_id)", "1 row (no item_id)", "1 row (no timestamp)", "2 rows (unreadable timestamp)", "1 row (not 3 cells)"):
        assert part in told
    assert json.loads((out / "ingest.json").read_text())["counts"]["dropped: unreadable timestamp"] == 2


def test_times_of_two_kinds_in_one_column_are_refused_by_row() -> None:
    column = pa.chunked_array([["1700000000", "2023-11-14"]])
    with pytest.raises(DigerError, match=r"e\.csv, row 6: column at holds '2023-11-14', but the rows before hold numbers"):
        Times()(column, Place(Path("e.csv"), "at", 5), Notes())
    both = Times()
    both(pa.chunked_array([["2023-11-14T00:00:00"]]), Place(Path("e.csv"), "at", 1), Notes())
    with pytest.raises(DigerError, match="times without a zone"):
        both(pa.chunked_array([["2023-11-14T00:00:00Z"]]), Place(Path("e.csv"), "at", 2), Notes())


def test_a_date_whose_day_and_month_cannot_be_told_apart_names_both_formats() -> None:
    assert formats_of(["3/4/2024"]) == ["%m/%d/%Y", "%d/%m/%Y"]
    assert formats_of(["3/4/2024", "3/14/2024"]) == ["%m/%d/%Y"]


# Columns and ids


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_that_is_there_twice_is_refused_by_name(tmp_path: Path, out: Path, kind: str) -> None:
    path = file(tmp_path, b"user_id,item_id,time,time\na,x,1,2\n")
    if kind == "parquet":
        path = tmp_path / "e.parquet"
        pq.write_table(pa.Table.from_arrays([["a"], ["x"], [1], [2]], names=["user_id", "item_id", "time", "time"]), path)
    assert "column time exists 2 times" in refused("table", "--interactions", path, "--map", "timestamp=time", "--out", out)


def test_integers_that_went_through_a_float_are_told_and_read_where_asked(tmp_path: Path, out: Path) -> None:
    path = file(tmp_path, HEAD + b"17850.0,a,1\n17850,a,2\n13047.0,b,3\n")
    told = table(path, out)
    assert "'17850.0': kept as text; pass --integer-ids" in told
    assert {r["user_id"] for r in rows(out, "interactions")} == {"17850.0", "17850", "13047.0"}
    path = file(tmp_path, HEAD + b"17850.0,1,1\n17850,1,2\n13047.0,2.0,3\n")
    table(path, out, "--overwrite", "--integer-ids", "--items", file(tmp_path, b"item_id,title\n2.0,Two\n", "i.csv"))
    assert [r["user_id"] for r in rows(out, "interactions")] == [17850, 17850, 13047]
    assert rows(out, "items") == [{"item_id": 2, "title": "Two"}, {"item_id": 1, "title": None}]


def test_float_ids_of_a_parquet_file_are_read_as_integers_where_asked_and_exact(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"user_id": [17850.0, 2.0], "item_id": [1, 2], "timestamp": [1, 2]}), path)
    table(path, out, "--integer-ids")
    assert [r["user_id"] for r in rows(out, "interactions")] == [17850, 2]
    pq.write_table(pa.table({"user_id": [2.0**53, 2.5], "item_id": [1, 2], "timestamp": [1, 2]}), path)
    assert "no exact integer" in refused("table", "--interactions", path, "--integer-ids", "--overwrite", "--out", out)


def test_event_types_choose_and_a_misspelt_one_is_refused(tmp_path: Path, out: Path) -> None:
    path = file(tmp_path, b"user_id,item_id,timestamp,event_type\nu,a,1,view\nu,b,2,purchase\nu,c,3,view\n")
    assert "all event types are kept: 'view' 2, 'purchase' 1; --event-types chooses" in table(path, out)
    told = table(path, out, "--overwrite", "--event-types", "purchase")
    assert "dropped 2 rows (event type not among purchase)" in told
    assert [r["item_id"] for r in rows(out, "interactions")] == ["b"]
    assert "no event has type 'buy'" in refused("table", "--interactions", path, "--event-types", "buy", "--out", out, "--overwrite")


def test_a_list_as_event_type_is_one_clear_line(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"user_id": ["a"], "item_id": ["x"], "timestamp": [1], "event_type": [["v"]]}), path)
    assert "column event_type has type list" in refused("table", "--interactions", path, "--out", out)


def test_of_repeated_items_the_first_row_wins_and_the_report_says_so(tmp_path: Path, out: Path) -> None:
    items = file(tmp_path, b"item_id,title\na,First\nb,B\na,Second\n", "i.csv")
    told = table(file(tmp_path, HEAD + b"u,a,1\nu,b,2\n"), out, "--items", items)
    assert "merged 1 repeated row of items (first 'a'): the first row of an item in the file wins" in told
    assert [r["title"] for r in rows(out, "items")] == ["First", "B"]


# Files


def test_a_directory_of_parquet_parts_is_read_as_one_file(tmp_path: Path, out: Path) -> None:
    parts = tmp_path / "interactions.parquet"
    (parts / "_temporary").mkdir(parents=True)
    for number in range(2):
        pq.write_table(pa.table({"user_id": [number], "item_id": [number], "timestamp": [number]}), parts / f"part-{number}.parquet")
    (parts / "_SUCCESS").touch()
    (parts / "_temporary" / "part-9.parquet").write_bytes(b"half")
    table(parts, out)
    assert [r["user_id"] for r in rows(out, "interactions")] == [0, 1]
    pq.write_table(pa.table({"user_id": [1], "timestamp": [1]}), parts / "part-2.parquet")
    assert "part-2.parquet: column item_id is not there once" in refused("table", "--interactions", parts, "--overwrite", "--out", out)


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path, out: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe, not a regular file" in refused("table", "--interactions", tmp_path / "pipe", "--out", out)
    assert "is a device, not a regular file" in refused("table", "--interactions", "/dev/zero", "--out", out)


@pytest.mark.parametrize("kind", ["header", "row", "json"])
def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path: Path, out: Path, kind: str) -> None:
    path, endless = tmp_path / "e.csv.gz", b"a" * (1 << 20)
    with gzip.open(path, "wb", compresslevel=1) as f:
        f.write({"header": b"", "row": HEAD + b'u,"', "json": b'{"'}[kind])
        for _ in range(300):
            f.write(endless)
    command = ["amazon", "--reviews"] if kind == "json" else ["table", "--interactions"]
    done = subprocess.run([sys.executable, "-c", _MEASURED, *command, str(path), "--out", str(out)], capture_output=True, text=True, timeout=60)
    assert {"header": "larger than field limit", "row": "a row is longer than", "json": "line 1: is longer than"}[kind] in done.stderr
    assert int(done.stdout.splitlines()[-1]) < 400 * 1024  # KiB


_MEASURED = """
import sys, traceback
from orchestration.snapshot.ingest.commands import ingest
try:
    ingest(sys.argv[1:])
except Exception:
    traceback.print_exc()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))  # ru_maxrss would count the parent's
"""


def test_too_many_columns_are_refused(tmp_path: Path, out: Path) -> None:
    path = file(tmp_path, ",".join(f"c{n}" for n in range(10_001)).encode() + b"\n")
    assert "has 10,001 columns, at most 10,000 are read" in refused("table", "--interactions", path, "--out", out)


def test_help_names_every_option() -> None:
    names = {option for parameter in ingest.commands["table"].params for option in parameter.opts}
    assert {"--timestamp-format", "--encoding", "--columns", "--drop-invalid", "--integer-ids", "--event-types", "--delimiter"} <= names
