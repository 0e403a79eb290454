"""The page's first words: the gate's verdict first, no more than the interval allows, and what joint training gains beneath it."""

import numpy as np
import pytest

from orchestration.params.verdict import ReportConfig
from orchestration.verdict.report.drawing import svg
from orchestration.verdict.report.figures import popularity_panel
from orchestration.verdict.report.material import Material
from orchestration.verdict.report.opening import opening
from orchestration.verdict.report.page import commands, page
from orchestration.verdict.report.verdict import verdict
from tests.support.report_material import fake_inputs, fake_metrics, fake_verdict

METHOD = verdict(fake_metrics({"joint_model": 0.12, "frozen_model": 0.115, "markov": 0.07, "most_popular": 0.03}))


@pytest.mark.parametrize(
    ("gain", "title", "tone"),
    [
        ((0.01, 0.002, 0.018), "accepted, and better than the champion", "better"),
        ((0.01, -0.002, 0.022), "accepted; no difference from the champion is established", "open"),
        ((-0.001, -0.002, -0.0005), "accepted within the gate's tolerance, but worse than the champion", "open"),
    ],
)
def test_an_accepted_model_is_called_better_only_where_the_interval_says_so(gain, title, tone):
    said = opening(fake_verdict(gain), METHOD)
    assert (said.title, said.tone) == (title, tone)
    assert f"{gain[1]:+.4f} to {gain[2]:+.4f}" in said.lead


def test_a_refused_model_is_refused_in_the_first_line_however_good_its_numbers():
    said = opening(fake_verdict((0.01, 0.002, 0.018), refused="coverage"), METHOD)
    assert said.title.startswith("refused")
    assert said.tone == "worse"
    assert "catalogue coverage" in said.lead


def test_a_first_release_has_nothing_to_be_compared_with():
    said = opening(fake_verdict(None), METHOD)
    assert said.title == "accepted as the first model to serve"
    assert "without a champion" in said.lead


def test_without_a_gate_the_comparison_with_the_control_opens_the_page():
    assert opening(None, METHOD).lead == METHOD.sentence


def test_the_page_opens_with_the_gate_and_names_the_rule_that_was_not_met(tmp_path):
    made = page(Material(fake_inputs(tmp_path, verdict=fake_verdict((0.01, 0.002, 0.018), refused="coverage"))), ReportConfig())
    first = made.index("Verdict: refused")
    box_ends = made.index("</section>", first)
    asked = made.index("Does joint training help? Yes.")
    assert first < made.index("catalogue coverage:</strong>") < box_ends < asked < made.index('id="evaluation"')


def test_the_champions_figure_is_of_the_one_compared_with():
    """The page outlives the release: then another model serves."""
    assert "the champion it was compared with" in opening(fake_verdict((0.01, 0.002, 0.018)), METHOD).lead


def test_the_commands_name_the_stored_results(tmp_path):
    inputs = fake_inputs(tmp_path, verdict=fake_verdict(None))
    lines = [line for _, line in commands(Material(inputs))]
    assert f"diger reproduce {inputs['joint_model'].hash}" in lines
    assert f"diger why {fake_verdict(None)['candidate']} --verify" in lines


def test_logarithmic_axes_show_numbers_and_no_formulas():
    _, element = svg(popularity_panel(np.geomspace(1, 5000, 400).astype(int)), "x")
    assert "mathdefault" not in element
    assert ">1,000<" in element
