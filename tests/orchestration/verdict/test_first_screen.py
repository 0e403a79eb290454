"""The first screen: how close the rules were, where the lists are better, what of it is training, and what to look at first."""

import re
from dataclasses import replace

import pyarrow as pa
import pytest

from diger_core.store.artefacts import Store
from orchestration.params.verdict import ReportConfig
from orchestration.verdict.gate.shown import differing
from orchestration.verdict.report.change import summary
from orchestration.verdict.report.compared import Compared
from orchestration.verdict.report.examples import shoppers
from orchestration.verdict.report.first_screen import figure, looks
from orchestration.verdict.report.forest import Scale, drawn
from orchestration.verdict.report.identity import Identity, Link, told_in
from orchestration.verdict.report.material import Material
from orchestration.verdict.report.page import page
from orchestration.verdict.report.reasons import Where, room_of, rules_of, why
from orchestration.verdict.report.verdict import verdict
from orchestration.verdict.report.words import names
from tests.support.report_material import fake_inputs, fake_metrics, fake_verdict

BETTER = (0.01, 0.002, 0.018)


def rule(name="head", observed=0.9, wanted=0.85, **more):
    return {"name": name, "passed": True, "observed": observed, "wanted": wanted, "message": "", **more}


def row(theirs, value, base, low, high, users=900):
    return Compared("lists", theirs, "ndcg@10", value, base, value - base, low, high, users)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return fake_inputs(tmp_path_factory.mktemp("store"), verdict=fake_verdict(BETTER))


def test_the_tightest_rule_is_the_one_with_the_least_room_whichever_side_is_good():
    rules = [rule("head", 0.93), rule("coverage", 0.5, 0.05), rule("churn", 0.19, 0.2), rule("unique_ids", 0, 0), rule("servable", 64, 1)]
    assert rules_of({"rules": rules}).told == "5 of 5 rules · tightest: IDs changed, by events 0.19 (≤ 0.2)"
    assert rules_of({"rules": [rule("head", 0.93), rule("tail", 0.86)]}).told.endswith("tail items 0.86 (≥ 0.85)")
    assert room_of(rule("churn", 0.3, 0.2)) == pytest.approx(-0.5)
    excused = [rule("tail", 0.5, excused=True), rule("head", 0.93), {**rule("coverage", 0.01, 0.05), "passed": False}]
    assert rules_of({"rules": excused}).told == "2 of 3 rules · tightest: head items 0.93 (≥ 0.85)"


def test_each_kind_of_target_has_its_users_and_a_small_one_no_interval():
    stored = fake_verdict(BETTER)
    stored["metrics"]["slices"]["new_items"] = {"users": 21, "ndcg@10": stored["metrics"]["slices"]["all"]["ndcg@10"]}
    stored["metrics"]["slices"]["fresh"] = stored["metrics"]["slices"]["all"]
    champion, baseline = verdict(fake_metrics(), stored).where
    assert [(each.name, each.users, each.tone) for each in champion.rows] == [
        ("all", 900, "better"),
        ("head", 500, "better"),
        ("new items", 21, "open"),
    ]
    assert champion.rows[-1].told == "too few users"
    assert (champion.against, baseline.against) == ("the champion", "item-item + text")
    assert verdict(fake_metrics()).where == (), "without a gate nothing was compared by kind of target"


def test_all_rows_of_a_forest_share_one_scale_with_zero_on_it():
    rows = (Where("all", 900, 0.01, 0.002, 0.018), Where("tail", 300, -0.004, -0.008, 0.0), Where("new items", 3))
    scale = Scale.of(rows)
    pictures = drawn(rows)
    assert pictures[2] is None
    zeros = {re.search(r'class="zero" d="M([\d.]+)', picture)[1] for picture in pictures[:2]}
    assert zeros == {f"{scale(0.0):.1f}"}
    assert scale(-0.008) < scale(0.0) < scale(0.018)
    assert 'aria-label="all: +0.0100 (+0.0020 to +0.0180)"' in pictures[0]
    assert Scale.of(()) == Scale(-1.0, 1.0)


def test_the_gain_is_split_into_new_training_and_joint_training():
    found = why(row("champion", 0.0845, 0.0767, 0.004, 0.012), row("lists_frozen", 0.0845, 0.0836, -0.0005, 0.002))
    assert [(step.name, step.value) for step in found.steps] == [("champion", 0.0767), ("control", 0.0836), ("joint", 0.0845)]
    assert found.sentence.startswith("Most of the gain is training on the new data (+0.0069 of +0.0078). ")
    assert found.sentence.endswith("changes nothing that is established (+0.0009, 95% interval -0.0005 to +0.0020).")


def test_no_gain_is_told_where_no_difference_is_established():
    found = why(row("champion", 0.1873, 0.1852, -0.0008, 0.005), row("lists_frozen", 0.1873, 0.1872, -0.0001, 0.0006))
    assert found.sentence.startswith(
        "No difference from the champion is established (+0.0021, of which new training +0.0020). Training the IDs, too, "
    )


