"""The gate: both models on the same users, every rule by its number, and bad days that it must not let through."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.evaluation.ranking import rank_targets
from diger_core.ids.id_table import IdTable
from diger_core.store.artefact import Artefact
from orchestration.champion import log
from orchestration.champion.bundle import load_bundle
from orchestration.params.load import build_params
from orchestration.params.verdict import GateConfig, ReportConfig
from orchestration.verdict.gate.gate import anchor as anchor_of
from orchestration.verdict.gate.gate import extra_inputs, summary
from orchestration.verdict.gate.rules import rules
from orchestration.verdict.gate.servability import servability
from orchestration.verdict.report.gate import verdict_markdown
from orchestration.verdict.report.material import Material
from orchestration.verdict.report.page import page
from tests.support.release_world import COUNTED, EASY, MODEL_ALONE, SUFFIXES, WIDTH, ReleaseWorld, easy, item_name, random_table, released
from tests.support.report_material import IDENTITY, fake_inputs

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return ReleaseWorld(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def data(world):
    return world.data()


@pytest.fixture(scope="module")
def champion(world, data):
    return world.candidate(seed=1, data=data)


def judged(world: ReleaseWorld, made: dict[str, Artefact], champion: Artefact | None = None, **gate: Any) -> dict[str, Any]:
    inputs = {**made, "champion": champion} if champion is not None else made
    return world.compute("gate", inputs, easy(**gate)).json("verdict.json")


def failed(verdict: dict[str, Any]) -> list[str]:
    return [rule["name"] for rule in verdict["rules"] if not rule["passed"]]


def sequences_of(made: dict[str, Artefact]) -> Sequences:
    return Sequences.from_tensors(made["sequences"].tensors("sequences.safetensors"))


# What is measured


def test_a_first_release_is_judged_on_soundness_alone(world, champion):
    verdict = judged(world, champion, beat_most_popular=True)
    names = [rule["name"] for rule in verdict["rules"]]
    assert names == ["servable", "no_alarm", "unique_ids", "reserved_ids", "unique_prefixes", "coverage", "most_popular"]
    assert verdict["champion"] is None
    assert failed(verdict) == ["most_popular"], "an untrained model is worse than popularity"
    assert judged(world, champion)["verdict"] == "accept"


def test_a_model_that_counting_beats_is_refused_with_the_interval(world):
    """A shop whose users walk round the catalogue in order: counting knows what comes next, an untrained model does not."""
    made = world.candidate(seed=1, data=world.data(walks=True))
    verdict = judged(world, made, beat_baseline=True)
    assert failed(verdict) == ["best_baseline"]
    metrics = verdict["metrics"]
    assert metrics["baseline"]["name"] in ("item_item", "markov")
    assert metrics["baseline"]["low"] <= metrics["baseline"]["mean"] <= metrics["baseline"]["high"] < 0
    assert metrics["baseline"]["mean"] == pytest.approx(metrics["models"]["candidate"]["ndcg@10"] - metrics["models"]["baseline"]["ndcg@10"])


def test_lists_that_listen_to_the_counts_are_as_good_as_the_counts(world):
    """The gate judges what would serve: the same untrained model passes where its bundle's recipe is the counting rule."""
    data = world.data(walks=True)
    recipe = world.publish("fusion", lambda out: out.json("fusion.json", dataclasses.replace(MODEL_ALONE, lists=COUNTED).document()))
    verdict = judged(world, world.candidate(seed=1, data=data, fusion=recipe), beat_baseline=True)
    assert failed(verdict) == []
    assert verdict["metrics"]["baseline"]["high"] >= 0


def test_each_bundle_is_judged_by_its_own_recipe(world):
    data = world.data(walks=True)
    recipe = world.publish("fusion", lambda out: out.json("fusion.json", dataclasses.replace(MODEL_ALONE, lists=COUNTED).document()))
    alone, counting = world.candidate(seed=1, data=data), world.candidate(seed=1, data=data, fusion=recipe)
    verdict = judged(world, alone, counting["bundle"])
    assert failed(judged(world, alone, counting["bundle"], min_relative_ndcg=0.9)) == ["relative_ndcg"]
    own = judged(world, counting)["metrics"]["models"]["candidate"]["ndcg@10"]
    assert verdict["metrics"]["models"]["champion"]["ndcg@10"] == own > verdict["metrics"]["models"]["candidate"]["ndcg@10"]


