"""The reference of the configuration is current, and no page points to what is not there."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from orchestration.cli import _COMMANDS, _HELP
from orchestration.params.reference import comments, markdown
from orchestration.params.sections import Params
from orchestration.params.verdict import ReportConfig

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((PROJECT / "docs").glob("*.md")),
    *(page for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md") if (page := PROJECT / name).exists()),
]


def test_the_configuration_reference_is_current():
    page = (PROJECT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: diger params --markdown > docs/configuration.md"


def test_every_section_and_key_is_in_the_reference():
    made = markdown()
    for section in dataclasses.fields(Params):
        value = getattr(Params(), section.name)
        if dataclasses.is_dataclass(value):
            assert f"\n## {section.name}\n" in made
            assert all(f"{field.name}" in made for field in dataclasses.fields(value))
    assert "| `schedule.r` | number | `1.5` | FrqUD; inf: deterministic, 0: plain Gumbel |" in made


def test_a_keys_meaning_is_the_comment_beside_it():
    assert comments(ReportConfig)["examples"] == "users shown with history, recommendations and truth, under pseudonyms; 0: none"
    without = re.findall(r"^\| `(.+?)` \|.*\|  \|$", markdown(), re.MULTILINE)
    assert without == [], "every key says what it means"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            headings = {
                re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            }
            assert anchor in headings, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`|\$ )diger ([a-z][a-z-]+)", text, re.MULTILINE))
    assert named <= set(_COMMANDS), named - set(_COMMANDS)


def test_every_command_has_a_line_of_help():
    assert set(_HELP) == set(_COMMANDS)


def test_every_make_target_that_the_pages_name_exists():
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")))
        assert named <= targets, f"{page.name}: {named - targets}"


def test_pre_commit_runs_local_tools_only():
    repos = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = {hook["id"]: hook for hook in repos[0]["hooks"]}
    assert {"ruff", "ruff-format", "mypy"} <= set(hooks)
    assert all(hook["language"] == "system" and ".venv/bin/" in hook["entry"] for hook in hooks.values())


def test_every_picture_of_the_pages_is_small_and_described():
    for page in PAGES:
        for description, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert len(description) > 20, f"{page.name}: {target}"
            assert (page.parent / target).stat().st_size < 60_000, f"{page.name}: {target}"


def test_contributing_fits_a_screen_and_the_readme_reaches_a_result_on_the_first():
    assert len((PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 50
    assert "make demo" in "\n".join((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()[:25])
