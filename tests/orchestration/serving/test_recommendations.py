"""recommendations: all events count, --items is obeyed, the champion's recipe mixes the parts, the rest is popular, finished shards are kept."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from diger_core.data.neighbours import ItemTable
from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.evaluation.ranking import recommended
from diger_core.evaluation.recipes import REPEATS, Recipe
from diger_core.ids.id_table import IdTable, assignment_hash, to_arrow
from diger_core.store.files import Root
from orchestration.champion.bundle import load_bundle
from orchestration.champion.model_artefact import with_assignment
from orchestration.cli import main
from orchestration.cli.options import Source
from orchestration.cli.recommend import lists_of, show
from orchestration.features.neighbours import read_table
from orchestration.graph import BY_NAME
from orchestration.params.cluster import ClusterConfig
from orchestration.serving import shards as recommendation_shards
from orchestration.serving.given_ids import read_ids
from orchestration.serving.lists import Recommender, Request, removes_seen
from orchestration.serving.shards import REQUEST, Shards, recommend
from tests.support.release_world import COUNTED, MODEL_ALONE, USERS, ReleaseWorld, item_name, launched, released
from tests.support.snapshot_material import interactions, items, write
from tests.support.training_world import Recorder

HERE = ClusterConfig(workers=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return ReleaseWorld(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def made(world):
    return world.candidate(seed=1)


def request(world: ReleaseWorld, made: dict[str, Any], **changes: Any) -> Request:
    hashes = [made[name].hash for name in ("bundle", "sequences", "neighbours", "validated_items")]
    base = Request(world.store.url, *hashes, None, 10, 40, 25, 512, False)
    return dataclasses.replace(base, **changes)


def computed(asked: Request, folder: Path, progress: Any = None) -> tuple[pa.Table, dict[str, Any]]:
    found = recommend(asked, Shards(Root(folder)), HERE, progress or Recorder())
    return pa.concat_tables([pq.read_table(folder / entry["file"]) for entry in found["shards"]]), found


def by_user(rows: pa.Table) -> dict[Any, list[Any]]:
    lists: dict[Any, list[Any]] = {}
    for row in rows.to_pylist():
        lists.setdefault(row["user_id"], []).append(row["item_id"])
    return lists


def test_every_user_gets_k_distinct_items_ranked_by_falling_score(world, made, tmp_path):
    rows, found = computed(request(world, made), tmp_path)
    assert rows.column_names == ["user_id", "item_id", "rank", "score"]
    assert rows.num_rows == USERS * 10
    assert [entry["rows"] for entry in found["shards"]] == [250, 250, 100]
    assert rows["user_id"].to_pylist() == [user for user in range(USERS) for _ in range(10)]
    assert rows["rank"].to_pylist() == list(range(1, 11)) * USERS
    assert all(len(set(names)) == 10 for names in by_user(rows).values())
    scores = rows["score"].to_numpy().reshape(USERS, 10)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (scores > 0).all()
    assert (scores.sum(axis=1) <= 1 + 1e-6).all(), "a score is the item's share of the mixture"


def test_the_last_two_events_count(world, made, tmp_path):
    """The lists are those of the model after the whole history, and differ from those after a shortened one."""
    rows, _ = computed(request(world, made), tmp_path)
    bundle = load_bundle(world.store, made["bundle"].hash)
    seq = Sequences.from_tensors(made["sequences"].tensors("sequences.safetensors"))
    names = made["sequences"].table("items.parquet")["item_id"].to_pylist()
    users, ends = np.arange(seq.users), seq.offsets_U1[1:]
    lists = []
    for end in (ends, ends - 2):
        found, _ = recommended(bundle.recommender, bundle.table.codes_NM, bundle.table.suffix_N, seq, users, end, 10, beams=40)
        lists.append([[names[item] for item in row] for row in found])
    assert list(by_user(rows).values()) == lists[0]
    assert sum(a != b for a, b in zip(*lists, strict=True)) > USERS / 2


def test_only_the_items_that_are_given_are_listed(world, made, tmp_path):
    stock = [item_name(i) for i in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)]
    progress = Recorder()
    rows, found = computed(request(world, made, items=pa.array([*stock, "item-999", "elsewhere"])), tmp_path, progress)
    assert set(rows["item_id"].to_pylist()) <= set(stock)
    assert rows.num_rows == USERS * 10
    assert found["counts"]["items"] == 12
    assert found["counts"]["items_unknown"] == 2
    assert any("2 items of --items are not in the catalogue" in message and "'item-999'" in message for message in progress.messages)


def test_fewer_items_than_k_give_shorter_lists(world, made, tmp_path):
    rows, _ = computed(request(world, made, items=pa.array([item_name(1), item_name(4)])), tmp_path)
    assert rows["rank"].to_pylist() == [1, 2] * USERS


def test_a_list_of_unknown_items_alone_is_refused(world, made, tmp_path):
    with pytest.raises(DigerError, match=r"--items: none of its 1 items \('item-999'"):
        computed(request(world, made, items=pa.array(["item-999"])), tmp_path)


def test_users_without_history_get_the_most_popular_of_all_events_without_a_score(world, made, tmp_path):
    stock = [item_name(i) for i in range(5, 40)]
    rows, found = computed(request(world, made, users=pa.array([3, 5000, 7]), items=pa.array(stock), k=5), tmp_path)
    seq = Sequences.from_tensors(made["sequences"].tensors("sequences.safetensors"))
    counts = np.bincount(seq.events_E, minlength=40)[5:]
    popular = [stock[row] for row in np.argsort(-counts, kind="stable")[:5]]
    lists = by_user(rows)
    assert list(lists) == [3, 5000, 7]
    assert lists[5000] == popular
    scores = rows["score"].is_null().to_numpy().reshape(3, 5)
    assert scores.all(axis=1).tolist() == [False, True, False]
    assert (found["counts"]["users_unknown"], found["counts"]["users_without_history"]) == (1, 1)


def test_seen_items_can_be_left_out(world, made, tmp_path):
    """Also where places are left that popular items fill, and for a user of whom nothing is known."""
    stock = [item_name(i) for i in range(14)]
    seq, names = sequences_of(made), [item_name(i) for i in range(40)]
    asked = request(world, made, remove_seen=True, users=pa.array([*range(USERS), 5000]))
    for narrowed in (asked, dataclasses.replace(asked, items=pa.array(stock))):
        rows, _ = computed(narrowed, tmp_path / str(narrowed.items is None))
        lists, listed = by_user(rows), names if narrowed.items is None else stock
        assert len(lists[5000]) == 10
        for user in range(USERS):
            seen = {names[i] for i in seq.events_E[seq.offsets_U1[user] : seq.offsets_U1[user + 1]]}
            assert not seen & set(lists[user])
            assert len(set(lists[user])) == len(lists[user]) == min(10, len(set(listed) - seen)), "no place stays empty that an item could fill"


@pytest.mark.parametrize(
    ("share", "seen", "removed", "told"),
    [
        (0.0, "auto", True, "items that a user had before are left out, as people seldom come back to one (0.0% of validation targets"),
        (REPEATS, "auto", False, "items that a user had before stay in the lists, as people often come back to one (5.0% of validation targets"),
        (0.6, "remove", True, "are left out, as recommendations.seen=remove says (60.0% of validation targets are such items; --seen keep"),
        (0.0, "keep", False, "stay in the lists, as recommendations.seen=keep says (0.0% of validation targets are such items; --seen remove"),
    ],
)
def test_the_data_say_whether_items_come_back_unless_a_person_does(world, share, seen, removed, told):
    recipe = world.publish("fusion", lambda out: out.json("fusion.json", dataclasses.replace(MODEL_ALONE, repeat_share=share).document()))
    bundle = world.candidate(seed=1, fusion=recipe)["bundle"]
    found, why = removes_seen(world.store, bundle.hash, seen, False)
    assert found is removed
    assert told in why
    assert ("evaluation.remove_seen: true judges these" in why) is removed, "the figures are of other lists than these"
    assert "judges these" not in removes_seen(world.store, bundle.hash, seen, removed)[1]


def test_what_the_mixture_leaves_empty_is_filled_with_popular_items_without_a_score(world, tmp_path):
    """Counting alone names few items in a shop where one thing follows another."""
    made = with_recipe(world, world.data(walks=True), COUNTED)
    rows, _ = computed(request(world, made, k=30), tmp_path)
    seq = sequences_of(made)
    popular = [item_name(row) for row in np.argsort(-np.bincount(seq.events_E, minlength=40), kind="stable")]
    for user, names in by_user(rows).items():
        scored = rows.filter(pc.equal(rows["user_id"], user))["score"].is_valid().to_pylist()
        named = sum(scored)
        assert 0 < named < 30
        assert scored == [True] * named + [False] * (30 - named)
        assert names[named:] == [name for name in popular if name not in names[:named]][: 30 - named]


# The recipe and the counts


def sequences_of(made: dict[str, Any]) -> Sequences:
    return Sequences.from_tensors(made["sequences"].tensors("sequences.safetensors"))


def with_recipe(world: ReleaseWorld, data: dict[str, Any], lists: Recipe, seed: int = 1) -> dict[str, Any]:
    recipe = world.publish("fusion", lambda out: out.json("fusion.json", dataclasses.replace(MODEL_ALONE, lists=lists).document()))
    return world.candidate(seed=seed, data=data, fusion=recipe)


def test_the_champions_recipe_is_used(world, tmp_path):
    """In a shop whose users walk round the catalogue, the recipe that counts lists the next item first; the model alone, untrained, does not."""
    data = world.data(walks=True)
    seq = sequences_of(data)
    following = [item_name((seq.events_E[end - 1] + 1) % 40) for end in seq.offsets_U1[1:]]
    hits = {}
    for name, recipe in (("counting", COUNTED), ("model", MODEL_ALONE.lists)):
        rows, _ = computed(request(world, with_recipe(world, data, recipe), remove_seen=True), tmp_path / name)
        hits[name] = np.mean([names[0] == wanted for names, wanted in zip(by_user(rows).values(), following, strict=True)])
    assert hits["counting"] > 0.9
    assert hits["model"] < 0.3


def test_counts_are_those_of_the_snapshot_to_its_end_not_of_the_champions_training(world, tmp_path):
    """The champion was trained when users walked forward; in the snapshot that is served they walk elsewhere, and the lists know it."""
    made = with_recipe(world, world.data(walks=True), COUNTED)
    later = world.data(seed=11, items=range(39, -1, -1), walks=True)
    seq, names = sequences_of(later), later["sequences"].table("items.parquet")["item_id"].to_pylist()
    rows, _ = computed(request(world, {**made, **later}, remove_seen=True), tmp_path)
    pairs = {(seq.events_E[i], seq.events_E[i + 1]) for u in range(seq.users) for i in range(seq.offsets_U1[u], seq.offsets_U1[u + 1] - 1)}
    first = {user: lists[0] for user, lists in by_user(rows).items()}
    last = {user: seq.events_E[seq.offsets_U1[user + 1] - 1] for user in first}
    assert np.mean([(last[user], names.index(first[user])) in pairs for user in first]) > 0.9


def test_the_last_events_are_counted_too(world, tmp_path):
    """The pair of a user's last two events, which training never sees, is among what the lists count."""
    data = world.data(seed=3, items=range(200))
    made = with_recipe(world, data, COUNTED)
    opened = Recommender(request(world, made))
    judged = read_table(data["neighbours"], "transitions")
    seq = sequences_of(data)
    ends = seq.offsets_U1[1:]
    before, last = seq.events_E[ends - 2], seq.events_E[ends - 1]
    known, held_out = ([b in table.row(a)[0] for a, b in zip(before, last, strict=True)] for table in (opened.ranker.counting.transitions, judged))
    assert all(known)
    assert not all(held_out)