def test_a_candidate_equal_to_its_champion_differs_in_nothing(world, champion):
    verdict = judged(world, champion, champion["bundle"], min_relative_ndcg=1.0, min_relative_coverage=1.0, min_common_items=1.0, max_churn=0.0)
    assert verdict["verdict"] == "accept"
    everything = verdict["metrics"]["slices"]["all"]["ndcg@10"]
    assert everything["candidate"] == everything["champion"] > 0
    assert everything["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert verdict["metrics"]["churn"]["events"] == 0


def test_the_candidate_is_ranked_as_the_evaluation_ranks_it(world, champion):
    bundle, seq = load_bundle(world.store, champion["bundle"].hash), sequences_of(champion)
    config = build_params(EASY).evaluation
    found = rank_targets(bundle.recommender, bundle.table.codes_NM, bundle.table.suffix_N, seq, "test", config)
    measured = judged(world, champion)["metrics"]
    assert measured["models"]["candidate"]["recall@10"] == pytest.approx(((found.rank_T >= 1) & (found.rank_T <= 10)).mean())
    listed = found.items_Tk[:, :10]
    assert measured["coverage"]["candidate"] == pytest.approx(len(np.unique(listed[listed >= 0])) / seq.items)


def test_the_champion_ranks_only_what_it_knows_and_what_is_still_listed(world, champion):
    """Its lists over another catalogue are those that its own model gives after the events that it knows."""
    later = world.candidate(seed=3, data=world.data(seed=5, items=range(8, 48), start=1_200))
    verdict = judged(world, later, champion["bundle"])
    seq, bundle = sequences_of(later), load_bundle(world.store, champion["bundle"].hash)
    ids = [item_name(i) for i in range(8, 48)]
    own = {name: row for row, name in enumerate(bundle.item_ids.to_pylist())}
    hits, users = [], 0
    for user in range(seq.users):
        events = [ids[e] for e in seq.events_E[seq.offsets_U1[user] : seq.offsets_U1[user + 1]]]
        if len(events) < 3:
            continue
        users += 1
        known = [own[name] for name in events[:-1] if name in own]
        if not known or events[-1] not in own:
            hits.append(0)
            continue
        alone = Sequences(np.array([*known, own[events[-1]]], dtype=np.int32), np.array([0, len(known) + 1]), len(own))
        hits.append(_rank(bundle, alone, {own[name] for name in ids if name in own}))
    rank_T = np.array(hits)
    row = verdict["metrics"]["models"]["champion"]
    assert verdict["metrics"]["users"] == users
    assert row["recall@10"] == pytest.approx(((rank_T >= 1) & (rank_T <= 10)).mean())
    assert verdict["metrics"]["slices"]["unknown_to_champion"]["recall@10"]["champion"] == 0
    assert verdict["metrics"]["churn"]["common_items"] == pytest.approx(32 / 40)


def _rank(bundle: Any, alone: Sequences, listed: set[int]) -> int:
    """The last event's place among the listed items, by the model's own scores of every item."""
    from diger_core.evaluation.ranking import recommended

    table, end = bundle.table, alone.offsets_U1[1:] - 1
    items, _ = recommended(bundle.recommender, table.codes_NM, table.suffix_N, alone, np.array([0]), end, alone.items, beams=400)
    order = [int(item) for item in items[0] if int(item) in listed]
    target = int(alone.events_E[-1])
    return order.index(target) + 1 if target in order else 0


def test_fresh_targets_are_those_newer_than_every_event_of_the_champion(world, champion):
    newest = int(sequences_of(champion).timestamps_E.max())
    later = world.candidate(seed=2, data=world.data(seed=5, start=1_200))
    seq = sequences_of(later)
    last = seq.timestamps_E[seq.offsets_U1[1:] - 1][np.diff(seq.offsets_U1) >= 3]
    metrics = judged(world, later, champion["bundle"])["metrics"]
    assert 0 < metrics["fresh_targets"] == int((last > newest).sum()) < metrics["users"]
    assert metrics["slices"]["fresh"]["users"] == metrics["fresh_targets"]


def test_the_champions_lists_and_settings_are_kept_for_the_report(world, data, champion):
    later = world.candidate(seed=3, data=data)
    made = world.compute("gate", {**later, "champion": champion["bundle"]}, easy())
    verdict, shown = made.json("verdict.json"), made.table("recommendations.parquet").to_pylist()
    bundle = load_bundle(world.store, champion["bundle"].hash)
    found = rank_targets(bundle.recommender, bundle.table.codes_NM, bundle.table.suffix_N, sequences_of(later), "test", build_params(EASY).evaluation)
    ranks = dict(zip(found.users_T.tolist(), found.rank_T.tolist(), strict=True))
    assert 0 < len(shown) <= 50
    assert [row["rank"] for row in shown] == [rank if (rank := ranks[row["user_index"]]) <= 10 else 0 for row in shown]
    assert verdict["metrics"]["settings"] == {}, "both were trained alike"
    slices = verdict["metrics"]["baseline"]["slices"]
    assert slices["all"]["difference"]["mean"] == pytest.approx(verdict["metrics"]["baseline"]["mean"])
    assert slices["head"]["users"] + slices["tail"]["users"] == slices["all"]["users"]
    assert "recommendations.parquet" not in world.compute("gate", champion, easy()).names, "a first release has no champion"


def test_without_times_nothing_is_called_fresh(world, data, champion):
    tensors = {name: value for name, value in data["sequences"].tensors("sequences.safetensors").items() if name != "timestamps"}

    def write(out):
        out.tensors("sequences.safetensors", tensors)
        for name in ("items", "users"):
            out.table(f"{name}.parquet", data["sequences"].table(f"{name}.parquet"), sort_by=(f"{name[:-1]}_index",))

    timeless = {**data, "sequences": world.publish("sequences", write)}
    made = world.candidate(seed=1, data=timeless)
    assert made["bundle"].json("bundle.json")["last_event"] is None
    for pair in ((made, champion), (champion, made)):
        metrics = judged(world, pair[0], pair[1]["bundle"])["metrics"]
        assert metrics["fresh_targets"] is None
        assert "fresh" not in metrics["slices"]


def test_a_sample_of_users_is_the_same_for_both_and_for_every_run(world, data, champion):
    other = world.candidate(seed=2, data=data)
    one, two = (judged(world, other, champion["bundle"], users=20) for _ in range(2))
    assert one == two
    assert one["metrics"]["users"] == one["metrics"]["slices"]["all"]["users"] == 20


def test_the_verdict_has_no_user_or_time_in_it_and_is_found_by_content(world, champion):
    first, second = (world.compute("gate", champion, easy()) for _ in range(2))
    assert first.hash == second.hash
    assert set(first.names) == {"verdict.json", "verdict.md", "gate.png"}
    assert first.facts["verdict"] == "accept"


def test_the_page_tells_the_verdict_with_everything_escaped(world, data, champion, tmp_path):
    verdict = judged(world, world.candidate(seed=2, data=data), champion["bundle"])
    verdict["rules"][-1]["message"] = "<script>alert('x')</script> moved"
    with world.store.writer("gate") as out:
        out.json("verdict.json", verdict)
        gate = world.store.publish(out)
    inputs = fake_inputs(tmp_path)
    html = page(Material({**inputs, "gate": gate}), ReportConfig(), IDENTITY)
    assert "The gate refuses bundle" in html
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; moved" in html
    assert "<script>alert" not in html
    assert gate.hash in html
    assert "May it serve?" not in page(Material(inputs), ReportConfig(), IDENTITY)
    assert "\\<script\\>" in verdict_markdown(verdict) or "&lt;script" in verdict_markdown(verdict)


# The rules, each by its number

NDCG = {"candidate": 0.1, "champion": 0.1, "most_popular": 0.02, "baseline": 0.08}


def measured(**changes: Any) -> dict[str, Any]:
    """Figures with which every default rule is met."""
    row = {
        "candidate": 0.1,
        "champion": 0.1,
        "difference": {"mean": 0.0, "low": -0.002, "high": 0.002},
        "relative": {"mean": 1.0, "low": 0.98, "high": 1.02},
    }
    base: dict[str, Any] = {
        "users": 1000,
        "models": {name: {"ndcg@10": value} for name, value in NDCG.items()},
        "baseline": {"name": "item_item", "mean": 0.02, "low": 0.01, "high": 0.03},
        "coverage": {"candidate": 0.5, "champion": 0.5},
        "ids": {"unique_prefixes": 900, "largest_group": 4, "items": 1000, "unique_prefix_share": 0.9, "duplicates": 0, "reused_tuples": 0},
        "alarm": None,
        "servability": {"passed": True, "users": 64, "message": "ok"},
        "new_items": {"users": 40, "candidate": 0.05, "text": 0.05, "difference": {"mean": 0.0, "low": -0.01, "high": 0.01}, "champion": 0.05},
        "slices": {name: {"users": 500, "ndcg@10": copy.deepcopy(row)} for name in ("all", "head", "tail", "known_to_both", "unknown_to_champion")},
        "churn": {"common_items": 0.95, "items": 0.05, "events": 0.05},
        "champion_prefixes": 0.9,
        "anchor": {
            "bundle": "a" * 64,
            "common_items": 0.9,
            **{name: {"users": 400, "ndcg@10": copy.deepcopy(row)} for name in ("candidate", "champion")},
        },
    }
    for path, value in changes.items():
        node, *rest = path.split("__")
        target = base
        for name in [node, *rest][:-1]:
            target = target[name.replace("_at_", "@")]
        target[[node, *rest][-1].replace("_at_", "@")] = value
    return base


def broken(config: GateConfig | None = None, **changes: Any) -> list[str]:
    return [rule["name"] for rule in rules(measured(**changes), config or GateConfig()) if not rule["passed"]]


def test_sound_figures_meet_every_default_rule():
    assert broken() == []


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("servable", {"servability": {"passed": False, "users": 0, "message": "the trie is broken"}}),
        ("no_alarm", {"alarm": "codebooks collapsed"}),
        ("unique_ids", {"ids__duplicates": 2}),
        ("reserved_ids", {"ids__reused_tuples": 1}),
        ("unique_prefixes", {"ids__unique_prefix_share": 0.29}),
        ("coverage", {"coverage": {"candidate": 0.04, "champion": 0.05}}),
        ("most_popular", {"models__most_popular": {"ndcg@10": 0.11}, "models__champion": {"ndcg@10": 0.12}}),
        ("best_baseline", {"baseline": {"name": "item_item", "mean": -0.02, "low": -0.03, "high": -0.001}}),
        ("relative_ndcg", {"slices__all__ndcg_at_10__relative": {"mean": 0.96, "low": 0.94, "high": 1.01}}),
        ("known_to_both", {"slices__known_to_both__ndcg_at_10__relative": {"mean": 0.96, "low": 0.94, "high": 1.01}}),
        ("anchor", {"anchor__candidate__ndcg_at_10__relative": {"mean": 0.96, "low": 0.89, "high": 1.01}}),
        ("new_items", {"new_items__candidate": 0.01, "new_items__difference": {"mean": -0.04, "low": -0.05, "high": -0.01}}),
        ("relative_coverage", {"coverage": {"candidate": 0.2, "champion": 0.41}}),
        ("common_items", {"churn__common_items": 0.49}),
        ("churn", {"churn__events": 0.21}),
    ],
)
def test_each_rule_refuses_by_itself(rule, changes):
    assert broken(**changes) == [rule]


