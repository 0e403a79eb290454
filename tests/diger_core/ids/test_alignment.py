"""Matching one tokenizer's codes to another's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.config import TokenizerConfig
from diger_core.errors import DigerError
from diger_core.ids.alignment import align, maximum_matching, rename_codebooks, rename_codes
from diger_core.tokenizer.rqvae import Tokenizer


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.integers(0, 10_000), st.sampled_from(["few values", "many values", "one value"]))
def test_the_matching_is_the_best_there_is(size, seed, kind):
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(seed)
    weight = {"few values": rng.integers(0, 3, (size, size)), "many values": rng.normal(size=(size, size)), "one value": np.ones((size, size))}[kind]
    column_of = maximum_matching(weight)
    assert sorted(column_of) == list(range(size))
    best = weight[linear_sum_assignment(weight, maximize=True)].sum()
    assert weight[np.arange(size), column_of].sum() == pytest.approx(best)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_renumbered_tokenizer_is_recognised_and_gives_the_old_codes_again(seed):
    generator = torch.Generator().manual_seed(seed)
    tok = Tokenizer(5, 8, TokenizerConfig(levels=3, codes=8, code_dim=4, hidden=(6,))).eval()
    with torch.no_grad():
        tok.codebooks.copy_(torch.randn(tok.codebooks.shape, generator=generator))
    shuffled = rename_codebooks(tok, np.stack([torch.randperm(8, generator=generator).numpy() for _ in range(3)]))
    z = torch.randn(200, 4, generator=generator)
    old, new = tok.quantise(z), shuffled.quantise(z)
    assert not torch.equal(old, new)
    names = align(old, new, 8)
    assert torch.equal(rename_codes(new, names), old)
    assert torch.equal(rename_codebooks(shuffled, names).quantise(z), old)


def test_renaming_is_one_to_one_at_every_level():
    rng = np.random.default_rng(0)
    old, new = (torch.from_numpy(rng.integers(0, 5, (30, 2))) for _ in range(2))
    names = align(old, new, 9)  # four codes are used by no item
    assert all(sorted(level) == list(range(9)) for level in names)


def test_heavy_items_decide():
    old, new = torch.tensor([[0], [1], [1]]), torch.tensor([[0], [0], [0]])
    assert align(old, new, 2)[0][0] == 1
    assert align(old, new, 2, torch.tensor([9.0, 1.0, 1.0]))[0][0] == 0


def test_rows_without_a_code_stay_without_one():
    assert rename_codes(torch.tensor([[-1], [0]]), np.array([[1, 0]])).tolist() == [[-1], [1]]


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(DigerError, match="same items and levels"):
        align(torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 3, dtype=torch.long), 4)
    with pytest.raises(DigerError, match="holds code 7"):
        align(torch.full((3, 2), 7), torch.zeros(3, 2, dtype=torch.long), 4)
    with pytest.raises(ValueError, match="square"):
        maximum_matching(np.zeros((2, 3)))
