"""`diger ingest append`: the bytes of a full ingest; what is late, repeated, changed or forgotten is told; a fault leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from diger_core.store.artefacts import Store
from orchestration.audit.forget import forget
from orchestration.audit.index import Index
from orchestration.engine.registry import register
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from orchestration.snapshot.files import describe
from orchestration.snapshot.ingest import append as append_module
from orchestration.snapshot.ingest.append import append_snapshot
from orchestration.snapshot.ingest.overlap import Policy, Rule
from orchestration.snapshot.ingest.previous import day_source, open_previous
from orchestration.snapshot.ingest.table import TableOptions, table_source
from orchestration.snapshot.ingest.writer import write_snapshot
from tests.orchestration.snapshot.test_ingest import METADATA_2014, REVIEWS_2014, call, csv, lines_of, refused, rows

Event = tuple[str, str, int]
Item = tuple[str, str]
MONDAY: list[Event] = [("anna", "kettle", 10), ("bob", "lamp", 11), ("anna", "lamp", 12), ("eve", "jacket", 13)]
TUESDAY: list[Event] = [("carl", "kettle", 20), ("anna", "chair", 21)]


def events(path: Path, found: list[Event]) -> Path:
    return csv(path, "user_id,item_id,timestamp\n" + "".join(f"{user},{item},{time}\n" for user, item, time in found))


def catalogue(path: Path, found: list[Item]) -> Path:
    return csv(path, "item_id,title\n" + "".join(f"{item},{title}\n" for item, title in found))


@pytest.fixture
def monday(tmp_path: Path) -> Path:
    items = catalogue(tmp_path / "monday_items.csv", [("lamp", "Lamp"), ("chair", "Chair"), ("kettle", "Kettle")])
    call("table", "--interactions", events(tmp_path / "monday.csv", MONDAY), "--items", items, "--out", tmp_path / "monday")
    return tmp_path / "monday"


def tuesday(tmp_path: Path, found: list[Event] = TUESDAY) -> tuple[object, ...]:
    return "--interactions", events(tmp_path / "tuesday.csv", found), "--out", tmp_path / "tuesday", "--store", tmp_path / "store"


# The same bytes

TIMES = st.integers(0, 9)
EVENTS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("pqrstu"), TIMES), min_size=1, max_size=12)
ITEMS = st.none() | st.lists(st.tuples(st.sampled_from("pqrstu"), st.sampled_from("XYZ")), min_size=1, max_size=8)


def as_they_are_now(files: list[list[Item] | None]) -> list[Item]:
    """One file for several: an item where it first stood, with the row of the last file that names it, of that the first."""
    found: dict[str, str] = {}
    for file in files:
        own: dict[str, str] = {}
        for item, title in file or []:
            own.setdefault(item, title)
        found |= own  # a key that is there keeps its place
    return list(found.items())


def judged(day: list[Event], before: list[Event], policy: Policy) -> list[Event]:
    newest = max(time for _, _, time in before)
    return [e for e in day if not (policy.late == "drop" and e[2] < newest or policy.duplicates == "drop" and e in before)]


@given(st.lists(st.tuples(EVENTS, ITEMS), min_size=2, max_size=3), st.sampled_from(["keep", "drop"]), st.sampled_from(["keep", "drop"]))
@settings(max_examples=25, deadline=None, phases=[Phase.reuse, Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_day_by_day_gives_the_bytes_of_all_files_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: list[tuple[list[Event], list[Item] | None]], late: Rule, duplicates: Rule
) -> None:
    monkeypatch.setattr("orchestration.snapshot.ingest.event_files.ROW_GROUP", 4)
    monkeypatch.setattr("orchestration.snapshot.ingest.item_files.ITEM_GROUP", 2)
    monkeypatch.setattr("orchestration.snapshot.ingest.item_merge.ITEM_GROUP", 2)
    for name in ("sync", "sync_tree"):  # the bytes are looked at, not the disk
        monkeypatch.setattr(f"orchestration.snapshot.ingest.writer.{name}", lambda path: None)
    policy, options, whole = Policy(late, duplicates), TableOptions({}, {}), list(days[0][0])
    for number, (found, _) in enumerate(days[1:], 1):
        kept = judged(found, whole, policy)
        assume(kept and found not in [other for other, _ in days[:number]])
        whole += kept

    folder = tmp_path / "example"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, (found, items) in enumerate(days):
        interactions = events(folder / f"e{number}.csv", found)
        described = catalogue(folder / f"i{number}.csv", items) if items else None
        if number == 0:
            write_snapshot(table_source(interactions, described, options), folder / "0")
        else:
            before = open_previous(folder / f"{number - 1}")
            append_snapshot(before, day_source(before, interactions, described, {}), folder / str(number), policy)
    now = as_they_are_now([items for _, items in days])
    described = catalogue(folder / "i.csv", now) if now else None
    write_snapshot(table_source(events(folder / "e.csv", whole), described, options), folder / "full")
    assert describe(folder / str(len(days) - 1)).files == describe(folder / "full").files


def test_full_parts_are_copied_and_files_of_another_version_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.snapshot.ingest.event_files.ROW_GROUP", 3)
    copied: list[Path] = []
    real = append_module.EventFiles.copy
    monkeypatch.setattr(append_module.EventFiles, "copy", lambda self, part: (copied.append(part), real(self, part)))
    whole = events(tmp_path / "all.csv", [*MONDAY * 2, *TUESDAY])
    call("table", "--interactions", events(tmp_path / "monday.csv", MONDAY * 2), "--out", tmp_path / "monday")
    call("table", "--interactions", whole, "--out", tmp_path / "full")
    call("append", tmp_path / "monday", *tuesday(tmp_path))
    assert [part.name for part in copied] == ["part-00000.parquet", "part-00001.parquet"]
    assert describe(tmp_path / "tuesday").content_hash == describe(tmp_path / "full").content_hash
    one = pq.read_table(tmp_path / "monday" / "interactions.parquet")
    shutil.rmtree(tmp_path / "monday" / "interactions.parquet")
    pq.write_table(one, tmp_path / "monday" / "interactions.parquet", row_group_size=5)  # as versions before wrote it: one file
    copied.clear()
    call("append", tmp_path / "monday", *tuesday(tmp_path), "--overwrite")
    assert not copied
    assert describe(tmp_path / "tuesday").content_hash == describe(tmp_path / "full").content_hash


def test_an_append_of_a_later_day_reads_no_old_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear in the day: of the parts before, none is parsed but the last, which is filled up."""
    monkeypatch.setattr("orchestration.snapshot.ingest.event_files.ROW_GROUP", 2)
    call("table", "--interactions", events(tmp_path / "monday.csv", [(f"u{n}", "lamp", n) for n in range(9)]), "--out", tmp_path / "monday")
    read: list[int] = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda self, *a, **k: (read.append(self.metadata.num_rows), real(self, *a, **k))[1])
    call("append", tmp_path / "monday", *tuesday(tmp_path))
    assert read == [1]


