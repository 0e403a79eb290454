"""Shapes and invariances of the encoder-decoder, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from diger_core.config import RecommenderConfig
from diger_core.recommender.model import Recommender, relative_buckets

TINY = RecommenderConfig(d_model=16, d_ff=32, heads=2, d_head=8, history=6, dropout=0.0, history_input="hard", item_tokens="all")


def tiny(codes: int = 8, levels: int = 2, suffixes: int = 5, config: RecommenderConfig = TINY, spread: float = 30.0) -> Recommender:
    """Token tables are spread out, so that differences between positions and items show in the logits."""
    torch.manual_seed(0)
    recommender = Recommender(config, codes, levels, suffixes)
    with torch.no_grad():
        for table in recommender.token_tables:
            table.mul_(spread)
    return recommender


def random_codes(recommender: Recommender, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = [recommender.codes] * recommender.levels + [recommender.suffixes]
    return torch.stack([torch.randint(size, shape, generator=generator) for size in sizes], dim=-1)


def logits(recommender: Recommender, history: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return recommender(recommender.embed_codes(history).flatten(1, 2), mask, recommender.decoder_input(recommender.embed_codes(target)))


def generation_loss(recommender: Recommender, history: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    found = logits(recommender, history, mask, target)
    return torch.stack([F.cross_entropy(level, target[:, j]) for j, level in enumerate(found)]).mean()


@pytest.mark.parametrize("size", ["small", "paper"])
def test_loss_starts_within_a_tenth_of_ln_k(size):
    paper = RecommenderConfig(encoder_layers=6, decoder_layers=6, d_model=128, d_ff=512, d_head=64, item_tokens="all")
    config = RecommenderConfig(item_tokens="all") if size == "small" else paper
    for seed in range(2):
        torch.manual_seed(seed)
        recommender = Recommender(config, 256, 3, 256)
        history, target = random_codes(recommender, 16, 10), random_codes(recommender, 16, seed=1)
        loss = generation_loss(recommender, history, torch.ones(16, 40, dtype=torch.bool), target)
        assert abs(loss.item() - math.log(256)) < 0.1


def test_shapes_and_every_parameter_has_a_gradient():
    recommender = tiny()
    history, target, mask = random_codes(recommender, 4, 6), random_codes(recommender, 4), torch.ones(4, 18, dtype=torch.bool)
    found = logits(recommender, history, mask, target)
    assert [tuple(level.shape) for level in found] == [(4, 8), (4, 8), (4, 5)]
    generation_loss(recommender, history, mask, target).backward()
    for name, parameter in recommender.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_padding_at_the_end_changes_no_logit():
    recommender = tiny().eval()
    history, target = random_codes(recommender, 3, 6), random_codes(recommender, 3)
    short = torch.arange(18) < torch.tensor([6, 12, 18])[:, None]
    batched = logits(recommender, history, short, target)
    for row, items in enumerate((2, 4, 6)):
        alone = logits(recommender, history[row : row + 1, :items], torch.ones(1, 3 * items, dtype=torch.bool), target[row : row + 1])
        for a, b in zip(batched, alone, strict=True):
            torch.testing.assert_close(a[row : row + 1], b, atol=1e-5, rtol=1e-5)


def test_a_row_without_history_stays_finite():
    recommender = tiny()
    mask = torch.zeros(2, 9, dtype=torch.bool)
    loss = generation_loss(recommender, random_codes(recommender, 2, 3), mask, random_codes(recommender, 2))
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in recommender.parameters())


def test_the_order_of_history_items_matters_and_that_of_rows_does_not():
    recommender = tiny().eval()
    history, target, mask = random_codes(recommender, 4, 6), random_codes(recommender, 4), torch.ones(4, 18, dtype=torch.bool)
    found = logits(recommender, history, mask, target)
    turned = logits(recommender, history.flip(1), mask, target)
    assert (found[0] - turned[0]).abs().max() > 1e-3
    order = torch.tensor([2, 0, 3, 1])
    for a, b in zip(found, logits(recommender, history[order], mask[order], target[order]), strict=True):
        torch.testing.assert_close(a[order], b, atol=1e-5, rtol=1e-5)


def test_the_decoder_sees_no_later_position():
    recommender = tiny().eval()
    history, target, mask = random_codes(recommender, 2, 6), random_codes(recommender, 2), torch.ones(2, 18, dtype=torch.bool)
    other = target.clone()
    other[:, 1] = (other[:, 1] + 1) % 8
    a, b = logits(recommender, history, mask, target), logits(recommender, history, mask, other)
    torch.testing.assert_close(a[0], b[0], atol=0, rtol=0)
    torch.testing.assert_close(a[1], b[1], atol=0, rtol=0)
    assert (a[2] - b[2]).abs().max() > 1e-3


def test_incremental_decoding_of_reordered_beams_equals_the_full_forward():
    recommender = tiny(levels=3).eval()
    history, mask = random_codes(recommender, 2, 6), torch.arange(24) < torch.tensor([24, 16])[:, None]
    first, second, parent = random_codes(recommender, 2, 3), random_codes(recommender, 2, 5, seed=3), torch.tensor([[2, 0, 0, 1, 2], [1, 1, 0, 2, 2]])
    memory = recommender.encode(recommender.embed_codes(history).flatten(1, 2), mask)
    cache = recommender.cross_keys_values(memory, mask)
    _, cache = recommender.decode_step(recommender.start_B1d(2), 0, cache)
    cache = cache.select(torch.zeros(2, 3, dtype=torch.long))
    _, cache = recommender.decode_step(recommender.embed_codes(first)[:, :, 0], 1, cache)
    cache = cache.select(parent)
    state, cache = recommender.decode_step(recommender.embed_codes(second)[:, :, 1], 2, cache)
    for beam in range(5):
        target = second[:, beam].clone()
        target[:, 0] = first[torch.arange(2), parent[:, beam], 0]
        full = recommender.decode(recommender.decoder_input(recommender.embed_codes(target)), memory, mask)
        torch.testing.assert_close(state[:, beam], full[:, 2], atol=1e-5, rtol=1e-5)


def test_buckets_are_exact_nearby_and_tell_the_direction():
    both = relative_buckets(50, 50, True, 32, 128)
    assert both.min() == 0
    assert both.max() < 32
    assert len({int(both[20, 20 + distance]) for distance in range(-7, 8)}) == 15
    assert (both.diff(dim=1)[0] >= 0).all()
    causal = relative_buckets(6, 6, False, 32, 128)
    assert causal[5].tolist() == [5, 4, 3, 2, 1, 0]


def test_bf16_autocast_stays_near_fp32_and_keeps_gradients_finite():
    recommender = tiny()
    history, target, mask = random_codes(recommender, 4, 6), random_codes(recommender, 4), torch.ones(4, 18, dtype=torch.bool)
    exact = generation_loss(recommender, history, mask, target)
    with torch.autocast("cpu", torch.bfloat16):
        near = generation_loss(recommender, history, mask, target)
    near.backward()
    assert abs(near.item() - exact.item()) < 0.05
    assert all(parameter.grad.isfinite().all() for parameter in recommender.parameters())


def test_it_learns_which_item_follows_the_last_one():
    recommender = tiny(spread=1.0)
    catalogue = random_codes(recommender, 8)
    optimizer = torch.optim.AdamW(recommender.parameters(), lr=5e-3)
    generator, mask = torch.Generator().manual_seed(0), torch.ones(32, 9, dtype=torch.bool)
    losses = []
    for _ in range(100):
        items = torch.randint(8, (32, 3), generator=generator)
        loss = generation_loss(recommender, catalogue[items], mask, catalogue[(items[:, -1] + 1) % 8])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.25 * losses[0]
