"""k-means for the codebooks' initialisation (docs/method.md, section 2): k-means++ seeding and Lloyd's iterations on a sample.

Shapes: n points of width e, K centres. Distances in float32; the sums of a cluster by index_add, so the cost is that of one matrix product
per iteration and memory is chunk x K.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK = 16_384


def nearest(points_Ne: Tensor, centres_Ke: Tensor) -> tuple[Tensor, Tensor]:
    """For each point its centre (int64 [n]) and the squared distance to it (float32 [n])."""
    norms_K = centres_Ke.square().sum(1)
    labels, distances = [], []
    for chunk in points_Ne.split(_CHUNK):
        best, label = torch.addmm(norms_K, chunk, centres_Ke.T, alpha=-2).min(1)
        labels.append(label)
        distances.append((best + chunk.square().sum(1)).clamp_(min=0))
    return torch.cat(labels), torch.cat(distances)


def _seeds(points_Ne: Tensor, codes: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: each next centre is the best of a few points, drawn with probabilities proportional to the squared distance from the
    centres so far; best: after it the sum of those distances is the least."""
    n, candidates = len(points_Ne), 2 + int(math.log(codes))
    draws = torch.rand(codes, candidates, generator=generator, dtype=torch.float64).to(points_Ne.device)
    norms_N = points_Ne.square().sum(1)
    chosen = torch.zeros(codes, dtype=torch.int64, device=points_Ne.device)
    distances = torch.ones_like(norms_N)  # before the first centre every point is as likely as another
    for i in range(codes):
        cumulated = distances.double().cumsum(0)
        # where every point already is a centre the sum is 0 and the search gives an end: a repeated centre, told apart by _spread
        drawn = torch.searchsorted(cumulated, draws[i] * cumulated[-1], right=True).clamp(max=n - 1)
        to_drawn = (norms_N[:, None] + norms_N[drawn] - 2 * points_Ne @ points_Ne[drawn].T).clamp_(min=0)
        remaining = to_drawn if i == 0 else torch.minimum(distances[:, None], to_drawn)
        best = remaining.sum(0).argmin()
        chosen[i], distances = drawn[best], remaining[:, best]
    return points_Ne[chosen].clone()


def _spread(centres_Ke: Tensor, points_Ne: Tensor, generator: torch.Generator) -> Tensor:
    """Moves repeated centres (fewer distinct points than codes) off each other by a thousandth of the points' spread: equal centres would tie
    for ever, and get equal gradients."""
    _, inverse = torch.unique(centres_Ke, dim=0, return_inverse=True)
    order = torch.argsort(inverse, stable=True)
    repeated = torch.zeros(len(centres_Ke), dtype=torch.bool, device=centres_Ke.device)
    repeated[order[1:]] = inverse[order[1:]] == inverse[order[:-1]]
    spread = points_Ne.std(unbiased=False).clamp(min=1e-3)
    noise = torch.randn(centres_Ke.shape, generator=generator).to(centres_Ke)
    return torch.where(repeated[:, None], centres_Ke + 1e-3 * spread * noise, centres_Ke)


def kmeans(points_Ne: Tensor, codes: int, generator: torch.Generator, *, iterations: int = 20, sample: int = 20_000) -> Tensor:
    """K centres, float32 [K, e], of at most `sample` points drawn without replacement (at least 40 per code). An empty cluster moves to one of
    the points farthest from their centres. `generator` is a CPU generator: the same seed gives the same draws on every device."""
    sample = max(sample, 40 * codes)
    points = points_Ne.float()
    if len(points) > sample:
        points = points[torch.randperm(len(points), generator=generator)[:sample].to(points.device)]
    centres = _seeds(points, codes, generator)
    ones = torch.ones(len(points), device=points.device)
    for _ in range(iterations):
        labels, distances = nearest(points, centres)
        counts = torch.zeros(codes, device=points.device).index_add_(0, labels, ones)
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        empty = counts == 0
        farthest = points[torch.argsort(distances, descending=True, stable=True)[: min(codes, len(points))]]
        refill = farthest[(torch.cumsum(empty, 0) - 1).clamp(0, len(farthest) - 1)]
        updated = torch.where(empty[:, None], refill, sums / counts.clamp(min=1)[:, None])
        if torch.equal(updated, centres):
            break
        centres = updated
    return _spread(centres, points, generator)