def test_types_that_only_the_day_needs_are_those_of_a_full_ingest(tmp_path: Path) -> None:
    """An id beyond int64, and one so long that a row group of such could hold two gigabytes."""
    for case, old, new in (("wide", pa.array([1]), pa.array([2**63], pa.uint64())), ("long", pa.array(["a"]), pa.array(["b" * 3000]))):
        folder = tmp_path / case
        folder.mkdir()
        for name, ids in (("old", old), ("new", new), ("all", pa.concat_arrays([old.cast(new.type), new]))):
            table = pa.table({"user_id": ids, "item_id": ids, "timestamp": pa.array(range(len(ids))) if name != "new" else pa.array([1])})
            pq.write_table(table, folder / f"{name}.parquet")
        call("table", "--interactions", folder / "old.parquet", "--out", folder / "before")
        call("table", "--interactions", folder / "all.parquet", "--out", folder / "full")
        call("append", folder / "before", "--interactions", folder / "new.parquet", "--out", folder / "after", "--store", folder)
        assert describe(folder / "after").files == describe(folder / "full").files


EVERYTHING = "user_id,item_id,timestamp,pos,rating,event_type\n"


@pytest.mark.parametrize(
    ("head", "first", "second", "options"),
    [
        (EVERYTHING, "7,17,1,0,4,buy\n7,18,2,1,5,\n", "7,19,3,2,3,buy\n8,18,4,0,5,see\n", ("--integer-ids", "--keep-rating", "--min-rating", 3)),
        (EVERYTHING, "7,17,1,0,4,buy\n", "7,19,3,2,3,buy\n8,18,4,0,5,see\n", ("--event-types", "buy", "--until", 5)),
        ("user_id,item_id,pos\n", "a,17,0\na,18,1\n", "b,18,0\na,19,2\n", ()),
    ],
)
def test_columns_and_filters_of_the_first_day_hold(tmp_path: Path, head: str, first: str, second: str, options: tuple[object, ...]) -> None:
    """Metadata in text beside integer ids, of items that had, have and wait for their first event."""
    items = catalogue(tmp_path / "i.csv", [("20", "D"), ("19", "C"), ("18", "B"), ("17", "A")])
    for name, text in (("first", first), ("second", second), ("all", first + second)):
        csv(tmp_path / f"{name}.csv", head + text)
    for name in ("first", "all"):
        call("table", "--interactions", tmp_path / f"{name}.csv", "--items", items, *options, "--out", tmp_path / name)
    call("append", tmp_path / "first", "--interactions", tmp_path / "second.csv", "--out", tmp_path / "second", "--store", tmp_path)
    for name in ("interactions", "items", "waiting_items"):
        assert (tmp_path / "second" / f"{name}.parquet").read_bytes() == (tmp_path / "all" / f"{name}.parquet").read_bytes()


