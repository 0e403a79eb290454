"""Progress and tables for people: bars and colours on a terminal, plain lines in a log, JSON on request."""

from __future__ import annotations

import codecs
import json
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from diger_core.progress import Progress, Silent

_SHORT = {"loss_gen": "loss"}
_EVERY = 5.0  # seconds between plain progress lines


def _values(values: dict[str, float | int | str]) -> str:
    shown = dict(values)
    rate = [f"{shown.pop('rows_per_second')} rows/s"] if "rows_per_second" in shown else []  # first: a narrow terminal cuts the end
    named = ((_SHORT.get(key, key), value) for key, value in shown.items())
    return "  ".join([*rate, *(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in named)])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _rate(done: int, seconds: float) -> str:
    return f"  {done / seconds:,.0f}/s" if done >= seconds else f"  {seconds / done:,.0f} s each"


class Lines:
    """Plain lines: one when a piece of work begins, one every few seconds, one when it is done. For logs and for Dagster."""

    def __init__(self, write: Callable[[str], None], every: float = _EVERY):
        self._write, self._every = write, every
        self._started: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
        now = time.monotonic()
        started = self._started.setdefault(what, now)
        finished = total is not None and done >= total
        if not finished and now - self._last.get(what, started) < self._every:
            return
        self._last[what] = now
        elapsed = now - started
        share = f"{done:,}/{total:,}" if total else f"{done:,}"
        left = f"  {_clock(elapsed / done * (total - done))} left" if total and done and not finished else ""
        rate = _rate(done, elapsed) if elapsed > 0.01 and done else ""  # a first call that is the last one has no rate to tell
        self._write(f"{what}: {share}{rate}{left}  {_values(values)}".rstrip())
        if finished:
            self._started.pop(what, None)
            self._last.pop(what, None)

    def message(self, text: str) -> None:
        self._write(text)


class Bars:
    """A bar for each piece of work that is under way, by rich; messages scroll above."""

    def __init__(self, progress: Any):
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, values="")
        self._progress.update(self._tasks[what], completed=done, total=total, values=_values(values))
        if total is not None and done >= total:
            self._progress.remove_task(self._tasks.pop(what))

    def message(self, text: str) -> None:
        self._progress.console.print(visible_lines(text), highlight=False, markup=False, emoji=False)


@contextmanager
def console_progress(stream: TextIO | None = None, quiet: bool = False) -> Iterator[Progress]:
    """Bars on a terminal, plain lines anywhere else; both on standard error, so that standard output stays machine-readable. Quiet: nothing."""
    stream = stream or sys.stderr
    if quiet:
        yield Silent()
        return
    if not stream.isatty():
        yield Lines(lambda text: print(visible_lines(text), file=stream, flush=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Rich
    from rich.table import Column

    console = Console(file=stream)
    columns = (
        TextColumn("{task.description}", style="bold", markup=False),  # may name a file of the user's
        BarColumn(max(6, console.width // 8)),
        MofNCompleteColumn(table_column=Column(min_width=9)),
        TimeRemainingColumn(compact=True, table_column=Column(min_width=5)),
        TextColumn("{task.fields[values]}", markup=False),
    )
    with Rich(*columns, console=console, transient=True) as progress:
        yield Bars(progress)


_PLAIN = {"±": "+-", "–": "-", "—": "-", "…": "...", "│": "|", "─": "-", "→": "->", "×": "x", "≥": ">=", "≤": "<=", "•": "*"}
_JOINERS = "\u200c\u200d"  # needed by several scripts and by emoji; they reorder nothing


def visible(text: str) -> str:
    """`text` as it is, but with control and bidirectional characters as escapes: an id may hold what a terminal obeys."""
    if text.isascii() and text.isprintable():
        return text
    hidden = {c for c in text if c not in _JOINERS and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    return "".join(c.encode("unicode_escape").decode() if c in hidden else c for c in text)


def visible_lines(text: str) -> str:
    """The lines of a message, each `visible`: it may quote an id or a name of the user's data."""
    return "\n".join(map(visible, text.split("\n")))


def say(text: str) -> None:
    """Lines on standard output that may quote a person's words, an id or a name."""
    print(visible_lines(text))


def forgive_output() -> None:
    """What standard output and error cannot encode is written in ASCII, so that a command that did its work does not fail at telling it."""
    codecs.register_error("diger.plain", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if not _is_utf8(stream) and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="diger.plain")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end


def _is_utf8(stream: TextIO) -> bool:
    try:
        return codecs.lookup(stream.encoding or "utf-8").name.startswith("utf")
    except LookupError:
        return False


def digits(value: float) -> str:
    """Three digits that count: 0.510, 12.3, 4,210."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _is_number(cell: str) -> bool:
    """A number as people write one, also with an interval or as an ID; nothing counts as one, too."""
    return not any(c.isalpha() for c in cell) and (not cell or any(c.isdigit() for c in cell) or cell in "–-")


def print_table(title: str, columns: list[str], rows: list[list[str]], stream: TextIO | None = None) -> None:
    """A table for a terminal or a log; numbers right-aligned. Cells are shown as they are: no markup, no emoji codes, no escapes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = stream or sys.stdout
    table = Table()
    for index, column in enumerate(columns):
        numbers = index > 0 and all(_is_number(row[index]) for row in rows)
        table.add_column(Text(visible(column)), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console = Console(file=stream, width=None if stream.isatty() else 120)
    console.print(Text(visible(title), style="bold"), soft_wrap=True)
    console.print(table)


def print_json(value: Any) -> None:
    """JSON on standard output; in ASCII alone where the output cannot hold more."""
    print(json.dumps(value, indent=1, ensure_ascii=not _is_utf8(sys.stdout)))


def print_next(steps: Sequence[tuple[str, str]]) -> None:
    """What a person may do next: (command, what for), each on a line of standard error, so that standard output stays the answer alone."""
    room = 70 - max((len(why) for _, why in steps), default=0)  # a longer command pushes no other line beyond 80 columns
    width = max((len(command) for command, _ in steps if len(command) <= room), default=0)
    sys.stdout.flush()
    for place, (command, why) in enumerate(steps):
        print(visible(f"{'Next: ' if place == 0 else '      '}{command:<{width}}  # {why}"), file=sys.stderr)
