"""Names for prefixes: the words that are common among a prefix's titles and rare among the others'."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

WORD = re.compile(r"[^\W\d_]{3,}")
NAMED = 2  # words in a name
LEAST = 0.34  # of a prefix's titles that must have a word, so that one title names nothing


def names(titles: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """ "pillowcases, sheets" for each group of titles; "" where its titles share no word."""
    words = {group: [_words(title) for title in found] for group, found in titles.items()}
    everywhere = Counter(word for found in words.values() for each in found for word in each)
    total = sum(len(found) for found in words.values())
    return {group: ", ".join(_best(found, everywhere, total)) for group, found in words.items()}


def _words(title: str) -> set[str]:
    return {word.lower() for word in WORD.findall(title)}


def _best(found: Sequence[Iterable[str]], everywhere: Mapping[str, int], total: int) -> list[str]:
    """By share of the group's titles times rarity elsewhere; a single title names nothing."""
    counts = Counter(word for each in found for word in each)
    known = [(count / len(found) * math.log(1 + total / everywhere[word]), word) for word, count in counts.items()]
    enough = [(score, word) for score, word in known if counts[word] >= max(2, LEAST * len(found))]
    return [word for _, word in sorted(enough, key=lambda pair: (-pair[0], pair[1]))[:NAMED]]
