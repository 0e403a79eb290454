"""Prints the records behind RESULTS.md: `python -m benchmarks.rows [KIND ...] [--commands]`, one record a line, in the order of their time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.tables import FOLDER, Row, lines


def kinds() -> list[str]:
    """The kinds of records that there are, one file each."""
    return sorted(path.stem for path in (FOLDER / "results").glob("*.jsonl"))


def commands(records: list[Row]) -> list[str]:
    """Every command that made a record, once."""
    return sorted({record["command"] for record in records})


def line(record: Row) -> str:
    """`name=value` for everything but the command."""
    return "  ".join(f"{name}={value}" for name, value in sorted(record.items()) if name != "command")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*kinds(), []], help="which records; all where none is named")
    parser.add_argument("--commands", action="store_true", help="only the commands that made them")
    given = parser.parse_args(arguments)
    for kind in given.kinds or kinds():
        records = lines(kind)
        for told in commands(records) if given.commands else map(line, records):
            print(told if given.commands else f"{kind}  {told}")


if __name__ == "__main__":
    main()
