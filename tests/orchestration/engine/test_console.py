"""What stands on the terminal is what was stored: no markup, no escapes, and no failure because of an encoding."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import click
import pyarrow as pa
import pytest

from orchestration.cli import main
from orchestration.cli.lookup import by_codes
from orchestration.engine.console import console_progress, print_table, visible


@pytest.mark.parametrize("item", ["kit[/5]", "[red]shoe[/red]", "[new]lamp", ":cat:", "a\\[x]", "[link=http://x]y[/link]", "né ü", "%s {0}"])
def test_an_id_in_a_table_is_shown_as_it_is(item: str) -> None:
    out = io.StringIO()
    print_table(f"Like {item}", ["code_1", item], [["1", item]], stream=out)
    assert out.getvalue().count(item) == 3


def test_what_a_terminal_would_obey_is_shown_as_an_escape() -> None:
    assert visible("a\x1b[31m\u202eb\nc\u200dd") == "a\\x1b[31m\\u202eb\\nc\u200dd"
    out = io.StringIO()
    print_table("t", ["id"], [["\x1b]0;owned\x07"]], stream=out)
    assert "\x1b" not in out.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_quotes_names_and_ids_as_they_are_and_nothing_that_a_terminal_obeys(stream: type[io.StringIO]) -> None:
    out = stream()
    with console_progress(out) as progress:
        progress.update("reading kit[/5]:cat:.csv", 1, 3)
        progress.message("item 'a\x1b]0;owned\x07' of [red]:cat:\nsecond line")
    assert "a\\x1b]0;owned\\x07' of [red]:cat:\nsecond line" in out.getvalue().replace("\r", "")
    assert "\x1b]0;" not in out.getvalue()


def test_a_fault_quotes_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["snapshot", "add", "nowhere\x1b]0;owned\x07"])
    assert "nowhere\\x1b]0;owned\\x07" in capsys.readouterr().err


@pytest.mark.parametrize("codes", ["²", "1-²", "1,2", "9" * 40, "-1", "1-2-3-4-5"])
def test_what_is_no_code_is_refused_by_name(codes: str) -> None:
    with pytest.raises(click.BadParameter, match="write at most 3 whole numbers with dashes"):
        by_codes(pa.table({"code_1": [1], "code_2": [1], "suffix": [1], "item_id": ["a"]}), codes)


SHOW = """
from orchestration.cli.run import show
from orchestration.engine.console import print_json
values = {"recall@10": 0.1, "ndcg@10": 0.1, "intervals": {"recall@10": [0, 0.2], "ndcg@10": [0, 0.2]}}
show({"metrics": {"models": {m: values for m in ("joint_model", "markov")}, "users": 3}, "seconds": 1, "snapshot": "Jürgen…"}, False)
print_json({"id": "Jürgen"})
"""


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "cp437"])
def test_a_terminal_of_another_encoding_gets_the_text_and_no_error(encoding: str) -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    text = done.stdout.decode(encoding)
    assert done.returncode == 0, done.stderr
    assert ("0.1000 +-0.1000" if encoding == "ascii" else "0.1000 ±0.1000") in text
    assert "..." in text
    assert json.loads(text[text.rindex("{") :]) == {"id": "Jürgen"}
