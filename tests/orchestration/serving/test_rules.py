"""Business rules: what may be listed, how many of a kind, whose scores are raised; the same in batch and online, and told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diger_core.errors import DigerError
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from orchestration.params.rules import AtMost, Boost, Condition, RulesConfig
from orchestration.serving.lists import Recommender, Request
from orchestration.serving.online.query import Query
from orchestration.serving.rules import Rules
from orchestration.serving.shards import tell
from tests.support.release_world import CODES, EASY, item_name, launched
from tests.support.serving_world import ServingWorld, histories, same
from tests.support.training_world import Recorder

BRAND = {item_name(i): f"brand-{i % 4}" for i in range(40)}
NAMES = list(BRAND)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return ServingWorld(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def made(world):
    return world.candidate(seed=1)


@pytest.fixture(scope="module")
def whole(world, made):
    """User -> all 40 items by falling score."""
    return world.batch(made, k=40)


@pytest.fixture(scope="module")
def prefix(world, made):
    ids = made["semantic_ids"].table("semantic_ids.parquet").to_pydict()
    return dict(zip(ids["item_id"], ids["code_1"], strict=True))


def ruled(world, made, *, k=10, beams=40, allow=None, deny=None, remove_seen=False, **config):
    """Lists under rules whose files' ids are given."""
    files = {key: key for key, ids in (("allow", allow), ("deny", deny)) if ids}
    rules = Rules(RulesConfig(**files, **config), *(None if ids is None else pa.array(ids) for ids in (allow, deny)))
    return world.batch(made, rules=rules, k=k, beams=beams, remove_seen=remove_seen)


def names(listed):
    return [row["item_id"] for row in listed]


def greedy(listed, kind, most, k):
    """The oracle: from the best on, each item that its kind still has room for."""
    taken, chosen = {}, []
    for item in listed:
        if len(chosen) < k and taken.get(kind[item], 0) < most:
            taken[kind[item]] = taken.get(kind[item], 0) + 1
            chosen.append(item)
    return chosen


def test_allow_deny_and_conditions_leave_the_best_of_what_remains(world, made, whole):
    found = ruled(world, made, allow=NAMES[:30], deny=NAMES[5:10], where=("brand != brand-3", "title != thing 2"))
    wanted = {name for i, name in enumerate(NAMES[:30]) if not 5 <= i < 10 and i % 4 != 3 and i % 7 != 2}
    for user, listed in found.items():
        assert names(listed) == [name for name in names(whole[user]) if name in wanted][:10]
    one = ruled(world, made, where=("brand = brand-1",))
    assert {BRAND[name] for listed in one.values() for name in names(listed)} == {"brand-1"}
    assert {len(listed) for listed in one.values()} == {10}, "all ten items of the brand"


@pytest.mark.parametrize("most", [1, 2, 3])
def test_at_most_n_of_a_column_or_prefix_is_the_best_such_list(world, made, whole, prefix, most):
    for rule, kind in ((f"{most} per brand", BRAND), (f"{most} per prefix 1", prefix)):
        for user, listed in ruled(world, made, at_most=(rule,)).items():
            assert names(listed) == greedy(names(whole[user]), kind, most, 10), rule
            assert [row["rank"] for row in listed] == list(range(1, len(listed) + 1))


def test_two_limits_hold_together(world, made, whole, prefix):
    for user, listed in ruled(world, made, at_most=("3 per brand", "2 per prefix 1")).items():
        assert max(np.unique([BRAND[name] for name in names(listed)], return_counts=True)[1]) <= 3
        assert max(np.unique([prefix[name] for name in names(listed)], return_counts=True)[1]) <= 2
        assert names(listed)[0] == names(whole[user])[0]


def test_short_lists_get_more_beams_until_k_are_found_or_none_are_left(world, made, prefix):
    """Five beams see few prefixes; every prefix that exists is found, and ranked by the model, not filled by popularity."""
    for user, listed in ruled(world, made, beams=10, at_most=("1 per prefix 1",)).items():
        assert sorted(prefix[name] for name in names(listed)) == sorted(set(prefix.values())), user
        scores = [row["score"] for row in listed]
        assert None not in scores
        assert scores == sorted(scores, reverse=True)
    assert len(set(prefix.values())) <= CODES < 10


