"""The demo shop's customers: what they like, and the sequences in which they buy.

A customer follows two projects at a time (a project: six leaf categories of one department that belong together, in their order) and mostly
alternates between them. Within the category, loyalty to a brand and a price level decides, and the line bought last. So the next item depends
on the last few ones, not on the last alone, and attributes carry over between items that were never bought one after the other.

U customers, T longest sequence. Integer weights and one seeded PCG64, as in catalogue.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestration.snapshot.demo_shop.catalogue import BRANDS_PER_DEPARTMENT, PRICE_LEVELS, Catalogue, Ints, leaves_per_department
from orchestration.snapshot.demo_shop.words import BRANDS, DEPARTMENTS

PROJECTS_PER_DEPARTMENT = 2
STEPS_PER_PROJECT = 6
THREADS = 2

# Percentages of one step.
SWITCH_PROJECT = 75
BROWSE = 5  # any leaf of the department at hand
WINDOW_SHOPPING = 4  # any leaf of the shop, no loyalty

# Factors on an item's popularity.
FAVOURITE_BRAND, SECOND_BRAND = 60, 6
SAME_PRICE, NEAR_PRICE = 6, 3
SAME_LINE = 2
NEW_ITEM = 4

# (weight, fewest, most) events of a customer: a long tail, mean about 9.
LENGTHS = ((40, 1, 2), (260, 3, 5), (340, 6, 9), (230, 10, 14), (100, 15, 24), (25, 25, 45), (5, 52, 80))


@dataclass
class Shoppers:
    """Tastes, fixed for life, and the state of the projects; arrays [U] unless marked."""

    departments: Ints  # [U, 2], one a thread
    favourite: Ints  # [U, 2], place of the favourite brand among the department's six
    second: Ints  # [U, 2]
    price: Ints
    project: Ints  # [U, 2]
    step: Ints  # [U, 2], 0 .. STEPS_PER_PROJECT - 1
    line: Ints  # [U, 2], the line bought last in the thread, or -1
    active: Ints  # 0 or 1: the thread at hand


def pick(rng: np.random.Generator, weights_RC: Ints) -> Ints:
    """One column a row, with probability proportional to the integer weights; every row has a positive sum."""
    cumulative = np.cumsum(weights_RC, axis=1)
    draw = rng.integers(0, cumulative[:, -1])
    column_R: Ints = np.sum(cumulative <= draw[:, None], axis=1)
    return column_R


def routes(rng: np.random.Generator) -> Ints:
    """[departments, projects, steps]: the leaf categories that each project visits."""
    leaves = leaves_per_department()
    orders = [[rng.permutation(leaves)[:STEPS_PER_PROJECT] + d * leaves for _ in range(PROJECTS_PER_DEPARTMENT)] for d in range(len(DEPARTMENTS))]
    return np.array(orders, np.int64)


def shoppers(rng: np.random.Generator, count: int) -> Shoppers:
    departments = len(DEPARTMENTS)
    by_size = np.broadcast_to(np.arange(departments + 6, 6, -1), (count, departments))
    first = pick(rng, by_size)
    second = (first + 1 + pick(rng, by_size[:, : departments - 1])) % departments
    brands = np.broadcast_to(np.array([6, 5, 4, 3, 3, 2])[:BRANDS_PER_DEPARTMENT], (count * THREADS, BRANDS_PER_DEPARTMENT))
    favourite = pick(rng, brands).reshape(count, THREADS)
    return Shoppers(
        departments=np.stack([first, second], axis=1),
        favourite=favourite,
        second=(favourite + 1 + rng.integers(0, BRANDS_PER_DEPARTMENT - 1, (count, THREADS))) % BRANDS_PER_DEPARTMENT,
        price=pick(rng, np.broadcast_to(np.array([3, 4, 3, 2]), (count, PRICE_LEVELS))),
        project=rng.integers(0, PROJECTS_PER_DEPARTMENT, (count, THREADS)),
        step=rng.integers(0, STEPS_PER_PROJECT // 2, (count, THREADS)),
        line=np.full((count, THREADS), -1, np.int64),
        active=rng.integers(0, THREADS, count),
    )


def lengths(rng: np.random.Generator, count: int) -> Ints:
    """How many events each customer has: most a handful, a few one or two, a few beyond 50."""
    weight, low, high = np.array(LENGTHS, np.int64).T
    group = pick(rng, np.broadcast_to(weight, (count, len(weight))))
    events: Ints = rng.integers(low[group], high[group] + 1)
    return events


def shop(
    rng: np.random.Generator, items: Catalogue, routes_DPS: Ints, people: Shoppers, bought_UN: np.ndarray, counts: Ints, snapshot: int
) -> tuple[Ints, Ints]:
    """Lets each customer buy `counts` items of the snapshot's catalogue, and carries their state on.

    `bought_UN` (bool) marks what each has bought; it is updated. Returns (customer, item), ordered by customer, then by time.
    """
    who, what, when = [], [], []
    for step in range(int(counts.max(initial=0))):
        user = np.flatnonzero(counts > step)
        chosen = _next_items(rng, items, routes_DPS, people, bought_UN, user, snapshot)
        bought_UN[user, chosen] = True
        who.append(user)
        what.append(chosen)
        when.append(np.full(len(user), step))
    customer, item, moment = np.concatenate(who), np.concatenate(what), np.concatenate(when)
    order = np.lexsort((moment, customer))
    return customer[order], item[order]


def _next_items(
    rng: np.random.Generator, items: Catalogue, routes_DPS: Ints, people: Shoppers, bought_UN: np.ndarray, user: Ints, snapshot: int
) -> Ints:
    """The next item of each listed customer."""
    rows, leaves = len(user), leaves_per_department()
    active = np.where(rng.integers(0, 100, rows) < SWITCH_PROJECT, 1 - people.active[user], people.active[user])
    people.active[user] = active
    department = people.departments[user, active]
    mood = rng.integers(0, 100, rows)
    window = mood < WINDOW_SHOPPING
    project = mood >= WINDOW_SHOPPING + BROWSE
    aimless = rng.integers(0, leaves, rows)
    leaf = routes_DPS[department, people.project[user, active], people.step[user, active]]
    leaf = np.where(project, leaf, department * leaves + aimless)
    leaf = np.where(window, rng.integers(0, len(DEPARTMENTS), rows) * leaves + aimless, leaf)
    _advance(rng, people, user[project], active[project])

    candidates = items.by_leaf_CW[leaf]
    weights = items.popularity[candidates] * np.where(items.first[candidates] == 2, NEW_ITEM, 1)
    weights = weights * np.where(window[:, None], 1, _loyalty(items, people, candidates, user, active, department))
    available = (candidates >= 0) & (items.first[candidates] <= snapshot) & (snapshot <= items.last[candidates])
    fresh = np.where(bought_UN[user[:, None], candidates], 0, weights)
    # A customer who owns the whole leaf buys something of it again.
    weights = np.where(available, np.where((fresh * available).sum(axis=1, keepdims=True) > 0, fresh, weights), 0)
    chosen = np.take_along_axis(candidates, pick(rng, weights)[:, None], axis=1)[:, 0]
    people.line[user[project], active[project]] = items.line[chosen[project]]
    return chosen


def _loyalty(items: Catalogue, people: Shoppers, candidates: Ints, user: Ints, active: Ints, department: Ints) -> Ints:
    """[rows, W]: how much more than its popularity each candidate is worth to the customer."""
    first_brand = department * (BRANDS_PER_DEPARTMENT // 2)
    favourite = (first_brand + people.favourite[user, active]) % len(BRANDS)
    second = (first_brand + people.second[user, active]) % len(BRANDS)
    brand, distance = items.brand[candidates], np.abs(items.price[candidates] - people.price[user][:, None])
    by_brand = np.where(brand == favourite[:, None], FAVOURITE_BRAND, np.where(brand == second[:, None], SECOND_BRAND, 1))
    by_price = np.where(distance == 0, SAME_PRICE, np.where(distance == 1, NEAR_PRICE, 1))
    by_line = np.where(items.line[candidates] == people.line[user, active][:, None], SAME_LINE, 1)
    return by_brand * by_price * by_line


def _advance(rng: np.random.Generator, people: Shoppers, user: Ints, active: Ints) -> None:
    """Moves each listed customer's project on by one step; after the last step another project begins."""
    step = people.step[user, active] + 1
    done = step == STEPS_PER_PROJECT
    other = (people.project[user, active] + 1 + rng.integers(0, PROJECTS_PER_DEPARTMENT - 1, len(user))) % PROJECTS_PER_DEPARTMENT
    people.step[user, active] = np.where(done, 0, step)
    people.project[user, active] = np.where(done, other, people.project[user, active])
