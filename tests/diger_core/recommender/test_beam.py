"""Beam search against brute force over all items."""

from __future__ import annotations

import itertools

import pytest
import torch

from diger_core.recommender.beam import _top, beam_search
from diger_core.recommender.model import Recommender
from diger_core.recommender.trie import Trie
from tests.diger_core.recommender.test_recommender import tiny

K, M, S, N = 6, 3, 4, 90


@pytest.fixture(scope="module")
def setting() -> tuple[Recommender, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(recommender, table [N, M+1], memory, mask): crowded prefixes, so that suffixes and single children both occur."""
    recommender = tiny(codes=K, levels=M, suffixes=S).eval()
    everything = torch.tensor(list(itertools.product(range(K), range(3), range(3), range(S))))
    table = everything[torch.randperm(len(everything), generator=torch.Generator().manual_seed(1))[:N]]
    history = table[torch.randint(N, (5, 6), generator=torch.Generator().manual_seed(2))]
    mask = torch.arange(24) < torch.tensor([24, 4, 12, 20, 8])[:, None]
    with torch.no_grad():
        memory = recommender.encode(recommender.embed_codes(history).flatten(1, 2), mask)
    return recommender, table, memory, mask


@torch.no_grad()
def brute_force(recommender: Recommender, tuples: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, n] scores of all tuples, one teacher-forced forward for each row."""
    inputs = recommender.decoder_input(recommender.embed_codes(tuples))
    rows = []
    for row in range(len(memory)):
        state = recommender.decode(inputs, memory[row : row + 1].expand(len(tuples), -1, -1), mask[row : row + 1].expand(len(tuples), -1))
        parts = [level.log_softmax(-1).gather(1, tuples[:, j : j + 1])[:, 0] for j, level in enumerate(recommender.logits(state))]
        rows.append(torch.stack(parts).sum(0))
    return torch.stack(rows)


def of_table(table: torch.Tensor, items: torch.Tensor | None = None) -> Trie:
    return Trie.from_table(table[:, :M], table[:, M], K, S, items=items)


def test_as_many_beams_as_items_gives_the_order_of_brute_force(setting):
    recommender, table, memory, mask = setting
    best, order = brute_force(recommender, table, memory, mask).sort(dim=1, descending=True)
    items, scores = beam_search(recommender, memory, mask, of_table(table), N)
    torch.testing.assert_close(scores, best, atol=1e-4, rtol=1e-5)
    assert torch.equal(items, order)


@pytest.mark.parametrize("beams", [1, 2, 7, 20])
def test_few_beams_return_true_scores_never_above_the_best(setting, beams):
    recommender, table, memory, mask = setting
    exact = brute_force(recommender, table, memory, mask)
    items, scores = beam_search(recommender, memory, mask, of_table(table), beams)
    torch.testing.assert_close(scores, exact.gather(1, items), atol=1e-4, rtol=1e-5)
    assert (scores[:, 0] <= exact.max(dim=1).values + 1e-4).all()
    assert (scores.diff(dim=1) <= 0).all()
    assert all(len(set(row)) == beams for row in items.tolist())


def test_a_restricted_trie_gives_its_items_only_with_unchanged_scores_and_the_rest_empty(setting):
    recommender, table, memory, mask = setting
    stock = torch.tensor([3, 8, 21, 40, 77])
    items, scores = beam_search(recommender, memory, mask, of_table(table, stock), 20)
    exact = brute_force(recommender, table, memory, mask)
    assert all(sorted(row[:5]) == stock.tolist() for row in items.tolist())
    torch.testing.assert_close(scores[:, :5], exact.gather(1, items[:, :5]), atol=1e-4, rtol=1e-5)  # nothing is renormalised
    assert (items[:, 5:] == -1).all()
    assert scores[:, 5:].isneginf().all()


def test_nothing_in_stock_gives_nothing(setting):
    recommender, table, memory, mask = setting
    items, scores = beam_search(recommender, memory, mask, of_table(table, torch.tensor([], dtype=torch.long)), 4)
    assert items.shape == (5, 4)
    assert (items == -1).all()
    assert scores.isneginf().all()


def test_unconstrained_beams_equal_brute_force_over_all_tuples_with_invalid_ones_in_place(setting):
    recommender, table, memory, mask = setting
    every = torch.tensor(list(itertools.product(range(K), range(K), range(K), range(S))))
    best, order = brute_force(recommender, every, memory, mask).sort(dim=1, descending=True)
    found = of_table(table)
    items, scores = beam_search(recommender, memory, mask, found, len(every), 50, constrained=False)
    torch.testing.assert_close(scores, best[:, :50], atol=1e-4, rtol=1e-5)
    assert torch.equal(items, found.lookup(every[order[:, :50]]))
    assert (items == -1).any()
    assert (items >= 0).any()


def test_rows_do_not_influence_each_other(setting):
    recommender, table, memory, mask = setting
    items, scores = beam_search(recommender, memory, mask, of_table(table), 10)
    order = torch.tensor([4, 2, 0])
    again, scores_again = beam_search(recommender, memory[order], mask[order], of_table(table), 10)
    assert torch.equal(items[order], again)
    torch.testing.assert_close(scores[order], scores_again, atol=1e-5, rtol=1e-5)


def test_equal_scores_are_ordered_by_codes(setting):
    recommender, table, memory, mask = setting
    flat = tiny(codes=K, levels=M, suffixes=S, spread=0.0).eval()  # token tables of zeros: every tuple has one score
    items, scores = beam_search(flat, memory, mask, of_table(table), 30)
    by_codes = sorted(range(N), key=lambda item: table[item].tolist())
    assert (scores.amax(1) == scores.amin(1)).all()
    # Earlier steps cut among equals by the lowest codes, so what is left are the first tuples.
    assert items.tolist() == [by_codes[:30]] * 5


def test_top_is_a_stable_sort_also_of_infinities_and_signs():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-3, 3, (20, 60), generator=generator).float() / 7
    scores[scores < -0.4] = -torch.inf
    expected = scores.argsort(dim=1, descending=True, stable=True)
    assert torch.equal(_top(scores, 60), expected)
    assert torch.equal(_top(scores, 9), expected[:, :9])


def test_training_mode_is_refused(setting):
    recommender, table, memory, mask = setting
    with pytest.raises(ValueError, match="eval"):
        beam_search(tiny(codes=K, levels=M, suffixes=S).train(), memory, mask, of_table(table), 3)
