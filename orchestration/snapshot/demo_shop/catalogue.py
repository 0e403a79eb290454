"""The demo shop's catalogue: attributes first, then the words that partly show them.

C leaf categories, W slots (the widest category), N items of both snapshots together. All weights are integers and all draws come from one seeded
PCG64, so that no floating-point rounding decides a choice and two machines make equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from orchestration.snapshot.demo_shop import words

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

BRANDS_PER_DEPARTMENT = 6
PRICE_LEVELS = len(words.PRICE_WORDS)
LINES_PER_DEPARTMENT = BRANDS_PER_DEPARTMENT * PRICE_LEVELS
VARIANTS = 3  # colours or sizes of one product of a line

ITEMS_FIRST = 3200
ITEMS_ADDED = 256  # 8%
ITEMS_REMOVED = 160  # 5%
ITEMS_RENAMED = 64  # 2%


@dataclass(frozen=True)
class Catalogue:
    """Every item of both snapshots, ordered by leaf category; arrays [N] unless marked."""

    leaf: Ints
    brand: Ints
    price: Ints  # 0 (cheapest) .. 3
    line: Ints  # brand and price level together: a line of products that match
    popularity: Ints  # a weight within the leaf category
    first: Ints  # 1 or 2: the first snapshot that has the item
    last: Ints  # 1 or 2: the last one
    by_leaf_CW: Ints  # item numbers of each leaf, padded with -1
    item_id: list[str]
    title: list[str]
    title_renamed: list[str]  # as from snapshot 2
    brand_name: list[str]
    category_path: list[str]

    @property
    def department(self) -> Ints:
        return self.leaf // leaves_per_department()

    def in_snapshot(self, number: int) -> np.ndarray:
        return (self.first <= number) & (number <= self.last)

    def table(self, number: int) -> pa.Table:
        """items.parquet of snapshot `number`: item_id, title, brand, categories; ordered by item_id."""
        titles = self.title if number == 1 else self.title_renamed
        columns = {"item_id": self.item_id, "title": titles, "brand": self.brand_name, "categories": self.category_path}
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        return table.filter(pa.array(self.in_snapshot(number))).sort_by("item_id")


def leaves_per_department() -> int:
    return len(next(iter(words.DEPARTMENTS.values())))


def catalogue(rng: np.random.Generator) -> Catalogue:
    """Draws N = ITEMS_FIRST + ITEMS_ADDED products out of every (leaf, line, variant) that the shop could stock."""
    departments, leaves = len(words.DEPARTMENTS), leaves_per_department()
    items = ITEMS_FIRST + ITEMS_ADDED
    slots = departments * leaves * LINES_PER_DEPARTMENT * VARIANTS
    slot = np.sort(rng.permutation(slots)[:items])
    leaf, rest = np.divmod(slot, LINES_PER_DEPARTMENT * VARIANTS)
    in_department, variant = np.divmod(rest, VARIANTS)
    department = leaf // leaves
    place, price = np.divmod(in_department, PRICE_LEVELS)
    brand = (department * (BRANDS_PER_DEPARTMENT // 2) + place) % len(words.BRANDS)

    by_leaf_CW = _padded(leaf, departments * leaves)
    first, last = np.ones(items, np.int64), np.full(items, 2, np.int64)
    chosen = rng.permutation(items)
    first[chosen[:ITEMS_ADDED]] = 2
    last[chosen[ITEMS_ADDED : ITEMS_ADDED + ITEMS_REMOVED]] = 1
    renamed = np.zeros(items, bool)
    renamed[chosen[-ITEMS_RENAMED:]] = True

    title, brand_name, path = _texts(rng, leaf, brand, price, variant)
    ending = rng.integers(0, len(words.RENAMED), items)
    return Catalogue(
        leaf=leaf,
        brand=brand,
        price=price,
        line=brand * PRICE_LEVELS + price,
        popularity=_zipf_weights(rng, by_leaf_CW, items),
        first=first,
        last=last,
        by_leaf_CW=by_leaf_CW,
        item_id=[f"{number:07d}" for number in rng.permutation(60_000)[:items] + 1],
        title=title,
        title_renamed=[f"{text} {words.RENAMED[e]}" if new else text for text, e, new in zip(title, ending, renamed, strict=True)],
        brand_name=brand_name,
        category_path=path,
    )


def _padded(leaf: Ints, leaves: int) -> Ints:
    """Item numbers of each leaf as rows of one rectangle, -1 beyond the leaf's end. `leaf` is sorted."""
    counts = np.bincount(leaf, minlength=leaves)
    starts = np.cumsum(counts) - counts
    column = np.arange(counts.max())[None, :]
    return np.where(column < counts[:, None], starts[:, None] + column, -1)


def _zipf_weights(rng: np.random.Generator, by_leaf_CW: Ints, items: int) -> Ints:
    """Zipf-like popularity within each leaf: weight 1200 // (rank + 2) for a random ranking."""
    shuffled = rng.permuted(np.where(by_leaf_CW < 0, -1, by_leaf_CW), axis=1)
    valid = shuffled >= 0
    rank = np.cumsum(valid, axis=1)
    weights = np.zeros(items, np.int64)
    weights[shuffled[valid]] = 1200 // (rank[valid] + 1)
    return weights


def _texts(rng: np.random.Generator, leaf: Ints, brand: Ints, price: Ints, variant: Ints) -> tuple[list[str], list[str], list[str]]:
    """Titles, brands and category paths. The price level shows only as one of three adjectives, and not in every title; what an item is made of and
    its first colour belong to its line."""
    names = [(department, *entry.split(": ")) for department, entries in words.DEPARTMENTS.items() for entry in entries]
    line_of = np.stack([rng.permutation(len(words.LINES))[:PRICE_LEVELS] for _ in words.BRANDS])
    style = rng.integers(0, 1 << 30, line_of.shape)
    titles, paths = [], []
    for c, b, p, v, (adjective, form) in zip(leaf, brand, price, variant, rng.integers(0, 1 << 30, (len(leaf), 2)), strict=True):
        department, path, noun = names[c]
        name = f"{words.BRANDS[b]} {words.LINES[line_of[b, p]]}"
        if adjective % 3:
            name += f" {words.PRICE_WORDS[p][adjective // 3 % 3]}"
        materials = words.MATERIALS.get(path.split(" > ")[0], ())
        made_of = f", {materials[style[b, p] % len(materials)]}" if materials else ""
        look = words.SIZES[form // 3 % len(words.SIZES)] if form % 3 == 0 else words.COLOURS[(style[b, p] + v) % len(words.COLOURS)]
        titles.append(f"{name} {noun}{made_of}, {look}")
        paths.append(f"{department} > {path}")
    return titles, [words.BRANDS[b] for b in brand], paths
