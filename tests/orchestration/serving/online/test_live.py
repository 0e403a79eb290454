"""The online room answers as the batch lists do, whoever is beside a query."""

from __future__ import annotations

import dataclasses

import pytest

from diger_core.errors import DigerError
from diger_core.evaluation.recipes import Recipe
from orchestration.serving.online.live import Sources
from orchestration.serving.online.query import Answer, Query
from tests.support.release_world import MODEL_ALONE, item_name
from tests.support.serving_world import ServingWorld, histories, same

MIXED = Recipe({"generative": 0.5, "transitions": 0.3, "repeat": 0.1, "popular": 0.1}, {"transitions": 1.5, "repeat": 5.0})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return ServingWorld(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def made(world):
    recipe = world.publish("fusion", lambda out: out.json("fusion.json", dataclasses.replace(MODEL_ALONE, lists=MIXED).document()))
    return world.candidate(seed=1, fusion=recipe)


@pytest.fixture(scope="module")
def live(world, made):
    return world.open(world.promote(made))


def lists(answers: list[Answer | DigerError]) -> list[list[dict]]:
    assert not [answer for answer in answers if isinstance(answer, DigerError)]
    return [answer.items for answer in answers]


@pytest.mark.parametrize("seen", ["keep", "remove"])
def test_users_and_their_histories_get_what_the_batch_gives_them(world, made, live, seen):
    wanted = world.batch(made, remove_seen=seen == "remove")
    users = lists(live.answers([Query(user=user, seen=seen) for user in wanted]))
    assert all(map(same, users, wanted.values()))
    given = lists(live.answers([Query(history=tuple(history), seen=seen) for history in histories(live.ranker)]))
    assert all(map(same, given, wanted.values()))


def test_an_answer_does_not_depend_on_the_queries_beside_it(live):
    queries = [Query(user=3), Query(history=(item_name(4), item_name(9)), k=3), Query(user=999), Query(user=5, seen="remove"), Query(user=8, k=60)]
    together = lists(live.answers(queries))
    alone = [lists(live.answers([query]))[0] for query in queries]
    assert all(map(same, together, alone))
    assert [len(each) for each in together] == [10, 3, 10, 10, 40], "never more than the catalogue has"


def test_unknown_users_empty_histories_and_unknown_items_are_told(live):
    stranger, nothing, partly = live.answers([Query(user=999), Query(history=()), Query(history=("nowhere", item_name(2)))])
    assert (stranger.known_user, stranger.events) == (False, 0)
    assert (nothing.known_user, nothing.events) == (None, 0)
    assert stranger.items == nothing.items
    assert {item["score"] for item in nothing.items} == {None}, "popular items fill"
    assert (partly.events, partly.unknown_items) == (1, 1)
    assert same(partly.items, live.answers([Query(history=(item_name(2),))])[0].items)


def test_an_id_of_another_type_is_an_error_of_its_query_alone(live):
    wrong, mixed, right = live.answers([Query(user="anna"), Query(history=(item_name(1), 7)), Query(user="3")])
    assert "user in the request: an id is not of the catalogue's type int64" in str(wrong)
    assert "history: ids are integers or texts, all of one kind" in str(mixed)
    assert right.known_user, "text becomes a number where ids are numbers, as on the command line"


def test_new_items_of_a_later_snapshot_are_listed_as_the_batch_lists_them(world, made):
    later = world.data(seed=4, items=range(10, 44))
    entry = world.promote(made)
    live = world.open(entry, **{name: later[name].hash for name in ("sequences", "neighbours", "validated_items")})
    wanted = world.batch({**made, **later}, k=34, beams=40)
    found = lists(live.answers([Query(user=user, k=34) for user in wanted]))
    assert all(map(same, found, wanted.values()))
    assert item_name(43) in {item["item_id"] for each in found for item in each}


def test_sources_of_another_bundle_are_refused(world, live):
    with pytest.raises(ValueError, match="which names"):
        world.open(live.entry, bundle="0" * 64)
    assert Sources.own(world.store, live.bundle) == live.sources
