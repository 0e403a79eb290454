"""The prefix trie: membership, children, restriction, refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.errors import DigerError
from diger_core.recommender.trie import Trie

K, M, S = 4, 2, 3


def trie(tuples: list[tuple[int, ...]], items: torch.Tensor | None = None) -> Trie:
    table = torch.tensor(tuples).reshape(-1, M + 1)
    return Trie.from_table(table[:, :M], table[:, M], K, S, items=items)


tuples = st.lists(st.tuples(st.integers(0, K - 1), st.integers(0, K - 1), st.integers(0, S - 1)), min_size=1, max_size=30, unique=True)


@settings(max_examples=60, deadline=None)
@given(tuples, st.data())
def test_allowed_codes_are_exactly_the_continuations_in_the_table(table, data):
    chosen = data.draw(st.lists(st.integers(0, len(table) - 1), min_size=1, unique=True))
    found = trie(table, torch.tensor(chosen))
    members = [table[i] for i in chosen]
    for member in members:
        node = found.root(1)
        for depth in range(M + 1):
            allowed = {row[depth] for row in members if row[:depth] == member[:depth]}
            assert set(found.allowed(depth, node)[0].nonzero()[:, 0].tolist()) == allowed
            code, child, valid = found.children(depth, node)
            assert set(code[valid].tolist()) == allowed
            assert all(found.child(depth, node, c[None])[0] == n for c, n in zip(code[valid], child[valid], strict=True))
            node = found.child(depth, node, torch.tensor([member[depth]]))
        assert found.items(node).item() == table.index(member)


@settings(max_examples=60, deadline=None)
@given(tuples)
def test_lookup_finds_every_member_and_nothing_else(table):
    everything = torch.cartesian_prod(torch.arange(K), torch.arange(K), torch.arange(S))
    expected = [table.index(tuple(row)) if tuple(row) in table else -1 for row in everything.tolist()]
    assert trie(table).lookup(everything).tolist() == expected


def test_dead_beams_have_no_children_and_codes_out_of_range_no_child():
    found = trie([(0, 1, 0), (3, 3, 2)])
    assert not found.children(0, torch.tensor([-1]))[2].any()
    assert found.child(0, torch.tensor([-1, 0, 0, 0]), torch.tensor([0, -1, K, 3])).tolist() == [-1, -1, -1, 1]
    # Behind the last code of a node the keys of the next node begin: they are not its children.
    assert found.child(1, torch.tensor([0]), torch.tensor([3 + K])).tolist() == [-1]


def test_restriction_takes_indices_or_a_mask_and_may_leave_nothing():
    table = [(0, 0, 0), (0, 0, 1), (1, 2, 0)]
    everything = torch.tensor(table)
    assert trie(table, torch.tensor([2, 0])).lookup(everything).tolist() == [0, -1, 2]
    assert trie(table, torch.tensor([False, True, False])).lookup(everything).tolist() == [-1, 1, -1]
    assert trie(table, torch.tensor([], dtype=torch.long)).lookup(everything).tolist() == [-1, -1, -1]
    with pytest.raises(DigerError, match="3 is not an item index"):
        trie(table, torch.tensor([3]))


def test_shared_tuples_and_codes_out_of_range_are_refused_by_item():
    with pytest.raises(DigerError, match=r"items 0 and 2 share \(1, 1, 1\)"):
        trie([(1, 1, 1), (0, 1, 1), (1, 1, 1)])
    with pytest.raises(DigerError, match="item 1 has"):
        trie([(1, 1, 1), (0, 1, S)])


def test_eight_levels_of_256_codes_do_not_overflow():
    table = torch.randint(256, (500, 8), generator=torch.Generator().manual_seed(0))
    found = Trie.from_table(table, torch.zeros(500, dtype=torch.long), 256, 256)
    assert found.lookup(torch.cat((table, torch.zeros(500, 1, dtype=torch.long)), dim=1)).tolist() == list(range(500))
