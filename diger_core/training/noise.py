"""Noise that depends on (seed, step, level, item, code) and on nothing else.

A counter-based generator: every number is a hash of its own coordinates, so there is no generator state to save, to share between ranks or to
keep in step, and neither the order of a batch nor the number of ranks changes a draw (docs/method.md, section 3). The integer words are the
same bits on every device; the logarithms that follow agree to the last place of float32.

The hash is SplitMix64's finaliser, in int64 torch arithmetic that wraps around. Shapes: V items, K codes, M levels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(word: int) -> int:
    """The int64 with the same 64 bits as `word`: torch takes no larger Python integer."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MUL_1 = _signed(0xBF58476D1CE4E5B9)
_MUL_2 = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: torch's own is arithmetic on int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: a bijection of 64 bits in which every input bit reaches every output bit."""
    x = (x ^ _shift(x, 30)) * _MUL_1
    x = (x ^ _shift(x, 27)) * _MUL_2
    return x ^ _shift(x, 31)


def seed_key(seed: int) -> int:
    """The seed's part of every key, as an int64."""
    return _signed(seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019)


def words(seed: int, step: int | Tensor, level: Tensor, items_V: Tensor, count: int) -> Tensor:
    """`count` 64-bit words per (level, item): int64 [*level, V, count]. `step` may be a 0-d int64 tensor, so that a CUDA graph can replay it."""
    device = items_V.device
    # full(), not tensor(): a fill kernel instead of a copy from the host
    step_0 = step.to(device, torch.int64) if isinstance(step, Tensor) else torch.full((), _signed(step), dtype=torch.int64, device=device)
    key = _mix(step_0 * _GOLDEN + seed_key(seed))
    key = _mix(key + (level + 1) * _GOLDEN)
    key = _mix(key.unsqueeze(-1) + (items_V.to(torch.int64) + 1) * _GOLDEN)
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=device) * _GOLDEN
    return _mix(key.unsqueeze(-1) + counter)


def _uniform(words_Vn: Tensor) -> Tensor:
    """Two float32 numbers in (0, 1) per 64-bit word: [..., n] -> [..., 2 n]. 31 bits each; relative precision near 0 is float32's."""
    bits = words_Vn.view(torch.int32) & 0x7FFFFFFF
    # rounding to 24 bits may reach 1 exactly, where the logarithm below would be infinite
    return ((bits.to(torch.float32) + 0.5) * 2.0**-31).clamp_(max=1 - 2.0**-24)


def gumbel_levels(seed: int, step: int | Tensor, levels: int, items_V: Tensor, codes: int) -> Tensor:
    """Gumbel(0, 1) for all levels at once: float32 [M, V, K]; `[level]` equals `gumbel(..., level, ...)`."""
    return _gumbel(seed, step, torch.arange(levels, dtype=torch.int64, device=items_V.device), items_V, codes)


def gaussian_levels(seed: int, step: int | Tensor, levels: int, items_V: Tensor, codes: int) -> Tensor:
    """N(0, 1) for all levels at once: float32 [M, V, K]."""
    return _gaussian(seed, step, torch.arange(levels, dtype=torch.int64, device=items_V.device), items_V, codes)


def gumbel(seed: int, step: int | Tensor, level: int, items_V: Tensor, codes: int) -> Tensor:
    """Gumbel(0, 1), float32 [V, K]: -log(-log(1 - u)). u near 0, where float32 is finest, makes the heavy right tail (up to 22)."""
    return _gumbel(seed, step, torch.full((), level, dtype=torch.int64, device=items_V.device), items_V, codes)


def gaussian(seed: int, step: int | Tensor, level: int, items_V: Tensor, codes: int) -> Tensor:
    """N(0, 1), float32 [V, K]: Box and Muller's cosine branch, one 64-bit word per number."""
    return _gaussian(seed, step, torch.full((), level, dtype=torch.int64, device=items_V.device), items_V, codes)


def _gumbel(seed: int, step: int | Tensor, level: Tensor, items_V: Tensor, codes: int) -> Tensor:
    u = _uniform(words(seed, step, level, items_V, (codes + 1) // 2))[..., :codes]
    return -torch.log(-torch.log1p(-u))


def _gaussian(seed: int, step: int | Tensor, level: Tensor, items_V: Tensor, codes: int) -> Tensor:
    u = _uniform(words(seed, step, level, items_V, codes)).unflatten(-1, (codes, 2))
    return torch.sqrt(-2 * torch.log(u[..., 0])) * torch.cos(2 * math.pi * u[..., 1])