def test_a_new_item_without_id_or_events_gets_into_lists_by_its_text(world, tmp_path):
    """Item 40 has just arrived: nobody bought it, the champion does not know it. It reads like item 0, so who ended on item 0 is shown it."""
    like_0 = ItemTable(np.r_[0, np.ones(40, dtype=np.int64), 1], np.array([40], dtype=np.int32), np.array([0.9], dtype=np.float32))
    later = world.data(seed=4, items=range(41), sold=40, text=like_0)
    made = with_recipe(world, world.data(), Recipe({"generative": 0.5, "text": 0.5}))
    rows, found = computed(request(world, {**made, **later}), tmp_path)
    assert found["counts"]["items_without_id"] == 1
    seq = sequences_of(later)
    assert 40 not in seq.events_E
    listed = set(rows.filter(pc.and_(pc.equal(rows["item_id"], "item-040"), pc.is_valid(rows["score"])))["user_id"].to_pylist())
    ended_on_0 = {user for user in range(seq.users) if seq.events_E[seq.offsets_U1[user + 1] - 1] == 0}
    had_0 = {user for user in range(seq.users) if 0 in seq.events_E[seq.offsets_U1[user] : seq.offsets_U1[user + 1]]}
    assert ended_on_0
    assert ended_on_0 <= listed <= had_0


