"""The part of YAML that params.yaml may use: mappings, lists and scalars that mean one thing. Everything else is refused by line and remedy.

YAML 1.1 reads `010` as 8, `1:30` as 90, `yes` as true, a date as an object, keeps the last of two equal keys and copies aliases without end.
Here a number is decimal, true and false are written so, a date is its text, and size, depth and count are bounded before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from diger_core.errors import DigerError

MAX_BYTES = 256 << 10
MAX_DEPTH = 16
MAX_VALUES = 10_000

Plain = dict[str, Any] | list[Any] | str | int | float | bool | None

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf")}
_CONSTANTS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_CONSTANTS |= {word: value for value, text in ((True, "true"), (False, "false")) for word in (text, text.title(), text.upper())}
_AMBIGUOUS = (
    (re.compile(r"(?i)y|yes|on|n|no|off"), "may mean true, false or the word; write true, false, or the word in quotes"),
    (re.compile(r"[-+]?0[0-9_]+"), "may be an octal number; write it without the leading zero, or in quotes"),
    (re.compile(r"(?i)[-+]?0[xob][0-9a-f_]+"), "is no decimal number; write it with the digits 0 to 9, or in quotes"),
    (re.compile(r"[-+]?[0-9.][0-9]*_[0-9_.]*"), "holds underscores; write the number without them, or in quotes"),
    (re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"), "may be a number to the base 60; write the number itself, or the text in quotes"),
    (re.compile(r"(?i)\.nan"), "is no number; leave the key out, or write null"),
    (re.compile(r"<<|="), "is a merge key or a value key; write the keys out"),
)


def parse(text: str, where: str, quote: bool = True) -> Plain:
    """The document as plain data. `where` begins every message: a file, or the option that holds the text. `quote`: messages may repeat the text."""
    import yaml

    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise DigerError(f"{where}: is longer than {MAX_BYTES:,} bytes; check that it is the right file")
    try:
        return _Builder(where, quote).document(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = re.sub(r"'[^']*'", "…", str(error.problem or error.context))  # may hold the file's own text
        raise DigerError(f"{where}{line}: not valid YAML ({problem}); correct it") from error
    except yaml.YAMLError as error:  # a character that no YAML may hold
        raise DigerError(f"{where}: not valid YAML ({getattr(error, 'reason', 'unreadable')}); correct it") from error


class _Builder:
    def __init__(self, where: str, quote: bool) -> None:
        self._where, self._quote, self._values = where, quote, 0

    def document(self, events: Iterator[Any]) -> Plain:
        """The only document; an empty text is None."""
        import yaml

        found: Plain = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._fault(event, "a second document begins (---); keep one")
            elif not isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentEndEvent):
                found = self._value(event, events, 0)
        return found

    def _value(self, event: Any, events: Iterator[Any], depth: int) -> Plain:
        import yaml

        self._values += 1
        if self._values > MAX_VALUES:
            raise self._fault(event, f"more than {MAX_VALUES:,} values; check that it is the right file")
        if depth > MAX_DEPTH:
            raise self._fault(event, f"nested more than {MAX_DEPTH} deep; no key is")
        if isinstance(event, yaml.AliasEvent):
            raise self._fault(event, f"{self._shown(f'*{event.anchor}')} is an alias; write the value out")
        if event.tag is not None and event.tag != "!":
            raise self._fault(event, f"{self._shown(event.tag)} is a tag; write the plain value")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            values: list[Any] = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                values.append(self._value(event, events, depth + 1))
            return values
        return self._mapping(events, depth)

    def _mapping(self, events: Iterator[Any], depth: int) -> dict[str, Any]:
        import yaml

        found: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._value(event, events, depth + 1)
            if not isinstance(key, str):
                raise self._fault(event, "a key is no text; put it in quotes")
            if key in found:
                raise self._fault(event, f"key {self._shown(key)} stands twice; keep one")
            found[key] = self._value(next(events), events, depth + 1)
        return found

    def _scalar(self, event: Any) -> str | int | float | bool | None:
        text: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise self._fault(event, "a text holds half of a surrogate pair, which no file can hold; write the character itself")
        if event.style in ("'", '"', "|", ">") or event.tag == "!":
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if text.lower() in _INFINITE:
            return _INFINITE[text.lower()]
        for pattern, problem in _AMBIGUOUS:
            if pattern.fullmatch(text):
                raise self._fault(event, f"{self._shown(text)} {problem}")
        if _INTEGER.fullmatch(text):
            if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
                raise self._fault(event, f"{self._shown(text)} is beyond 64 bits; write a smaller number")
            return int(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if number in (float("inf"), float("-inf")):
                raise self._fault(event, f"{self._shown(text)} is beyond what a number can hold; write .inf where that is meant")
            return number
        return text

    def _fault(self, event: Any, problem: str) -> DigerError:
        return DigerError(f"{self._where}, line {event.start_mark.line + 1}: {problem}")

    def _shown(self, text: str) -> str:
        return repr(text if len(text) <= 40 else text[:40] + "…") if self._quote else "a value"
