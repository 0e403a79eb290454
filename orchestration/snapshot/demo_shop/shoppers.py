"""The demo shop's customers: what they like, what they run out of, and the orders that they place through the year.

A customer has taste for life (two departments, a favourite brand in each, a price level) and works on two projects at a time (a project: six leaf
categories of one department that belong together, in their order). An order is a basket of one to four items, all at one second. Each item of it
continues the project at hand, restocks something that was bought before, follows the season, or is a whim. So the next item depends on taste that
the last item alone does not show, on what a customer had long ago, and on the month.

U customers, O orders of all customers, M items that a customer remembers. Integer weights and one seeded PCG64, as in catalogue.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from orchestration.snapshot.demo_shop.catalogue import BRANDS_PER_DEPARTMENT, PRICE_LEVELS, Catalogue, Ints, leaves_per_department
from orchestration.snapshot.demo_shop.words import BRANDS, DEPARTMENTS, PEAK_MONTHS, RESTOCKED

PROJECTS_PER_DEPARTMENT = 2
STEPS_PER_PROJECT = 6
THREADS = 2
MONTH = 365 * 86_400 // 12

# Percentages: of an order, and of one item of it.
SWITCH_PROJECT = 60
RESTOCK = 30  # where the customer has something to restock
SEASONAL = 18  # a leaf of the shop by the month, rather one of the customer's departments
BROWSE = 6  # any leaf of the department at hand
WINDOW_SHOPPING = 4  # any leaf of the shop, no loyalty

# Factors on an item's popularity.
FAVOURITE_BRAND, SECOND_BRAND = 60, 8
SAME_PRICE, NEAR_PRICE = 8, 3
SAME_LINE = 2
NEW_ITEM = 4
OWN_DEPARTMENT = 4  # on a leaf's season
SEASON = (16, 10, 4, 1, 1, 1, 1)  # by the months between a leaf's peak and the order
REMEMBERED = (4, 3, 2, 1)  # what was bought last is restocked most

# (weight, fewest, most) orders of a customer: a long tail.
ORDERS = ((60, 1, 1), (290, 2, 3), (340, 4, 5), (190, 6, 9), (90, 10, 15), (25, 16, 28), (5, 30, 45))
BASKETS = (52, 28, 13, 7)  # weights of one to four items


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
    bought_UN: np.ndarray  # bool
    memory_UM: Ints = field(init=False)  # what they restock, the last bought first, or -1

    def __post_init__(self) -> None:
        self.memory_UM = np.full((len(self.price), len(REMEMBERED)), -1, np.int64)


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


def shoppers(rng: np.random.Generator, count: int, items: int) -> Shoppers:
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
        bought_UN=np.zeros((count, items), bool),
    )


def order_counts(rng: np.random.Generator, count: int) -> Ints:
    """How many orders each customer places: most a handful, a few one, a few thirty and more."""
    weight, low, high = np.array(ORDERS, np.int64).T
    group = pick(rng, np.broadcast_to(weight, (count, len(weight))))
    orders: Ints = rng.integers(low[group], high[group] + 1)
    return orders


def shop(
    rng: np.random.Generator, items: Catalogue, routes_DPS: Ints, people: Shoppers, customer_O: Ints, time_O: Ints, snapshot: int
) -> tuple[Ints, Ints, Ints]:
    """Lets the customers place their orders and carries their state on. `customer_O` is sorted; `time_O`: Unix seconds, ascending for each customer.

    Returns (customer, item, time) of every item bought.
    """
    place_O = _place(customer_O)
    size_O = 1 + pick(rng, np.broadcast_to(np.array(BASKETS), (len(customer_O), len(BASKETS))))
    bought = []
    for number in range(int(place_O.max(initial=-1)) + 1):
        order_o = np.flatnonzero(place_O == number)
        _choose_threads(rng, people, customer_O[order_o])
        basket_oB = np.full((len(order_o), len(BASKETS)), -1, np.int64)
        for place in range(len(BASKETS)):
            row_o = np.flatnonzero(size_O[order_o] > place)
            if not len(row_o):
                break
            user, time = customer_O[order_o[row_o]], time_O[order_o[row_o]]
            chosen = _next_items(rng, items, routes_DPS, people, user, time // MONTH % 12, basket_oB[row_o], snapshot)
            basket_oB[row_o, place] = chosen
            bought.append((user, chosen, time))
        _remember(items, people, customer_O[order_o], basket_oB)
    customer, item, moment = (np.concatenate(parts) for parts in zip(*bought, strict=True))
    return customer, item, moment


def _place(user: Ints) -> Ints:
    """0, 1, 2, … within each run of equal users."""
    index = np.arange(len(user))
    begins = np.r_[True, user[1:] != user[:-1]]
    return index - np.maximum.accumulate(np.where(begins, index, 0))


def _choose_threads(rng: np.random.Generator, people: Shoppers, user: Ints) -> None:
    switched = rng.integers(0, 100, len(user)) < SWITCH_PROJECT
    people.active[user] = np.where(switched, 1 - people.active[user], people.active[user])


def _next_items(
    rng: np.random.Generator, items: Catalogue, routes_DPS: Ints, people: Shoppers, user: Ints, month: Ints, basket_RB: Ints, snapshot: int
) -> Ints:
    """The next item of each listed customer's basket; `month`: 0 to 11."""
    rows, leaves = len(user), leaves_per_department()
    active = people.active[user]
    department = people.departments[user, active]
    again, memory = _restocked(rng, items, people, user, basket_RB, snapshot)
    mood = rng.integers(0, 100, rows)
    season, browse, window = (
        (low <= mood) & (mood < high)
        for low, high in ((0, SEASONAL), (SEASONAL, SEASONAL + BROWSE), (SEASONAL + BROWSE, SEASONAL + BROWSE + WINDOW_SHOPPING))
    )
    project = ~(again | season | browse | window)
    aimless = rng.integers(0, leaves, rows)
    leaf = routes_DPS[department, people.project[user, active], people.step[user, active]]
    leaf = np.where(browse, department * leaves + aimless, leaf)
    leaf = np.where(window, rng.integers(0, len(DEPARTMENTS), rows) * leaves + aimless, leaf)
    leaf = np.where(season, _leaf_of_the_season(rng, people, user, month), leaf)
    # Somebody who follows the season into another department likes there what has the place of their favourite here.
    thread = np.where(people.departments[user, 1 - active] == leaf // leaves, 1 - active, active)

    candidates = items.by_leaf_CW[leaf]
    weights = items.popularity[candidates] * np.where(items.first[candidates] == 2, NEW_ITEM, 1)
    weights = weights * np.where(window[:, None], 1, _loyalty(items, people, candidates, user, thread, leaf // leaves))
    weights = np.where((candidates >= 0) & listed(items, candidates, snapshot), weights, 0)
    fresh = np.where(people.bought_UN[user[:, None], candidates], 0, weights)
    # A customer who owns the whole leaf buys something of it again.
    weights = np.where(fresh.sum(axis=1, keepdims=True) > 0, fresh, weights)
    chosen = np.take_along_axis(candidates, pick(rng, weights)[:, None], axis=1)[:, 0]
    chosen = np.where(again, memory, chosen)
    people.bought_UN[user, chosen] = True
    people.line[user[project], active[project]] = items.line[chosen[project]]
    _advance(rng, people, user[project], active[project])
    return chosen


def listed(items: Catalogue, item: Ints, snapshot: int) -> np.ndarray:
    found: np.ndarray = (items.first[item] <= snapshot) & (snapshot <= items.last[item])
    return found


def _restocked(rng: np.random.Generator, items: Catalogue, people: Shoppers, user: Ints, basket_RB: Ints, snapshot: int) -> tuple[np.ndarray, Ints]:
    """(who restocks [rows] bool, what [rows])."""
    memory_RM = people.memory_UM[user]
    there = (memory_RM >= 0) & listed(items, memory_RM, snapshot) & ~(memory_RM[:, :, None] == basket_RB[:, None, :]).any(axis=2)
    weights = np.where(there, np.array(REMEMBERED), 0)
    something = weights.sum(axis=1) > 0
    weights[~something, 0] = 1
    again = something & (rng.integers(0, 100, len(user)) < RESTOCK)
    return again, np.take_along_axis(memory_RM, pick(rng, weights)[:, None], axis=1)[:, 0]


def _remember(items: Catalogue, people: Shoppers, user: Ints, basket_oB: Ints) -> None:
    """The baskets' items that are restocked become the first ones of their customers' memories, each item once."""
    restocked_C = np.array([entry.split(": ")[0].split(" > ")[1] in RESTOCKED for entries in DEPARTMENTS.values() for entry in entries])
    for place in range(basket_oB.shape[1]):
        item = basket_oB[:, place]
        row = np.flatnonzero((item >= 0) & restocked_C[items.leaf[item]])
        old_rM, new_r1 = people.memory_UM[user[row]], item[row, None]
        both = np.concatenate((new_r1, np.where(old_rM == new_r1, -1, old_rM)), axis=1)
        order = np.argsort(both < 0, axis=1, kind="stable")[:, : old_rM.shape[1]]
        people.memory_UM[user[row]] = np.take_along_axis(both, order, axis=1)


def _leaf_of_the_season(rng: np.random.Generator, people: Shoppers, user: Ints, month: Ints) -> Ints:
    """A leaf category of the whole shop, by how near its peak is; the customer's own departments count more."""
    leaves = leaves_per_department()
    peak_C = np.array([PEAK_MONTHS[name] for name in DEPARTMENTS]).repeat(leaves)
    apart_RC = np.abs(peak_C[None, :] - month[:, None])
    weights = np.array(SEASON)[np.minimum(apart_RC, 12 - apart_RC)]
    own = (np.arange(len(peak_C))[None, None, :] // leaves == people.departments[user][:, :, None]).any(axis=1)
    return pick(rng, weights * np.where(own, OWN_DEPARTMENT, 1))


def _loyalty(items: Catalogue, people: Shoppers, candidates: Ints, user: Ints, thread: Ints, department: Ints) -> Ints:
    """[rows, W]: how much more than its popularity each candidate is worth to the customer."""
    first_brand = department * (BRANDS_PER_DEPARTMENT // 2)
    favourite = (first_brand + people.favourite[user, thread]) % len(BRANDS)
    second = (first_brand + people.second[user, thread]) % len(BRANDS)
    brand, distance = items.brand[candidates], np.abs(items.price[candidates] - people.price[user][:, None])
    by_brand = np.where(brand == favourite[:, None], FAVOURITE_BRAND, np.where(brand == second[:, None], SECOND_BRAND, 1))
    by_price = np.where(distance == 0, SAME_PRICE, np.where(distance == 1, NEAR_PRICE, 1))
    by_line = np.where(items.line[candidates] == people.line[user, thread][:, None], SAME_LINE, 1)
    return by_brand * by_price * by_line


def _advance(rng: np.random.Generator, people: Shoppers, user: Ints, active: Ints) -> None:
    """Moves each listed customer's project on by one step; after the last step another project begins."""
    step = people.step[user, active] + 1
    done = step == STEPS_PER_PROJECT
    other = (people.project[user, active] + 1 + rng.integers(0, PROJECTS_PER_DEPARTMENT - 1, len(user))) % PROJECTS_PER_DEPARTMENT
    people.step[user, active] = np.where(done, 0, step)
    people.project[user, active] = np.where(done, other, people.project[user, active])