def test_public_formats_are_continued_in_their_own(tmp_path: Path) -> None:
    for name, found in (("first", REVIEWS_2014[:2]), ("second", REVIEWS_2014[2:]), ("all", REVIEWS_2014)):
        lines_of(tmp_path / f"{name}.json", found)
    metadata = lines_of(tmp_path / "m.json", list(METADATA_2014))
    for name in ("first", "all"):
        call("amazon", "--reviews", tmp_path / f"{name}.json", "--metadata", metadata, "--out", tmp_path / name)
    call("append", tmp_path / "first", "--interactions", tmp_path / "second.json", "--out", tmp_path / "second", "--store", tmp_path)
    assert describe(tmp_path / "second").files == describe(tmp_path / "all").files
    other = lines_of(tmp_path / "other.json", [{"user_id": "A", "parent_asin": "B", "timestamp": 1, "rating": 5.0}])
    found = refused("append", tmp_path / "first", "--interactions", other, "--out", tmp_path / "third", "--store", tmp_path)
    assert "is of the release amazon-2023, the snapshot of amazon-2014" in found


# Policies


def test_late_and_repeated_events_are_told_on_one_line(tmp_path: Path, monday: Path) -> None:
    day = [*TUESDAY, ("bob", "lamp", 11), ("bob", "kettle", 12)]  # had already; late
    told = call("append", monday, *tuesday(tmp_path, day)).stdout.splitlines()[0]
    wanted = "events: 3 added, 1 late (kept), 1 that the snapshot has already (left out); items: 0 rows replaced by the day's; of the files nothing"
    assert told.startswith(wanted)
    assert [(r["user_id"], r["item_id"], r["timestamp"]) for r in rows(tmp_path / "tuesday", "interactions")] == [*MONDAY, *TUESDAY, day[3]]
    told = call("append", monday, *tuesday(tmp_path, day), "--late", "drop", "--duplicates", "keep", "--overwrite").stdout
    assert told.startswith("events: 2 added, 2 late (left out), 0 that the snapshot has already (kept); ")
    assert len(rows(tmp_path / "tuesday", "interactions")) == 6
    call("append", monday, *tuesday(tmp_path, day), "--duplicates", "keep", "--overwrite")
    assert len(rows(tmp_path / "tuesday", "interactions")) == 8
    assert "2 events are older than the newest" in refused("append", monday, *tuesday(tmp_path, day), "--late", "refuse", "--overwrite")
    found = refused("append", monday, *tuesday(tmp_path, day), "--duplicates", "refuse", "--overwrite")
    assert found.startswith("tuesday.csv: 1 events are in ")
    assert "the first is event 3 (1970-01-01 00:00:11)" in found


def test_a_day_that_is_older_or_was_added_before_is_refused_by_name(tmp_path: Path, monday: Path) -> None:
    found = refused("append", monday, *tuesday(tmp_path, [("carl", "kettle", 5)]))
    assert found.startswith("tuesday.csv: is older than ")
    assert "--late keep" in found
    assert not (tmp_path / "tuesday").exists()
    call("append", monday, *tuesday(tmp_path, [("carl", "kettle", 5)]), "--late", "keep")
    again = ("--interactions", tmp_path / "tuesday.csv", "--out", tmp_path / "wednesday", "--store", tmp_path)
    assert "tuesday.csv: its bytes are in " in refused("append", tmp_path / "tuesday", *again)
    csv(tmp_path / "tuesday.csv", (tmp_path / "tuesday.csv").read_text() + "carl,kettle,5\n")
    assert "none of its 2 events is new" in refused("append", tmp_path / "tuesday", *again, "--late", "keep")


