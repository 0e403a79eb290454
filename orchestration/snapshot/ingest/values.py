"""The values of `diger ingest`'s options, checked one by one before a file is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class LocalPath(click.Path):
    """A file or directory of this machine."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(f"{str(value).split('://')[0]}:// is no place on this machine: ingest reads and writes local files; copy them", param, ctx)
        return super().convert(value, param, ctx)


def moment(_: click.Context, option: click.Parameter, text: str | None) -> int | None:
    from orchestration.snapshot.ingest import times

    try:
        return None if text is None else times.moment(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no date (2014-07-01), time (2014-07-01T12:00:00) or Unix seconds", param=option) from error


def mapping(_: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    from orchestration.snapshot.ingest.table import CANONICAL

    found: dict[str, str] = {}
    for name, _equals, column in (pair.partition("=") for pair in pairs):
        if name in found:
            raise click.BadParameter(f"{name} is given twice; name one column", param=option)
        found[name] = column
        if not name or not column:
            raise click.BadParameter(f"{name}: write it as NAME=COLUMN", param=option)
        if option.name == "mapping" and name not in CANONICAL:
            raise click.BadParameter(f"{name} is none of {', '.join(CANONICAL)}", param=option)
    return found


def names(_: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    names = None if text is None else tuple(name.strip() for name in text.split(","))
    if names is not None and (not all(names) or len(set(names)) < len(names)):
        raise click.BadParameter("give each column a name of its own, separated by commas", param=option)
    return names


def delimiter(_: click.Context, option: click.Parameter, text: str | None) -> str | None:
    found = None if text is None else text.replace("\\t", "\t")
    if found is not None and (len(found) != 1 or not found.isascii() or found in '"\r\n'):
        raise click.BadParameter("one ASCII character, or \\t", param=option)
    return found


def encoding(_: click.Context, option: click.Parameter, name: str | None) -> str | None:
    import codecs

    try:
        known = name is None or (codecs.lookup(name)._is_text_encoding and codecs.lookup(name).incrementaldecoder is not None)
    except LookupError:
        known = False
    if not known:
        raise click.BadParameter(
            f"{name!r} is no encoding of text; the usual ones are utf-8, cp1252, latin-1, utf-16, cp1251, shift_jis", param=option
        )
    return name


def time_format(_: click.Context, option: click.Parameter, text: str | None) -> str | None:
    from datetime import datetime

    if text is None:
        return None
    try:
        again = datetime.strptime(datetime(2024, 12, 31, 23, 58, 59).astimezone().strftime(text), text)
        whole = (again.year, again.month, again.day) == (2024, 12, 31)
    except ValueError:
        whole = False
    if not whole:
        raise click.BadParameter(f"{text!r} does not name year, month and day, as '%d.%m.%Y %H:%M:%S' does", param=option)
    return text


def kinds(_: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    kinds = None if text is None else tuple(kind.strip() for kind in text.split(","))
    if kinds is not None and not all(kinds):
        raise click.BadParameter("give types separated by commas, as in view,purchase", param=option)
    return kinds