def test_which_end_of_the_interval_counts_is_a_choice():
    worse_on_average = {"slices__all__ndcg_at_10__relative": {"mean": 0.98, "low": 0.84, "high": 1.02}}
    assert broken(GateConfig(judge="mean"), **worse_on_average) == []
    assert broken(GateConfig(judge="low"), **worse_on_average) == broken(**worse_on_average) == ["relative_ndcg"]
    assert "relative_ndcg" in broken(GateConfig(judge="high", min_relative_ndcg=1.03), **worse_on_average)
    assert "relative_ndcg" not in broken(GateConfig(judge="high", min_relative_ndcg=1.01), **worse_on_average)


@pytest.mark.parametrize(("low", "high", "refused"), [(-0.03, 0.01, []), (-0.03, 0.0, []), (0.0, 0.0, []), (-0.03, -1e-9, ["best_baseline"])])
def test_the_best_baseline_refuses_only_where_the_whole_interval_lies_below_zero(low, high, refused):
    found = {"baseline": {"name": "repeat", "mean": (low + high) / 2, "low": low, "high": high}}
    assert broken(**found) == refused
    assert broken(GateConfig(beat_baseline=False), **found) == []


def test_the_rule_of_the_best_baseline_names_it_and_the_interval():
    found = next(rule for rule in rules(measured(), GateConfig()) if rule["name"] == "best_baseline")
    assert found["message"] == "NDCG@10 0.1000; the best baseline, item_item, reaches 0.0800: +0.0200 (95% interval +0.0100 to +0.0300)"


