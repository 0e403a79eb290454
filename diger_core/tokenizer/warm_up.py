"""The warm-up of the item tokenizer (docs/method.md, section 2): an RQ-VAE learns to give the items' vectors back through its codes.

Shapes: N items, V items of a batch, B items of a full batch, D width of the vectors, e code width d_e, M levels, K codes. Everything is float32: the
quantizer's distances decide by differences that bf16 does not resolve.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diger_core.config import TokenizerConfig
from diger_core.errors import DigerError
from diger_core.progress import Progress, Silent
from diger_core.tokenizer.kmeans import kmeans
from diger_core.tokenizer.rqvae import LARGEST_CODES, Tokenizer, choose_codes, mlp

_CHUNK = 65_536  # items encoded at once
_EAGER_STEPS = 3  # of each phase before one is captured: the optimizer's state and the libraries' workspaces are there then


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
    if config.codes is None and codes < LARGEST_CODES:
        progress.message(f"codebooks of {codes} codes instead of {LARGEST_CODES}: the catalogue has only {items} items")
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
    plain, every = config.epochs // 2, max(1, config.epochs // 20)
    steps = _Steps(tok, decoder)
    best: dict[str, Tensor] = {}
    best_rank, curves = (math.inf, math.inf), []
    for epoch in range(1, config.epochs + 1):
        if epoch == plain + 1:
            _initialise(tok, vectors_ND, generator)
            steps.quantise()
        recon, vq = steps.epoch(vectors_ND, generator)
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


class _Steps:
    """The optimisation steps, without and then with quantisation. On a CUDA device a step on a full batch is captured in a graph: its kernels are so
    small that launching them one by one takes several times as long as running them. The graph holds the eager step's own kernels."""

    def __init__(self, tok: Tokenizer, decoder: nn.Module) -> None:
        self.tok, self.decoder, self.device, self.batch = tok, decoder, tok.mean_D.device, tok.config.batch_size
        cuda, parameters = self.device.type == "cuda", [*tok.parameters(), *decoder.parameters()]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=tok.config.learning_rate, weight_decay=tok.config.weight_decay, fused=cuda or None, capturable=cuda
        )
        self.sums = torch.zeros(2, device=self.device)
        self.batch_BD = torch.zeros(self.batch if cuda else 0, tok.dim, device=self.device)  # what the graph reads
        self.quantised, self.full_batches = False, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def quantise(self) -> None:
        """From now on the full loss; it has a graph of its own."""
        self.quantised, self.full_batches, self.graph = True, 0, None

    def epoch(self, vectors_ND: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One pass over the catalogue; the epoch's mean losses (0-d, on the device)."""
        self.sums.zero_()
        for rows in torch.randperm(len(vectors_ND), generator=generator).to(vectors_ND.device).split(self.batch):
            x_VD = vectors_ND[rows].to(self.device, torch.float32)
            if self.device.type == "cuda" and len(rows) == self.batch:
                self._full(x_VD)
            else:
                self._step(x_VD)
        recon, vq = (self.sums / len(vectors_ND)).unbind()
        return recon, vq

    def _step(self, x_VD: Tensor) -> None:
        recon, vq = warmup_losses(self.tok, self.decoder, self.tok.standardise(x_VD), self.quantised)
        self.optimizer.zero_grad(set_to_none=True)
        (recon + vq).backward()
        self.optimizer.step()
        self.sums += torch.stack([recon.detach(), vq.detach()]) * len(x_VD)

    def _full(self, x_BD: Tensor) -> None:
        self.full_batches += 1
        if self.full_batches <= _EAGER_STEPS:  # beside the default stream, as PyTorch asks for before a capture
            beside = torch.cuda.Stream(self.device)
            beside.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(beside):
                self._step(x_BD)
            torch.cuda.current_stream(self.device).wait_stream(beside)
            return
        if self.graph is None:
            self.optimizer.zero_grad(set_to_none=True)  # the graph's gradients are its own
            self.graph = graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step(self.batch_BD)
        self.batch_BD.copy_(x_BD)
        self.graph.replay()


def _losses(recon: Tensor, vq: Tensor, epoch: int, config: TokenizerConfig) -> dict[str, float]:
    if not math.isfinite(loss := float(recon + vq)):
        raise DigerError(f"tokenizer: the warm-up diverged in epoch {epoch}: lower tokenizer.learning_rate (now {config.learning_rate})")
    return {"loss": loss, "loss_recon": float(recon), "loss_vq": float(vq)}


def _usage(tok: Tokenizer, vectors_ND: Tensor) -> dict[str, Any]:
    from diger_core.training.monitors import table_monitors

    codes_NM = torch.cat([tok.quantise(tok.encode(c)) for c in _chunks(vectors_ND, tok.mean_D.device)])
    figures = table_monitors(codes_NM, tok.codes)
    return {"collisions": len(vectors_ND) - figures["unique_prefixes"], **figures}
