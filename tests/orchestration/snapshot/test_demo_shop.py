"""The embedded shop: reproducible, believable in size and shape, and with patterns that attributes explain better than the last item."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from diger_core.data.sequences import sequences
from diger_core.data.splits import targets, training_rows
from diger_core.evaluation import baselines
from diger_core.evaluation.metrics import ranks, recall
from orchestration.snapshot.demo_shop import FIRST_EXPORT, OPENING, SECOND_EXPORT, write_demo_snapshots
from orchestration.snapshot.demo_shop.words import RESTOCKED


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_demo_snapshots(tmp_path_factory.mktemp("shop"))


def table(snapshot: Path, name: str) -> pa.Table:
    return pq.read_table(snapshot / f"{name}.parquet")


def test_two_calls_write_equal_bytes(shop: list[Path], tmp_path: Path) -> None:
    for first, second in zip(shop, write_demo_snapshots(tmp_path), strict=True):
        names = sorted(path.name for path in first.iterdir())
        assert names == ["_SUCCESS", "interactions.parquet", "items.parquet"]
        assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_a_snapshot_that_exists_is_replaced_as_a_whole(tmp_path: Path) -> None:
    stale = tmp_path / "demo-1" / "vectors.parquet"
    stale.parent.mkdir()
    stale.write_bytes(b"of another shop")
    write_demo_snapshots(tmp_path)
    assert not stale.exists()


def test_sizes_and_the_long_tail_of_sequence_lengths(shop: list[Path]) -> None:
    events, items = table(shop[0], "interactions"), table(shop[0], "items")
    lengths = events.group_by("user_id").aggregate([("item_id", "count")]).column("item_id_count").to_numpy()
    assert items.num_rows >= 3000
    assert len(lengths) >= 6000
    assert 8 <= lengths.mean() <= 10
    assert 20 <= np.count_nonzero(lengths < 3) <= 600
    assert 5 <= np.count_nonzero(lengths > 50) <= 60
    assert 35_000 <= len(training_rows(sequences(events, items)[0])[0]) <= 45_000


def test_ids_are_strings_with_leading_zeros_and_every_event_is_of_a_listed_item(shop: list[Path]) -> None:
    for snapshot in shop:
        events, items = table(snapshot, "interactions"), table(snapshot, "items")
        assert events.schema.field("item_id").type == events.schema.field("user_id").type == pa.string()
        assert events.schema.field("timestamp").type == pa.int64()
        assert pc.all(pc.match_substring_regex(items["item_id"], r"^0\d{6}$")).as_py()
        assert len(set(items["item_id"].to_pylist())) == items.num_rows
        assert pc.all(pc.is_in(events["item_id"], value_set=items["item_id"].combine_chunks())).as_py()
        assert all(items[name].null_count == 0 and pc.min(pc.utf8_length(items[name])).as_py() > 3 for name in ("title", "brand", "categories"))
        assert pc.all(pc.match_substring_regex(items["categories"], r"^[^>]+ > [^>]+ > [^>]+$")).as_py()


def test_times_lie_before_the_export_and_baskets_share_a_second(shop: list[Path]) -> None:
    for snapshot, end in zip(shop, (FIRST_EXPORT, SECOND_EXPORT), strict=True):
        events = table(snapshot, "interactions")
        assert pc.max(events["timestamp"]).as_py() < end
        sizes = events.group_by(["user_id", "timestamp"]).aggregate([("item_id", "count"), ("item_id", "count_distinct")])
        size = sizes["item_id_count"].to_numpy()
        assert size.max() == 4
        assert 0.4 <= (size > 1).mean() <= 0.6
        assert sizes["item_id_count_distinct"].equals(sizes["item_id_count"]), "a basket holds an item twice"


def test_customers_buy_again_what_is_restocked(shop: list[Path]) -> None:
    events, items = table(shop[0], "interactions"), table(shop[0], "items")
    bought = events.group_by(["user_id", "item_id"]).aggregate([("timestamp", "count")]).join(items, "item_id")
    again = bought["timestamp_count"].to_numpy() - 1
    restocked = np.array([path.split(" > ")[2] in RESTOCKED for path in bought["categories"].to_pylist()])
    assert 0.12 <= again.sum() / events.num_rows <= 0.25
    assert again[restocked].sum() > 20 * again[~restocked].sum()


def test_seasons_move_what_is_bought(shop: list[Path]) -> None:
    events = table(shop[0], "interactions").join(table(shop[0], "items"), "item_id")
    month = (events["timestamp"].to_numpy() - OPENING) // (365 * 86_400 // 12)
    garden = np.array([path.startswith("Garden > ") for path in events["categories"].to_pylist()])
    share = np.array([garden[month == m].mean() for m in range(12)])
    assert share[2:5].mean() > 1.35 * share[8:12].mean()


def test_second_snapshot_adds_removes_and_renames_items(shop: list[Path]) -> None:
    old, new = (dict(zip(*(table(s, "items")[c].to_pylist() for c in ("item_id", "title")), strict=True)) for s in shop)
    shared = old.keys() & new.keys()
    assert 0.04 <= len(old.keys() - new.keys()) / len(old) <= 0.06
    assert 0.07 <= len(new.keys() - old.keys()) / len(old) <= 0.09
    assert 0.015 <= sum(old[item] != new[item] for item in shared) / len(old) <= 0.025


def test_second_snapshot_keeps_the_history_of_listed_items_and_appends_later_events(shop: list[Path]) -> None:
    old, new = (table(s, "interactions") for s in shop)
    listed = table(shop[1], "items")["item_id"].combine_chunks()
    before = new.filter(pc.less(new["timestamp"], FIRST_EXPORT))
    assert before.equals(old.filter(pc.is_in(old["item_id"], value_set=listed)))
    after = new.filter(pc.greater_equal(new["timestamp"], FIRST_EXPORT))
    assert after.num_rows > 3000
    newcomers = set(after["user_id"].to_pylist()) - set(old["user_id"].to_pylist())
    added = set(listed.to_pylist()) - set(table(shop[0], "items")["item_id"].to_pylist())
    assert len(newcomers) >= 300
    assert len(added & set(after["item_id"].to_pylist())) > len(added) / 3


def test_popularity_is_skewed(shop: list[Path]) -> None:
    counts = table(shop[0], "interactions").group_by("item_id").aggregate([("user_id", "count")])["user_id_count"].to_numpy()
    top = np.sort(counts)[::-1]
    assert 0.35 <= top[: len(top) // 5].sum() / top.sum() <= 0.7


def test_attributes_of_the_last_items_beat_the_markov_baseline(shop: list[Path]) -> None:
    """Successors of the last three categories, weighted by the brands of the history: what a model has to find in the texts."""
    events, items = table(shop[0], "interactions"), table(shop[0], "items").sort_by("item_id")
    seq, numbered, _ = sequences(events, items)
    assert numbered["item_id"].to_pylist() == items["item_id"].to_pylist()
    users, ends, target = targets(seq, "test")
    popular, markov = (recall(ranks(f(seq, users, ends, 10), target), 10).mean() for f in (baselines.most_popular, baselines.markov))
    leaf, brand = (items[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in ("categories", "brand"))
    rows = training_rows(seq)[1]
    follows = np.zeros((3, leaf.max() + 1, leaf.max() + 1))
    first = seq.offsets_U1[training_rows(seq)[0]]
    for back in range(3):
        known = rows - 1 - back >= first
        np.add.at(follows[back], (leaf[seq.events_E[rows[known] - 1 - back]], leaf[seq.events_E[rows[known]]]), 1)
    follows /= follows.sum(axis=2, keepdims=True) + 1
    counts = np.bincount(seq.events_E[rows], minlength=seq.items) + 0.5
    share = counts / np.bincount(leaf, counts)[leaf]
    hits = 0
    for user, end, wanted in zip(users[::4], ends[::4], target[::4], strict=True):
        history = seq.events_E[seq.offsets_U1[user] : end]
        likely = sum(follows[back, leaf[item]] for back, item in enumerate(history[::-1][:3]))
        loyalty = np.bincount(brand[history], minlength=brand.max() + 1) / len(history)
        score = likely[leaf] * share * (0.05 + loyalty[brand])
        hits += wanted in np.argsort(-score)[:10]
    attributes = hits / len(users[::4])
    assert markov > 2 * popular, "the last item says nothing"
    assert attributes > 1.3 * markov, "nothing is left for a model to learn beyond the last item"