def test_models_that_were_ranked_for_other_users_stand_in_no_chain():
    found = why(row("champion", 0.0845, 0.0767, 0.004, 0.012, users=500), row("lists_frozen", 0.0845, 0.0836, 0.0004, 0.002))
    assert [step.name for step in found.steps] == ["control", "joint"]
    assert "500 users and the evaluation 900" in found.sentence
    assert found.steps[0].what == "trained, IDs frozen"
    assert "not ranked with a frozen control" in why(row("champion", 0.0845, 0.0767, 0.004, 0.012), None).sentence


def test_what_refuses_is_looked_at_first_and_data_warnings_last(tmp_path):
    metrics = fake_metrics()
    metrics["slices"]["tail"]["lists"] |= {"ndcg@10": 0.01, "intervals": {"ndcg@10": [0.008, 0.012]}}
    material = Material(fake_inputs(tmp_path, verdict=fake_verdict(BETTER, refused="coverage")))
    material.__dict__["metrics"] = metrics
    found = list(looks(material, verdict(metrics, material.gate)))
    assert [look.grave for look in found] == [True, False, False, False]
    assert found[0].message == "catalogue coverage: coverage as measured"
    assert "item-item + text is above the lists" in found[1].message
    assert found[2].message == "1 data warning on items: title present"


def test_the_number_at_the_top_is_relative_to_the_champion_or_to_the_best_baseline():
    shown = figure(verdict(fake_metrics(), fake_verdict(BETTER)))
    assert (shown.change, shown.interval) == ("+14.3%", "+2.9% to +25.7%")
    assert shown.values == "0.0700 → 0.0800 against the champion, 900 users"
    assert "against item-item + text" in figure(verdict(fake_metrics(), fake_verdict(None))).values


def test_the_page_carries_its_snapshot_and_a_copy_links_to_run_and_predecessor(inputs):
    identity = Identity("shop-1-0123abcd", (Link("code abc"), Link("run 1f2e", "http://127.0.0.1:3000/runs/1f2e"), Link("previous a<b")), released=2)
    copy = page(Material(inputs), ReportConfig(examples=0), identity)
    assert "<title>shop-1-0123abcd: Accepted · Joint semantic IDs" in copy
    assert 'code abc · <a href="http://127.0.0.1:3000/runs/1f2e">run 1f2e ↗</a> · previous a&lt;b</p>' in copy
    assert "Accepted, released as champion #2" in copy
    stored = page(Material(inputs), ReportConfig(examples=0), replace(identity, facts=()))
    assert told_in(stored, identity) == copy, "`diger ui` shows the stored page with the same line"


def test_what_changed_names_the_settings_that_differ_from_the_champions(inputs):
    assert [line.what for line in summary(Material(inputs))] == ["events", "items", "users"]
    before = {"best_epoch": 5, "training": {"epochs": 5, "learning_rate": 0.003, "seed": 0}, "codes": 64}
    after = {"best_epoch": 3, "training": {"epochs": 3, "learning_rate": 0.001, "seed": 0, "crop": 0.1}, "codes": 64}
    assert differing(before, after) == {"training.crop": [None, 0.1], "training.epochs": [5, 3], "training.learning_rate": [0.003, 0.001]}


def test_a_prefix_is_named_by_words_that_its_titles_share_and_others_lack():
    shop = {0: ["Linen pillowcase, blue", "Cotton pillowcase", "Linen sheet"], 1: ["Steel kettle", "Copper kettle, blue"], 2: ["Lamp"], 3: []}
    assert names(shop) == {0: "linen, pillowcase", 1: "kettle", 2: "", 3: ""}


def test_the_champions_list_stands_beside_the_candidates_with_the_rank_of_the_true_item(inputs, tmp_path):
    rows = inputs["evaluation"].table("recommendations.parquet").to_pylist()
    lists = [[row["target"], 7] if place == 0 else [row["target"] ^ 1] for place, row in enumerate(rows[:3])]
    store = Store(tmp_path)
    with store.writer("gate") as out:
        out.json("verdict.json", fake_verdict(BETTER))
        users = pa.array([row["user_index"] for row in rows[:3]], pa.int32())
        out.table(
            "recommendations.parquet", pa.table({"user_index": users, "champion": pa.array(lists, pa.list_(pa.int32()))}), sort_by=("user_index",)
        )
        gate = store.publish(out)
    found = shoppers(Material({**inputs, "gate": gate}), 4)
    assert [who for who, _ in found.examples[0].recommended] == ["this run's lists", "the champion's lists"]
    place = rows[0]["lists"].index(rows[0]["target"]) + 1
    assert found.examples[0].ranks.startswith(f"this run's lists: rank {place}; the champion's lists: rank 1; generative model alone: rank ")
    assert "the champion's lists: not in the first 1" in found.examples[1].ranks
    assert "champion" not in found.examples[3].ranks, "the gate ranked a sample that this user is not in"
    assert (found.users, found.share, found.sampled, found.sample_share) == (1234, 0.16, 8, 1.0)