@pytest.mark.parametrize("name", ["head", "tail"])
def test_a_slice_refuses_only_a_large_loss_that_is_real(name):
    path = f"slices__{name}__ndcg_at_10"
    row = {"candidate": 0.08, "champion": 0.1, "relative": {"mean": 0.8, "low": 0.6, "high": 0.95}}
    assert broken(**{path: {**row, "difference": {"mean": -0.02, "low": -0.04, "high": -0.005}}}) == [name]
    assert broken(**{path: {**row, "difference": {"mean": -0.02, "low": -0.05, "high": 0.01}}}) == []
    assert broken(GateConfig(min_relative_slice=0.7), **{path: {**row, "difference": {"mean": -0.02, "low": -0.04, "high": -0.005}}}) == []


def test_a_champion_that_finds_nothing_is_no_obstacle():
    row = {"candidate": 0.1, "champion": 0.0, "difference": {"mean": 0.1, "low": 0.05, "high": 0.15}, "relative": None}
    assert broken(slices__all__ndcg_at_10=row, slices__head__ndcg_at_10=row) == []


def test_every_refusal_names_its_rule_and_what_was_found():
    verdict = {"rules": rules(measured(churn__events=0.9), GateConfig())}
    assert summary(verdict).startswith("refused: churn (5.0% of the items that both know get another ID, 90.0% of their events")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("anchor", "last"),
        ("min_new_items", 2),
        ("min_relative_anchor", 3),
        ("max_churn", 1.1),
        ("judge", "median"),
        ("min_relative_ndcg", -1),
        ("users", 0),
        ("bootstrap", 5),
        ("maximum", 1),
    ],
)
def test_a_wrong_rule_is_named(key, value):
    with pytest.raises(DigerError, match=f"gate.{key}"):
        build_params({"gate": {key: value}})