# Cold start


def child_of(world: ReleaseWorld, made: dict[str, Any], new: list[str]) -> Any:
    """The champion's table with new items behind it, as the stage cold_start writes it."""
    bundle = load_bundle(world.store, made["bundle"].hash)
    ids = pa.array([*bundle.item_ids.to_pylist(), *new])
    codes = torch.cat([bundle.table.codes_NM, torch.tensor([[i % 8, 7] for i in range(len(new))], dtype=torch.int32)])
    table = IdTable(codes, torch.cat([bundle.table.suffix_N, torch.full((len(new),), 15, dtype=torch.int32)]))
    hash_ = assignment_hash(ids, table)

    def write_child(out: Any) -> None:
        out.table("id_table.parquet", with_assignment(to_arrow(ids, table), hash_), sort_by=("item_id",))
        parent = {"parent": bundle.hash, "parent_assignment": bundle.assignment_hash}
        out.json("cold_start.json", {**parent, "assignment_hash": hash_, "new_items": len(new)})

    return world.publish("cold_start", write_child)


def test_new_items_take_part_by_their_cold_start_ids_and_removed_ones_do_not(world, made, tmp_path):
    later = world.data(seed=4, items=range(10, 44))
    fresh = {item_name(i) for i in range(40, 44)}
    child = child_of(world, made, sorted(fresh))
    asked = request(world, {**made, **later}, k=34, beams=200)
    without, counted = computed(asked, tmp_path / "without")
    assert counted["counts"]["items_without_id"] == 4
    assert not fresh & ranked_items(without), "the recipe is the model alone, and it has no ID for them"
    rows, found = computed(dataclasses.replace(asked, cold_start=child.hash), tmp_path / "with")
    assert found["child"]
    assert found["counts"]["items_without_id"] == 0
    assert fresh <= ranked_items(rows)
    assert set(rows["item_id"].to_pylist()) == {item_name(i) for i in range(10, 44)}


