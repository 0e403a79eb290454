"""Recorded lines and Markdown tables of them, for the report's parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
Row = dict[str, Any]


def lines(kind: str) -> list[Row]:
    """All records of a kind, oldest first."""
    path = FOLDER / "results" / f"{kind}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def rows(kind: str, *key: str) -> list[Row]:
    """The records of a kind, one (the last) for each value of `key`."""
    return list({tuple(str(record.get(name)) for name in key): record for record in lines(kind)}.values())


def last_run(kind: str) -> list[Row]:
    """The records of the newest run of a kind that fills a table in one run; toy runs do not count."""
    found = [record for record in lines(kind) if not record.get("quick")]
    return [record for record in found if record["run"] == found[-1]["run"]]


def table(header: list[str], body: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in line) + " |" for line in body]) + "\n"


def made_by(records: list[Row]) -> str:
    """One line below a table: devices, versions, commits and days of its records."""
    named = {name: sorted({record[name] for record in records}) for name in ("device", "torch", "commit")}
    days = sorted({record["time"][:10] for record in records})
    commits = ", ".join(f"`{commit}`" for commit in named["commit"])
    return f"\n{', '.join(named['device'])}; torch {', '.join(named['torch'])}; commit {commits}; {' to '.join(sorted({days[0], days[-1]}))}.\n"
