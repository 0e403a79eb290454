"""Encoder and beams over the fused kernels: what `evaluation.ranking` uses in place of the module on an accelerator in bf16.

The same methods as `Recommender` has for `beam.beam_search`, the same numbers up to rounding. B rows, T history tokens, W beams, p earlier positions,
I = heads x head width. Keys and values of the beams of all layers are one tensor [layers, B W, p, 2 I]: a step of the search gathers it once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diger_core.fast import kernels
from diger_core.fast.flat import kinds
from diger_core.fast.kernels import Dropout, Heads, Product
from diger_core.recommender.model import Recommender


def obstacle(recommender: Recommender) -> str | None:
    """Why the kernels do not take this model's shapes, or None."""
    return kernels.obstacle(recommender.config.d_head, recommender.config.history * recommender.tokens_per_item)


@dataclass
class FastCache:
    """kv [B T, layers 2 I] of the memory, lengths_B int32; past [layers, B W, p, 2 I] of the beams."""

    kv: Tensor
    lengths_B: Tensor
    past: Tensor

    def select(self, parent_BW: Tensor) -> FastCache:
        """The cache after beam w of row b has become a continuation of beam parent_BW[b, w]; the number of beams may change."""
        rows = len(parent_BW)
        before = self.past.shape[1] // rows
        flat = (parent_BW + torch.arange(rows, device=parent_BW.device)[:, None] * before).flatten()
        return FastCache(self.kv, self.lengths_B, self.past.index_select(1, flat))


