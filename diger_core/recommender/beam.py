"""Beam search over exactly M+1 steps (docs/method.md, section 6).

The history is encoded once; keys and values are cached; the beams of a row share its memory. A beam's score is the sum of the log-softmax over
all codes of each position; the trie only forbids, after it, and nothing is renormalised. Equal scores are ordered by (parent beam, code),
so that results do not depend on how a device breaks ties. No host synchronisation, and all shapes follow from B, W and the trie alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diger_core.fast.inference import FastRecommender
from diger_core.recommender.model import Recommender
from diger_core.recommender.trie import Trie


@torch.no_grad()
def beam_search(
    recommender: Recommender | FastRecommender,
    memory_BTd: Tensor,
    mask_BT: Tensor,
    trie: Trie,
    beams: int,
    top: int | None = None,
    *,
    constrained: bool = True,
) -> tuple[Tensor, Tensor]:
    """(items [B, top] int64, scores [B, top] float32) by falling score; `top` is `beams` unless told.

    Constrained: every item is a real one of the trie; where fewer than `top` exist, the rest is item -1 with score -inf.
    Unconstrained: beams may be tuples that no item has; they keep their rank and score, as item -1 with a finite score.
    The recommender must be in eval mode; beams >= N finds the exact order of all items.
    """
    if recommender.training:
        raise ValueError("beam_search: the recommender is in training mode; call eval() first")
    if trie.sizes != (recommender.codes,) * recommender.levels + (recommender.suffixes,):
        raise ValueError(f"beam_search: the trie's widths {trie.sizes} are not the recommender's")
    rows, top = len(memory_BTd), beams if top is None else top
    cache: Any = recommender.cross_keys_values(memory_BTd, mask_BT)
    token_BWd = recommender.start_B1d(rows)
    score_BW = torch.zeros(rows, 1, device=memory_BTd.device)
    node_BW = trie.root(rows, 1)
    for depth in range(trie.depth):
        state_BWd, cache = recommender.decode_step(token_BWd, depth, cache)
        code_BWC, node_BWC, candidate_BWC = _candidates(recommender, state_BWd, score_BW, trie, node_BW, depth, constrained)
        kept = min(beams, candidate_BWC[0].numel())
        flat_BW = _top(candidate_BWC.flatten(1), kept)
        score_BW = candidate_BWC.flatten(1).gather(1, flat_BW)
        code_BW, parent_BW = code_BWC.flatten(1).gather(1, flat_BW), flat_BW // candidate_BWC.shape[2]
        if constrained:
            node_BW = node_BWC.flatten(1).gather(1, flat_BW).masked_fill(score_BW.isneginf(), -1)
        else:
            node_BW = trie.child(depth, node_BW.gather(1, parent_BW), code_BW)
        if depth + 1 < trie.depth:
            cache = cache.select(parent_BW)
            token_BWd = torch.nn.functional.embedding(code_BW, recommender.token_tables[depth])
    items_BW = trie.items(node_BW)[:, :top]
    missing = top - items_BW.shape[1]
    if missing <= 0:
        return items_BW, score_BW[:, :top]
    pad = torch.nn.functional.pad
    return pad(items_BW, (0, missing), value=-1), pad(score_BW, (0, missing), value=-torch.inf)


def _candidates(
    recommender: Recommender | FastRecommender, state_BWd: Tensor, score_BW: Tensor, trie: Trie, node_BW: Tensor, depth: int, constrained: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(codes, nodes, scores), each [B, W, C]: continuations of every beam. C is the trie's fan-out here, or all codes where unconstrained."""
    logits_BWK = recommender.level_logits(state_BWd, depth).float()
    base_BW1 = (score_BW - logits_BWK.logsumexp(dim=-1)).unsqueeze(-1)
    if not constrained:
        code_BWC = torch.arange(logits_BWK.shape[-1], device=logits_BWK.device).expand_as(logits_BWK)
        return code_BWC, code_BWC, base_BW1 + logits_BWK
    code_BWC, node_BWC, valid_BWC = trie.children(depth, node_BW)
    return code_BWC, node_BWC, (base_BW1 + logits_BWK.gather(-1, code_BWC)).masked_fill(~valid_BWC, -torch.inf)


def _top(score_BX: Tensor, count: int) -> Tensor:
    """[B, count] indices of the largest scores, falling; equal scores by rising index.

    Score and index form one integer key: an order-preserving image of the float above, the complement of the index below. Keys are distinct,
    so any top-k gives the same answer.
    """
    bits_BX = score_BX.contiguous().view(torch.int32)
    ordered_BX = bits_BX ^ ((bits_BX >> 31) & 0x7FFFFFFF)
    index_X = torch.arange(score_BX.shape[1], device=score_BX.device)
    key_BX = (ordered_BX.long() << 32) | (0xFFFFFFFF - index_X)
    return 0xFFFFFFFF - (key_BX.topk(count, dim=1).values & 0xFFFFFFFF)