def test_an_interval_that_is_too_wide_is_told_apart_from_a_loss():
    found = {"slices__all__ndcg_at_10__relative": {"mean": 0.98, "low": 0.84, "high": 1.12}}
    told = next(rule["message"] for rule in rules(measured(**found), GateConfig()) if rule["name"] == "relative_ndcg")
    assert "the interval is too wide to rule out a loss of more than 5%" in told
    found = {"slices__all__ndcg_at_10__relative": {"mean": 0.8, "low": 0.7, "high": 0.89}}
    told = next(rule["message"] for rule in rules(measured(**found), GateConfig()) if rule["name"] == "relative_ndcg")
    assert "too wide" not in told


# What the champion meets no better does not keep it


WORSE_THAN_COUNTING = {"baseline": {"name": "item_item", "mean": -0.03, "low": -0.04, "high": -0.01}}
EXCUSABLE = [
    ("unique_prefixes", {"ids__unique_prefix_share": 0.2}, {"champion_prefixes": 0.2}, {"champion_prefixes": 0.25}),
    ("coverage", {"coverage": {"candidate": 0.04, "champion": 0.03}}, {}, {"coverage": {"candidate": 0.04, "champion": 0.045}}),
    ("most_popular", {"models__most_popular": {"ndcg@10": 0.11}}, {}, {"models__champion": {"ndcg@10": 0.105}}),
    (
        "best_baseline",
        {"baseline": {**WORSE_THAN_COUNTING["baseline"], "champion": {"mean": -0.04, "low": -0.05, "high": -0.02}}},
        {},
        {"models__champion": {"ndcg@10": 0.101}},
    ),
    (
        "new_items",
        {"new_items__candidate": 0.01, "new_items__difference": {"mean": -0.04, "low": -0.05, "high": -0.01}},
        {"new_items__champion": 0.0},
        {"new_items__champion": 0.012},
    ),
    (
        "anchor",
        {"anchor__candidate__ndcg_at_10__relative": {"mean": 0.8, "low": 0.7, "high": 0.9}},
        {"anchor__champion__ndcg_at_10__relative": {"mean": 0.8, "low": 0.7, "high": 0.9}},
        {"anchor__champion__ndcg_at_10": {"candidate": 0.11, "relative": {"mean": 0.8, "low": 0.7, "high": 0.9}}},
    ),
]


