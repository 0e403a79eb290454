"""The one verdict: the gate first, then the lists against counting, then joint training; no more than the interval allows."""

import numpy as np
import pytest

from orchestration.params.verdict import ReportConfig
from orchestration.verdict.models import strongest_baseline
from orchestration.verdict.report.drawing import svg
from orchestration.verdict.report.figures import popularity_panel
from orchestration.verdict.report.material import Material
from orchestration.verdict.report.page import page
from orchestration.verdict.report.sections import commands
from orchestration.verdict.report.verdict import facts, verdict
from tests.support.report_material import IDENTITY, MODELS, fake_inputs, fake_metrics, fake_verdict
from tests.support.undrawn import undrawn


@pytest.mark.parametrize(
    ("gain", "title", "tone"),
    [
        ((0.01, 0.002, 0.018), "Accepted, better than the champion; lists above every baseline", "better"),
        ((0.01, -0.002, 0.022), "Accepted, no difference from the champion established; lists above every baseline", "open"),
        ((-0.001, -0.002, -0.0005), "Accepted within the tolerance, but worse than the champion; lists above every baseline", "open"),
    ],
)
def test_an_accepted_model_is_called_better_only_where_the_interval_says_so(gain, title, tone):
    said = verdict(fake_metrics(), fake_verdict(gain))
    assert (said.title, said.tone) == (title, tone)
    assert f"{gain[1]:+.4f} to {gain[2]:+.4f}" in said.parts[0].sentence


def test_a_refused_model_is_refused_in_the_first_line_however_good_its_numbers():
    said = verdict(fake_metrics(), fake_verdict((0.01, 0.002, 0.018), refused="coverage"))
    assert said.title.startswith("Refused")
    assert said.tone == "worse"
    assert "catalogue coverage" in said.parts[0].sentence


def test_a_first_release_has_nothing_to_be_compared_with():
    said = verdict(fake_metrics(), fake_verdict(None))
    assert said.title == "Accepted as the first model to serve; lists above every baseline"
    assert "without a champion" in said.parts[0].sentence


def test_without_a_gate_the_comparison_with_counting_is_the_first_line():
    said = verdict(fake_metrics())
    assert said.title == "Lists above every baseline"
    assert [part.label for part in said.parts] == ["Lists against counting", "Joint against frozen"]


@pytest.mark.parametrize(
    ("beats", "words", "tone"),
    [
        ((0.01, 0.006, 0.014), "Lists above every baseline", "better"),
        ((0.002, -0.001, 0.005), "Lists not distinguishable from item-item + text", "open"),
        ((-0.01, -0.014, -0.006), "Lists below item-item + text", "worse"),
        ((0.0, 0.0, 0.0), "Lists no better than item-item + text", "open"),
    ],
)
def test_lists_that_are_not_above_the_best_baseline_are_said_to_be_so_in_the_first_line(beats, words, tone):
    accepted = verdict(fake_metrics(beats=beats), fake_verdict((0.01, 0.002, 0.018)))
    assert accepted.title == f"Accepted, better than the champion; {words[0].lower()}{words[1:]}"
    assert accepted.tone == tone
    assert accepted.headline.startswith(f"{words}: ")
    assert f"(95% interval {beats[1]:+.4f} to {beats[2]:+.4f}, 1,234 users)" in accepted.headline
    assert accepted.plain()["headline"] == accepted.headline
    assert facts(accepted, None)["over_baseline_mean"] == beats[0]


def test_the_strongest_baseline_is_the_highest_in_the_judged_metric_and_never_one_that_counts_up_to_the_test():
    metrics = fake_metrics({**MODELS, "markov": 0.155})
    assert strongest_baseline(metrics["models"], "ndcg@10") == "markov"
    assert "last-item Markov" in verdict(metrics).headline
    assert strongest_baseline({"lists": {"ndcg@10": 0.1}, "baseline_earlier": {"ndcg@10": 0.2}}, "ndcg@10") is None


def test_a_slice_on_which_a_baseline_is_above_the_lists_is_something_to_look_at():
    metrics = fake_metrics()
    assert verdict(metrics).warnings == ()
    metrics["slices"]["tail"]["lists"] |= {"ndcg@10": 0.01, "intervals": {"ndcg@10": [0.008, 0.012]}}
    (warning,) = verdict(metrics).warnings
    assert warning == "On rare targets item-item + text is above the lists: NDCG@10 0.0420 against 0.0100, 434 users."
    metrics["slices"]["tail"]["lists"] |= {"intervals": {"ndcg@10": [0.0, 0.05]}}
    assert verdict(metrics).warnings == (), "the intervals overlap"


def test_a_paired_loss_on_a_slice_is_seen_where_the_two_intervals_overlap():
    stored = fake_verdict((0.01, 0.002, 0.018))
    stored["metrics"]["baseline"]["slices"]["tail"] = {"users": 400, "difference": {"mean": -0.0037, "low": -0.0057, "high": -0.0008}}
    assert verdict(fake_metrics(), stored).warnings == (
        "On rare targets item-item + text is above the lists: NDCG@10 -0.0037, 95% interval -0.0057 to -0.0008, 400 users.",
    )
    stored["metrics"]["baseline"]["slices"]["tail"]["users"] = 12
    assert verdict(fake_metrics(), stored).warnings == (), "too few users"


@undrawn()
def test_a_page_of_lists_that_counting_beats_says_so_before_anything_else(tmp_path):
    beaten = {**MODELS, "lists": 0.11}
    refused = fake_verdict((0.01, 0.002, 0.018), refused="best_baseline")
    made = page(Material(fake_inputs(tmp_path, verdict=refused, models=beaten, beats=(-0.015, -0.02, -0.01))), ReportConfig(), IDENTITY)
    first = made.index("Refused: this model may not serve; lists below item-item + text")
    assert first < made.index("not below the best counting baseline: best_baseline as measured") < made.index('id="evaluation"')


@undrawn()
def test_the_page_opens_with_the_gate_and_names_the_rule_that_was_not_met(tmp_path):
    made = page(Material(fake_inputs(tmp_path, verdict=fake_verdict((0.01, 0.002, 0.018), refused="coverage"))), ReportConfig(), IDENTITY)
    first = made.index("Refused: this model may not serve; lists above every baseline")
    box_ends = made.index("</section>", first)
    asked = made.index("<dt>Joint against frozen</dt><dd><strong>Better in this run")
    assert first < asked < made.index("catalogue coverage: coverage as measured") < box_ends < made.index('id="evaluation"')


def test_the_champions_figure_is_of_the_one_compared_with():
    """The page outlives the release: then another model serves."""
    assert "the champion it was compared with" in verdict(fake_metrics(), fake_verdict((0.01, 0.002, 0.018))).parts[0].sentence


def test_the_commands_name_the_stored_results(tmp_path):
    inputs = fake_inputs(tmp_path, verdict=fake_verdict(None))
    lines = [line for _, line in commands(Material(inputs))]
    assert f"diger reproduce {inputs['joint_model'].hash}" in lines
    assert f"diger why {fake_verdict(None)['candidate']} --verify" in lines


def test_logarithmic_axes_show_numbers_and_no_formulas():
    _, element = svg(popularity_panel(np.geomspace(1, 5000, 400).astype(int)), "x")
    assert "mathdefault" not in element
    assert ">1,000<" in element