def test_a_day_that_is_cut_off_names_its_row_once(tmp_path: Path, monday: Path) -> None:
    options = tuesday(tmp_path)
    path = tmp_path / "tuesday.csv"
    path.write_text(path.read_text().rstrip().rpartition(",")[0])
    message = refused("append", monday, *options)
    number = len(TUESDAY)
    assert message.startswith(f"tuesday.csv, row {number}: has 2 cells in place of 3 ('")
    assert "copy the file again where it was cut off" in message
    assert message.count("row ") == 2, "the row, and its remedy"


# Items


def test_the_days_items_replace_join_and_wait(tmp_path: Path, monday: Path) -> None:
    """chair waits since Monday and sells on Tuesday; jacket had no words; a scarf waits; lamp is not named and stays."""
    items = catalogue(tmp_path / "tuesday_items.csv", [("scarf", "Scarf"), ("jacket", "Jacket"), ("kettle", "Steel kettle"), ("kettle", "again")])
    told = call("append", monday, *tuesday(tmp_path), "--items", items).output
    assert "items: 1 rows replaced" in told
    assert "merged 1 repeated row of items (first 'kettle')" in told
    assert rows(tmp_path / "tuesday", "items") == [
        {"item_id": "lamp", "title": "Lamp"},
        {"item_id": "chair", "title": "Chair"},
        {"item_id": "kettle", "title": "Steel kettle"},
        {"item_id": "jacket", "title": "Jacket"},
    ]
    assert pq.read_table(tmp_path / "tuesday" / "waiting_items.parquet").to_pylist() == [{"before": 3, "item_id": "scarf", "title": "Scarf"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id,title,colour\nlamp,Lamp,red\n", "column colour is not in the snapshot, whose items have title; leave it out"),
        ("item_id,name\nlamp,Lamp\n", "column name is not in the snapshot"),
        ("item_id\nlamp\n", "column title is missing"),
    ],
)
def test_items_with_other_columns_are_refused(tmp_path: Path, monday: Path, text: str, message: str) -> None:
    items = csv(tmp_path / "tuesday_items.csv", text)
    assert message in refused("append", monday, *tuesday(tmp_path), "--items", items)
    assert not (tmp_path / "tuesday").exists()


# Files that do not fit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id,timestamp,event_type\na,b,50,buy\n", "tuesday.csv: column event_type is not in the events of "),
        ("user_id,item_id,when\na,b,50\n", "tuesday.csv: column timestamp is missing"),
        ("user_id,item_id,timestamp\na,b,50\na,,51\n", "tuesday.csv, row 2: column item_id holds no id"),
        ("user_id,item_id,timestamp\na,b,50\na,b,x\n", "tuesday.csv, row 2: column timestamp"),
    ],
)
def test_events_that_do_not_fit_are_refused_by_file_row_and_column(tmp_path: Path, monday: Path, text: str, message: str) -> None:
    arguments = tuesday(tmp_path)
    csv(tmp_path / "tuesday.csv", text)
    assert message in refused("append", monday, *arguments)
    assert not (tmp_path / "tuesday").exists()


def test_options_of_the_first_day_hold_and_those_given_are_for_the_day(tmp_path: Path) -> None:
    first = csv(tmp_path / "monday.csv", "who;what;at\na;b;1000\n")
    how = ("--map", "user_id=who", "--map", "item_id=what", "--map", "timestamp=at", "--delimiter", ";", "--timestamp-unit", "ms")
    call("table", "--interactions", first, *how, "--out", tmp_path / "monday")
    arguments = tuesday(tmp_path)
    csv(tmp_path / "tuesday.csv", "who;what;time\na;b;2000\n")
    call("append", tmp_path / "monday", *arguments, "--map", "timestamp=time")
    assert [r["timestamp"] for r in rows(tmp_path / "tuesday", "interactions")] == [1, 2]


