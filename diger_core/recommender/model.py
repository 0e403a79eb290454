"""The generative recommender: a T5-shaped encoder-decoder over semantic IDs, trained from scratch (docs/method.md, section 3).

B rows, L history items, T = L(M+1) history tokens (L with one token an item), Q = M+1 decoder positions, W beams, d d_model, H heads, e d_head,
M levels, K codes, S suffixes.

T5's shape: RMS norm before every sub-layer and at the end of each stack, no biases in linear maps, attention scores not scaled by sqrt(e)
(the queries' initialisation carries that factor), one learned relative position bias per stack, shared by its layers, none in the cross-attention.
Tokens enter as embedded vectors, so that the caller decides how an item becomes vectors: hard look-ups, or P_j T_j with a gradient.
Histories are padded at the end: relative positions inside the history do not change, and a batch is cut to its longest history by slicing.
Dropout acts on embedded tokens, attention weights, feed-forward activations, sub-layer outputs and the stacks' outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diger_core.config import RecommenderConfig
from diger_core.recommender.dropout import Dropout, dropout

MASKED = -1e9  # finite, so that a row without any history stays finite, too; exp() of it is exactly 0 in fp32 and bf16


def relative_buckets(queries: int, keys: int, bidirectional: bool, buckets: int, max_distance: int) -> Tensor:
    """[queries, keys] int64: the bucket of the distance key - query: exact for near tokens, logarithmic up to max_distance, then one bucket.

    Bidirectional: half of the buckets for keys before the query, half for keys after it. Otherwise later keys (masked anyway) share bucket 0.
    """
    distance = torch.arange(keys)[None, :] - torch.arange(queries)[:, None]
    offset = torch.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = (distance > 0) * buckets
        back = distance.abs()
    else:
        back = (-distance).clamp_min(0)
    exact = buckets // 2
    ratio = torch.log(back.clamp_min(1).double() / exact) / math.log(max(max_distance, exact + 1) / exact)
    far = (exact + (ratio * (buckets - exact)).long()).clamp_max(buckets - 1)
    return offset + torch.where(back < exact, back, far)


class RelativeBias(nn.Module):
    """Additive attention bias [H, queries, keys] that depends on the distance alone; one for all layers of a stack."""

    def __init__(self, config: RecommenderConfig, positions: int, bidirectional: bool) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(config.relative_buckets, config.heads))
        bucket = relative_buckets(positions, positions, bidirectional, config.relative_buckets, config.relative_max_distance)
        # A product with one-hots: its backward is a matrix product, deterministic and free of the collisions that scattering into 32 rows has.
        self.one_hot: Tensor
        self.register_buffer("one_hot", F.one_hot(bucket, config.relative_buckets).float(), persistent=False)

    def forward(self, positions: int) -> Tensor:
        return (self.one_hot[:positions, :positions] @ self.table).permute(2, 0, 1)


class Attention(nn.Module):
    """Multi-head attention without biases; queries, keys and values come from one product where they share their input."""

    def __init__(self, config: RecommenderConfig, cross: bool) -> None:
        super().__init__()
        self.heads, self.d_head, self.dropout = config.heads, config.d_head, config.dropout
        self.inner = config.heads * config.d_head
        self.project = nn.Linear(config.d_model, self.inner if cross else 3 * self.inner, bias=False)
        self.out = nn.Linear(self.inner, config.d_model, bias=False)

    def split(self, x_BQi: Tensor) -> Tensor:
        """[B, Q, n H e] -> [n, B, H, Q, e]"""
        rows, positions, width = x_BQi.shape
        return x_BQi.view(rows, positions, width // self.inner, self.heads, self.d_head).permute(2, 0, 3, 1, 4)

    def attend(self, q_BHQe: Tensor, k_BHTe: Tensor, v_BHTe: Tensor, bias: Tensor) -> Tensor:
        """[B, Q, d]: softmax(q k^T + bias) v, projected. `bias` broadcasts to [B, H, Q, T]."""
        # Plain products: at these sizes (T <= 200, e <= 64) F.scaled_dot_product_attention with an additive bias took 10% more CPU time.
        weights_BHQT = torch.softmax(q_BHQe @ k_BHTe.transpose(-1, -2) + bias.to(q_BHQe.dtype), dim=-1)
        mixed = dropout(weights_BHQT, self.dropout, self.training) @ v_BHTe
        out_BQd: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out_BQd


class FeedForward(nn.Module):
    def __init__(self, config: RecommenderConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.dropout(F.relu(self.up(x))))
        return out


class EncoderLayer(nn.Module):
    def __init__(self, config: RecommenderConfig) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed_forward = _norm(config), _norm(config)
        self.attention, self.feed_forward = Attention(config, cross=False), FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTd: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.attention.split(self.attention.project(self.norm_attention(x_BTd)))
        x_BTd = x_BTd + self.dropout(self.attention.attend(q, k, v, bias))
        out_BTd: Tensor = x_BTd + self.dropout(self.feed_forward(self.norm_feed_forward(x_BTd)))
        return out_BTd


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to the memory, feed-forward. The memory's keys and values arrive ready made."""

    def __init__(self, config: RecommenderConfig) -> None:
        super().__init__()
        self.norm_attention, self.norm_cross, self.norm_feed_forward = _norm(config), _norm(config), _norm(config)
        self.attention, self.cross = Attention(config, cross=False), Attention(config, cross=True)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BQd: Tensor, bias: Tensor, cross_kv: Tensor, cross_bias: Tensor) -> Tensor:
        q, k, v = self.attention.split(self.attention.project(self.norm_attention(x_BQd)))
        x_BQd = x_BQd + self.dropout(self.attention.attend(q, k, v, bias))
        return self.after_self_attention(x_BQd, cross_kv, cross_bias)

    def step(self, x_BWd: Tensor, bias_Hp: Tensor, past: Tensor | None, cross_kv: Tensor, cross_bias: Tensor) -> tuple[Tensor, Tensor]:
        """One position of W beams; `past` [2, B, W, p, H, e]: keys and values of the p positions before. Returns (x_BWd, past with this one)."""
        rows, beams, _ = x_BWd.shape
        attention = self.attention
        q, k, v = attention.project(self.norm_attention(x_BWd)).view(rows, beams, 3, attention.heads, attention.d_head).unbind(2)
        present = torch.stack((k, v)).unsqueeze(3)
        past = present if past is None else torch.cat((past, present), dim=3)
        # A handful of keys for every beam: products and sums are cheaper than a batched matrix product of height 1.
        weights_BWpH = torch.softmax((q.unsqueeze(2) * past[0]).sum(-1) + bias_Hp.T, dim=2).to(v.dtype)
        mixed = (weights_BWpH.unsqueeze(-1) * past[1]).sum(2).flatten(2)
        x_BWd = x_BWd + self.dropout(attention.out(mixed))
        # The beams of a row are the queries of one attention over the row's memory, which is therefore never repeated.
        return self.after_self_attention(x_BWd, cross_kv, cross_bias), past

    def after_self_attention(self, x_BQd: Tensor, cross_kv: Tensor, cross_bias: Tensor) -> Tensor:
        (q,) = self.cross.split(self.cross.project(self.norm_cross(x_BQd)))
        x_BQd = x_BQd + self.dropout(self.cross.attend(q, cross_kv[0], cross_kv[1], cross_bias))
        out_BQd: Tensor = x_BQd + self.dropout(self.feed_forward(self.norm_feed_forward(x_BQd)))
        return out_BQd


