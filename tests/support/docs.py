"""The commands of a page, run: `python -m tests.support.docs docs/PAGE.md` writes their present output into the page.

A page names the world that its commands run in by a comment, `<!-- world: MODULE:FUNCTION -->`; the function fills an empty folder. In its
```console blocks, lines that begin with "$ " are commands, what follows is their output, "[exit N]" their exit code where it is not 0, and a line
"…" stands for any number of lines.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TOOL = re.compile(r"(?:[A-Z_]+=\S+ )*(?:diger|make|dvc|ray|git|pre-commit|dagster|python|export) ")
_WORLD = re.compile(r"<!-- world: ([\w.]+):(\w+) -->")
_EXIT = re.compile(r"\[exit (\d+)\]")


@dataclass
class Command:
    line: str
    expected: list[str]
    exit_code: int = 0


def commands(text: str) -> list[Command]:
    """All commands of a page, in order."""
    found: list[Command] = []
    for block in _BLOCK.findall(text):
        for line in block.splitlines():
            code = _EXIT.fullmatch(line)
            if line.startswith("$ "):
                found.append(Command(line[2:], []))
            elif code:
                found[-1].exit_code = int(code[1])
            else:
                found[-1].expected.append(line)
    return found


def plain_commands(text: str) -> list[str]:
    """The lines of blocks without a language that are commands, without the remark behind them."""
    lines = [line for language, block in _FENCED.findall(text) if not language for line in block.splitlines()]
    return [re.sub(r"\s+# .*", "", line).strip() for line in lines if _TOOL.match(line)]


def inline_commands(text: str) -> list[str]:
    """Commands with an argument within sentences and tables; a synopsis ("[…]") is none."""
    spans = re.findall(r"`([^`\n]+)`", _FENCED.sub("", text))
    return [span for span in spans if _TOOL.match(span) and "[" not in span and not re.fullmatch(r"diger [\w-]+", span)]


def world(text: str, folder: Path) -> None:
    """Fills the folder as the page wants it."""
    match = _WORLD.search(text)
    assert match, "the page names no world"
    getattr(import_module(match[1]), match[2])(folder)


def run(command: str, folder: Path) -> tuple[list[str], int]:
    """(lines of standard output and error, exit code)."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DIGER_CACHE": str(folder / "cache"), "PYTHONPATH": str(PROJECT), "COLUMNS": "120"}
    environment.pop("DIGER_STORE", None)
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.stdout.replace(f"{folder}/", "").splitlines(), done.returncode


def masked(line: str) -> str:
    """Without what differs from run to run: hashes, numbers, who and where."""
    line = re.sub(r"\b[0-9a-f]{6,64}\b|…", "#", line)
    line = re.sub(r", [\d,]+ MB/s", "", line)  # told where the machine is fast enough for it to be a number
    line = re.sub(r"\(by [^)]*\)|on \S+(?=  run|$)|code \S+( \+ uncommitted changes)?", "@", line)
    return re.sub(r"[0-9][0-9,.:-]*", "0", re.sub(r"\s+", " ", line)).strip()


def missing(expected: list[str], found: list[str]) -> list[str]:
    """Expected lines that do not come, in this order, in what was found."""
    lines = iter([masked(line) for line in found])
    return [line for line in expected if line.strip() != "…" and masked(line) not in lines]


def rewrite(page: Path) -> None:
    """Runs the page's commands and writes their output in place; blocks keep their "…" lines at the end of an output."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        world(text, folder)

        def block(match: re.Match[str]) -> str:
            lines = []
            for command in commands(match[0]):
                output, code = run(command.line, folder)
                kept = output if len(command.expected) != 0 or len(output) <= 60 else [*output[:60], "…"]
                lines += [f"$ {command.line}", *kept, *([f"[exit {code}]"] if code else [])]
            return "```console\n" + "\n".join(lines) + "\n```"

        page.write_text(_BLOCK.sub(block, text), encoding="utf-8")


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]))