@pytest.mark.parametrize(("name", "failing", "champion_fails_too", "champion_fails_less"), EXCUSABLE)
def test_a_rule_that_the_champion_meets_no_better_does_not_refuse(name, failing, champion_fails_too, champion_fails_less):
    judged_now = rules(measured(**failing, **champion_fails_too), GateConfig())
    assert [rule["name"] for rule in judged_now if not rule["passed"]] == []
    assert [rule["name"] for rule in judged_now if rule.get("excused")] == [name]
    assert summary({"rules": judged_now}).startswith(f"accepted; not met, and the champion is no better: {name}")
    assert broken(**{**failing, **champion_fails_too, **champion_fails_less}) == [name]


def test_the_baseline_rule_is_not_excused_where_the_champion_meets_it():
    found = {"baseline": {**WORSE_THAN_COUNTING["baseline"], "champion": {"mean": -0.03, "low": -0.05, "high": 0.001}}}
    assert broken(**found) == ["best_baseline"]


@pytest.mark.parametrize("changes", [{"servability__passed": False}, {"alarm": "collapse"}, {"ids__duplicates": 1}, {"ids__reused_tuples": 1}])
def test_unsoundness_is_never_excused(changes):
    assert len(broken(**changes, champion_prefixes=0.0)) == 1


def test_on_a_first_release_nothing_is_excused():
    figures = measured(**WORSE_THAN_COUNTING)
    del figures["models"]["champion"]
    judged_now = rules(figures, GateConfig())
    assert [rule["name"] for rule in judged_now if not rule["passed"]] == ["best_baseline"]
    assert "new_items" not in [rule["name"] for rule in judged_now], "where nothing serves yet, a report's warning is enough"


def test_an_anchor_of_another_catalogue_says_nothing():
    found = {"anchor__common_items": 0.4, "anchor__candidate__ndcg_at_10__relative": {"mean": 0.1, "low": 0.05, "high": 0.2}}
    assert broken(**found) == []
    told = next(rule["message"] for rule in rules(measured(**found), GateConfig()) if rule["name"] == "anchor")
    assert "name a newer bundle in gate.anchor" in told


def test_items_known_to_both_are_a_rule_only_where_some_are_not():
    figures = measured(slices__unknown_to_champion__users=0, slices__known_to_both__ndcg_at_10__relative={"mean": 0.1, "low": 0.1, "high": 0.1})
    assert "known_to_both" not in [rule["name"] for rule in rules(figures, GateConfig())]


# The anchor in a store


def test_many_small_losses_are_refused_by_the_anchor(tmp_path):
    """Three releases; the third is as good as the second, and the second was forced though it is much worse than the first."""
    world = ReleaseWorld(tmp_path)
    data = world.data(walks=True)
    recipe = world.publish("fusion", lambda out: out.json("fusion.json", dataclasses.replace(MODEL_ALONE, lists=COUNTED).document()))
    first, second = world.candidate(seed=1, data=data, fusion=recipe), world.candidate(seed=1, data=data)
    released(world, first)
    log.promote(world.store, second["bundle"].hash, "an experiment", force=True)
    third = world.candidate(seed=3, data=data)
    inputs = extra_inputs(easy(), world.store, third, fit=True)
    assert {name: found.hash for name, found in inputs.items()} == {"champion": second["bundle"].hash, "anchor": first["bundle"].hash}
    strict = easy(min_relative_anchor=0.9, max_churn=1.0)
    verdict = world.compute("gate", {**third, **inputs}, strict).json("verdict.json")
    anchor = verdict["metrics"]["anchor"]
    assert (anchor["bundle"], anchor["common_items"]) == (first["bundle"].hash, 1.0)
    assert anchor["candidate"]["ndcg@10"]["champion"] == judged(world, first)["metrics"]["models"]["candidate"]["ndcg@10"]
    assert anchor["champion"]["ndcg@10"]["candidate"] == pytest.approx(verdict["metrics"]["models"]["champion"]["ndcg@10"])
    excused = [rule["name"] for rule in verdict["rules"] if rule.get("excused")]
    better = anchor["candidate"]["ndcg@10"]["candidate"] >= anchor["champion"]["ndcg@10"]["candidate"]
    assert (failed(verdict), excused) == (([], ["anchor"]) if better else (["anchor"], []))
    for unanchored in ({"anchor": "none"}, {"anchor": second["bundle"].hash}):
        assert set(extra_inputs(easy(**unanchored), world.store, third, fit=True)) == {"champion"}


