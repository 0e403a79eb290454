"""Parameters as YAML for people: each key with its meaning and, where it differs, its default. What is printed loads as the same parameters."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from diger_core.errors import DigerError
from orchestration.params.reference import comments
from orchestration.params.sections import Params

WIDTH = 80  # columns: a comment that would go beyond stands above its key


def shown(params: Params, sections: Sequence[str] = (), *, changed: bool = False, meanings: bool = True) -> str:
    """The text. DigerError for a section that does not exist."""
    names = [each.name for each in dataclasses.fields(Params)]
    for name in sections:
        if name not in names:
            raise DigerError(f"{name}: is no section of the parameters: they are {', '.join(names)}")
    lines: list[str] = []
    for name in sections or names:
        value, usual = getattr(params, name), getattr(Params(), name)
        lines += _section(name, value, usual, changed, meanings) if dataclasses.is_dataclass(value) else _leaf(name, value, usual, "", changed, "")
    if not lines:
        return "# nothing differs from the defaults\n"
    return "\n".join(lines) + "\n"


def _section(name: str, value: Any, usual: Any, changed: bool, meanings: bool) -> Iterator[str]:
    inner = list(_keys(value, usual, "  ", changed, meanings))
    if changed and not inner:
        return
    if meanings:
        told = re.sub(r"\s+", " ", inspect.getdoc(type(value)) or "")
        yield from textwrap.wrap(told, WIDTH, initial_indent="# ", subsequent_indent="# ")
    yield f"{name}:" + ("" if inner else " {}")
    yield from inner


def _keys(value: Any, usual: Any, indent: str, changed: bool, meanings: bool) -> Iterator[str]:
    meaning = comments(type(value)) if meanings else {}
    for each in dataclasses.fields(value):
        ours, theirs = getattr(value, each.name), getattr(usual, each.name, None)
        if dataclasses.is_dataclass(ours):
            inner = list(_keys(ours, theirs, indent + "  ", changed, meanings))
            if inner or not changed:
                yield f"{indent}{each.name}:" + ("" if inner else " {}")
                yield from inner
        else:
            yield from _leaf(each.name, ours, theirs, indent, changed, meaning.get(each.name, ""), meanings)


def _leaf(name: str, value: Any, usual: Any, indent: str, changed: bool, meaning: str, marks: bool = True) -> Iterator[str]:
    differs = value != usual
    if changed and not differs:
        return
    line = f"{indent}{name}: {_yaml(value)}"
    told = "; ".join(part for part in (f"default {_yaml(usual)}" if differs and marks else "", meaning) if part)
    if told and len(f"{line}  # {told}") > WIDTH:
        yield from textwrap.wrap(told, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_long_words=False)
        yield line
    else:
        yield line + (f"  # {told}" if told else "")


def _yaml(value: Any) -> str:
    """A value on one line."""
    import yaml

    text: str = yaml.safe_dump(_plain(value), default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