def test_what_is_no_snapshot_of_ingest_or_was_changed_is_named(tmp_path: Path, monday: Path) -> None:
    arguments = tuesday(tmp_path)
    assert "no such directory" in refused("append", tmp_path / "nowhere", *arguments)
    assert "there is no ingest.json in it" in refused("append", tmp_path, *arguments)
    assert "a snapshot never changes" in refused("append", monday, *arguments[:2], "--out", monday, "--overwrite", "--store", tmp_path)
    document = (monday / "ingest.json").read_text()
    (monday / "ingest.json").write_text("{")
    assert "ingest.json: cannot be read" in refused("append", monday, *arguments)
    (monday / "ingest.json").write_text(document.replace('"k_core": 0', '"k_core": 5'))
    assert "was made with --k-core 5" in refused("append", monday, *arguments)
    (monday / "ingest.json").write_text(document)
    path = monday / "interactions.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "interactions.parquet: not a complete Parquet file" in refused("append", monday, *arguments)
    pq.write_table(pq.read_table(pa.BufferReader(data)).slice(1), path)
    assert "has 3 rows, diger ingest wrote 4" in refused("append", monday, *arguments)


@pytest.mark.parametrize(
    "change",
    [
        {"format": None},
        {"files": None},
        {"files": [{}]},
        {"options": {"k_core": None}},
        {"options": {"map": None}},
        {"counts": {"interactions": "4"}},
    ],
)
def test_a_misshapen_description_is_one_line(tmp_path: Path, monday: Path, change: dict[str, Any]) -> None:
    document = json.loads((monday / "ingest.json").read_text())
    changed = {name: {**document[name], **value} if isinstance(value, dict) else value for name, value in change.items()}
    (monday / "ingest.json").write_text(json.dumps({**document, **changed}))
    assert "ingest.json: a value is not of the type that diger ingest writes" in refused("append", monday, *tuesday(tmp_path))


@pytest.mark.parametrize(("name", "cut"), [("waiting_items.parquet", True), ("interactions.parquet", False), ("items.parquet", False)])
def test_a_damaged_file_of_the_snapshot_is_named_and_not_taken_for_a_full_disk(tmp_path: Path, monday: Path, name: str, cut: bool) -> None:
    data = bytearray((monday / name).read_bytes())
    data[8:24] = bytes(byte ^ 255 for byte in data[8:24])  # of the first page
    (monday / name).write_bytes(b"PAR1x" if cut else data)
    message = refused("append", monday, *tuesday(tmp_path))
    assert f"{monday / name}: not a complete Parquet file" in message
    assert "free some space" not in message
    assert not (tmp_path / "tuesday").exists()


def test_an_append_that_was_interrupted_leaves_nothing_and_runs_again(tmp_path: Path, monday: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(append_module, "write_next", stop)
        assert call("append", monday, *tuesday(tmp_path), ok=False).exit_code
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["monday"]
    killed = tmp_path / f".tuesday.partial.{os.uname().nodename}-999999999-5"  # what SIGKILL leaves
    killed.mkdir()
    call("append", monday, *tuesday(tmp_path))
    assert not killed.exists()
    assert len(rows(tmp_path / "tuesday", "interactions")) == 6


# Users who asked to be forgotten


def test_a_forgotten_user_does_not_come_back_unseen(tmp_path: Path, monday: Path) -> None:
    store = Store(tmp_path / "store")
    Session(store, build_params({}), register(store, str(monday))).materialise(BY_NAME["raw_interactions"])
    forget(Index(store), "eve")
    gone = tmp_path / "gone.txt"
    gone.write_text("bob\n")
    day = [*TUESDAY, ("eve", "kettle", 22)]
    found = refused("append", monday, *tuesday(tmp_path, day))
    assert "holds 1 user who asked to be forgotten" in found
    assert "pass --without FILE" in found
    assert "eve" not in found
    assert "whom gone.txt does not name" in refused("append", monday, *tuesday(tmp_path, day), "--without", gone)
    gone.write_text("eve\n")
    told = call("append", monday, *tuesday(tmp_path, day), "--without", gone).output
    assert "2 of users in --without (left out, old ones too)" in told
    call(
        "table",
        "--interactions",
        events(tmp_path / "all.csv", [*MONDAY[:3], *TUESDAY]),
        "--items",
        tmp_path / "monday_items.csv",
        "--out",
        tmp_path / "full",
    )
    assert describe(tmp_path / "tuesday").files == describe(tmp_path / "full").files
    assert json.loads((tmp_path / "tuesday" / "ingest.json").read_text())["counts"]["interactions_of_users_left_out"] == 2

    again = ("--interactions", events(tmp_path / "wednesday.csv", [("eve", "lamp", 30)]), "--out", tmp_path / "wednesday", "--store", store.url)
    assert "1 user was forgotten, and its notes hold no ids" in call("append", tmp_path / "tuesday", *again).output
