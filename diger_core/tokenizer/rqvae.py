"""The item tokenizer, the part of an RQ-VAE that stays after its warm-up (docs/method.md, section 2).

    x standardised per dimension, z = MLP(x), r_1 = z
    level j: c_j = argmin_i |r_j - E_j,i|^2,  q_j = E_j,c_j,  r_{j+1} = r_j - sg(q_j)

Shapes: N items, V items of a batch, D width of the vectors, e code width d_e, M levels, K codes. Everything here is float32: the quantizer's
distances decide by differences that bf16 does not resolve.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diger_core.config import TokenizerConfig
from diger_core.errors import DigerError

LARGEST_CODES = 256
_ITEMS_PER_CODE = 4  # a level-1 code stands for at least this many items on average


def mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them, no batch norm."""
    layers: list[nn.Module] = []
    for i, (width, following) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        layers += [nn.ReLU()] if i else []
        layers.append(nn.Linear(width, following))
    return nn.Sequential(*layers)


class Tokenizer(nn.Module):
    """Standardisation, encoder and codebooks: what stays of the RQ-VAE after its warm-up.

    Buffers: `mean_D`, `scale_D` [D], `alpha` [] (the logits' scale: docs/method.md, section 3), `input_alpha_M` [M] (the same for soft history input,
    level by level). `codebooks`: one parameter [M, K, d_e].
    """

    mean_D: Tensor
    scale_D: Tensor
    alpha: Tensor
    input_alpha_M: Tensor

    def __init__(self, dim: int, codes: int, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim, self.codes, self.levels, self.config = dim, codes, config.levels, config
        self.register_buffer("mean_D", torch.zeros(dim))
        self.register_buffer("scale_D", torch.ones(dim))
        self.register_buffer("alpha", torch.ones(()))
        self.register_buffer("input_alpha_M", torch.ones(config.levels))
        self.encoder = mlp((dim, *config.hidden, config.code_dim))
        self.codebooks = nn.Parameter(torch.randn(config.levels, codes, config.code_dim) * config.code_dim**-0.5)

    def standardise(self, x_VD: Tensor) -> Tensor:
        """[V, D] -> [V, D], by the statistics of the warm-up's catalogue."""
        return (x_VD.float() - self.mean_D) / self.scale_D

    def encode(self, x_VD: Tensor) -> Tensor:
        """Raw vectors [V, D] -> z [V, d_e]."""
        with torch.autocast(x_VD.device.type, enabled=False):
            z_Ve: Tensor = self.encoder(self.standardise(x_VD))
            return z_Ve

    def scores(self, level: int, r_Ve: Tensor) -> Tensor:
        """2 r.E_i - |E_i|^2, float32 [V, K]: the negative squared distance of each residual to each code, but for the residual's own |r|^2.
        That term is the same for all codes of a row, so no argmax, softmax or gradient of one sees it, and without it less cancels."""
        book_Ke = self.codebooks[level]
        return torch.addmm(-book_Ke.square().sum(1), r_Ve, book_Ke.T, alpha=2)

    @torch.no_grad()
    def quantise(self, z_Ve: Tensor) -> Tensor:
        """Plain argmin codes, int64 [V, M]; memory is V x K, so the caller takes chunks."""
        codes, residual = [], z_Ve.to(self.codebooks.dtype)
        with torch.autocast(z_Ve.device.type, enabled=False):
            for level in range(self.levels):
                codes.append(self.scores(level, residual).argmax(1))
                residual = residual - self.codebooks[level][codes[-1]]
        return torch.stack(codes, 1)

    def embed(self, codes_VM: Tensor) -> Tensor:
        """The codes' vectors E_j,c_j: [V, M, d_e], with gradient into the codebooks."""
        offsets = torch.arange(self.levels, device=codes_VM.device) * self.codes
        return F.embedding(codes_VM + offsets, self.codebooks.flatten(0, 1))


def choose_codes(items: int, config: TokenizerConfig) -> int:
    """K: the configured number, else 256, else for a small catalogue the largest power of two with at least 4 items per code (2 at least)."""
    if config.codes is not None:
        return config.codes
    return min(LARGEST_CODES, max(2, 1 << int(math.log2(max(items // _ITEMS_PER_CODE, 1)))))


def tokenizer_state(tok: Tokenizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors for safetensors, JSON configuration) from which `tokenizer_from_state` builds the same tokenizer."""
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tok.state_dict().items()}
    config = asdict(tok.config)
    config["hidden"] = list(config["hidden"])
    return tensors, {"dim": tok.dim, "codes": tok.codes, "config": config}


def tokenizer_from_state(tensors: dict[str, Tensor], config: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `tokenizer_state` described. Raises DigerError where a tensor is missing, unknown or of another shape."""
    known = {**config["config"], "hidden": tuple(config["config"]["hidden"])}
    tok = Tokenizer(int(config["dim"]), int(config["codes"]), TokenizerConfig(**known))
    wanted = {name: tuple(t.shape) for name, t in tok.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if wanted != found:
        name = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))[0]
        raise DigerError(
            f"tokenizer tensors: {name} has shape {found.get(name, 'none')}, the configuration wants {wanted.get(name, 'none')}: "
            "take tensors and configuration from one artefact"
        )
    tok.load_state_dict(tensors, strict=True)
    return tok.eval()
