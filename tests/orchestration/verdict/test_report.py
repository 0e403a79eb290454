"""The report page: safe with hostile titles, self-contained, reproducible, bounded, honest about what was measured."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from diger_core.store.artefacts import Store
from orchestration.params.verdict import ReportConfig
from orchestration.verdict.report.markdown import checks_markdown, curves_markdown, metrics_markdown
from orchestration.verdict.report.material import Material
from orchestration.verdict.report.page import page
from orchestration.verdict.report.report import report
from orchestration.verdict.report.text import markdown_escape, printable
from orchestration.verdict.report.tree import SHOWN_PREFIXES, tree
from orchestration.verdict.report.verdict import verdict
from tests.support.report_material import HOSTILE, IDENTITY, fake_curves, fake_inputs, fake_metrics, fake_run
from tests.support.undrawn import undrawn

VOID = {"meta", "input", "br", "hr", "img", "link"}
SELF_CLOSED = {"path", "rect", "use", "image", "clippath", "g", "circle", "line"}


class Reader(HTMLParser):
    """Elements, ids, addresses and tables of a page; fails on tags that do not nest."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.headers_without_scope = 0
        self.svgs_without_label = 0
        self.faults: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._seen(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._seen(tag, dict(attrs))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        self.texts.append(data)

    def _seen(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.references += [attrs[name] for name in ("href", "src", "action", "data", "srcset") if attrs.get(name)]
        self.handlers += [name for name in attrs if name.startswith("on")]
        self.headers_without_scope += tag == "th" and "scope" not in attrs
        self.svgs_without_label += tag == "svg" and not attrs.get("aria-label")

    @property
    def text(self) -> str:
        return "".join(self.texts)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return fake_inputs(tmp_path_factory.mktemp("store"), titles=dict(enumerate(HOSTILE)))


@pytest.fixture(scope="module")
def html(inputs):
    return page(Material(inputs), ReportConfig(), IDENTITY)


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


def test_hostile_titles_are_text_and_nothing_else(read, html):
    assert read.faults == []
    assert read.open == []
    assert read.handlers == []
    assert read.tags.count("script") == 2  # the page's own: the counts and the look-up
    assert read.tags.count("img") == 0
    assert read.tags.count("h1") == 1
    for title in HOSTILE[:4]:
        assert printable(title) in read.text
    assert "{{ 7 * 7 }}" in read.text
    assert "&lt;b&gt; already escaped" in read.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", html)
    assert "\\u202egpj.exe" in read.text


def test_a_title_of_a_megabyte_is_cut_and_the_page_stays_small(tmp_path):
    made = page(Material(fake_inputs(tmp_path, titles={i: "x" * 1_000_000 for i in range(280, 300)})), ReportConfig(), IDENTITY)
    assert len(made) < 1_000_000
    assert "x" * 60 in made
    assert "x" * 200 not in made


def test_nothing_on_the_page_points_outside_it(read, html):
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in read.references)
    assert "://" not in html.replace("src 'none'", "")
    assert not re.search(r"@import|url\((?!#)", html)
    ids = set(read.ids)
    assert {r[1:] for r in read.references if r.startswith("#")} <= ids


def test_ids_are_unique_and_name_the_stages(read):
    assert len(read.ids) == len(set(read.ids))
    stages = {
        "validated_items",
        "validated_interactions",
        "sequences",
        "embeddings",
        "tokenizer",
        "joint_model",
        "semantic_ids",
        "evaluation",
        "report",
    }
    assert stages | {"verdict", "slices", "examples", "lineage"} <= set(read.ids)


def test_tables_and_pictures_are_labelled_for_screen_readers(read, html):
    assert read.headers_without_scope == 0
    assert read.svgs_without_label == 0
    assert read.tags.count("caption") == read.tags.count("table")
    assert '<html lang="en">' in html
    assert 'class="skip" href="#content"' in html


def test_counts_of_zero_are_folded_away(html):
    assert re.search(r"<details[^>]*><summary>2 counts are zero</summary><p>look alike ids, without text</p></details>", html)


def test_every_input_is_listed_with_its_hash(inputs, read):
    for stage, artefact in inputs.items():
        assert stage in read.text
        assert artefact.hash in read.text


def test_the_same_inputs_give_the_same_bytes(tmp_path, html):
    again = page(Material(fake_inputs(tmp_path / "elsewhere", titles=dict(enumerate(HOSTILE)))), ReportConfig(), IDENTITY)
    assert again == html


def test_the_page_holds_no_user_ids_and_no_paths(inputs, html, tmp_path):
    assert "secret-user" not in html
    assert str(next(iter(inputs.values())).root.url) not in html


@undrawn()
def test_examples_can_be_switched_off_and_never_reach_markdown_or_facts(inputs):
    off = fake_run(inputs, report=ReportConfig(examples=0))
    report(off)
    assert b"Shopper" not in off.out.files["report.html"]
    on = fake_run(inputs, report=ReportConfig(examples=2))
    report(on)
    assert b"Shopper A" in on.out.files["report.html"]
    assert b"Shopper C" not in on.out.files["report.html"]
    assert b"Shopper" not in on.out.files["report.md"]
    assert "Shopper" not in json.dumps(on.said)
    assert not any(word in on.out.files["report.md"] for word in (b"kettle", b"jacket"))


def test_a_right_recommendation_is_ticked_exactly_once_a_list(read):
    assert read.text.count("✓ right") == 2 * 5  # the fixture puts the truth into the two lists of 5 shoppers


@undrawn()
def test_a_run_without_the_control_says_that_the_gain_is_unknown(tmp_path):
    made = page(Material(fake_inputs(tmp_path, frozen=False)), ReportConfig(), IDENTITY)
    assert "no frozen control was trained" in made
    assert "Not measured" in made
    assert Reader(made).faults == []


@pytest.mark.parametrize(
    ("gain", "tone", "words"),
    [
        ((0.005, 0.001, 0.009), "better", "Better in this run"),
        ((-0.005, -0.009, -0.001), "worse", "Worse in this run"),
        ((0.005, -0.001, 0.011), "open", "the interval includes zero"),
        ((0.0, 0.0, 0.0), "open", "the interval includes zero"),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval_allows(gain, tone, words):
    found = verdict(fake_metrics(gain=gain)).parts[-1]
    assert found.tone == tone
    assert words in found.told
    assert f"{gain[1]:+.4f} to {gain[2]:+.4f}" in found.sentence


@undrawn()
def test_an_alarm_of_the_training_is_told_beside_the_verdict(inputs, tmp_path):
    store = Store(tmp_path)
    with store.writer("joint_model") as out:
        out.json("config.json", {"alarm": "level 1 <b>collapsed</b>", "best_epoch": 3})
        out.json("curves.json", fake_curves(3))
        stopped = store.publish(out)
    made = page(Material({**inputs, "joint_model": stopped}), ReportConfig(), IDENTITY)
    assert "stopped on an alarm" in made
    assert "level 1 &lt;b&gt;collapsed" in made
    assert made.index("stopped on an alarm") < made.index('id="evaluation"')


def test_ids_and_titles_follow_the_items_whatever_the_order_of_rows(inputs, tmp_path):
    store, random, shuffled = Store(tmp_path), np.random.default_rng(5), dict(inputs)
    for stage, file in (("semantic_ids", "semantic_ids.parquet"), ("validated_items", "items.parquet")):
        table = inputs[stage].table(file)
        with store.writer(stage) as out:
            out.table(file, table.take(random.permutation(table.num_rows)))
            shuffled[stage] = store.publish(out)
    straight, other = Material(inputs), Material(shuffled)
    assert np.array_equal(other.semantic_ids[0], straight.semantic_ids[0])
    assert np.array_equal(other.semantic_ids[1], straight.semantic_ids[1])
    assert [other.title(i) for i in range(40)] == [straight.title(i) for i in range(40)]


def test_the_tree_counts_every_item_and_event_exactly():
    random = np.random.default_rng(1)
    codes_NM, visits_N = random.integers(0, 40, (5000, 3)), random.integers(0, 9, 5000)
    grown = tree(codes_NM, visits_N, lambda item: f"item {item}", 3)
    assert sum(p.items for p in grown.prefixes) == 5000
    assert sum(p.events for p in grown.prefixes) == visits_N.sum()
    for prefix in grown.prefixes[::7]:
        assert prefix.items == (codes_NM[:, 0] == prefix.code).sum()
        for child in prefix.children:
            inside = np.flatnonzero((codes_NM[:, 0] == prefix.code) & (codes_NM[:, 1] == child.code))
            assert (child.items, child.events) == (len(inside), visits_N[inside].sum())
            best = inside[np.lexsort((inside, -visits_N[inside]))][:3]
            assert child.titles == tuple(f"item {i}" for i in best)
        assert dict(zip(grown.counts[prefix.code][::2], grown.counts[prefix.code][1::2], strict=True)) == {
            c: int(((codes_NM[:, 0] == prefix.code) & (codes_NM[:, 1] == c)).sum()) for c in np.unique(codes_NM[codes_NM[:, 0] == prefix.code, 1])
        }


def test_prefixes_beyond_the_budget_are_counted_not_dropped():
    codes_NM = np.stack(np.divmod(np.arange(60_000) % 30_000, 200), axis=1)
    grown = tree(codes_NM, np.ones(60_000, dtype=int), str, 1)
    assert sum(len(p.children) for p in grown.prefixes) == SHOWN_PREFIXES
    assert all(p.children for p in grown.prefixes)
    assert all(sum(c.items for c in p.children) + p.hidden_items == p.items for p in grown.prefixes)


def test_a_hundred_thousand_items_with_the_worst_titles_stay_under_three_megabytes(tmp_path):
    worst = {i: "\u202e&<>\"'" * 30 for i in range(100_000)}
    inputs = fake_inputs(tmp_path, items=100_000, users=2000, codes=256, titles=worst, epochs=120)
    made = page(Material(inputs), ReportConfig(tree_items_per_prefix=50), IDENTITY)
    assert len(made.encode()) < 3_000_000


def test_one_item_one_user_and_no_curves_still_make_a_page(tmp_path):
    inputs = fake_inputs(tmp_path, items=1, users=1, codes=2)
    assert (
        Reader(page(Material({k: v for k, v in inputs.items() if k not in ("tokenizer", "embeddings")}), ReportConfig(examples=0), IDENTITY)).faults
        == []
    )


def test_markdown_cannot_be_broken_out_of():
    metrics = fake_metrics({"lists": 0.13, "joint_model": 0.12, "frozen_model": 0.1, "item_item": 0.1})
    metrics["models"]["a|b<script>[x](y)"] = metrics["models"]["joint_model"]
    made = metrics_markdown(metrics)
    assert "<script>" not in made
    rows = [line for line in made.splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    hostile = {
        "passed": False,
        "checks": [{"name": "a|b", "passed": False, "severity": "critical", "message": "<b>|`x`\n| y"}],
        "counts": {"rows": 3},
    }
    assert checks_markdown(hostile).count("\n") == 4
    assert "<b>" not in checks_markdown(hostile)
    assert markdown_escape("[x](y)") == "\\[x\\]\\(y\\)"


def test_the_curves_picture_is_small_enough_for_the_ui():
    made = curves_markdown({"joint_model": fake_curves(120), "frozen_model": fake_curves(120, scale=0.9)})
    assert made.startswith("![Learning curves")
    assert len(made) < 60_000 * 1.4


def test_invisible_characters_are_shown_and_joiners_kept():
    assert printable("a\u202eb\x07c\u2066") == "a\\u202eb\\u0007c\\u2066"
    assert printable("\U0001f469\u200d\U0001f52c") == "\U0001f469\u200d\U0001f52c"
    assert printable("x" * 500, 10) == "x" * 10 + "…"
    assert printable(None) == ""


def test_the_configuration_refuses_what_it_cannot_do():
    for wrong in ({"examples": 27}, {"examples": -1}, {"title": " "}, {"tree_items_per_prefix": 51}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ReportConfig(**wrong)


def test_template_and_style_ship_with_the_package():
    folder = Path(__import__("orchestration.verdict.report", fromlist=["x"]).__file__).parent
    assert {"page.html.j2", "page.js", "style.css"} <= {p.name for p in folder.iterdir()}
