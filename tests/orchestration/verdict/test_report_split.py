"""What the page says of the split and of the lists' recipe: the dates, who is not judged, what flatters, and how stable the weights are."""

from __future__ import annotations

import pytest

from diger_core.evaluation.recipes import Fitted
from diger_core.store.artefacts import Store
from orchestration.params.verdict import ReportConfig
from orchestration.verdict.report import drawing, listens
from orchestration.verdict.report.markdown import metrics_markdown
from orchestration.verdict.report.material import Material
from orchestration.verdict.report.page import page
from orchestration.verdict.report.split import sentences
from orchestration.verdict.report.verdict import verdict
from tests.orchestration.verdict.test_report import Reader
from tests.support.report_material import IDENTITY, SPLIT, fake_fusion, fake_inputs, fake_metrics
from tests.support.undrawn import undrawn


def test_a_split_by_time_is_told_with_its_dates_and_with_who_is_not_judged():
    told = " ".join(sentences(SPLIT, 1234))
    assert "trained on the events up to 2026-03-01 11:59:59, chosen on those up to 2026-04-01 08:30:00" in told
    assert "the first event after that of 1,234 users" in told
    assert "Not judged: 812 users have no event after it and 95 users have no event before it." in told
    assert "19.0% of the targets have the same time as the event before" in told


def test_leave_one_out_is_said_to_flatter_and_why_it_was_used():
    facts = {"split": "leave_one_out", "same_time_targets": None, "users_with_fewer_than_3_events": 7}
    told = " ".join(sentences(facts, 50))
    assert "This flatters" in told
    assert "Not judged: 7 users have fewer than three events." in told
    assert "The events have no times" in told
    assert "was not possible" not in told, "it was asked for"
    assert "was not possible. the interactions have no timestamp" in " ".join(
        sentences({**facts, "why_leave_one_out": "the interactions have no timestamp"}, 5)
    )


@pytest.mark.parametrize(("moved", "stable"), [(0.14, True), (0.5, False)])
def test_the_weights_are_told_with_how_much_they_move(moved, stable):
    fitted = Fitted.from_document({**fake_fusion(), "moved": moved})
    told = " ".join(listens.sentences(fitted))
    assert f"{moved:.0%} of the weight would lie elsewhere" in told
    assert ("not stable" in told) != stable
    assert "1.2% of the validation targets" in told
    rows = listens.rows(fitted)
    assert rows[0] == ("generative model", "42.0%", "36.0% to 50.0%", "–")
    assert rows[-1][:2] == ("what the user had before", "0.0%"), "a part that is not heard stays in sight"


@pytest.mark.parametrize(
    ("factor", "targets", "told"),
    [
        (
            1.75,
            292,
            "get 4.5% of the first ten places, since their scores are multiplied by 1.75. On these 292 targets the lists reach NDCG@10 0.018",
        ),
        (1.0, 292, "are 5.0% of the validation targets and get 4.5% of the first ten places. On these 292"),
        (1.0, 0, "No validation target is an item without a training event, so nothing raises such items."),
    ],
)
def test_what_gives_new_items_their_place_is_told(factor, targets, told):
    new = {"targets": targets, "share": 0.0498, "places": 0.0448, "ndcg": 0.018, "without": 0.0045, "text": 0.0131}
    document = fake_fusion()
    fitted = Fitted.from_document({**document, "lists": {**document["lists"], "new_items": factor}, "new_items": new})
    sentences = " ".join(listens.sentences(fitted))
    assert told in sentences
    assert ("(without that 0.0045), text alone 0.0131" in sentences) == (factor != 1)


def test_a_fallback_is_said_in_words_and_its_weights_are_no_shares():
    fitted = Fitted.from_document(fake_fusion("item_item_text"))
    assert "No mixture with the generative model beat the best baseline" in listens.sentences(fitted)[0]
    sentence, element = drawing.svg(listens.panel(fitted), "w")
    assert sentence == "The lists listen most to what follows what (item-item): weight 1"
    assert "%<" not in element
    assert listens.rows(fitted)[1][:2] == ("similar text", "0.7")


@undrawn()
def test_page_and_markdown_have_one_table_in_one_order(tmp_path):
    names = [
        "released lists",
        "generative model alone",
        "frozen control",
        "lists with the control's model",
        "item-item + text",
        "item-item",
        "text",
        "last-item Markov",
    ]
    names += ["recent popular", "most popular", "lists, counted to the end of training", "baseline, counted to the end of training"]
    rows = [line.split(" | ") for line in metrics_markdown(fake_metrics()).replace("\\", "").splitlines() if line.startswith("| ")][1:]
    assert [row[0].removeprefix("| ") for row in rows] == names
    assert rows[0][-1] == "– |"
    assert rows[1][-1] == "+0.0100 (+0.0060 to +0.0140) |"
    assert rows[-1][-1] == "+0.0200 (+0.0100 to +0.2000) |", "beside the lists that are counted up to the test, too"
    made = page(Material(fake_inputs(tmp_path)), ReportConfig(), IDENTITY)
    text = Reader(made).text
    places = [text.index(name, text.index("Lists minus this")) for name in names]
    assert places == sorted(places)
    assert 'id="fusion"' in made
    assert "Split by time" in text


@undrawn()
def test_a_run_without_a_recipe_has_no_section_of_it(tmp_path):
    inputs = fake_inputs(tmp_path)
    made = page(Material({name: artefact for name, artefact in inputs.items() if name != "fusion"}), ReportConfig(), IDENTITY)
    assert 'id="fusion"' not in made
    assert Reader(made).faults == []


@undrawn()
def test_every_event_of_the_test_period_stands_beside_the_first_one(tmp_path):
    metrics = fake_metrics()
    text = Reader(page(Material(fake_inputs(tmp_path)), ReportConfig(), IDENTITY)).text
    shown = text[text.index("4,321 events of 1,234 users") :]
    for name in ("lists", "item_item", "joint_model"):
        assert f"{metrics['period']['models'][name]['ndcg@10']:.4f}" in shown
    assert "over the whole test period +0.0100 (+0.0060 to +0.0140, 4,321 events)" in verdict(metrics).headline
    del metrics["period"]
    assert "test period" not in verdict(metrics).headline


@undrawn()
def test_counting_by_the_published_protocol_stands_beside_a_temporal_split(tmp_path):
    inputs = fake_inputs(tmp_path)
    found = inputs["evaluation"].json("leave_one_out.json")
    text = Reader(page(Material(inputs), ReportConfig(), IDENTITY)).text
    shown = text[text.index(f"Leave one out, {found['users']:,} users") :]
    assert f"{found['models']['item_item']['ndcg@10']:.4f}" in shown
    assert "A model's row needs a second training: diger run --set sequences.split=leave_one_out" in text
    timeless = Material({name: artefact for name, artefact in inputs.items() if name != "evaluation"} | {"evaluation": without_it(inputs, tmp_path)})
    assert "Leave one out," not in page(timeless, ReportConfig(), IDENTITY)


def without_it(inputs, folder):
    """The evaluation as a run without a temporal split leaves it."""
    evaluation = inputs["evaluation"]
    with Store(folder / "other").writer("evaluation") as out:
        for name in evaluation.names:
            if name != "leave_one_out.json":
                out.file(name, evaluation.path(name), sort_by=evaluation.files[name].get("sort_by", ()))
        return Store(folder / "other").publish(out)
