"""The differentiable step: from residuals to assignments and the tokenizer's losses (docs/method.md, section 3).

    l_j,i = -alpha |r_j - E_j,i|^2        a = l + sg(sigma) g        y_j = softmax(a / tau)
    det_j = argmax l     c_j = argmax a   P_j = onehot(k_j) + (y_j - sg y_j)     r_{j+1} = r_j - sg(E_j,k_j)

k_j is the item's code in the current ID table (`forward: cached`) or c_j (`forward: sampled`). Shapes: V unique items, M levels, K codes, e = d_e.
Nothing here reads a number back to the host, and the only loop is over the M levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diger_core.config import Forward
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.noise import gaussian_levels, gumbel_levels
from diger_core.training.schedules.base import Noise

Sigma = Tensor | Callable[[int, Tensor], Tensor]


@dataclass
class Assignment:
    """What one step knows about its V unique items."""

    P_VMK: Tensor  # float32: in value exactly onehot(codes_VM), in gradient the soft y
    codes_VM: Tensor  # int64, k: what is fed forward
    sampled_VM: Tensor  # int64, c = argmax a
    det_VM: Tensor  # int64, argmax l
    sigma_VM: Tensor  # float32, the noise each item got
    residual_Ve: Tensor  # r_{M+1}
    loss_vq: Tensor  # []
    loss_recon: Tensor  # []
    z: Tensor  # [V, d_e]


def assign(
    tok: Tokenizer,
    z_Ve: Tensor,
    items_V: Tensor,
    sigma: Sigma,
    table_VM: Tensor | None,
    *,
    tau: float | Tensor,
    forward: Forward,
    noise: Noise = "gumbel",
    seed: int,
    step: int | Tensor,
    soft: bool = False,
) -> Assignment:
    """One step's assignments, in float32 whatever autocast says.

    z_Ve: encoded items [V, d_e]; items_V int64: their indices, which key the noise; sigma: float32 [V, M], or a function (level, det_Vj [V, level+1])
    -> [V] such as `schedule.bind(state)`; table_VM: the ID table's codes, needed by `forward="cached"` only. In eval mode (`tok.eval()`) no noise is
    drawn. `soft`: P = y without the hard forward (an ablation; also what makes finite differences meaningful).
    """
    with torch.autocast(z_Ve.device.type, enabled=False):
        return _assign(tok, z_Ve.float(), items_V, sigma, table_VM, tau, forward, noise, seed, step, soft)


def _assign(
    tok: Tokenizer,
    z_Ve: Tensor,
    items_V: Tensor,
    sigma: Sigma,
    table_VM: Tensor | None,
    tau: float | Tensor,
    forward: Forward,
    noise: Noise,
    seed: int,
    step: int | Tensor,
    soft: bool,
) -> Assignment:
    if forward == "cached" and table_VM is None:
        raise ValueError("forward 'cached' needs table_VM")
    draw = {"gumbel": gumbel_levels, "gaussian": gaussian_levels}.get(noise if tok.training else "none")
    noise_MVK = draw(seed, step, tok.levels, items_V, tok.codes) if draw else None
    residual = z_Ve
    assignments, residuals, codes, sampled, det, sigmas = [], [], [], [], [], []
    for level in range(tok.levels):
        # the logits but for -alpha |r|^2, which is the same for all codes of a row and therefore moves neither y nor an argmax
        logits_VK = tok.alpha * tok.scores(level, residual)
        det.append(logits_VK.detach().argmax(1))
        if noise_MVK is None:
            sigma_V, noisy_VK, sampled_V = torch.zeros_like(logits_VK[:, 0]), logits_VK, det[-1]
        else:
            sigma_V = (sigma[:, level] if isinstance(sigma, Tensor) else sigma(level, torch.stack(det, 1))).detach()
            noisy_VK = torch.addcmul(logits_VK, sigma_V[:, None], noise_MVK[level])
            sampled_V = noisy_VK.detach().argmax(1)
        codes_V = table_VM[:, level].long() if forward == "cached" and table_VM is not None else sampled_V
        assignments.append(_straight_through((noisy_VK / tau).softmax(1), codes_V, soft))
        residuals.append(residual)
        codes.append(codes_V)
        sampled.append(sampled_V)
        sigmas.append(sigma_V)
        residual = residual - tok.codebooks[level].detach()[codes_V]
    codes_VM, sampled_VM = torch.stack(codes, 1), torch.stack(sampled, 1)
    loss_vq, loss_recon = tokenizer_losses(tok, z_Ve, torch.stack(residuals, 1), codes_VM, sampled_VM)
    return Assignment(
        torch.stack(assignments, 1), codes_VM, sampled_VM, torch.stack(det, 1), torch.stack(sigmas, 1), residual, loss_vq, loss_recon, z_Ve
    )


def _straight_through(y_VK: Tensor, codes_V: Tensor, soft: bool) -> Tensor:
    """onehot(k) + (y - sg y). The bracket is exactly 0, so the value is the one-hot to the bit, also after a cast to bf16."""
    if soft:
        return y_VK
    hard_VK = (codes_V[:, None] == torch.arange(y_VK.shape[1], device=y_VK.device)).to(y_VK.dtype)
    return hard_VK + (y_VK - y_VK.detach())


def tokenizer_losses(tok: Tokenizer, z_Ve: Tensor, residuals_VMe: Tensor, codes_VM: Tensor, sampled_VM: Tensor) -> tuple[Tensor, Tensor]:
    """(L_vq, L_recon) over V items, by plain look-ups:

    L_vq = mean_j [MSE(E_j,c_j, sg r_j) + beta MSE(r_j, sg E_j,c_j)],   L_recon = MSE(sum_j E_j,k_j, z)
    """
    sampled_VMe = tok.embed(sampled_VM)
    vq_V = (sampled_VMe - residuals_VMe.detach()).square().mean((1, 2))
    commit_V = (residuals_VMe - sampled_VMe.detach()).square().mean((1, 2))
    recon_V = (tok.embed(codes_VM).sum(1) - z_Ve).square().mean(1)
    means_2 = torch.stack([vq_V + tok.config.beta * commit_V, recon_V], 1).mean(0)
    return means_2[0], means_2[1]
