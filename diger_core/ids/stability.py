"""How far released IDs may move when codebooks have moved: pinned, anchored or free codes.

    pinned    an item of the released table keeps its codes; only new items are assigned
    anchored  at each level an item leaves its released code a for the nearest code b only where
              |r - E_a|^2 - |r - E_b|^2 >= anchor w_v / alpha
    free      the plain argmin of docs/method.md, section 5

alpha is the tokenizer's scale of squared distances (docs/method.md, section 3), so `anchor` counts in nats of its logits and means the same for every
tokenizer; w_v is the item's traffic, mean 1. The residual follows the code that is really taken: r_{j+1} = r_j - E_j,k_j. With anchor 0 the codes
are those of `free`, with an infinite one those of `pinned`, and the set of items that keep their whole prefix only grows with it: an item keeps
it exactly where each of its gains, taken along its own released codes, stays below its threshold.

Shapes: N items, M levels, K codes, e code width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diger_core.config import Mode, StabilityConfig, Weighting
from diger_core.data.sequences import Sequences
from diger_core.data.splits import training_counts
from diger_core.errors import DigerError
from diger_core.tokenizer.rqvae import Tokenizer


@dataclass(frozen=True)
class Hold:
    """What a table's refresh is held to: the mode, the cost of a move and each item's weight float32 [N] (None: 1)."""

    mode: Mode = "free"
    anchor: float = 0.0
    weight_N: Tensor | None = None


def traffic_weights(seq: Sequences, weighting: Weighting) -> Tensor:
    """float32 [N], mean 1: how much an item's move costs its users. Items without training events weigh 0 where traffic counts at all."""
    counts_N = torch.from_numpy(training_counts(seq)).double()
    raw_N = {"none": torch.ones_like(counts_N), "log": counts_N.log1p(), "count": counts_N}[weighting]
    mean = float(raw_N.mean())
    return (raw_N / mean if mean > 0 else torch.ones_like(raw_N)).float()


def hold(config: StabilityConfig, seq: Sequences) -> Hold:
    """The configured hold for a catalogue in the order of `seq`'s items."""
    return Hold(config.mode, config.anchor, traffic_weights(seq, config.weighting))


@torch.no_grad()
def held_codes(tok: Tokenizer, z_Ne: Tensor, released_NM: Tensor, held: Hold, chunk: int = 65_536) -> Tensor:
    """Codes int32 [N, M] of encoded items [N, e] under the present codebooks. released_NM: their released codes, -1 in the rows of new items,
    which always get the plain argmin. Memory is chunk x K."""
    released_NM = released_NM.to(z_Ne.device, torch.int64)
    if released_NM.shape != (len(z_Ne), tok.levels):
        raise DigerError(
            f"released ID table: {tuple(released_NM.shape)} codes, the tokenizer gives {(len(z_Ne), tok.levels)}: "
            "take a table of this catalogue and tokenizer, or set retraining.start=scratch"
        )
    threshold_N = _thresholds(held, tok, len(z_Ne)).to(z_Ne.device)
    parts = zip(z_Ne.split(chunk), released_NM.split(chunk), threshold_N.split(chunk), strict=True)
    return torch.cat([_held(tok, z, released, threshold).to(torch.int32) for z, released, threshold in parts])


def _thresholds(held: Hold, tok: Tokenizer, items: int) -> Tensor:
    """What a move must gain, float32 [N], in squared distance."""
    if held.mode == "pinned" or (held.mode == "anchored" and math.isinf(held.anchor)):
        return torch.full((items,), math.inf)  # set apart: an infinite anchor times a weight of 0 is not a number
    if held.mode == "free":
        return torch.zeros(items)
    weight_N = torch.ones(items) if held.weight_N is None else held.weight_N.float().cpu()
    if len(weight_N) != items:
        raise ValueError(f"held_codes: {len(weight_N)} weights for {items} items")
    return held.anchor * weight_N / float(tok.alpha)


def _held(tok: Tokenizer, z_Ve: Tensor, released_VM: Tensor, threshold_V: Tensor) -> Tensor:
    codes, residual = [], z_Ve.float()
    with torch.autocast(z_Ve.device.type, enabled=False):
        for level in range(tok.levels):
            scores_VK = tok.scores(level, residual)  # differences of two scores are those of the squared distances, the other way round
            best_V, nearest_V = scores_VK.max(1).values, scores_VK.argmax(1)
            anchor_V = released_VM[:, level]
            known_V = (anchor_V >= 0) & (anchor_V < tok.codes)
            kept_V = scores_VK.gather(1, torch.where(known_V, anchor_V, 0)[:, None])[:, 0]
            leaves_V = ~known_V | (best_V - kept_V >= threshold_V)
            codes.append(torch.where(leaves_V, nearest_V, anchor_V))
            residual = residual - tok.codebooks[level][codes[-1]]
    return torch.stack(codes, 1)
