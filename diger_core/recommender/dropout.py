"""Dropout that a CPU can afford: eight decisions from every 64 random bits, instead of a Bernoulli draw for each element.

In small models `F.dropout` takes over 40% of a CPU step. Here the rate is rounded to a multiple of 1/256 and the kept values are scaled by that very
rate, so the expectation is exact. The bits come from torch's default generator, so its state makes a run reproducible. Other devices use `F.dropout`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """`x` of any shape with each element zeroed with probability `rate` and the others scaled by 1 / (1 - rate)."""
    if not training or rate == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate, True)
    kept: Tensor = _ByteDropout.apply(x, min(255, max(1, round(rate * 256))))
    return kept


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        keep = (words.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold).to(x.dtype).mul_(256 / (256 - threshold))
        ctx.save_for_backward(keep)
        return x * keep

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return gradients[0] * keep, None


class Dropout(nn.Module):
    """`dropout` as a module."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate, self.training)
