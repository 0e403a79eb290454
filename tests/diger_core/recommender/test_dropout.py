"""CPU dropout: the right share of zeros, the right expectation, a gradient through the same mask, reproducible."""

import pytest
import torch

from diger_core.recommender.dropout import Dropout, dropout


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_share_and_expectation(rate):
    torch.manual_seed(0)
    y = dropout(torch.ones(1000, 1001), rate, True)
    assert abs(float((y == 0).float().mean()) - rate) < 1 / 512 + 0.002
    assert abs(float(y.mean()) - 1) < 0.01


def test_all_positions_in_a_word_are_equally_likely():
    torch.manual_seed(0)
    share = (dropout(torch.ones(100_000, 8), 0.25, True) == 0).float().mean(0)
    assert float((share - 0.25).abs().max()) < 0.01


def test_gradient_uses_the_same_mask():
    x = torch.ones(999, requires_grad=True)
    y = dropout(x, 0.3, True)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_the_generators_state_decides():
    torch.manual_seed(3)
    first = dropout(torch.ones(50), 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(torch.ones(50), 0.5, True))
    assert not torch.equal(first, dropout(torch.ones(50), 0.5, True))


def test_evaluation_and_rate_zero_change_nothing():
    x = torch.randn(10)
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x
    assert torch.equal(Dropout(0.5).eval()(x), x)