def ranked_items(rows: pa.Table) -> set[str]:
    """Items that somebody's mixture ranks; the rest only fill empty places."""
    return set(rows.filter(pc.is_valid(rows["score"]))["item_id"].to_pylist())


def test_cold_start_of_another_champion_is_not_used(world, made, tmp_path):
    other = world.candidate(seed=2)
    child = child_of(world, made, ["item-900"])
    _, found = computed(dataclasses.replace(request(world, other), cold_start=child.hash), tmp_path)
    assert not found["child"]


# Interruption


def test_finished_shards_are_kept_and_damaged_ones_made_again(world, made, tmp_path, monkeypatch):
    whole, _ = computed(request(world, made), tmp_path / "whole")
    folder, calls = tmp_path / "cut", []
    original = Recommender.__call__

    def dies(self: Recommender, shard: int) -> pa.Table:
        calls.append(shard)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, shard)

    monkeypatch.setattr(Recommender, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        computed(request(world, made), folder)
    first = (folder / "part-00000.parquet").stat().st_mtime_ns
    rows, found = computed(request(world, made), folder)
    assert calls == [0, 1, 1, 2]
    assert found["reused_shards"] == 1
    assert (folder / "part-00000.parquet").stat().st_mtime_ns == first
    assert rows.equals(whole)
    for fault in ("flipped", "gone", "unfinished", "misshapen"):
        path = folder / "part-00001.parquet"
        if fault == "flipped":
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        elif fault == "gone":
            path.unlink()
        elif fault == "misshapen":
            (folder / "part-00001.json").chmod(0o644)
            (folder / "part-00001.json").write_text("[]")
        else:
            (folder / "part-00001.json").unlink()
        calls.clear()
        rows, found = computed(request(world, made), folder)
        calls_made = list(calls)
        assert (calls_made, found["reused_shards"]) == ([1], 2), fault
        assert rows.equals(whole)


def test_a_directory_of_another_request_is_refused(world, made, tmp_path):
    computed(request(world, made), tmp_path)
    with pytest.raises(DigerError, match="another request"):
        computed(request(world, made, k=5), tmp_path)
    (tmp_path / REQUEST).unlink()
    (tmp_path / REQUEST).touch()
    with pytest.raises(DigerError, match=r"request\.json: damaged, it names no request: remove it"):
        computed(request(world, made), tmp_path)


# The stage


def test_users_in_another_order_are_another_request_and_items_are_not(world, made):
    base = request(world, made, users=pa.array([1, 2, 3]), items=pa.array(["a", "b"]))
    assert dataclasses.replace(base, users=pa.array([3, 2, 1])).key != base.key
    assert dataclasses.replace(base, items=pa.array(["b", "a"])).key == base.key


def test_the_stage_serves_the_present_champion_and_resumes_from_the_store(tmp_path, monkeypatch):
    world = ReleaseWorld(tmp_path / "store")
    made = world.candidate(seed=1)
    nothing = world.publish("cold_start", lambda out: out.json("cold_start.json", {"parent": None, "new_items": 0}))
    with pytest.raises(DigerError, match="has no champion yet: release a bundle first"):
        launched(world, {**made, "cold_start": nothing}).materialise(BY_NAME["recommendations"])
    entry = released(world, made)
    session = launched(world, {**made, "cold_start": nothing})
    write = recommendation_shards.Shards.write

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recommendation_shards.Shards, "write", lambda self, shard, rows: write(self, shard, rows) and dies())
        with pytest.raises(KeyboardInterrupt):
            session.materialise(BY_NAME["recommendations"])
    key, _ = session.resolve(BY_NAME["recommendations"])
    assert "part-00000.json" in world.store.root.list("checkpoints", key)
    result = session.materialise(BY_NAME["recommendations"])
    assert result.artefact.facts["champion"] == entry.bundle
    assert world.store.records("recommendations", key)[0]["notes"]["reused_shards"] == 1
    assert world.store.root.list("checkpoints", key) == []
    rows = result.artefact.table("part-00000.parquet")
    assert rows.num_rows == USERS * 10
    assert session.materialise(BY_NAME["recommendations"]).reused


