"""What the champion's lists are worth on fresh events: who is judged by which event, what is served, and the loss since the release."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diger_core.data.sequences import Sequences
from orchestration.champion import log
from orchestration.change.catalogue_diff import RELEASED, extra_inputs
from orchestration.change.fresh_lists import decay, fresh_targets
from orchestration.engine.registry import Registered
from orchestration.engine.runner import Result
from orchestration.graph import BY_NAME
from orchestration.on_dagster.checks import check_results
from orchestration.on_dagster.presentation import present
from orchestration.params.load import build_params
from tests.support.release_world import COUNTED, EASY, ITEMS, MODEL_ALONE, ReleaseWorld, released

pytestmark = pytest.mark.usefixtures("no_pictures")
LATER = 100_000  # after every event of the champion
LOOSE = {"max_volume": 1e9, "max_list_decay": 0.1, "list_users": 50}


def sequences(users):
    """Of lists of times; item 0 throughout."""
    times = np.array([time for own in users for time in own], dtype=np.int64)
    return Sequences(np.zeros(len(times), np.int32), np.r_[0, np.cumsum([len(own) for own in users])].astype(np.int64), 1, times)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6).map(sorted), min_size=1, max_size=8), st.integers(-1, 9))
def test_the_target_is_the_first_event_of_a_users_newest_moment(users, newest):
    seq, wanted = sequences(users), []
    for user, times in enumerate(users):
        before = [time for time in times if time < times[-1]]
        if times[-1] > newest and before:
            wanted.append((user, int(seq.offsets_U1[user]) + len(before)))
    assert list(zip(*(found.tolist() for found in fresh_targets(seq, newest, 100)), strict=True)) == wanted


def test_of_many_users_so_many_are_drawn_and_always_the_same():
    seq = sequences([[1, 2]] * 30)
    drawn, ends = fresh_targets(seq, 1, 10)
    assert len(set(drawn.tolist())) == 10
    assert (ends == 2 * drawn + 1).all()
    assert (fresh_targets(seq, 1, 10)[0] == drawn).all()


def test_the_decay_adds_the_noise_of_both_sides():
    gain_T = np.array([0.0, 0.5, 1.0, 0.5])
    known = {"recall@10": 1.0, "ndcg@10": 0.8, "intervals": {"ndcg@10": [0.7, 0.9]}}
    lost, low, high = decay(gain_T, known)
    half = ((1.959964**2 * gain_T.var(ddof=1) / 4) + (0.5 / 0.8 * 0.1) ** 2) ** 0.5 / 0.8
    assert (lost, low, high) == (pytest.approx(0.375), pytest.approx(0.375 - half), pytest.approx(0.375 + half))
    assert decay(gain_T[:1], known) == (1.0, None, None)
    assert decay(gain_T, known | {"ndcg@10": 0.0}) == (None, None, None)


# On a store


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A champion that counts what follows what, released by the gate, in a shop whose users go through the items in their order."""
    made = ReleaseWorld(tmp_path_factory.mktemp("fresh"))
    recipe = {**MODEL_ALONE.document(), "lists": {**MODEL_ALONE.document()["lists"], "weights": COUNTED.weights, "tau": COUNTED.tau, "raw": True}}
    fusion = made.publish("fusion", lambda out: out.json("fusion.json", recipe))
    made.champion = made.candidate(seed=1, data=made.data(seed=1, walks=True), fusion=fusion)
    released(made, made.champion)
    return made


def compared(world, data, **drift):
    """The stage on a later snapshot, with the inputs that it asks for."""
    params = build_params({**EASY, "catalogue_diff": {"drift": LOOSE | drift}})
    snapshot = Registered("later-00000000", "nowhere", "0" * 64, {}, None, "2026-01-01T00:00:00+00:00")
    return world.compute("catalogue_diff", {**data, **extra_inputs(params, world.store, {}, snapshot, fit=True)}, params)


def test_the_stage_is_given_the_champion_and_the_verdict_that_released_it(world):
    snapshot = Registered("later-00000000", "nowhere", "0" * 64, {}, None, "2026-01-01T00:00:00+00:00")
    found = extra_inputs(build_params({}), world.store, {}, snapshot, fit=True)
    assert (found["baseline"].hash, found[RELEASED].hash) == (world.champion["bundle"].hash, log.current(world.store).verdict)
    assert extra_inputs(build_params({"retraining": {"baseline": "none"}}), world.store, {}, snapshot, fit=True) == {}


def test_lists_keep_their_quality_while_people_behave_as_before(world):
    figures = compared(world, world.data(seed=2, walks=True, start=LATER)).json("diff.json")["figures"]
    assert figures["list_users"] == 50
    assert figures["list_ndcg_10"] > 0.9
    assert figures["list_ndcg_10_at_release"] == world.store.artefact("gate", log.current(world.store).verdict).facts["candidate_ndcg_10"]
    assert figures["list_decay"] < 0.1
    assert 0.9 < figures["counted_ndcg_10"] < figures["list_ndcg_10"]  # the same counts, by older events as well


@pytest.fixture(scope="module")
def turned(world):
    """The comparison with a shop whose users go through the items the other way round."""
    return compared(world, world.data(seed=2, items=reversed(range(ITEMS)), walks=True, start=LATER), action="retrain")


def test_lists_that_people_no_longer_follow_ask_for_a_retraining(turned):
    diff = turned.json("diff.json")
    assert diff["figures"]["list_decay"] > 0.5
    assert diff["figures"]["list_decay_low"] > 0
    assert "the champion's lists lost" in turned.facts["drift"]
    assert turned.facts["decision"] == "retrain"
    assert diff["warnings"][0] in turned.facts["reason"]
    assert f"- drift: {diff['warnings'][0]}" in turned.path("diff.md").read_text()


def test_an_item_that_the_champion_lacks_is_a_miss(world):
    figures = compared(world, world.data(seed=2, items=range(ITEMS, 2 * ITEMS), walks=True, start=LATER)).json("diff.json")["figures"]
    assert (figures["new_item_share"], figures["list_ndcg_10"], figures["list_users"]) == (1.0, 0.0, 50)


def test_without_users_to_judge_nothing_is_ranked(world):
    figures = compared(world, world.data(seed=2, walks=True, start=LATER), list_users=0).json("diff.json")["figures"]
    assert (figures["list_users"], figures["list_ndcg_10"], figures["list_decay"]) == (0, None, None)


def test_every_figure_is_a_number_in_dagster_and_a_passed_limit_a_failed_check(turned):
    stage = BY_NAME["catalogue_diff"]
    shown = present(Result(stage, "k" * 64, turned, reused=False, seconds=0.0))
    found = {name: value for name, value in turned.json("diff.json")["figures"].items() if value is not None}
    assert {"list_decay", "list_ndcg_10", "coverage", "new_item_share"} <= found.keys()
    for name, value in found.items():
        assert shown[f"drift_{name}"] == pytest.approx(value, rel=1e-5)
    checks = {result.check_name: result for result in check_results(stage, turned)}
    assert set(checks) == {"ids_mean_the_same", "drift"}
    assert checks["ids_mean_the_same"].passed
    assert not checks["drift"].passed
    assert checks["drift"].severity.value == "WARN"
    assert "lists lost" in checks["drift"].description
