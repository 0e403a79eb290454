"""The counter-based noise: distribution, independence of order and batch, and what it is keyed by."""

from __future__ import annotations

import math

import pytest
import torch

from diger_core.training.noise import gaussian, gaussian_levels, gumbel, gumbel_levels, words


def kolmogorov(sample: torch.Tensor, cdf) -> float:
    """sqrt(n) times the largest distance to the cdf: above 1.95 with probability 0.001."""
    x = sample.flatten().double().sort().values
    n = len(x)
    f = cdf(x)
    grid = torch.arange(n, dtype=torch.float64) / n
    return math.sqrt(n) * float(torch.maximum((f - grid).abs(), (f - grid - 1 / n).abs()).max())


def gumbel_cdf(x: torch.Tensor) -> torch.Tensor:
    return torch.exp(-torch.exp(-x))


def normal_cdf(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@pytest.mark.parametrize("codes", [256, 33])
def test_gumbel_noise_passes_a_kolmogorov_smirnov_test(codes):
    assert kolmogorov(gumbel(3, 17, 1, torch.arange(800), codes), gumbel_cdf) < 1.95


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_scaled_noise_is_gumbel_of_scale_sigma(sigma):
    assert kolmogorov(sigma * gumbel(4, 0, 0, torch.arange(500), 256), lambda x: gumbel_cdf(x / sigma)) < 1.95


def test_gaussian_noise_passes_a_kolmogorov_smirnov_test():
    assert kolmogorov(gaussian(3, 17, 1, torch.arange(800), 256), normal_cdf) < 1.95


@pytest.mark.parametrize("axis", ["seed", "step", "level", "item", "code"])
def test_noise_along_each_coordinate_is_gumbel_and_uncorrelated(axis):
    one = torch.tensor([5])
    line = {
        "seed": lambda n: torch.cat([gumbel(s, 1, 0, one, 2)[0, :1] for s in range(n)]),
        "step": lambda n: torch.cat([gumbel(1, s, 0, one, 2)[0, :1] for s in range(n)]),
        "level": lambda n: gumbel_levels(1, 1, n, one, 2)[:, 0, 0],
        "item": lambda n: gumbel(1, 1, 0, torch.arange(n), 2)[:, 0],
        "code": lambda n: gumbel(1, 1, 0, one, n)[0],
    }[axis](4000)
    assert kolmogorov(line, gumbel_cdf) < 1.95
    centred = line - line.mean()
    for lag in (1, 2, 3):
        assert abs(float((centred[lag:] * centred[:-lag]).mean() / centred.square().mean())) < 4 / math.sqrt(4000)


def test_noise_of_an_item_does_not_depend_on_the_batch_around_it():
    items = torch.tensor([9, 2, 77_000_000, 4])
    whole = gumbel(1, 5, 2, items, 31)
    assert torch.equal(whole.flip(0), gumbel(1, 5, 2, items.flip(0), 31))
    assert torch.equal(whole[2:3], gumbel(1, 5, 2, items[2:3], 31))


@pytest.mark.parametrize(("draw", "draw_levels"), [(gumbel, gumbel_levels), (gaussian, gaussian_levels)])
def test_all_levels_at_once_equal_level_by_level(draw, draw_levels):
    items = torch.arange(7)
    together = draw_levels(2, 3, 4, items, 9)
    assert together.shape == (4, 7, 9)
    assert torch.equal(together, torch.stack([draw(2, 3, level, items, 9) for level in range(4)]))


def test_step_as_a_tensor_equals_step_as_an_integer():
    items = torch.arange(5)
    assert torch.equal(gumbel(7, 123, 1, items, 8), gumbel(7, torch.tensor(123), 1, items, 8))


@pytest.mark.parametrize("other", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_seed_step_and_level_each_change_the_noise(other):
    items = torch.arange(50)
    assert not torch.equal(gumbel(0, 0, 0, items, 16), gumbel(*other, items, 16))


def reference_word(seed: int, step: int, level: int, item: int, index: int) -> int:
    """The same hash in Python's unbounded integers, as a signed 64-bit number."""
    wrap, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x &= wrap
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & wrap
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & wrap
        return x ^ (x >> 31)

    key = mix(step * golden + seed * golden + 0x632BE59BD9B4E019)
    key = mix(key + (level + 1) * golden)
    key = mix(key + (item + 1) * golden)
    word = mix(key + (index + 1) * golden)
    return word - (1 << 64) if word >> 63 else word


@pytest.mark.parametrize(("seed", "step", "level"), [(0, 0, 0), (42, 7, 2), (-3, 2**40, 1), (2**64 + 5, 1, 7)])
def test_the_integer_words_are_exactly_the_documented_hash(seed, step, level):
    got = words(seed, step, torch.tensor(level), torch.tensor([0, 1_000_000]), 2).tolist()
    assert got == [[reference_word(seed, step, level, item, index) for index in range(2)] for item in (0, 1_000_000)]


def test_noise_is_finite_even_for_millions_of_draws_and_huge_seeds():
    big = gumbel(2**64 - 1, 2**40, 0, torch.arange(20_000), 256)
    assert bool(torch.isfinite(big).all())
    assert float(big.max()) > 12  # the right tail is there: P(no draw of 5 million above 12) < 1e-10
