"""The item tokenizer and its warm-up, an RQ-VAE (docs/method.md, section 2).

    x standardised per dimension, z = MLP(x), r_1 = z
    level j: c_j = argmin_i |r_j - E_j,i|^2,  q_j = E_j,c_j,  r_{j+1} = r_j - sg(q_j)

Shapes: N items, V items of a batch, D width of the vectors, e code width d_e, M levels, K codes. Everything here is float32: the quantizer's
distances decide by differences that bf16 does not resolve.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diger_core.config import TokenizerConfig
from diger_core.errors import DigerError
from diger_core.progress import Progress, Silent
from diger_core.tokenizer.kmeans import kmeans

_LARGEST_CODES = 256
_ITEMS_PER_CODE = 4  # a level-1 code stands for at least this many items on average
_CHUNK = 65_536


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
    return min(_LARGEST_CODES, max(2, 1 << int(math.log2(max(items // _ITEMS_PER_CODE, 1)))))


def _chunks(x: Tensor, device: torch.device | str) -> Iterator[Tensor]:
    for chunk in x.split(_CHUNK):
        yield chunk.to(device, torch.float32)


@torch.no_grad()
def _fit_standardisation(tok: Tokenizer, vectors_ND: Tensor, weight_D: Tensor | None) -> None:
    """Mean and standard deviation in float64, two passes. A constant dimension gets scale 1: its standardised value is 0 whatever it is."""
    device = tok.mean_D.device
    mean = sum((c.double().sum(0) for c in _chunks(vectors_ND, device)), torch.zeros((), dtype=torch.float64, device=device)) / len(vectors_ND)
    squares = sum(((c.double() - mean).square().sum(0) for c in _chunks(vectors_ND, device)), torch.zeros_like(mean))
    deviation = (squares / len(vectors_ND)).sqrt()
    constant = deviation <= 1e-6 * mean.abs()  # float32's own rounding of a constant is no variation
    deviation = torch.where(constant | (deviation == 0), torch.ones_like(deviation), deviation)
    tok.mean_D.copy_(mean)
    tok.scale_D.copy_(deviation if weight_D is None else deviation / weight_D.to(deviation))


@torch.no_grad()
def _encode_all(tok: Tokenizer, vectors_ND: Tensor) -> Tensor:
    return torch.cat([tok.encode(c) for c in _chunks(vectors_ND, tok.mean_D.device)])


@torch.no_grad()
def _initialise(tok: Tokenizer, vectors_ND: Tensor, generator: torch.Generator) -> None:
    """k-means level by level, each on the residuals that the level before leaves."""
    limit = max(20_000, 40 * tok.codes)
    if len(vectors_ND) > limit:
        vectors_ND = vectors_ND[torch.randperm(len(vectors_ND), generator=generator)[:limit].to(vectors_ND.device)]
    residual = _encode_all(tok, vectors_ND)
    for level in range(tok.levels):
        tok.codebooks[level].copy_(kmeans(residual, tok.codes, generator, sample=limit))
        residual = residual - tok.codebooks[level][tok.scores(level, residual).argmax(1)]


@torch.no_grad()
def measured_alphas(tok: Tokenizer, z_Ne: Tensor) -> list[float | None]:
    """For each level 1 / median over items of (second-nearest minus nearest squared distance); None where no item has a positive gap.

    Residuals get shorter from level to level, and so do the gaps: at level 3 they are some hundred times smaller than at level 1. Items in a perfect
    tie have no scale to tell, so they do not vote."""
    gaps_M: list[list[Tensor]] = [[] for _ in range(tok.levels)]
    for residual in z_Ne.split(_CHUNK):
        for level, gaps in enumerate(gaps_M):
            best = tok.scores(level, residual).topk(2, dim=1)
            gaps.append(best.values[:, 0] - best.values[:, 1])
            residual = residual - tok.codebooks[level][best.indices[:, 0]]
    return [_scale(torch.cat(gaps)) for gaps in gaps_M]


def _scale(gap_N: Tensor) -> float | None:
    positive = gap_N[gap_N > 0]
    return 1.0 / float(positive.median()) if len(positive) else None


def warmup_losses(tok: Tokenizer, decoder: nn.Module, x_VD: Tensor, quantised: bool = True) -> tuple[Tensor, Tensor]:
    """(MSE(decoder(z + sg(sum q - z)), x), mean_j [MSE(q_j, sg r_j) + beta MSE(r_j, sg q_j)]) of standardised vectors [V, D]; without
    quantisation (MSE(decoder(z), x), 0)."""
    z_Ve = tok.encoder(x_VD)
    if not quantised:
        return F.mse_loss(decoder(z_Ve), x_VD), torch.zeros((), device=x_VD.device)
    q_VMe = tok.embed(tok.quantise(z_Ve.detach()))
    # r_j = z - sg(q_1 + ... + q_{j-1}): q is looked up from plain argmin codes, so all residuals follow from one cumulated sum
    r_VMe = z_Ve[:, None] - (q_VMe.cumsum(1) - q_VMe).detach()
    total_Ve = q_VMe.sum(1)
    recon = F.mse_loss(decoder(z_Ve + (total_Ve - z_Ve).detach()), x_VD)
    vq = F.mse_loss(q_VMe, r_VMe.detach()) + tok.config.beta * F.mse_loss(r_VMe, q_VMe.detach())
    return recon, vq


def _checked(vectors_ND: Tensor) -> Tensor:
    if vectors_ND.ndim != 2 or vectors_ND.shape[1] == 0:
        raise DigerError(f"vectors: shape {tuple(vectors_ND.shape)}, wanted [items, width]: give one vector of at least one number per item")
    if len(vectors_ND) < 2:
        raise DigerError(f"vectors: a catalogue of {len(vectors_ND)} item(s) cannot be tokenized: give at least 2 items")
    for start in range(0, len(vectors_ND), _CHUNK):
        bad = ~torch.isfinite(vectors_ND[start : start + _CHUNK]).all(1)
        if bool(bad.any()):
            raise DigerError(f"vectors: row {start + int(bad.nonzero()[0])} holds a NaN or infinite number: repair or quarantine the item")
    return vectors_ND


def tokenizer(
    vectors_ND: Tensor,
    config: TokenizerConfig,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
    weight_D: Tensor | None = None,
) -> tuple[Tokenizer, list[dict[str, Any]]]:
    """The warm-up: vectors float [N, D] -> (tokenizer, one row of figures per evaluated epoch).

    `weight_D` [D] scales dimensions after their standardisation (it becomes part of scale_D). The state with the fewest collisions is kept; among
    equals the one with the lowest loss. The same seed, vectors and device give the same tokenizer. Raises DigerError for fewer than 2 items and for
    numbers that are not finite.
    """
    progress = progress or Silent()
    vectors_ND = _checked(vectors_ND)
    items, dim = vectors_ND.shape
    codes = choose_codes(items, config)
    if config.codes is None and codes < _LARGEST_CODES:
        progress.message(f"codebooks of {codes} codes instead of {_LARGEST_CODES}: the catalogue has only {items} items")
    elif codes > items:
        progress.message(f"codebooks of {codes} codes for a catalogue of {items} items: some codes will never be used")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        tok = Tokenizer(dim, codes, config).to(device)
        decoder = mlp((config.code_dim, *reversed(config.hidden), dim)).to(device)
    _fit_standardisation(tok, vectors_ND, weight_D)
    best, curves = _train(tok, decoder, vectors_ND, torch.Generator().manual_seed(config.seed), progress)
    tok.load_state_dict(best)
    _set_alpha(tok, vectors_ND, progress)
    return tok.eval(), curves


def _set_alpha(tok: Tokenizer, vectors_ND: Tensor, progress: Progress) -> None:
    measured = measured_alphas(tok, _encode_all(tok, vectors_ND))
    alpha = tok.config.alpha if tok.config.alpha is not None else measured[0]
    if alpha is None:
        progress.message("alpha = 1: no item is nearer to one code than to another, so its scale cannot be measured")
    else:
        origin = "configured" if tok.config.alpha is not None else "1 / median gap of squared distances at level 1"
        progress.message(f"alpha = {alpha:.6g} ({origin})")
    with torch.no_grad():
        tok.alpha.fill_(1.0 if alpha is None else alpha)
        tok.input_alpha_M.copy_(torch.tensor([1.0 if each is None else each for each in measured]))


def _train(
    tok: Tokenizer, decoder: nn.Module, vectors_ND: Tensor, generator: torch.Generator, progress: Progress
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """AdamW over shuffled batches, the first half of the epochs as a plain autoencoder, then k-means and the full loss.

    k-means on an untrained encoder fits a cloud that the first epochs inflate many times over: most codes are lost. After the plain
    phase the codebooks start where the items stay. Evaluated about 20 times, since an evaluation costs about as much as an epoch's forward."""
    config = tok.config
    fused = True if tok.mean_D.is_cuda else None  # one kernel instead of many small ones, of which a step on a device mostly consists
    parameters = [*tok.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    plain, every = config.epochs // 2, max(1, config.epochs // 20)
    best: dict[str, Tensor] = {}
    best_rank, curves = (math.inf, math.inf), []
    for epoch in range(1, config.epochs + 1):
        if epoch == plain + 1:
            _initialise(tok, vectors_ND, generator)
        recon, vq = _epoch(tok, decoder, vectors_ND, generator, optimizer, epoch > plain)
        if epoch % every and epoch != config.epochs:
            continue
        row: dict[str, Any] = {"epoch": epoch, "phase": "autoencoder" if epoch <= plain else "quantised", **_losses(recon, vq, epoch, config)}
        if epoch > plain:
            row |= _usage(tok, vectors_ND)
            if (row["collisions"], row["loss"]) < best_rank:
                best_rank, best = (row["collisions"], row["loss"]), copy.deepcopy(tok.state_dict())
        curves.append(row)
        progress.update("tokenizer", epoch, config.epochs, loss=row["loss"], **({"collisions": row["collisions"]} if epoch > plain else {}))
    return best, curves


def _epoch(
    tok: Tokenizer, decoder: nn.Module, vectors_ND: Tensor, generator: torch.Generator, optimizer: torch.optim.Optimizer, quantised: bool
) -> tuple[Tensor, Tensor]:
    """One pass over the catalogue; the epoch's mean losses (0-d, on the device)."""
    device = tok.mean_D.device
    sums = torch.zeros(2, device=device)
    for rows in torch.randperm(len(vectors_ND), generator=generator).split(tok.config.batch_size):
        x_VD = tok.standardise(vectors_ND[rows.to(vectors_ND.device)].to(device))
        recon, vq = warmup_losses(tok, decoder, x_VD, quantised)
        optimizer.zero_grad(set_to_none=True)
        (recon + vq).backward()
        optimizer.step()
        sums += torch.stack([recon.detach(), vq.detach()]) * len(rows)
    return sums[0] / len(vectors_ND), sums[1] / len(vectors_ND)


def _losses(recon: Tensor, vq: Tensor, epoch: int, config: TokenizerConfig) -> dict[str, float]:
    if not math.isfinite(loss := float(recon + vq)):
        raise DigerError(f"tokenizer: the warm-up diverged in epoch {epoch}: lower tokenizer.learning_rate (now {config.learning_rate})")
    return {"loss": loss, "loss_recon": float(recon), "loss_vq": float(vq)}


def _usage(tok: Tokenizer, vectors_ND: Tensor) -> dict[str, Any]:
    from diger_core.training.monitors import table_monitors

    codes_NM = torch.cat([tok.quantise(tok.encode(c)) for c in _chunks(vectors_ND, tok.mean_D.device)])
    figures = table_monitors(codes_NM, tok.codes)
    return {"collisions": len(vectors_ND) - figures["unique_prefixes"], **figures}


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