# The command


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [(["7", "8", "7"], pa.int64(), [7, 8]), (["007"], pa.large_string(), ["007"])],
)
def test_ids_come_from_the_command_line_and_files_in_the_catalogues_type(tmp_path, values, kind, wanted):
    (tmp_path / "ids.txt").write_text("\n".join(values) + "\n\n")
    pq.write_table(pa.table({"user_id": pa.array(wanted)}), tmp_path / "ids.parquet")
    for given in (tuple(values), (str(tmp_path / "ids.txt"),), (str(tmp_path / "ids.parquet"),)):
        assert read_ids(given, "user_id", kind, "--users").to_pylist() == wanted


def test_ids_of_another_type_are_named(tmp_path):
    with pytest.raises(DigerError, match=r"--users abc: an id is not of the catalogue's type int64"):
        read_ids(("abc",), "user_id", pa.int64(), "--users")
    pq.write_table(pa.table({"item_id": [1, 2]}), tmp_path / "items.parquet")
    with pytest.raises(DigerError, match="the ids are numbers, the catalogue's are texts"):
        read_ids((str(tmp_path / "items.parquet"),), "item_id", pa.large_string(), "--items")
    for text in ("0x10", "+7", " 5", "i\n"):
        with pytest.raises(DigerError, match=r"--users .*: an id is not of the catalogue's type int64") as told:
            read_ids((text,), "user_id", pa.int64(), "--users")
        assert "\n" not in str(told.value)
    for odd in ([17850.0, 2.0], [True, False], [b"a", b"b"]):
        pq.write_table(pa.table({"user_id": odd}), tmp_path / "odd.parquet")
        for kind in (pa.int64(), pa.large_string()):
            with pytest.raises(DigerError, match=r"odd\.parquet: ids of type .*: write them as integers or as text"):
                read_ids((str(tmp_path / "odd.parquet"),), "user_id", kind, "--users")
    with pytest.raises(DigerError, match="has no column user_id"):
        read_ids((str(tmp_path / "items.parquet"),), "user_id", pa.int64(), "--users")
    with pytest.raises(DigerError, match="nowhere.txt: no such file"):
        read_ids(("nowhere.txt",), "item_id", pa.int64(), "--items", only_files=True)