def test_seen_items_stay_out_under_limits_too(world, made):
    seen = histories(world.open(world.promote(made)).ranker)
    for user, listed in ruled(world, made, remove_seen=True, at_most=("2 per brand",)).items():
        assert not set(names(listed)) & set(seen[user])
        assert len(listed) == sum(min(2, len({n for n in NAMES if BRAND[n] == brand} - set(seen[user]))) for brand in set(BRAND.values()))


def test_users_without_history_get_popular_items_under_the_rules(world, made):
    rules = RulesConfig(at_most=("1 per brand",), where=("brand != brand-0",))
    (answer,) = world.open(world.promote(made), rules).answers([Query(user=999)])
    assert sorted(BRAND[item["item_id"]] for item in answer.items) == ["brand-1", "brand-2", "brand-3"]
    assert {item["score"] for item in answer.items} == {None}


def test_a_boost_multiplies_scores(world, made, whole):
    found = ruled(world, made, boost=("3 where brand = brand-2", "0.5 where title = thing 0"))
    for user, listed in found.items():
        factor = {name: (3 if i % 4 == 2 else 1) * (0.5 if i % 7 == 0 else 1) for i, name in enumerate(NAMES)}
        raised = sorted(((row["item_id"], row["score"] * factor[row["item_id"]]) for row in whole[user]), key=lambda pair: -pair[1])
        assert [row["score"] for row in listed] == pytest.approx([score for _, score in raised[:10]], rel=1e-4)


def test_online_lists_obey_the_rules_as_the_batch_lists_do(world, made):
    rules = {"where": ("brand != brand-3",), "at_most": ("2 per prefix 1", "4 per brand"), "boost": ("2 where brand = brand-1",)}
    wanted = ruled(world, made, **rules)
    live = world.open(world.promote(made), RulesConfig(**rules))
    assert all(same(answer.items, wanted[user]) for user, answer in zip(wanted, live.answers([Query(user=user) for user in wanted]), strict=True))
    assert live.rules == (
        {"rule": "where brand != brand-3", "items": 10},
        {"rule": "at most 2 per prefix 1", "items": 40},
        {"rule": "at most 4 per brand", "items": 40},
        {"rule": "boost 2 where brand = brand-1", "items": 10},
    )


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"where": ("colour = red",)}, "the catalogue has no column 'colour'; it has title, brand"),
        ({"where": ("brand = nobody",)}, "rules leave none of the 40 items: where brand = nobody"),
        ({"at_most": ("2 per prefix 9",)}, "semantic IDs have 2 codes: give a prefix of 1 to 2"),
        ({"at_most": ("2 per colour",)}, "has no column 'colour'"),
    ],
)
def test_a_rule_that_names_what_is_not_there_is_refused(world, made, config, told):
    with pytest.raises(DigerError, match=told):
        ruled(world, made, **config)


def test_shapes_that_the_fused_kernels_do_not_take_are_told(world, made):
    request = Request(
        world.store.url, *(made[name].hash for name in ("bundle", "sequences", "neighbours", "validated_items")), None, 10, 40, 25, 512, False
    )
    opened, wanted = Recommender(request), "the torch module ranks, not the fused kernels: recommender.d_head 8 is not a power of two of at least 16"
    for precision, times in (("bf16", 1), ("fp32", 0)):
        told = Recorder()
        model = opened.ranker.model
        opened.ranker.model = dataclasses.replace(model, config={**model.config, "training": {**model.config["training"], "precision": precision}})
        tell(opened, told)
        assert sum(wanted in line for line in told.messages) == times


