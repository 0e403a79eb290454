"""References to the method's sections lead to a section, and the glossary has every term of the plan."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
METHOD = (PROJECT / "docs" / "method.md").read_text(encoding="utf-8")
GLOSSARY = (PROJECT / "docs" / "glossary.md").read_text(encoding="utf-8")
SOURCES = [
    path
    for folder in ("diger_core", "orchestration", "assets", "tests", "benchmarks", "docs", "examples")
    for path in sorted((PROJECT / folder).rglob("*"))
    if path.suffix in (".py", ".md") and path != Path(__file__)
]
TERMS = (
    "semantic ID", "prefix", "suffix", "ID table", "assignment", "cold start", "frozen model", "baselines", "starting bundle", "snapshot", "stage",
    "artefact", "record", "bundle", "champion", "gate", "verdict", "lists", "search", "study", "trial", "capture", "checkpoint", "teacher",
)  # fmt: skip


def references(text: str) -> set[int]:
    """The sections of docs/method.md that a text names: "docs/method.md, section 3", "sections 3, 5 and 7", "sections 3 to 5"."""
    found = set()
    for words in re.findall(r"docs/method\.md, sections? (\d+(?:(?:, | and | to )\d+)*)", text):
        found |= {int(number) for number in re.findall(r"\d+", words)}
    return found


def test_every_reference_to_a_section_of_the_method_leads_to_one():
    sections = {int(number) for number in re.findall(r"^## (\d+)\. ", METHOD, re.MULTILINE)}
    named = {path: references(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert len([path for path, numbers in named.items() if numbers]) > 20
    for path, numbers in named.items():
        assert numbers <= sections, f"{path.relative_to(PROJECT)}: docs/method.md has no section {sorted(numbers - sections)}"


def test_no_text_points_to_a_page_that_is_not_in_the_repository():
    for path in SOURCES:
        assert not re.search(r"\bthe specification\b|\bDIGER, sections? \d", path.read_text(encoding="utf-8")), path.relative_to(PROJECT)


def test_references_are_read():
    assert references("(docs/method.md, sections 3, 5 and 7) and docs/method.md, section 2") == {2, 3, 5, 7}


@pytest.mark.parametrize("term", TERMS)
def test_a_term_has_its_heading(term):
    assert f"\n### {term}\n" in GLOSSARY


def test_every_heading_of_the_glossary_is_explained():
    for heading, text in re.findall(r"^### (.*)\n((?:(?!#).*\n?)*)", GLOSSARY, re.MULTILINE):
        assert len(text.split()) >= 4, heading


def test_tests_named_by_the_method_exist():
    names = {path.name for path in (PROJECT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"`(test_\w+\.py)`", METHOD)) <= names


def named_files(text: str) -> set[str]:
    """Files and folders in backticks that begin at the project's root."""
    found = set(re.findall(r"`((?:diger_core|orchestration|assets|tests|benchmarks|docs|examples)/[\w./-]*)`", text))
    return {name for name in found if not re.search(r"NAME|GROUP|PAGE", name)}


@pytest.mark.parametrize(
    "page", [*sorted((PROJECT / "docs").glob("*.md")), PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_every_file_that_a_page_names_exists(page):
    missing = {name for name in named_files(page.read_text(encoding="utf-8")) if not (PROJECT / name).exists()}
    assert not missing


def test_the_architecture_names_every_folder_of_the_pipeline():
    text = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (PROJECT / "orchestration").glob("*/__init__.py")}
    rooms = {path.parent.name for path in (PROJECT / "diger_core").glob("*/__init__.py")}
    assert {name for name in folders if f"`orchestration/{name}/`" not in text} == set()
    assert {name for name in rooms if f"\n| `{name}/` |" not in text} == set()


def test_the_reading_order_of_the_core_names_files_that_exist():
    text = (PROJECT / "diger_core" / "__init__.py").read_text(encoding="utf-8").split('"""')[1]
    room, found = "", set()
    for line in text.splitlines():
        if heading := re.match(r"([a-z]+)/ ", line):
            room = heading[1]
            assert (PROJECT / "diger_core" / room).is_dir(), room
        if room and line.strip():
            found |= {f"{room}/{name}" for name in re.findall(r"\b([a-z_]+\.py)\b", line)}
    missing = {name for name in found if not (PROJECT / "diger_core" / name).exists()}
    assert len(found) > 20
    assert not missing


def test_every_package_says_what_it_holds():
    packages = [path for root in ("diger_core", "orchestration", "assets", "benchmarks") for path in (PROJECT / root).rglob("__init__.py")]
    assert {path.parent.name for path in packages if not path.read_text(encoding="utf-8").startswith('"""')} == set()


def test_every_rule_of_the_gate_stands_in_the_table_of_refusals():
    from orchestration.verdict.report.gate import RULES

    page = (PROJECT / "docs" / "retraining.md").read_text(encoding="utf-8")
    table = page.partition("## What a refusal means")[2].partition("\n## ")[0]
    assert [title for title in RULES.values() if title not in table] == []
