"""The recommender's parameters in one flat buffer, equal kinds of all layers side by side.

The module keeps its parameters (their data become views), so checkpoints, evaluation and the optimizer see nothing of it. What it buys: one
copy gives all bf16 weights, one norm the gradient's length, and one batched product the gradients of a weight in all layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diger_core.recommender.model import DecoderLayer, EncoderLayer, Recommender

_ALIGNED = 64  # elements: 128 bytes in bf16, which any matrix product takes


def kinds(recommender: Recommender) -> dict[str, list[Tensor]]:
    """Parameters by kind, each kind's in the order of the layers; token tables: all levels, then the suffixes'."""
    encoder = [layer for layer in recommender.encoder_layers if isinstance(layer, EncoderLayer)]
    decoder = [layer for layer in recommender.decoder_layers if isinstance(layer, DecoderLayer)]
    found: dict[str, list[Tensor]] = {"tables": list(recommender.token_tables), "start": [recommender.start]}
    found["encoder_bias"], found["decoder_bias"] = [recommender.encoder_bias.table], [recommender.decoder_bias.table]
    norms = [norm.weight for layer in encoder for norm in (layer.norm_attention, layer.norm_feed_forward)]
    found["encoder_norms"] = [*norms, recommender.encoder_norm.weight]
    norms = [norm.weight for layer in decoder for norm in (layer.norm_attention, layer.norm_cross, layer.norm_feed_forward)]
    found["decoder_norms"] = [*norms, recommender.decoder_norm.weight]
    found["cross_kv"] = [recommender.cross_project.weight]
    for name, layers in (("encoder", encoder), ("decoder", decoder)):
        found[f"{name}_qkv"] = [layer.attention.project.weight for layer in layers]
        found[f"{name}_out"] = [layer.attention.out.weight for layer in layers]
        found[f"{name}_up"] = [layer.feed_forward.up.weight for layer in layers]
        found[f"{name}_down"] = [layer.feed_forward.down.weight for layer in layers]
    found["cross_q"] = [layer.cross.project.weight for layer in decoder]
    found["cross_out"] = [layer.cross.out.weight for layer in decoder]
    return found


class FlatParameters:
    """`weights[kind]`: all layers' [layers, *shape], in the precision of the products; `masters[kind]`, `gradients[kind]`: likewise in float32.

    The token tables are one matrix [M K + S, d] in each. `exchange`: `gradient` and, behind it, `beside`, `extra` floats of the step's: what
    several ranks sum in one call.
    """

    def __init__(self, recommender: Recommender, low: torch.dtype, extra: int = 0) -> None:
        named = kinds(recommender)
        if sum(len(parameters) for parameters in named.values()) != len(list(recommender.parameters())):
            raise ValueError("FlatParameters: a parameter of the recommender has no kind")
        offsets, size = {}, 0
        for kind, parameters in named.items():
            offsets[kind] = size
            size += -(-sum(p.numel() for p in parameters) // _ALIGNED) * _ALIGNED
        device = recommender.start.device
        self.master, self.exchange = torch.zeros(size, device=device), torch.zeros(size + extra, device=device)
        self.gradient, self.beside = self.exchange[:size], self.exchange[size:]
        self.low = self.master if low == torch.float32 else torch.zeros(size, dtype=low, device=device)
        for kind, parameters in named.items():
            start = offsets[kind]
            for p in parameters:
                part = self.master[start : start + p.numel()].view(p.shape)
                part.copy_(p.data)
                p.data = part
                p.grad = self.gradient[start : start + p.numel()].view(p.shape)
                start += p.numel()
        self.weights: dict[str, Tensor] = {}
        self.masters: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        for kind, parameters in named.items():
            for views, buffer in ((self.weights, self.low), (self.masters, self.master), (self.gradients, self.gradient)):
                views[kind] = self._stacked(buffer, offsets[kind], parameters, kind)
        self.update_low()

    @staticmethod
    def _stacked(buffer: Tensor, start: int, parameters: list[Tensor], kind: str) -> Tensor:
        flat = buffer[start : start + sum(p.numel() for p in parameters)]
        if kind == "tables":
            return flat.view(-1, parameters[0].shape[1])
        return flat.view(len(parameters), *parameters[0].shape)

    def update_low(self) -> None:
        """The weights as the products read them, from the float32 ones."""
        if self.low is not self.master:
            self.low.copy_(self.master)
