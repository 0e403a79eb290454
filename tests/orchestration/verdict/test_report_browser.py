"""Report, comparison and study as a browser shows them: readable in light and dark, wide, narrow and printed; by keyboard; with no request."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from orchestration.audit.index import Index
from orchestration.params.verdict import ReportConfig
from orchestration.verdict.report.compare import compare_page
from orchestration.verdict.report.found import find_report
from orchestration.verdict.report.material import Material
from orchestration.verdict.report.page import page as report_page
from tests.orchestration.verdict.test_report_compare import world
from tests.support.browser import browser_page
from tests.support.report_material import IDENTITY, fake_inputs, fake_verdict
from tests.support.report_picture import PICTURE, newest
from tests.support.study_material import study_page

__all__ = ["world"]
CHECKS = (Path(__file__).resolve().parents[2] / "support" / "report_accessibility.js").read_text(encoding="utf-8")
SCREENSHOTS = os.environ.get("DIGER_SCREENSHOTS")  # a directory: keep a picture of every state, to be looked at
PAGES = ["report", "compare", "study"]
VIEWS = [("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        page.requests = []
        page.on("request", lambda request: page.requests.append(request.url))
        page.errors = []
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        yield page


@pytest.fixture(scope="module")
def pages(world, tmp_path_factory):
    """File URLs of a report, a comparison and a study."""
    folder = tmp_path_factory.mktemp("pages")
    store, hashes, _ = world
    index = Index(store, cached=False)
    a, b = (find_report(index, hash_) for hash_ in hashes)
    gated = fake_inputs(folder / "store", verdict=fake_verdict((0.01, 0.002, 0.018), refused="coverage"))
    made = {"report": report_page(Material(gated), ReportConfig(), IDENTITY, a.costs), "compare": compare_page(a, b), "study": study_page()}
    for name, html in made.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in made}


def opened(browser, url: str, scheme: str, width: int):
    browser.set_viewport_size({"width": width, "height": 900})
    browser.emulate_media(color_scheme=scheme, media="screen")
    browser.goto(url)
    return browser


@pytest.mark.parametrize(("scheme", "width"), VIEWS)
@pytest.mark.parametrize("name", PAGES)
def test_every_reader_can_read_it(browser, pages, name, scheme, width):
    page = opened(browser, pages[name], scheme, width)
    page.evaluate("document.querySelectorAll('details').forEach((d, i) => { d.open = i < 12 })")
    assert page.evaluate(CHECKS) == []
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}-{scheme}-{width}.png"), full_page=True)


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])  # the checks above see both in every run
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(browser, pages, name, scheme):
    page = opened(browser, pages[name], scheme, 1280)
    page.evaluate("document.querySelectorAll('details').forEach((d, i) => { d.open = i < 12 })")
    assert serious(page) == []


def test_axe_notices_what_it_is_for(browser, pages):
    page = opened(browser, pages["report"], "light", 1280)
    page.evaluate("document.querySelector('#verdict .title').style.color = '#bbb'; document.querySelector('svg.chart').removeAttribute('aria-label')")
    assert {fault.partition(":")[0] for fault in serious(page)} == {"color-contrast", "svg-img-alt"}


def serious(page) -> list[str]:
    """What axe-core calls serious or critical on the page as it stands: rule and place."""
    found = Axe().run(page).response["violations"]
    grave = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {node['target']} {node['html'][:120]}" for rule in grave for node in rule["nodes"]]


@pytest.mark.parametrize("name", PAGES)
def test_it_asks_for_nothing_and_breaks_no_policy(browser, pages, name):
    browser.requests.clear()
    browser.errors.clear()
    opened(browser, pages[name], "light", 1280)
    assert browser.requests == [pages[name]]
    assert browser.errors == []


def test_the_checks_notice_what_they_are_for(browser, pages):
    page = opened(browser, pages["report"], "light", 1280)
    page.evaluate(
        """() => {
            document.querySelector('#verdict .title').style.color = '#bbb';
            document.querySelector('h2').outerHTML = '<h4>x</h4>';
            document.querySelector('svg.chart').removeAttribute('aria-label');
            document.querySelector('svg.chart').textContent = '';
        }"""
    )
    faults = " ".join(page.evaluate(CHECKS))
    assert all(word in faults for word in ("contrast 1.", "H4 after h1", "picture without a text"))


def test_a_prefix_is_found_by_keyboard_alone(browser, pages):
    page = opened(browser, pages["report"], "light", 1280)
    page.focus("#prefix")
    first = page.evaluate("JSON.parse(document.getElementById('counts').textContent)")
    code = next(iter(first))
    page.keyboard.type(f"{code}-{first[code][0]}")
    page.keyboard.press("Enter")
    assert page.inner_text("#lookup output").startswith(f"{code}-{first[code][0]}: {first[code][1]} item")
    assert page.is_visible(f"#code-{code}-{first[code][0]}")


def test_the_first_tab_offers_to_skip_to_the_report(browser, pages):
    page = opened(browser, pages["report"], "light", 1280)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"


def test_the_first_screen_needs_no_scrolling_on_a_laptop(browser, pages):
    page = opened(browser, pages["report"], "light", 1366)
    assert page.evaluate("document.querySelector('#verdict').getBoundingClientRect().bottom") <= 768
    assert page.evaluate("getComputedStyle(document.querySelector('.cells')).gridTemplateColumns.split(' ').length") == 2


@pytest.mark.parametrize(("media", "width"), [("screen", 390), ("print", 720)])
def test_no_part_of_the_first_screen_sticks_out_of_its_cell(browser, pages, media, width):
    page = opened(browser, pages["report"], "light", width)
    page.emulate_media(media=media)
    sticks_out = "e.scrollWidth > e.parentElement.clientWidth + 1"
    wide = f"[...document.querySelectorAll('.cell > *')].filter((e) => {sticks_out}).map((e) => e.outerHTML.slice(0, 80))"
    assert page.evaluate(wide) == []


def test_it_prints_without_navigation_and_within_the_paper(browser, pages, tmp_path):
    page = opened(browser, pages["report"], "dark", 720)  # A4 between margins of a centimetre
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert not page.is_visible("nav")
    assert not page.is_visible("#lookup")
    white = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert white == "rgb(255, 255, 255)"  # ink on paper, whatever the screen's scheme
    page.pdf(path=str(tmp_path / "page.pdf"), format="A4")
    printed = (tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page[^s]", printed)) <= 5, "about four pages"
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / "report-print.png"), full_page=True)


def test_the_readmes_picture_is_the_first_screen_of_a_stores_newest_report(pages, tmp_path):
    place = tmp_path / "artefacts" / "report" / "0123" / "report.html"
    with pytest.raises(ValueError, match="make demo"):
        newest(tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(Path(pages["report"].removeprefix("file://")).read_bytes())
    command = [sys.executable, "-m", "tests.support.report_picture", "--store", str(tmp_path), "--out", str(tmp_path / "report.png")]
    subprocess.run(command, check=True, cwd=PICTURE.parents[2], timeout=120)  # a browser is open in this process already
    assert (tmp_path / "report.png").read_bytes()[16:24] == PICTURE.read_bytes()[16:24]  # width and height
    assert 10_000 < (tmp_path / "report.png").stat().st_size < 120_000
