"""`diger similar`: neighbours of items and of the whole catalogue, from the stage's tables."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.cli import main
from tests.support.snapshot_material import write


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Forty people who all take a, b, c in this order; `new` reads like `a` and nobody has it; `alone` has neither events nor shared words."""
    here = tmp_path_factory.mktemp("similar")
    events = {"user_id": [], "item_id": [], "timestamp": []}
    for user in range(40):
        for place, item in enumerate(["a", "b", "c", f"x{user % 4}"]):
            events["user_id"].append(user)
            events["item_id"].append(item)
            events["timestamp"].append(1_600_000_000 + user * 1000 + place)
    titles = {"a": "red lamp", "b": "oak table", "c": "oak chair", "new": "red lamp", "alone": "zzz"}
    titles |= {f"x{i}": f"thing {i} rope" for i in range(4)}
    write(here / "snap", pa.table(events), pa.table({"item_id": list(titles), "title": list(titles.values())}))
    sections = (
        "sequences: {split: leave_one_out}",
        "embeddings: {dimensions: 4, min_df: 1}",
        "neighbours: {text_max_df: 1.0}",
        "cluster: {workers: 0}",
    )
    (here / "params.yaml").write_text("\n".join(sections))
    return here


def call(shop, capsys, *arguments):
    base = ["similar", "--snapshot", str(shop / "snap"), "--params", str(shop / "params.yaml"), "--store", str(shop / "store")]
    code = 0
    try:
        main([*base, *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr()
    return code, told.out, told.err.strip().splitlines()[-1] if told.err.strip() else ""


def ids(answer):
    return [neighbour["item_id"] for neighbour in answer["neighbours"]]


def test_each_kind_answers_from_its_own_table(shop, capsys):
    _, out, _ = call(shop, capsys, "a", "b", "--kind", "transitions", "--json")
    first, second = json.loads(out)
    assert (first["item_id"], first["title"]) == ("a", "red lamp")
    assert ids(first)[:2] == ["b", "c"], "what comes next stands before what comes after that"
    assert "a" not in ids(second), "transitions have a direction"
    _, out, _ = call(shop, capsys, "a", "--kind", "text", "--json")
    assert ids(json.loads(out)[0]) == ["new"]
    _, out, _ = call(shop, capsys, "a", "--json", "-k", 3)
    assert set(ids(json.loads(out)[0])) == {"b", "c", "new"}


def test_a_new_item_has_neighbours_by_text_on_the_day_it_arrives(shop, capsys):
    code, out, _ = call(shop, capsys, "new")
    assert code == 0
    assert "Like new (red lamp)" in out
    assert "red lamp" in out.split("Like new")[1].split("\n", 2)[2], "titles stand beside the ids"


def test_an_item_of_which_nothing_is_known_is_told(shop, capsys):
    code, out, _ = call(shop, capsys, "alone")
    assert (code, out.strip()) == (
        0,
        "alone (zzz) has no neighbours: it has neither events beside other items nor a text that shares a word with another item's",
    )
    _, out, _ = call(shop, capsys, "new", "--kind", "transitions")
    assert "--kind text goes by its words" in out


def test_an_unknown_item_is_named(shop, capsys):
    code, out, error = call(shop, capsys, "a", "nowhere", "--json")
    assert code == 1
    assert error == "diger: 1 of 2 items is not in the snapshot's catalogue: 'nowhere': check the spelling, or name their snapshot (--snapshot)"
    assert [answer["item_id"] for answer in json.loads(out)] == ["a"], "the items that are known are answered"


def test_the_export_holds_every_item_as_the_answers_do(shop, capsys):
    path = shop / "similar.parquet"
    code, out, _ = call(shop, capsys, "--all", "--out", path, "-k", 2)
    assert code == 0
    assert "of 9 items, 1 of them without a neighbour" in out
    rows = pq.read_table(path).to_pylist()
    names = sorted({row["item_id"] for row in rows})
    _, out, _ = call(shop, capsys, *names, "-k", 2, "--json")
    assert [(n["item_id"], round(n["score"], 5)) for a in json.loads(out) for n in a["neighbours"]] == [
        (row["similar_id"], round(row["score"], 5)) for row in sorted(rows, key=lambda row: (names.index(row["item_id"]), row["rank"]))
    ]
    assert call(shop, capsys, "--all", "--out", shop / "no" / "x.parquet")[2].startswith(f"diger: --out {shop}/no/x.parquet: no directory")
    assert not list(shop.glob(".similar*")), "nothing is left beside the file"


@pytest.mark.parametrize(
    "arguments", [[], ["a", "--all", "--out", "x"], ["--all"], ["a", "--out", "x"], ["a", "--kind", "nothing"], ["a", "-k", "0"]]
)
def test_wrong_usage(shop, capsys, arguments):
    assert call(shop, capsys, *arguments)[0] == 2
