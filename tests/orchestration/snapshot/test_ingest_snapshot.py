"""What `diger ingest` keeps and how it writes: filters, the k-core, the target directory, batches and memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.snapshot.ingest import source as source_module
from orchestration.snapshot.ingest.kcore import k_core
from tests.orchestration.snapshot.test_ingest import MAP, REVIEWS_2014, call, csv, lines_of, refused, rows


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "snapshots" / "one"


# Filters and the k-core


def test_since_is_inclusive_and_until_is_exclusive(tmp_path: Path, out: Path) -> None:
    path = csv(tmp_path / "e.csv", "who,what,at\n" + "".join(f"a,b{t},{1577836800 + t}\n" for t in range(-2, 3)))
    call("table", "--interactions", path, *MAP, "--since", "2020-01-01", "--until", 1577836802, "--out", out)
    assert [r["item_id"] for r in rows(out, "interactions")] == ["b0", "b1"]


def test_filters_that_leave_nothing_are_an_error(tmp_path: Path, out: Path) -> None:
    path = csv(tmp_path / "e.csv", "who,what,at\na,b,1\n")
    assert "none of the 1 interactions" in refused("table", "--interactions", path, *MAP, "--since", 5, "--out", out)
    assert "3-core" in refused("table", "--interactions", path, *MAP, "--k-core", 3, "--out", out)


def test_the_core_reaches_the_files_and_dropped_items_leave_the_catalogue(tmp_path: Path, out: Path) -> None:
    events = [(u, i) for u in "ab" for i in "xy"] + [("c", "x"), ("a", "z")]
    path = csv(tmp_path / "e.csv", "who,what,at\n" + "".join(f"{u},{i},1\n" for u, i in events))
    items = csv(tmp_path / "i.csv", "what,title\nz,Z\ny,Y\nx,X\n")
    call("table", "--interactions", path, "--items", items, *MAP, "--k-core", 2, "--out", out)
    assert [(r["user_id"], r["item_id"]) for r in rows(out, "interactions")] == events[:4]
    assert [r["title"] for r in rows(out, "items")] == ["Y", "X"]


PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=120)


def peeled(pairs: list[tuple[int, int]], k: int) -> list[bool]:
    """The k-core one interaction at a time: the definition, slowly."""
    kept = [True] * len(pairs)
    changed = True
    while changed:
        changed = False
        for n, (u, i) in enumerate(pairs):
            of_user = sum(x and p[0] == u for x, p in zip(kept, pairs, strict=True))
            of_item = sum(x and p[1] == i for x, p in zip(kept, pairs, strict=True))
            if kept[n] and min(of_user, of_item) < k:
                kept[n], changed = False, True
    return kept


@given(PAIRS, st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_k_core_is_the_largest_fixpoint(pairs: list[tuple[int, int]], k: int) -> None:
    user, item = (np.array([p[side] for p in pairs], np.int32) for side in (0, 1))
    kept = k_core(user, item, k)
    assert kept.tolist() == peeled(pairs, k)
    again = k_core(user[kept], item[kept], k)
    assert again.all()


# The target


def test_an_existing_target_is_kept_unless_told_to_replace_it(tmp_path: Path, out: Path) -> None:
    path = csv(tmp_path / "e.csv", "who,what,at\na,b,1\n")
    arguments = ("table", "--interactions", path, *MAP, "--out", out)
    call(*arguments)
    csv(path, "who,what,at\na,c,1\n")
    assert "--overwrite" in refused(*arguments)
    assert rows(out, "items") == [{"item_id": "b"}]
    call(*arguments, "--overwrite")
    assert rows(out, "items") == [{"item_id": "c"}]
    csv(path, "who,what,at\na,c,x\n")
    refused(*arguments, "--overwrite")
    assert rows(out, "items") == [{"item_id": "c"}]
    assert [p.name for p in out.parent.iterdir()] == ["one"]


def test_a_directory_that_is_no_snapshot_is_never_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    path = csv(tmp_path / "e.csv", "who,what,at\na,b,1\n")
    assert "no snapshot" in refused("table", "--interactions", path, *MAP, "--out", home, "--overwrite")
    assert (home / "thesis.txt").exists()


def test_small_batches_give_the_same_bytes_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reviews = lines_of(tmp_path / "r.json", [r | {"asin": f"B{n % 7}"} for n, r in enumerate(REVIEWS_2014 * 20)])
    metadata = lines_of(tmp_path / "m.json", [{"asin": f"B{n % 5}", "title": f"T{n}"} for n in range(20)])
    call("amazon", "--reviews", reviews, "--metadata", metadata, "--out", tmp_path / "whole")
    monkeypatch.setattr("orchestration.snapshot.ingest.amazon.BATCH_ROWS", 3)
    monkeypatch.setattr("orchestration.snapshot.ingest.event_files.ROW_GROUP", 4)
    assert source_module.BATCH_ROWS > 3
    call("amazon", "--reviews", reviews, "--metadata", metadata, "--out", tmp_path / "parts")
    for name in ("interactions", "items"):
        assert rows(tmp_path / "whole", name) == rows(tmp_path / "parts", name)


MEASURE = """
import resource, sys
from pathlib import Path
from orchestration.snapshot.ingest.events import Filters
from orchestration.snapshot.ingest.table import TableOptions, table_source
from orchestration.snapshot.ingest.writer import write_snapshot
mapping = {"user_id": "who", "item_id": "what", "timestamp": "at"}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_snapshot(table_source(Path(sys.argv[1]), None, TableOptions(mapping, {})), Path(sys.argv[2]), Filters(k_core=5))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_million_rows_stay_under_400_bytes_a_row(tmp_path: Path, out: Path) -> None:
    """10 million rows have 4 GB, that is 400 bytes a row; the peak is measured above what the imports take."""
    rng = np.random.Generator(np.random.PCG64(0))
    total = 1_000_000
    users, items = rng.integers(0, 150_000, total), rng.zipf(1.3, total) % 60_000
    with (tmp_path / "e.csv").open("w") as file:
        file.write("who,what,at\n")
        file.writelines(f"user-{u:08d},item-{i:08d},{n}\n" for n, (u, i) in enumerate(zip(users.tolist(), items.tolist(), strict=True)))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "e.csv"), str(out)]
    peak_kib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert pq.ParquetFile(out / "interactions.parquet").metadata.num_rows > 500_000
    assert peak_kib * 1024 < 400 * total