def test_a_first_release_given_again_finds_its_own_verdict_and_no_anchor(tmp_path):
    world = ReleaseWorld(tmp_path)
    made = world.candidate(seed=1)
    released(world, made)
    assert extra_inputs(easy(), world.store, made, fit=True) == {}
    with pytest.raises(DigerError, match="no bundle's hash begins with 'abcdef'"):
        anchor_of(world.store, "abcdef")


# Bad days


def test_a_catalogue_that_shrinks_by_a_third_is_measured_and_may_pass(world, champion):
    table = load_bundle(world.store, champion["bundle"].hash).table
    fewer = world.candidate(seed=1, data=world.data(seed=6, items=range(28), start=1_200), table=IdTable(table.codes_NM[:28], table.suffix_N[:28]))
    verdict = judged(world, fewer, champion["bundle"])
    assert failed(verdict) == []
    assert verdict["metrics"]["churn"] == {"common_items": 0.7, "items": 0.0, "events": 0.0, "counts": verdict["metrics"]["churn"]["counts"]}
    assert verdict["metrics"]["churn"]["counts"]["removed"] == 12
    assert failed(judged(world, fewer, champion["bundle"], min_common_items=0.8)) == ["common_items"]


def test_a_catalogue_whose_ids_were_all_remapped_is_refused_unless_told(world, champion):
    remapped = world.candidate(seed=1, data=world.data(items=range(500, 540)))
    verdict = judged(world, remapped, champion["bundle"])
    assert failed(verdict) == ["common_items"]
    assert "were all ids re-mapped?" in summary(verdict)
    assert verdict["metrics"]["models"]["champion"]["recall@10"] == 0
    assert judged(world, remapped, champion["bundle"], min_common_items=0.0)["verdict"] == "accept"


def test_a_new_id_space_is_refused_unless_told(world, data, champion):
    other = world.candidate(seed=2, data=data)
    assert failed(judged(world, other, champion["bundle"])) == ["churn"]
    assert judged(world, other, champion["bundle"], max_churn=1.0)["verdict"] == "accept"


