"""Pictures: same bytes for the same numbers, small, readable on any page, and silent about missing data."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from orchestration.verdict.report import code_figures, drawing, figures, gate
from tests.support.report_material import fake_curves, fake_metrics, fake_verdict

METRICS = fake_metrics()
CODES = np.random.default_rng(0).integers(0, 200, (3000, 3))
PICTURES = {
    "learning_curves": lambda: figures.learning_curves({"joint_model": fake_curves(), "frozen_model": fake_curves(scale=0.9)}),
    "code_usage": lambda: code_figures.code_usage(CODES, 256),
    "metrics_bars": lambda: figures.metrics_bars(METRICS),
    "popularity": lambda: drawing.png([figures.popularity_panel(np.arange(500))]),
    "embedding_map": lambda: drawing.png([figures.embedding_panel(np.random.default_rng(0).normal(size=(5000, 16)))]),
    "tokenizer_curves": lambda: figures.tokenizer_curves([{"epoch": e, "loss": 1 / (e + 1)} for e in range(30)]),
    "gate": lambda: gate.picture(fake_verdict((0.01, 0.002, 0.018))),
    "sequence_lengths": lambda: drawing.png([figures.sequence_lengths_panel(np.arange(0, 900, 7))]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_small_pngs_with_reproducible_bytes(name):
    first = PICTURES[name]()
    assert first.startswith(b"\x89PNG")
    assert len(first) < 60_000
    assert PICTURES[name]() == first


def test_an_inlined_picture_is_whole_themed_and_brings_nothing_foreign():
    sentence, element = drawing.svg(figures.learning_panels({"joint_model": fake_curves()})[0], "p0")
    ElementTree.fromstring(element)
    assert "NDCG@10" in sentence
    assert "var(--sky, #56b4e9)" in element
    assert "<style" not in element
    assert "<metadata" not in element
    assert "://" not in element
    assert "font-family" not in element
    assert all(name.startswith("p0-") for name in re.findall(r'\bid="([^"]+)"', element))
    assert all(name.startswith("p0-") for name in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', element) for name in name if name)


def test_the_sentence_of_the_usage_picture_counts_used_codes():
    codes_NM = np.repeat(np.arange(8), 10)[:, None]
    sentence, _ = drawing.svg(code_figures.code_usage_panels(codes_NM, 16)[0], "u")
    assert "8 of 16 codes in use; the fullest" in sentence
    assert "10 items (12.5%)" in sentence


def test_the_heat_map_over_time_has_a_line_for_each_code_and_an_epoch_in_each_column():
    usage_EMK = np.zeros((5, 2, 8), dtype=int)
    usage_EMK[:, 0] = 10
    usage_EMK[:, 1, :4] = 20
    usage_EMK[2:, 1, 0], usage_EMK[2:, 1, 3] = 30, 10
    (even, moved) = code_figures.usage_map_panels(usage_EMK)
    assert "0 codes unused before training, 0 after; at least 0.0%" in drawing.svg(even, "a")[0]
    sentence, element = drawing.svg(moved, "b")
    assert sentence.startswith("Level 2: 4 codes unused before training, 4 after; at least 12.5%")
    assert pixels(element).shape[:2] == (8, 5)
    found_KE = pixels(element)[..., 3].astype(int)
    assert found_KE[0, 1] < found_KE[0, 2], "30 items are stronger than 20"
    assert found_KE[3, 1] > found_KE[3, 2], "the codes keep their lines"


def test_a_heat_map_over_time_stays_small_whatever_codes_and_epochs():
    usage_EMK = np.random.default_rng(0).integers(0, 50, (700, 1, 4096))
    _, element = drawing.svg(code_figures.usage_map_panels(usage_EMK)[0], "c")
    assert pixels(element).shape[0] <= 512
    assert len(element) < 700_000


def pixels(element: str) -> np.ndarray:
    """The cells [rows, columns, 4] of the image in a picture, without the repetitions of a larger resolution."""
    import base64
    import io

    from PIL import Image

    data = re.findall(r"base64,([^\"]+)", element)[0]  # the second image is the key
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_noise_that_is_off_is_said_to_be_off():
    rows = [{**row, "sigma": 0.0} for row in fake_curves()]
    assert "without exploration" in drawing.svg(figures.learning_panels({"joint_model": rows})[1], "s")[0]
    assert "is off at the end" in drawing.svg(figures.learning_panels({"joint_model": fake_curves()})[1], "s")[0]


@pytest.mark.parametrize(("scale", "lines"), [(1.0, 1), (0.5, 2)])
def test_the_share_of_items_with_noise_is_a_line_of_its_own_only_where_it_is_another_one(scale, lines):
    rows = [{"epoch": e, "sigma": scale * share, "noisy_share": share} for e, share in enumerate((0.4, 0.3, 0.2))]
    axes = Figure().add_subplot()
    figures._sigma(rows)(axes)
    assert [text.get_text() for text in axes.texts] == ["σ", "share of items"][:lines]


def test_missing_and_non_finite_values_leave_gaps_instead_of_errors():
    rows = [{"epoch": 1, "loss_gen": float("nan")}, {"epoch": 2, "loss_gen": 2.0, "perplexity": [3.0]}, {"epoch": 3, "loss_gen": None}]
    assert drawing.series(rows, "loss_gen")[0].tolist() == [2.0]
    assert drawing.series(rows, "perplexity", 0)[1].tolist() == [3.0]
    assert figures.learning_curves({"joint_model": rows, "frozen_model": []}).startswith(b"\x89PNG")
    assert figures.tokenizer_curves([]).startswith(b"\x89PNG")
    assert drawing.png([figures.popularity_panel(np.zeros(4, dtype=int))]).startswith(b"\x89PNG")
    assert drawing.png([figures.sequence_lengths_panel(np.array([0]))]).startswith(b"\x89PNG")


def test_labels_at_line_ends_do_not_cover_each_other():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    x = np.arange(5.0)
    drawing.draw_lines(ax, [(str(i), drawing.BLUE, x, x + i * 1e-4) for i in range(4)])
    heights = sorted(text.xy[1] for text in ax.texts)
    assert np.diff(heights).min() > 0.05 * np.diff(ax.get_ylim())[0]


def test_headline_metrics_fall_back_to_the_nearest_cut_off():
    assert figures.headline_metrics(METRICS) == ["recall@10", "ndcg@10"]
    assert figures.headline_metrics({"models": {"joint_model": {"recall@1": 0.1, "recall@5": 0.2}}}) == ["recall@5"]


def test_a_picture_cuts_nothing_off_at_its_edges():
    def long_names(ax):
        ax.plot([0.1, 0.2], [0, 1])
        ax.set_yticks([0, 1], ["all users", "newer than the champion"])
        ax.set_xlabel("NDCG@10, candidate minus champion (95% interval)")
        return "Against the champion, NDCG@10 changes by +0.0251 over all users"

    pixels = np.asarray(Image.open(io.BytesIO(drawing.png([long_names, long_names]))).convert("L"))
    for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
        assert edge.min() == 255
