"""The pages' commands run, with the exit codes and the lines that the pages show."""

from __future__ import annotations

import re

import pytest

from tests.orchestration.docs import PROJECT, commands, masked, missing, run, world

PAGES = [path for path in sorted((PROJECT / "docs").glob("*.md")) if re.search(r"^<!-- world: ", path.read_text(encoding="utf-8"), re.MULTILINE)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_shows_what_its_commands_print(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    world(text, tmp_path)
    for command in commands(text):
        output, code = run(command.line, tmp_path)
        assert code == command.exit_code, f"$ {command.line}\n" + "\n".join(output)
        assert missing(command.expected, output) == [], f"$ {command.line}\n" + "\n".join(output)


def test_pages_were_found():
    assert PAGES


def test_a_line_that_no_longer_comes_is_noticed():
    assert missing(["tokenizer 0123456789ab  2026-01-01"], ["tokenizer ffffffffffff  2027-12-31"]) == []
    assert missing(["tokenizer 0123456789ab"], ["joint_model 0123456789ab"]) == ["tokenizer 0123456789ab"]
    assert missing(["b", "a"], ["a", "b"]) == ["a"]
    assert missing(["a", "…", "c"], ["a", "b", "c"]) == []
    assert masked("took 3.14 s") == masked("took 2.7 s")


def test_the_example_in_the_format_is_read():
    (first, second) = commands("```console\n$ diger verify\nall\n[exit 1]\n$ true\n```\n")
    assert (first.line, first.expected, first.exit_code) == ("diger verify", ["all"], 1)
    assert second.expected == []
