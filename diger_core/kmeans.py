"""k-means for the codebooks' initialisation (the specification, section 2): k-means++ seeding and Lloyd's iterations on a sample.

Shapes: n points of width e, K centres. Distances in float32; the sums of a cluster by index_add, so the cost is that of one matrix product
per iteration and memory is chunk x K.
"""

from __future__ import annotations

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
    """k-means++: each next centre is drawn with a probability proportional to its squared distance from the centres so far."""
    n = len(points_Ne)
    draws = torch.rand(codes, generator=generator, dtype=torch.float64).to(points_Ne.device)
    chosen = torch.zeros(codes, dtype=torch.int64, device=points_Ne.device)
    chosen[0] = (draws[0] * n).long().clamp(max=n - 1)
    distances = (points_Ne - points_Ne[chosen[0]]).square().sum(1)
    for i in range(1, codes):
        cumulated = distances.double().cumsum(0)
        # where every point already is a centre the sum is 0 and the search gives index 0: a repeated centre, told apart by _spread
        chosen[i] = torch.searchsorted(cumulated, draws[i] * cumulated[-1], right=True).clamp(max=n - 1)
        distances = torch.minimum(distances, (points_Ne - points_Ne[chosen[i]]).square().sum(1))
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