def test_a_brand_of_equal_texts_on_one_prefix_is_refused(world):
    data = world.data(seed=7)
    table = random_table(data["sequences"].table("items.parquet")["item_id"], 7)
    codes_NM, suffix_N = table.codes_NM.clone(), table.suffix_N.clone()
    for start in (0, SUFFIXES):  # two prefixes that hold as many items as there are suffixes
        codes_NM[start : start + SUFFIXES] = torch.tensor([7, 7 - start // SUFFIXES], dtype=torch.int32)
        suffix_N[start : start + SUFFIXES] = torch.arange(SUFFIXES, dtype=torch.int32)
    codes_NM[2 * SUFFIXES :, 0] = 0
    suffix_N[2 * SUFFIXES :] = torch.arange(len(suffix_N) - 2 * SUFFIXES, dtype=torch.int32)
    made = world.candidate(seed=1, data=data, table=IdTable(codes_NM, suffix_N))
    verdict = judged(world, made)
    assert failed(verdict) == ["unique_prefixes"]
    assert f"the fullest holds {SUFFIXES}" in summary(verdict)


def test_a_bundle_of_another_snapshot_is_an_error(world, champion):
    other = world.data(seed=9)
    with pytest.raises(DigerError, match="other sequences"):
        world.compute("gate", {**champion, "sequences": other["sequences"]})


# Servability: a fault of the bundle as it lies in the store is a refusal, not a crash


def test_a_bundle_damaged_in_the_store_cannot_serve(world, champion, tmp_path):
    seq = sequences_of(champion)
    assert servability(world.store.url, champion["bundle"].hash, seq, 5, WIDTH)["users"] == 5
    place = tmp_path / "artefacts" / "bundle" / champion["bundle"].hash
    shutil.copytree(champion["bundle"].directory, place)
    (place / "model.safetensors").chmod(0o644)
    (place / "model.safetensors").write_bytes(b"x")
    found = servability(str(tmp_path), champion["bundle"].hash, seq, 5, WIDTH)
    assert not found["passed"]
    assert "model.safetensors" in found["message"]


def test_an_encoder_of_another_width_cannot_serve(world, champion):
    found = servability(world.store.url, champion["bundle"].hash, sequences_of(champion), 5, WIDTH + 1)
    assert not found["passed"]
    assert "width 8, the encoder and the factors give 9" in found["message"]


def test_a_model_that_gives_no_numbers_cannot_serve(world, data):
    made = world.candidate(seed=1, data=data)
    tensors = made["joint_model"].tensors("model.safetensors")
    tensors["recommender.token_tables.0"] = torch.full_like(tensors["recommender.token_tables.0"], float("nan"))

    def write(out):
        for name in ("config.json", "id_table.parquet", "curves.json"):
            out.file(name, made["joint_model"].path(name), sort_by=made["joint_model"].files[name]["sort_by"])
        out.tensors("model.safetensors", tensors, made["joint_model"].tensors_metadata("model.safetensors"))

    broken_model = {**made, "joint_model": world.publish("joint_model", write), "refit": world.publish("refit", write)}
    broken_model["bundle"] = world.compute("bundle", broken_model)
    verdict = judged(world, broken_model)
    assert "servable" in failed(verdict)
    json.dumps(verdict, allow_nan=False)


def test_an_item_on_the_tuple_of_a_removed_or_living_one_is_refused(world, data, champion):
    held = load_bundle(world.store, champion["bundle"].hash).table
    fewer = world.data(items=range(30))
    second = world.candidate(seed=1, data=fewer, table=IdTable(held.codes_NM[:30], held.suffix_N[:30]), baseline=champion["bundle"])
    assert failed(judged(world, second)) == []

    def with_tuple_of(item: int) -> dict[str, Artefact]:
        codes_NM, suffix_N = held.codes_NM[:30].clone(), held.suffix_N[:30].clone()
        rows = [0, item] if item < 30 else [0]
        codes_NM[rows], suffix_N[rows] = held.codes_NM[[item, 0][: len(rows)]], held.suffix_N[[item, 0][: len(rows)]]
        return world.candidate(seed=1, data=fewer, table=IdTable(codes_NM, suffix_N), baseline=second["bundle"])

    for item, reused in ((35, 1), (20, 2)):  # removed two releases ago; two living items that changed places
        verdict = judged(world, with_tuple_of(item))
        assert failed(verdict) == ["reserved_ids"]
        assert verdict["metrics"]["ids"]["reused_tuples"] == reused


def test_ids_that_a_bundle_released_meanwhile_gave_out_are_not_given_out_again(world, champion):
    """Two snapshots continued from one champion; the second release must respect what the first gave its new item."""
    held = load_bundle(world.store, champion["bundle"].hash).table
    free = next(s for s in range(SUFFIXES) if not ((held.codes_NM == held.codes_NM[0]).all(1) & (held.suffix_N == s)).any())
    more = IdTable(torch.cat([held.codes_NM, held.codes_NM[:1]]), torch.cat([held.suffix_N, torch.tensor([free], dtype=torch.int32)]))
    made = [world.candidate(seed=1, data=world.data(items=[*range(40), new]), table=more, baseline=champion["bundle"]) for new in (50, 51)]
    assert failed(judged(world, made[1], champion["bundle"])) == []
    verdict = judged(world, made[1], made[0]["bundle"])
    assert failed(verdict) == ["reserved_ids"]
    assert verdict["metrics"]["ids"]["reused_tuples"] == 1
