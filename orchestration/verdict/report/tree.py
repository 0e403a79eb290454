"""The ID tree as a reader explores it: first code, second code, and the most-visited titles under each prefix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from orchestration.verdict.report.words import names

SHOWN_PREFIXES = 2500  # two-code prefixes that are spelled out; the others are counted
TITLE_BYTES = 900_000  # of titles on the page, escaped
LOOKUP_PREFIXES = 60_000  # two-code prefixes whose exact count the look-up box knows
TITLE_LIMIT = 72
NAMED_BY = 12  # titles of a prefix, the most visited, whose words name it


@dataclass(frozen=True)
class Prefix:
    code: int
    items: int  # exact
    events: int  # exact
    titles: tuple[str, ...]  # most visited first
    name: str = ""  # words of its titles
    children: tuple[Prefix, ...] = ()
    hidden: int = 0  # further children that are not spelled out
    hidden_items: int = 0


@dataclass(frozen=True)
class Tree:
    prefixes: tuple[Prefix, ...]  # by first code
    counts: dict[int, list[int]]  # first code -> [second code, items, second code, items, ...]: every prefix, or {} where there are too many
    levels: int
    icicle: str  # an <svg> element


def tree(codes_NM: np.ndarray, visits_N: np.ndarray, title: Callable[[int], str], titles_per_prefix: int) -> Tree:
    """Exact counts of every prefix; titles within the page's budget, the largest prefixes first."""
    first = codes_NM[:, 0]
    second = codes_NM[:, 1] if codes_NM.shape[1] > 1 else np.zeros_like(first)
    width = int(second.max(initial=0)) + 1
    keys, group_N = np.unique(first * width + second, return_inverse=True)
    items, events = np.bincount(group_N), np.bincount(group_N, weights=visits_N).astype(np.int64)
    parents, codes = keys // width, keys % width
    shown = _shown(parents, items)
    chosen = _most_visited(group_N, visits_N, titles_per_prefix)
    budget = _Budget(TITLE_BYTES, title)
    titles = {int(g): budget.take(chosen[g]) for g in shown}
    read = _most_visited(group_N, visits_N, NAMED_BY)
    second_names = names({int(g): [title(int(item)) for item in read[g]] for g in shown})
    first_names = names({int(code): [title(int(item)) for item in items_C] for code, items_C in _by_first(parents, read).items()})
    prefixes = []
    for code in np.unique(parents):
        mine = np.flatnonzero(parents == code)
        spelled = [g for g in shown if parents[g] == code]
        children = tuple(
            Prefix(int(codes[g]), int(items[g]), int(events[g]), titles[int(g)], second_names[int(g)])
            for g in sorted(spelled, key=lambda g: (-items[g], codes[g]))
        )
        rest = len(mine) - len(spelled)
        prefixes.append(
            Prefix(
                int(code),
                int(items[mine].sum()),
                int(events[mine].sum()),
                (),
                first_names[int(code)],
                children,
                rest,
                int(items[mine].sum() - items[spelled].sum()) if rest else 0,
            )
        )
    counts: dict[int, list[int]] = {}
    if len(keys) <= LOOKUP_PREFIXES:
        for prefix in prefixes:
            mine = parents == prefix.code
            counts[prefix.code] = np.stack([codes[mine], items[mine]], axis=1).reshape(-1).tolist()
    return Tree(tuple(prefixes), counts, codes_NM.shape[1], _icicle(prefixes))


def _by_first(parents: np.ndarray, read: list[np.ndarray]) -> dict[int, np.ndarray]:
    """First code -> the items that its prefixes are named by."""
    return {int(code): np.concatenate([read[g] for g in np.flatnonzero(parents == code)]) for code in np.unique(parents)}


def _shown(parents: np.ndarray, items: np.ndarray) -> list[int]:
    """The prefixes to spell out: the largest of every first code, then the second largest of every one, and so on."""
    order = np.lexsort((-items, parents))
    starts = np.flatnonzero(np.r_[True, np.diff(parents[order]) != 0])
    lengths = np.diff(np.r_[starts, len(order)])
    rank = np.arange(len(order)) - np.repeat(starts, lengths)
    largest: list[int] = order[np.lexsort((-items[order], rank))][:SHOWN_PREFIXES].tolist()
    return largest


def _most_visited(group_N: np.ndarray, visits_N: np.ndarray, wanted: int) -> list[np.ndarray]:
    """For each group its `wanted` items with most events, ties by item order."""
    order = np.lexsort((np.arange(len(group_N)), -visits_N, group_N))
    starts = np.flatnonzero(np.r_[True, np.diff(group_N[order]) != 0])
    ends = np.r_[starts[1:], len(order)]
    return [order[a : min(a + wanted, b)] for a, b in zip(starts, ends, strict=True)]


class _Budget:
    """Titles until the bytes are used up."""

    def __init__(self, size: int, title: Callable[[int], str]):
        self.left, self.title = size, title

    def take(self, items: np.ndarray) -> tuple[str, ...]:
        from html import escape

        taken = []
        for item in items:
            if self.left <= 0:
                break
            text = self.title(int(item))
            self.left -= len(escape(text).encode()) + 20
            taken.append(text)
        return tuple(taken)


_TONES = ("grey", "muted")  # neighbours differ


def _icicle(prefixes: list[Prefix]) -> str:
    """Two rows of blocks: the first codes, widest first, and under each its second codes. Width is the number of items."""
    from html import escape

    total = max(sum(p.items for p in prefixes), 1)
    x, rows = 0.0, []
    for index, prefix in enumerate(sorted(prefixes, key=lambda p: (-p.items, p.code))):
        width, hue = 1000 * prefix.items / total, _TONES[index % 2]
        told = f"{prefix.code} {escape(prefix.name)}: {prefix.items:,} items, {prefix.events:,} events"
        rows.append(f'<g data-code="{prefix.code}" fill="var(--{hue})"><title>{told}</title>')
        rows.append(f'<rect x="{x:.1f}" width="{max(width - 0.6, 0.4):.1f}" height="52"/>')
        if width > 26:
            rows.append(f'<text x="{x + width / 2:.1f}" y="31">{prefix.code}</text>')
        at = x
        for child in prefix.children:  # largest first: from the first one too narrow to see on, they are drawn as one pale block
            wide = 1000 * child.items / total
            if wide < 0.8:
                break
            rows.append(f'<rect x="{at:.1f}" y="55" width="{wide - 0.4:.1f}" height="52" opacity=".6"/>')
            at += wide
        if x + width - at > 0.3:
            rows.append(f'<rect x="{at:.1f}" y="55" width="{x + width - at - 0.2:.1f}" height="52" opacity=".25"/>')
        rows.append("</g>")
        x += width
    label = f"The ID tree: {len(prefixes)} first codes above their second codes; the width of a block is its number of items"
    return f'<svg viewBox="0 0 1000 107" role="img" aria-label="{label}" class="icicle" preserveAspectRatio="none">{"".join(rows)}</svg>'