def test_ids_of_a_file_that_name_no_item_are_told_with_the_first_ones_line(world, made, tmp_path):
    deny, allow = tmp_path / "deny.txt", tmp_path / "allow.parquet"
    deny.write_text("item-001\n\n15591\nitem-2\n")
    pq.write_table(pa.table({"item_id": ["item-003", "item-004", "gone"]}), allow)
    told = Recorder()
    request = Request(
        world.store.url, *(made[name].hash for name in ("bundle", "sequences", "neighbours", "validated_items")), None, 10, 40, 25, 512, False,
        rules=Rules.read(RulesConfig(deny=str(deny), allow=str(allow)), pa.large_string()),
    )  # fmt: skip
    tell(Recommender(request), told)
    found = [line for line in told.messages if line.startswith("warning: ")]
    assert len(found) == 2, found
    assert f"rules.deny {deny}: 2 of 3 ids name no item of the catalogue, the first: '15591', line 3; " in found[1]
    assert f"rules.allow {allow}: 1 of 3 ids name no item of the catalogue, the first: 'gone', row 3; " in found[0]
    deny.unlink()
    numbers = Rules(RulesConfig(deny=str(deny)), deny=pa.array([7, 8]))
    assert numbers.on(pa.chunked_array([[1, 7]]), made["validated_items"], np.zeros((2, 1), dtype=np.int32)).warnings == (
        f"rules.deny {deny}: 1 of 2 ids name no item of the catalogue, the first: 8; where the item is not just gone, write it as the catalogue does",
    )
    deny.write_text("7\n\n008\n")
    applied = numbers.on(pa.chunked_array([[1, 7]]), made["validated_items"], np.zeros((2, 1), dtype=np.int32))
    assert "the first: '008', line 3; " in applied.warnings[0], "as the file writes it"
    deny.write_text("\n")
    with pytest.raises(DigerError, match=rf"rules\.deny {deny}: holds no ids: write one a line, or leave rules\.deny out"):
        Rules.read(RulesConfig(deny=str(deny)), pa.string())


def test_columns_of_numbers_and_lists_are_compared_in_their_type(world):
    items = pa.table({"item_id": [1, 2, 3], "price": [5, None, 7], "tags": [["a", "b"], None, ["b"]]})
    artefact = world.publish("validated_items", lambda out: out.table("items.parquet", items, sort_by=("item_id",)))

    def allowed(text):
        found = Rules(RulesConfig(where=(text,))).on(pa.chunked_array([[3, 1, 2]]), artefact, np.zeros((3, 1), dtype=np.int32))
        return found.allowed_N.tolist()

    assert allowed("price = 5") == [False, True, False]
    assert allowed("price != 5") == [True, False, True], "an item without a value has none of the values"
    assert allowed("tags = b") == [True, True, False]
    with pytest.raises(DigerError, match="column price is of type int64, 'cheap' is not"):
        allowed("price = cheap")


def test_sentences_are_read_strictly():
    assert Condition.parse("product type = a = b") == Condition("product type", "a = b", False)
    assert AtMost.parse("2 per prefix") == AtMost(2, None, "prefix"), "a column may be called so"
    assert Boost.parse("1.5 where brand != x").condition == Condition("brand", "x", True)
    for key, text in (("where", "brand"), ("where", "= x"), ("at_most", "0 per brand"), ("at_most", "two per brand"), ("boost", "0 where a = b"),
                      ("boost", "2 brand = x"), ("allow", " ")):  # fmt: skip
        with pytest.raises((ValueError, DigerError), match=key):
            RulesConfig(**{key: text if key == "allow" else (text,)})
    with pytest.raises(DigerError, match="rules.seen"):
        build_params({"rules": {"seen": "keep"}})


def test_what_a_file_holds_is_part_of_the_record(world, made, tmp_path):
    """The same file name with other ids is another computation; its ids are an input artefact."""
    nothing = world.publish("cold_start", lambda out: out.json("cold_start.json", {"parent": None, "new_items": 0}))
    world.promote(made)
    deny = tmp_path / "deny.txt"
    params = build_params({**EASY, "rules": {"deny": str(deny)}, "recommendations": {"beams": 40}})
    results = []
    for denied in ("item-001", "item-002"):
        deny.write_text(denied + "\n")
        result = launched(world, {**made, "cold_start": nothing}, params).materialise(BY_NAME["recommendations"])
        assert denied not in result.artefact.table("part-00000.parquet")["item_id"].to_pylist()
        assert result.artefact.json("recommendations.json")["rules"] == [{"rule": "deny deny.txt", "items": 1}]
        (record,) = world.store.records("recommendations", result.key)
        assert world.store.artefact("rules", record["inputs"]["rules"]).table("deny.parquet")["item_id"].to_pylist() == [denied]
        results.append(result)
    assert results[0].key != results[1].key
    deny.unlink()
    with pytest.raises(DigerError, match="rules.deny .*deny.txt: no such file"):
        launched(world, {**made, "cold_start": nothing}, params).materialise(BY_NAME["recommendations"])


def test_the_rules_are_part_of_a_requests_key():
    base = Rules()
    assert base.key != Rules(RulesConfig(at_most=("1 per brand",))).key
    assert dataclasses.replace(base, deny=pa.array([1])).key != dataclasses.replace(base, deny=pa.array([2])).key
