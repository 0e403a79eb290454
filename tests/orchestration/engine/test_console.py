"""What stands on the terminal is what was stored: no markup, no escapes, and no failure because of an encoding."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from orchestration.engine.console import print_table, visible


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