@dataclass
class DecoderCache:
    """What the beams of a batch share (cross_kv: per layer [2, B, H, T, e], cross_bias [B, 1, 1, T]) and own (past: per layer [2, B, W, p, H, e])."""

    cross_kv: list[Tensor]
    cross_bias: Tensor
    past: Sequence[Tensor | None]

    def select(self, parent_BW: Tensor) -> DecoderCache:
        """The cache after beam w of row b has become a continuation of beam parent_BW[b, w]; the number of beams may change."""
        chosen: list[Tensor | None] = []
        for past in self.past:
            if past is None:
                raise ValueError("select: nothing is cached yet; take one decode_step first")
            index = parent_BW[None, :, :, None, None, None].expand(2, -1, -1, *past.shape[3:])
            chosen.append(past.gather(2, index))
        return DecoderCache(self.cross_kv, self.cross_bias, chosen)


class Recommender(nn.Module):
    """Encoder over embedded history tokens, decoder over the target's semantic ID; logits are products with the token tables."""

    def __init__(self, config: RecommenderConfig, codes: int, levels: int, suffixes: int) -> None:
        super().__init__()
        self.config, self.codes, self.levels, self.suffixes = config, codes, levels, suffixes
        width = config.d_model
        self.token_tables = nn.ParameterList([torch.empty(size, width) for size in [codes] * levels + [suffixes]])
        self.start = nn.Parameter(torch.empty(width))
        self.tokens_per_item = 1 if config.item_tokens == "one" else levels + 1
        self.encoder_bias = RelativeBias(config, config.history * self.tokens_per_item, bidirectional=True)
        self.decoder_bias = RelativeBias(config, levels + 1, bidirectional=False)
        self.encoder_layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.encoder_layers)])
        self.decoder_layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.decoder_layers)])
        # Keys and values of all decoder layers read the same memory: one product instead of one for each layer.
        self.cross_project = nn.Linear(width, config.decoder_layers * 2 * config.heads * config.d_head, bias=False)
        self.encoder_norm, self.decoder_norm = _norm(config), _norm(config)
        self.dropout = Dropout(config.dropout)
        self.future: Tensor
        self.register_buffer("future", torch.full((levels + 1, levels + 1), MASKED).triu(1), persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Token tables and start ~ N(0, 0.02^2), so that L_gen starts near ln K; the rest as T5 does, each map keeping its input's variance,
        the queries with a further 1/sqrt(e) in place of scaled scores."""
        config = self.config
        inner = config.heads * config.d_head
        for table in [*self.token_tables, self.start]:
            nn.init.normal_(table, std=0.02)
        for bias in (self.encoder_bias, self.decoder_bias):
            nn.init.normal_(bias.table, std=config.d_model**-0.5)
        nn.init.normal_(self.cross_project.weight, std=config.d_model**-0.5)
        for module in self.modules():
            if isinstance(module, Attention):
                nn.init.normal_(module.project.weight, std=config.d_model**-0.5)
                module.project.weight[:inner].mul_(config.d_head**-0.5)
                nn.init.normal_(module.out.weight, std=inner**-0.5)
            if isinstance(module, FeedForward):
                nn.init.normal_(module.up.weight, std=config.d_model**-0.5)
                nn.init.normal_(module.down.weight, std=config.d_ff**-0.5)

    def embed_codes(self, codes_VQ: Tensor) -> Tensor:
        """[..., M+1] codes and suffixes -> [..., M+1, d], by hard look-ups. -1 is not allowed: clamp padding and mask it."""
        return torch.stack([F.embedding(codes_VQ[..., level], table) for level, table in enumerate(self.token_tables)], dim=-2)

    def merged(self, tokens_VQd: Tensor) -> Tensor:
        """[..., M+1, d] tokens of items -> [..., t, d] as histories hold them: all of them, or their sum."""
        return tokens_VQd.sum(-2, keepdim=True) if self.config.item_tokens == "one" else tokens_VQd

    def start_B1d(self, rows: int) -> Tensor:
        """[rows, 1, d]: the first decoder input of every row."""
        return self.start.expand(rows, 1, -1)

    def decoder_input(self, target_BQd: Tensor) -> Tensor:
        """Teacher forcing: the target's embedded tokens [B, M+1, d] -> start and all tokens but the last [B, M+1, d]."""
        return torch.cat((self.start_B1d(len(target_BQd)).to(target_BQd.dtype), target_BQd[:, :-1]), dim=1)

    def encode(self, history_BTd: Tensor, mask_BT: Tensor) -> Tensor:
        """Memory [B, T, d] of embedded history tokens; `mask_BT` is True on real tokens, padding stands at the end."""
        bias_BHTT = self.encoder_bias(history_BTd.shape[1]) + _mask_bias(mask_BT)
        x_BTd = self.dropout(history_BTd)
        for layer in self.encoder_layers:
            x_BTd = layer(x_BTd, bias_BHTT)
        memory_BTd: Tensor = self.dropout(self.encoder_norm(x_BTd))
        return memory_BTd

    def decode(self, decoder_input_BQd: Tensor, memory_BTd: Tensor, mask_BT: Tensor) -> Tensor:
        """State [B, Q, d] of all decoder positions at once, each seeing itself and the positions before it."""
        positions = decoder_input_BQd.shape[1]
        bias_HQQ = self.decoder_bias(positions) + self.future[:positions, :positions]
        cross_bias = _mask_bias(mask_BT)
        x_BQd = self.dropout(decoder_input_BQd)
        for layer, cross_kv in zip(self.decoder_layers, self._cross_kv(memory_BTd), strict=True):
            x_BQd = layer(x_BQd, bias_HQQ, cross_kv, cross_bias)
        out_BQd: Tensor = self.dropout(self.decoder_norm(x_BQd))
        return out_BQd

    def logits(self, state_BQd: Tensor) -> tuple[Tensor, ...]:
        """([B, K] for each level, [B, S]): decoder state . T_j^T, unscaled."""
        return tuple(self.level_logits(state_BQd[:, level], level) for level in range(state_BQd.shape[1]))

    def level_logits(self, state: Tensor, level: int) -> Tensor:
        """[..., d] -> [..., K], or [..., S] where `level` is M."""
        return F.linear(state, self.token_tables[level])

    def forward(self, history_BTd: Tensor, mask_BT: Tensor, decoder_input_BQd: Tensor) -> tuple[Tensor, ...]:
        """Embedded history and decoder input -> logits ([B, K] for each level, [B, S])."""
        return self.logits(self.decode(decoder_input_BQd, self.encode(history_BTd, mask_BT), mask_BT))

    def cross_keys_values(self, memory_BTd: Tensor, mask_BT: Tensor) -> DecoderCache:
        """What beams need of the memory, computed once; nothing of it is repeated for each beam."""
        return DecoderCache(self._cross_kv(memory_BTd), _mask_bias(mask_BT), [None] * len(self.decoder_layers))

    def decode_step(self, token_BWd: Tensor, position: int, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """State [B, W, d] at `position` (0: start) of W beams whose embedded token there is `token_BWd`, and the cache with it."""
        bias_Hp = self.decoder_bias(position + 1)[:, position]
        x_BWd, pasts = self.dropout(token_BWd), []
        for layer, past, cross_kv in zip(self.decoder_layers, cache.past, cache.cross_kv, strict=True):
            assert isinstance(layer, DecoderLayer)
            x_BWd, past = layer.step(x_BWd, bias_Hp, past, cross_kv, cache.cross_bias)
            pasts.append(past)
        return self.dropout(self.decoder_norm(x_BWd)), DecoderCache(cache.cross_kv, cache.cross_bias, pasts)

    def _cross_kv(self, memory_BTd: Tensor) -> list[Tensor]:
        rows, tokens, _ = memory_BTd.shape
        config = self.config
        kv = self.cross_project(memory_BTd).view(rows, tokens, config.decoder_layers, 2, config.heads, config.d_head)
        return list(kv.permute(2, 3, 0, 4, 1, 5).unbind(0))


def _norm(config: RecommenderConfig) -> nn.RMSNorm:
    return nn.RMSNorm(config.d_model, eps=1e-6)


def _mask_bias(mask_BT: Tensor) -> Tensor:
    """[B, 1, 1, T]: 0 on real tokens, MASKED on padding."""
    return torch.zeros(mask_BT.shape, device=mask_BT.device).masked_fill(~mask_BT, MASKED)[:, None, None, :]