def test_a_user_file_is_read_whatever_wrote_it_and_a_misspelt_one_is_no_user(tmp_path):
    (tmp_path / "users.txt").write_bytes(b"\xef\xbb\xbfanna\r\n\r\n ben \r\n")
    assert read_ids((str(tmp_path / "users.txt"),), "user_id", pa.string(), "--users").to_pylist() == ["anna", "ben"]
    (tmp_path / "odd.txt").write_bytes("a\u2028b\r\nc\x0cd\x1ce\u00a0\n".encode())
    assert read_ids((str(tmp_path / "odd.txt"),), "user_id", pa.string(), "--users").to_pylist() == ["a\u2028b", "c\x0cd\x1ce\u00a0"]
    for name in ("user.txt", f"{tmp_path}/users", "Users.PARQUET"):
        with pytest.raises(DigerError, match="no such file"):
            read_ids((name,), "user_id", pa.string(), "--users")
    assert read_ids(("u" * 300, "a\0b"), "user_id", pa.string(), "--users").to_pylist() == ["u" * 300, "a\0b"]
    (tmp_path / "latin.txt").write_bytes(b"anna\nJ\xfcrgen\n")
    with pytest.raises(DigerError, match=r"latin\.txt, line 2: not UTF-8"):
        read_ids((str(tmp_path / "latin.txt"),), "user_id", pa.string(), "--users")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(DigerError, match="not a regular file"):
            read_ids((str(path),), "user_id", pa.string(), "--users")
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["user_id", "user_id"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DigerError, match="exists twice"):
        read_ids((str(tmp_path / "twice.parquet"),), "user_id", pa.string(), "--users")


def test_the_command_without_a_champion_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "snap", interactions(), items())
    with pytest.raises(SystemExit) as stop:
        main(["recommend", "--snapshot", "snap", "--out", "lists", "--store", "store"])
    assert stop.value.code == 1
    assert "release a bundle first" in capsys.readouterr().err
    assert not (tmp_path / "lists").exists()


def test_lists_of_single_users_are_printed_with_titles_and_unknown_users_are_counted(world, made, capsys):
    with world.store.writer("validated_items") as out:
        out.table("items.parquet", pa.table({"item_id": [item_name(i) for i in range(40)], "title": [f"thing {i}" for i in range(40)]}), ["item_id"])
        catalogue = world.store.publish(out)
    session = SimpleNamespace(find=lambda _: catalogue, snapshot=SimpleNamespace(key="monday-1"))
    told = Recorder()
    document = lists_of(session, request(world, made, users=pa.array([3, 5000]), k=4), told)
    known, unknown = document["lists"]
    assert [row["rank"] for row in known["items"]] == [1, 2, 3, 4]
    assert all(row["title"] == f"thing {int(row['item_id'][5:])}" for row in known["items"])
    assert (known["known"], unknown["known"], unknown["events"]) == (True, False, 0)
    show(document, Source("monday", None, (), world.store.url))
    out, err = capsys.readouterr()
    assert f"User 3: after {known['events']} events" in out
    assert "User 5000: unknown, so popular items" in out
    assert known["items"][0]["title"] in out
    assert "2 users, 1 of them unknown, 1 without history; 40 items to choose from" in out
    assert f"Next: diger similar {known['items'][0]['item_id']} --snapshot monday " in err
    with pytest.raises(DigerError, match="101 users are too many to print"):
        lists_of(session, request(world, made, users=pa.array(range(101))), told)


def test_the_command_wants_users_or_a_place(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["recommend"])
    assert stop.value.code == 2
    assert "give --users ID to see lists, or --out" in capsys.readouterr().err


@pytest.mark.slow
def test_two_ray_workers_write_the_same_shards_as_one_process(world, made, tmp_path):
    whole, found = computed(request(world, made), tmp_path / "one")
    again = recommend(request(world, made), Shards(Root(tmp_path / "two")), ClusterConfig(workers=2), Recorder())
    assert again == found
    shutil.rmtree(tmp_path / "one")
    rows = pa.concat_tables([pq.read_table(tmp_path / "two" / entry["file"]) for entry in again["shards"]])
    assert rows.equals(whole)
    assert json.loads((tmp_path / "two" / "request.json").read_text())["key"] == request(world, made).key
