"""Tokens of the histories where they are not plain look-ups: mixtures (soft input) and sums (one token an item), and their derivative.

What is computed once for each unique item of the batch is gathered to the histories; `history_input.py` is the reference. Shapes: V unique items,
M levels, K codes, Q = M+1, t encoder tokens of an item (Q or 1), d d_model, B rows, L history items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diger_core.fast.flat import FlatParameters
from diger_core.recommender.model import Recommender


class ItemTokens:
    """Reads the token tables of `flat` and adds to their gradients. `plain`: look-ups of each code, which need none of this."""

    def __init__(self, recommender: Recommender, flat: FlatParameters) -> None:
        config = recommender.config
        self.flat, self.levels, self.codes = flat, recommender.levels, recommender.codes
        self.soft, self.one, self.tokens = config.history_input == "soft", config.item_tokens == "one", recommender.tokens_per_item
        self.plain = not (self.soft or self.one)

    def _levels(self, tables: Tensor) -> Tensor:
        """[M, K, d] of the concatenated tables [M K + S, d]."""
        return tables[: self.levels * self.codes].view(self.levels, self.codes, -1)

    def gather(self, token_VQ: Tensor, p_MVK: Tensor | None, history_BL: Tensor) -> Tensor:
        """[B L t, d] float32: the histories' embedded tokens. p_MVK: of soft input."""
        tables = self.flat.masters["tables"]
        if p_MVK is None:
            tokens_VQd = F.embedding(token_VQ, tables)
        else:
            mixed_VMd = torch.bmm(p_MVK, self._levels(tables)).transpose(0, 1)
            tokens_VQd = torch.cat((mixed_VMd, F.embedding(token_VQ[:, -1:], tables)), 1)
        item_VX = tokens_VQd.sum(1) if self.one else tokens_VQd.flatten(1)
        return F.embedding(history_BL.flatten(), item_VX).view(-1, tables.shape[1])

    def backward(self, d_history: Tensor, token_VQ: Tensor, p_MVK: Tensor | None, history_BL: Tensor) -> Tensor:
        """`gathered`; adds the gradient of the token tables."""
        d_tokens_VQd, tables = self.gathered(d_history, history_BL, token_VQ), self.flat.gradients["tables"]
        if p_MVK is None:
            tables.index_add_(0, token_VQ.flatten(), d_tokens_VQd.reshape(-1, d_history.shape[1]))
        else:
            self._levels(tables).add_(torch.bmm(p_MVK.transpose(1, 2), d_tokens_VQd[:, : self.levels].transpose(0, 1)))
            tables.index_add_(0, token_VQ[:, -1], d_tokens_VQd[:, -1])
        return d_tokens_VQd

    def gathered(self, d_history: Tensor, history_BL: Tensor, token_VQ: Tensor) -> Tensor:
        """The gradient of the items' own tokens [V, Q, d] from that of the histories' [B L t, d]."""
        (places, positions), width = token_VQ.shape, d_history.shape[1]
        d_item_VX = torch.zeros(places, self.tokens * width, device=d_history.device)
        d_item_VX.index_add_(0, history_BL.flatten(), d_history.view(history_BL.numel(), -1))
        return d_item_VX.view(places, self.tokens, width).expand(places, positions, width)

    def weights_gradient(self, d_tokens_VQd: Tensor) -> Tensor:
        """dp [M, V, K] of soft input."""
        return torch.bmm(d_tokens_VQd[:, : self.levels].transpose(0, 1), self._levels(self.flat.masters["tables"]).transpose(1, 2))
