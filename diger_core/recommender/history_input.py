"""How an item of a history becomes tokens of the encoder (docs/method.md, section 3).

    hard:  the look-ups T_j[k_j] of its codes
    soft:  sum_k p_j(k) T_jk,   p_j = softmax(-alpha_j |r_j - E_j|^2 / tau_in),   r_{j+1} = r_j - sg(E_j,k_j)

alpha_j is 1 / the median gap between the two nearest codes at level j: with one scale for all levels the shorter residuals of the later ones would
give p_j near uniform, and their codes would say nothing. The suffix is a look-up in both. Soft, L_gen reaches the codebooks through p without
straight-through; nothing is drawn, so an item's tokens follow from its z, its codes and the codebooks: they are computed once for each table. With
`item_tokens` one, an item is the sum of its tokens.

N items (or V, the unique ones of a batch), M levels, K codes, Q = M+1, t encoder tokens of an item (Q or 1), d d_model, e = d_e.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diger_core.ids.id_table import IdTable
from diger_core.recommender.model import Recommender
from diger_core.tokenizer.rqvae import Tokenizer

CHUNK = 1 << 14  # items whose tokens are computed at once


def input_weights(tok: Tokenizer, z_Ve: Tensor, codes_VM: Tensor, tau: float) -> Tensor:
    """p [V, M, K] float32, with a gradient for the codebooks (and z) where they have one. codes_VM: what the residuals follow."""
    with torch.autocast(z_Ve.device.type, enabled=False):
        residual, weights = z_Ve.float(), []
        for level in range(tok.levels):
            weights.append((tok.input_alpha_M[level] * tok.scores(level, residual) / tau).softmax(1))
            residual = residual - tok.codebooks[level].detach()[codes_VM[:, level].long()]
        return torch.stack(weights, 1)


def soft_tokens(recommender: Recommender, weights_VMK: Tensor, suffix_V: Tensor) -> Tensor:
    """[V, Q, d]: the mixtures of the levels' tokens, and the suffix's token."""
    *tables, last = recommender.token_tables
    mixed = [weights_VMK[:, level] @ table_Kd for level, table_Kd in enumerate(tables)]
    return torch.stack([*mixed, F.embedding(suffix_V, last)], dim=1)


@torch.no_grad()
def table_tokens(recommender: Recommender, table: IdTable, tokenizer: Tokenizer, z_Ne: Tensor | None) -> Tensor | None:
    """[N, t, d] float32 on the recommender's device: every item's tokens in a history. None for hard input, whose look-ups need none.

    ValueError where the input is soft and z is missing.
    """
    if recommender.config.history_input == "hard":
        return None
    if z_Ne is None:
        raise ValueError("table_tokens: soft history input needs the items' z")
    device, tau = recommender.start.device, recommender.config.history_tau
    tok = tokenizer if tokenizer.codebooks.device == device else tokenizer.to(device)
    tokens_NTd = torch.empty(len(z_Ne), recommender.tokens_per_item, recommender.config.d_model, device=device)
    with torch.autocast(device.type, enabled=False):
        for start in range(0, len(z_Ne), CHUNK):
            part = slice(start, start + CHUNK)
            weights_nMK = input_weights(tok, z_Ne[part].to(device), table.codes_NM[part].to(device), tau)
            tokens_NTd[part] = recommender.merged(soft_tokens(recommender, weights_nMK, table.suffix_N[part].to(device).long()))
    return tokens_NTd