def test_what_a_killed_run_left_beside_the_snapshot_goes_and_what_it_had_moved_aside_comes_back(tmp_path: Path) -> None:
    path = csv(tmp_path / "e.csv", "who,what,at\na,b,1\n")
    out, dead = tmp_path / "shop", f"{os.uname().nodename}-999999999-5"
    call("table", "--interactions", path, *MAP, "--out", out)
    (tmp_path / f".shop.partial.{dead}").mkdir()
    out.rename(tmp_path / f".shop.replaced.{dead}")
    assert "exists already" in refused("table", "--interactions", path, *MAP, "--out", out), "killed between the two moves of --overwrite"
    assert (out / "_SUCCESS").exists()
    assert not [name for name in os.listdir(tmp_path) if dead in name]


def test_a_replacement_that_cannot_be_moved_into_place_leaves_the_old_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv(tmp_path / "e.csv", "who,what,at\na,b,1\n")
    out = tmp_path / "shop"
    call("table", "--interactions", path, *MAP, "--out", out)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if ".partial." in self.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    assert "cannot be written" in refused("table", "--interactions", path, *MAP, "--out", out, "--overwrite")
    assert (out / "_SUCCESS").exists()
    assert [name for name in os.listdir(tmp_path) if name.startswith(".shop")] == []