class FastRecommender:
    """A copy of the weights in `low`, stacked by kind; made again for each evaluation."""

    def __init__(self, recommender: Recommender, low: torch.dtype) -> None:
        self.recommender, self.low, self.config = recommender, low, recommender.config
        self.codes, self.levels, self.suffixes = recommender.codes, recommender.levels, recommender.suffixes
        named = kinds(recommender)
        matrices = [kind for kind in named if kind not in ("tables", "start", "encoder_bias", "decoder_bias", "encoder_norms", "decoder_norms")]
        self.w = {kind: torch.stack([p.detach() for p in named[kind]]).to(low) for kind in matrices}
        self.norms = {name: torch.stack([p.detach() for p in named[f"{name}_norms"]]) for name in ("encoder", "decoder")}
        self.tables = [table.detach().to(low) for table in recommender.token_tables]
        self.inner = self.config.heads * self.config.d_head
        device = recommender.start.device
        self.drop = Dropout(0.0, torch.zeros((), dtype=torch.int64, device=device), device.type == "cuda")

    @property
    def training(self) -> bool:
        return self.recommender.training

    @property
    def token_tables(self) -> nn.ParameterList:
        return self.recommender.token_tables

    def embed_codes(self, codes: Tensor) -> Tensor:
        return self.recommender.embed_codes(codes)

    def merged(self, tokens_VQd: Tensor) -> Tensor:
        return self.recommender.merged(tokens_VQd)

    def start_B1d(self, rows: int) -> Tensor:
        return self.recommender.start_B1d(rows)

    def level_logits(self, state: Tensor, level: int) -> Tensor:
        return F.linear(state, self.tables[level])

    def _joint(self, y: Tensor | Product, x: Tensor | None, stack: str, place: int, n_out: Tensor) -> Tensor:
        return kernels.drop_add_norm(y, x, self.norms[stack][place], n_out, 0, self.drop)

    def _feed_forward(self, n: Tensor, stack: str, layer: int) -> Product:
        hidden = torch.empty(len(n), self.config.d_ff, dtype=self.low, device=n.device)
        kernels.linear_relu_drop(Product(n, self.w[f"{stack}_up"][layer].T), hidden, 0, self.drop)
        return Product(hidden, self.w[f"{stack}_down"][layer].T)

    def encode(self, history_BTd: Tensor, mask_BT: Tensor) -> Tensor:
        """As `Recommender.encode`: [B, T, d]; padding stands at the end."""
        with torch.autocast(history_BTd.device.type, enabled=False):
            rows, size, width = history_BTd.shape
            inner, lengths_B = self.inner, mask_BT.sum(1).int()
            bias = self.recommender.encoder_bias(size).detach().contiguous()
            wide, narrow = (size * 3 * inner, 3 * inner), (size * inner, inner)
            heads = Heads(self.config.heads, self.config.d_head, rows, size, size, wide, wide, narrow)
            n = torch.empty(rows * size, width, dtype=self.low, device=history_BTd.device)
            mixed = torch.empty(rows * size, inner, dtype=self.low, device=n.device)
            x = self._joint(history_BTd.flatten(0, 1).contiguous(), None, "encoder", 0, n)
            for layer in range(self.config.encoder_layers):
                q, k, v = (n @ self.w["encoder_qkv"][layer].T).split(inner, 1)
                kernels.attention(q, k, v, mixed, bias, lengths_B, heads, 0, self.drop)
                x = self._joint(Product(mixed, self.w["encoder_out"][layer].T), x, "encoder", 2 * layer + 1, n)
                x = self._joint(self._feed_forward(n, "encoder", layer), x, "encoder", 2 * layer + 2, n)
            return n.view(rows, size, width)

    def cross_keys_values(self, memory_BTd: Tensor, mask_BT: Tensor) -> FastCache:
        """What the beams need of the memory."""
        with torch.autocast(memory_BTd.device.type, enabled=False):
            kv = memory_BTd.flatten(0, 1) @ self.w["cross_kv"][0].T
            past = torch.empty(self.config.decoder_layers, len(memory_BTd), 0, 2 * self.inner, dtype=self.low, device=kv.device)
            return FastCache(kv, mask_BT.sum(1).int(), past)

    def decode_step(self, token_BWd: Tensor, position: int, cache: FastCache) -> tuple[Tensor, FastCache]:
        """As `Recommender.decode_step`: state [B, W, d] at `position`, and the cache with it."""
        with torch.autocast(token_BWd.device.type, enabled=False):
            rows, beams, width = token_BWd.shape
            inner, count, size = self.inner, rows * beams, len(cache.kv) // rows
            bias_HP = self.recommender.decoder_bias(position + 1)[:, position].detach().contiguous()
            kv_width = cache.kv.shape[1]
            cross = Heads(self.config.heads, self.config.d_head, rows, beams, size, (beams * inner, inner), (size * kv_width, kv_width),
                          (beams * inner, inner))  # fmt: skip
            n = torch.empty(count, width, dtype=self.low, device=token_BWd.device)
            mixed = torch.empty(count, inner, dtype=self.low, device=n.device)
            present = torch.empty(self.config.decoder_layers, count, position + 1, 2 * inner, dtype=self.low, device=n.device)
            present[:, :, :position] = cache.past
            x = self._joint(token_BWd.reshape(count, width).contiguous(), None, "decoder", 0, n)
            for layer in range(self.config.decoder_layers):
                qkv = n @ self.w["decoder_qkv"][layer].T
                present[layer, :, position] = qkv[:, inner:]
                kernels.beam_attention(qkv, cache.past[layer], bias_HP, mixed, self.config.heads)
                x = self._joint(Product(mixed, self.w["decoder_out"][layer].T), x, "decoder", 3 * layer + 1, n)
                k, v = cache.kv[:, 2 * layer * inner : 2 * (layer + 1) * inner].split(inner, 1)
                kernels.attention(n @ self.w["cross_q"][layer].T, k, v, mixed, None, cache.lengths_B, cross, 0, self.drop)
                x = self._joint(Product(mixed, self.w["cross_out"][layer].T), x, "decoder", 3 * layer + 2, n)
                x = self._joint(self._feed_forward(n, "decoder", layer), x, "decoder", 3 * layer + 3, n)
            return n.view(rows, beams, width), FastCache(cache.kv, cache.lengths_B, present)
