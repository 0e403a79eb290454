"""Stage `catalogue_diff`: what changed, what it asks for, and ids that mean other items than before."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.errors import DigerError
from orchestration.champion import log
from orchestration.change.catalogue_diff import refuse
from orchestration.change.differences import changed_columns, changed_items, decide, drift, remapped
from orchestration.change.drift_history import rows
from orchestration.cli import main
from orchestration.params.data import CatalogueDiffConfig, DriftConfig
from tests.support.retraining_world import FIRST, RENAMED, SECOND, UNTIL_EMBEDDINGS, RetrainingWorld, shop

pytestmark = pytest.mark.usefixtures("no_pictures")
CONFIG = CatalogueDiffConfig()


def items(rows, kind=None):
    """{item: (title, brand)} as a validated catalogue."""
    return pa.table({"item_id": pa.array(list(rows), kind), "title": [r[0] for r in rows.values()], "brand": [r[1] for r in rows.values()]})


texts = st.sampled_from(["a", "b", "", None])
catalogues = st.dictionaries(st.integers(0, 8), st.tuples(texts, texts), min_size=1)


@settings(max_examples=60, deadline=None)
@given(catalogues, catalogues)
def test_every_item_has_the_status_and_columns_that_a_plain_loop_finds(old, new):
    found = {row["item_id"]: (row["status"], row["columns"]) for row in changed_items(items(old), items(new)).to_pylist()}
    for item in old.keys() | new.keys():
        if item not in old or item not in new:
            assert found.pop(item) == ("added" if item not in old else "removed", [])
            continue
        columns = [name for name, a, b in zip(("title", "brand"), old[item], new[item], strict=True) if a != b]
        assert found.pop(item) == ("changed" if columns else "same", columns)
    assert not found


def test_lists_and_columns_of_one_side_only():
    old = pa.table({"item_id": [1, 2], "tags": [["a", "b"], ["c"]], "old_only": ["x", "x"]})
    new = pa.table({"item_id": [1, 2], "tags": [["a", "b"], ["c", "d"]], "new_only": ["x", "x"]})
    assert changed_items(old, new)["columns"].to_pylist() == [[], ["tags"]]
    assert changed_columns(old, new) == {"added": ["new_only"], "removed": ["old_only"]}


def hashes(rows, kind=None):
    return pa.table({"item_id": pa.array(list(rows), kind), "text_hash": list(rows.values())})


OLD = {i: f"text {i}" for i in range(20)}


@pytest.mark.parametrize(
    ("new", "kind", "told"),
    [
        ({i + 100: text for i, text in OLD.items()}, None, "have the text of an item that is gone"),
        ({str(i): text for i, text in OLD.items()}, pa.string(), "have the text of an item that is gone"),
        ({(i + 1) % 20: text for i, text in OLD.items()}, None, "belonged to another id"),
        (OLD, None, None),
        ({**OLD, **{i: f"new {i}" for i in range(100, 180)}}, None, None),  # many new items, none with an old text
        ({i: f"rewritten {i}" for i in OLD}, None, None),  # every text is new
        ({i + 100 if i < 8 else i: text for i, text in OLD.items()}, None, None),  # fewer than the threshold
    ],
)
def test_ids_that_mean_other_items_are_told_from_ordinary_change(new, kind, told):
    found = remapped(hashes(OLD), hashes(new, kind), 0.5)
    assert (found is None) if told is None else (told in found)


def test_one_text_shared_by_many_items_is_no_remapping():
    old = {i: "same" for i in range(10)}
    assert remapped(hashes(old), hashes({**old, **{i: "same" for i in range(10, 100)}}), 0.5) is None


def diff(**changes):
    counts = {"old": 100, "new": 100, "added": 0, "removed": 0, "changed": 0, "same": 100} | changes.pop("items", {})
    return {
        "baseline": "b", "items": counts, "events": {"old": 1000, "new": 1000}, "drift": {"cosine_mean": 1.0}, "encoder_changed": False,
        "remapped": None, "warnings": [], **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "decision", "reason"),
    [
        ({}, "nothing", "no item is new"),
        ({"items": {"added": 1}}, "cold_start", "1 new items"),
        ({"items": {"added": 3}}, "retrain", "3.0% new items (retrain_added: 2.0%)"),
        ({"events": {"old": 1000, "new": 1030}}, "retrain", "3.0% more events"),
        ({"events": {"old": 1000, "new": 1010}, "items": {"added": 2}}, "cold_start", "below its threshold"),
        ({"items": {"removed": 30}}, "retrain", "30.0% items gone"),
        ({"items": {"changed": 11}}, "retrain", "11.0% items with another text"),
        ({"drift": {"cosine_mean": 0.9}}, "retrain", "mean distance"),
        ({"encoder_changed": True}, "retrain", "encoder"),
        ({"baseline": None}, "retrain", "first training"),
        ({"warnings": ["coverage fell"]}, "nothing", "no item is new"),
    ],
)
def test_the_decision_follows_the_thresholds_and_says_why(changes, decision, reason):
    found, reasons = decide(diff(**changes), CONFIG)
    assert found == decision
    assert reason in "; ".join(reasons)


def test_a_passed_limit_of_drift_asks_for_a_retraining_where_that_is_its_action():
    told = diff(warnings=["coverage fell from 90.0% to 40.0%"])
    assert decide(told, CatalogueDiffConfig(drift=DriftConfig(action="retrain"))) == ("retrain", told["warnings"])


def test_drift_of_equal_turned_and_shifted_vectors():
    rng = np.random.default_rng(0)
    old = rng.normal(size=(50, 4)).astype(np.float32)
    assert drift(old, old)["cosine_mean"] == pytest.approx(1)
    assert drift(old, -old)["cosine_min"] == pytest.approx(-1)
    assert drift(old, old + np.float32(10))["mean_shift"] > 3
    assert drift(old, old[:, :3]) == {}
    zeros = np.zeros_like(old)
    assert drift(zeros, zeros)["cosine_mean"] == 1


def test_a_threshold_below_zero_is_refused():
    with pytest.raises(ValueError, match="retrain_added"):
        CatalogueDiffConfig(retrain_added=-0.1)


# On a store


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = RetrainingWorld(tmp_path_factory.mktemp("catalogue"))
    made.release(made.run(made.first()))
    return made


def run(world, snapshot, *more, **changes):
    return world.run(snapshot, (*UNTIL_EMBEDDINGS, "catalogue_diff", *more), **changes)


def test_the_second_snapshot_asks_for_a_retraining_and_shows_why(world):
    artefact = run(world, world.second())["catalogue_diff"].artefact
    found = artefact.json("diff.json")
    assert (found["items"]["added"], found["items"]["removed"], found["items"]["changed"]) == (6, 1, 1)
    assert found["columns"]["changed"] == {"title": 1}
    assert found["users"]["added"] == 10
    assert (found["figures"]["fresh_events"], found["figures"]["list_users"]) == (80, 70)
    assert found["figures"]["list_ndcg_10_at_release"] is None  # it was promoted by hand, without a verdict
    assert artefact.facts["decision"] == "retrain"
    assert "more events" in artefact.facts["reason"]
    rows = {row["item_id"]: row for row in artefact.table("items.parquet").to_pylist()}
    assert (rows[7]["status"], rows[60]["status"], rows[3]["columns"]) == ("removed", "added", ["title"])
    assert artefact.path("catalogue.png").read_bytes().startswith(b"\x89PNG")
    assert "**Retrain**" in artefact.path("diff.md").read_text()


def test_the_same_catalogue_with_hardly_a_new_event_asks_for_nothing(world):
    events, catalogue = shop(FIRST, 60)
    again = world.snapshot("again", pa.concat_tables([events, events.slice(0, 3)]), catalogue)
    assert run(world, again)["catalogue_diff"].artefact.facts["decision"] == "nothing"


def test_one_new_item_asks_for_a_cold_start_only(world):
    events, _ = shop(FIRST, 60)
    _, catalogue = shop(range(61), 60)
    more = run(world, world.snapshot("one-more", events, catalogue))
    assert more["catalogue_diff"].artefact.facts["decision"] == "cold_start"


def test_drift_is_told_over_the_snapshots_by_the_limits_of_now(world, capsys):
    run(world, world.second())
    more = run(world, world.snapshot("more", *shop(SECOND, 80, 12, RENAMED)))["catalogue_diff"].artefact
    unseen = world.snapshot("unseen", *shop(SECOND, 81, 13, RENAMED))
    events, catalogue = shop(FIRST, 60)
    run(world, world.snapshot("stale", pa.concat_tables([events, events.slice(0, 4)]), catalogue))
    main(["drift", "--store", world.store.url, "--json", "--set", "catalogue_diff.drift.max_new_items=0.05"])
    found = json.loads(capsys.readouterr().out)
    by_name = {row["snapshot"].rsplit("-", 1)[0]: row for row in found["snapshots"]}
    assert by_name["more"]["figures"] == more.json("diff.json")["figures"]
    assert by_name["more"]["champion"] == log.current(world.store).bundle
    assert list(by_name["more"]["passed"]) == ["new_item_share"]  # by the stage's own limits it passed none
    assert more.facts["drift"] == "within its limits"
    assert "(max_new_items: 5.0%)" in by_name["more"]["said"]
    assert by_name["first"]["said"] == "not measured: there was no champion to compare with"
    assert by_name["second"]["said"] == "80 fresh events are too few to judge by (min_events: 100)"
    assert by_name["unseen"]["said"] == f"not compared yet: diger run --snapshot {unseen.url} --until catalogue_diff"
    assert by_name["stale"]["said"] == "no event is newer than the champion's newest"
    main(["drift", "--store", world.store.url, "--last", "3", "--set", "catalogue_diff.drift.max_new_items=0.05"])
    table = capsys.readouterr().out
    assert "first-" not in table
    row = next(line for line in table.splitlines() if "more-" in line)
    assert [cell.strip() for cell in row.split("│")[2:5]] == ["340", "×1.00", "9.7% !"]
    assert [cell.strip() for cell in next(line for line in table.splitlines() if "limit" in line).split("│")[2:5]] == ["≥ 100", "×0.50-2.00", "5.0%"]


def test_drift_says_what_is_missing_before_there_is_anything_to_compare(world, tmp_path):
    bare = RetrainingWorld(tmp_path)
    with pytest.raises(DigerError, match="no snapshot is registered: diger run"):
        rows(bare.store, DriftConfig(), 10)
    only = bare.first()
    with pytest.raises(DigerError, match="there is no champion yet: run the flow"):
        rows(bare.store, DriftConfig(), 10)
    shutil.copytree(f"{world.store.url}/champion", f"{bare.store.url}/champion")
    with pytest.raises(DigerError, match=f"{only.key} is the only snapshot, and the champion was made from it"):
        rows(bare.store, DriftConfig(), 10)
    second = bare.second()
    with pytest.raises(DigerError, match=f"none of 2 snapshots was compared with a champion: diger run --snapshot {second.url}"):
        rows(bare.store, DriftConfig(), 10)


def test_a_catalogue_that_shrinks_by_a_third_says_so(world):
    shrunk = world.snapshot("shrunk", *shop(range(40), 60))
    artefact = run(world, shrunk)["catalogue_diff"].artefact
    assert "33.3% items gone" in artefact.facts["reason"]


def test_remapped_ids_are_refused_by_every_stage_that_would_take_something_over(world):
    turned = world.snapshot("turned", *shop(FIRST, 60, ids=lambda i: i + 1000))
    artefact = run(world, turned)["catalogue_diff"].artefact
    assert artefact.facts["refused"] is True
    with pytest.raises(DigerError, match=r"look re-mapped.*allow_remap=true"):
        refuse(artefact)
    for stage in ("tokenizer", "cold_start"):
        with pytest.raises(DigerError, match=r"re-mapped: 60 of 60 items.*allow_remap=true"):
            world.run(turned, (stage,))
    told = world.run(turned, ("catalogue_diff", "cold_start", "tokenizer"), catalogue_diff={"allow_remap": True})
    assert told["catalogue_diff"].artefact.facts["refused"] is False
    assert told["cold_start"].artefact.facts["new_items"] == 60


def test_without_a_champion_it_is_a_first_training(tmp_path):
    world = RetrainingWorld(tmp_path)
    artefact = run(world, world.first())["catalogue_diff"].artefact
    assert artefact.facts["decision"] == "retrain"
    assert artefact.json("diff.json")["baseline"] is None
    assert "catalogue.png" not in artefact.names
