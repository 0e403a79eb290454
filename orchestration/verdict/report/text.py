"""Text of unknown origin made fit to print: short, visible, one line. Escaping for HTML is the template's work."""

from __future__ import annotations

import unicodedata

SHORT = 96  # characters of a title on the page
# Invisible or reordering characters are printed as their code point, so that a reader sees that they are there.
_VISIBLE_CATEGORIES = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}
_JOINERS = {"\u200c", "\u200d"}  # needed by several scripts and by emoji; they reorder nothing


def printable(text: object, limit: int = SHORT) -> str:
    """`text` on one line, at most `limit` characters, control and bidi characters shown as \\u escapes.

    Only the first `limit` characters are ever looked at, so a title of a megabyte costs nothing.
    """
    whole = "" if text is None else str(text)
    cut = whole[: limit + 1]
    shown = "".join(_printable_character(c) for c in cut[:limit])
    shown = " ".join(shown.split(" ")).strip()
    return shown + "…" if len(cut) > limit else shown


def _printable_character(character: str) -> str:
    if character in "\t\n\r\v\f":
        return " "
    if character in _JOINERS or unicodedata.category(character) not in _VISIBLE_CATEGORIES:
        return character
    point = ord(character)
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


def count(number: float | int | None) -> str:
    """A count with thin thousands separators: 12,345."""
    return "–" if number is None else f"{int(number):,}"


def decimal(number: float | None, digits: int = 4) -> str:
    """A metric with a fixed number of digits; an en dash where there is none."""
    return "–" if number is None or number != number else f"{number:.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None or share != share else f"{100 * share:.{digits}f}%"


def markdown_escape(text: str) -> str:
    """`text` with every character that Markdown or inline HTML gives a meaning to made inert."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-!|~" else c for c in escaped)
