"""Section `rules`: business rules of the lists, as short sentences that are checked when they are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from diger_core.config import STRICT, check

_CONDITION = re.compile(r"(?P<column>[^=!]+?)\s*(?P<negated>!?)=\s*(?P<value>\S.*)")
_PREFIX = re.compile(r"(?P<most>[1-9][0-9]{0,5}) per prefix (?P<levels>[1-9][0-9]?)")
_COLUMN = re.compile(r"(?P<most>[1-9][0-9]{0,5}) per (?P<column>\S.*)")
_BOOST = re.compile(r"(?P<factor>[0-9]+(?:\.[0-9]+)?) where (?P<condition>.+)")


@dataclass(frozen=True)
class Condition:
    """Items whose `column` has the value, or has it not."""

    column: str
    value: str
    negated: bool

    @classmethod
    def parse(cls, text: str) -> Condition:
        """`category = lamps` or `category != lamps`; ValueError for anything else."""
        match = _CONDITION.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r}: write COLUMN = VALUE or COLUMN != VALUE")
        return cls(match["column"].strip(), match["value"].strip(), bool(match["negated"]))


@dataclass(frozen=True)
class AtMost:
    """At most `most` items of a list share the first `levels` codes of their semantic IDs, or the value of `column`; the other one is None."""

    most: int
    levels: int | None
    column: str | None

    @classmethod
    def parse(cls, text: str) -> AtMost:
        """`2 per prefix 1` or `3 per brand`; ValueError for anything else."""
        prefix, column = _PREFIX.fullmatch(text.strip()), _COLUMN.fullmatch(text.strip())
        if prefix is not None:
            return cls(int(prefix["most"]), int(prefix["levels"]), None)
        if column is None:
            raise ValueError(f"{text!r}: write N per COLUMN, or N per prefix LEVELS")
        return cls(int(column["most"]), None, column["column"])


@dataclass(frozen=True)
class Boost:
    """The scores of the condition's items are multiplied by `factor`."""

    factor: float
    condition: Condition

    @classmethod
    def parse(cls, text: str) -> Boost:
        """`1.5 where brand = acme`; ValueError for anything else, and for a factor of 0."""
        match = _BOOST.fullmatch(text.strip())
        if match is None or not float(match["factor"]):
            raise ValueError(f"{text!r}: write FACTOR where COLUMN = VALUE, the factor above 0 (deny leaves items out)")
        return cls(float(match["factor"]), Condition.parse(match["condition"]))


@dataclass(frozen=True)
class RulesConfig:
    """Rules of every list, in batch and online. Seen items: `recommendations.seen`."""

    __pydantic_config__: ClassVar = STRICT
    allow: str | None = None  # a file of item ids (Parquet with item_id, or one a line): only these are listed
    deny: str | None = None  # a file of item ids that are never listed
    where: tuple[str, ...] = ()  # conditions on columns of the catalogue, all of which must hold: "category = lamps", "brand != acme"
    at_most: tuple[str, ...] = ()  # of a list: "2 per brand", or "1 per prefix 2": of items that share the first two codes of their semantic ID
    boost: tuple[str, ...] = ()  # "1.5 where brand = acme": scores are multiplied; several factors multiply

    def __post_init__(self) -> None:
        for key in ("allow", "deny"):
            check(getattr(self, key) is None or bool(getattr(self, key).strip()), key, getattr(self, key), "the name of a file, or null")
        for key, parse in (("where", Condition.parse), ("at_most", AtMost.parse), ("boost", Boost.parse)):
            for text in getattr(self, key):
                try:
                    parse(text)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from error
