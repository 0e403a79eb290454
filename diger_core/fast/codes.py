"""The assignment of the batch's unique items and its derivative, all levels at once (docs/method.md, section 3; `assignment.py` is the reference).

With `forward: cached` the residuals follow from the table's codes, so no level waits for another; with `forward: sampled` they follow one by one.
The soft codes' gradient dP arrives from three paths; P itself is never built. Shapes: V unique items, M levels, K codes, e = d_e, d d_model.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from diger_core.config import JointModelConfig
from diger_core.fast import kernels
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.joint_step import ItemTensors
from diger_core.training.noise import gaussian_levels
from diger_core.training.schedules import Schedule, State


@dataclass
class FastAssignment:
    """As `assignment.Assignment`, level first where products want it: residual_MVe, y_MVK; codes_VM are what is fed forward."""

    codes_VM: Tensor
    sampled_VM: Tensor
    det_VM: Tensor
    sigma_VM: Tensor
    y_MVK: Tensor
    residual_MVe: Tensor
    loss_vq: Tensor
    loss_recon: Tensor
    p_MVK: Tensor | None  # weights of soft history input
    d_codebooks: Tensor  # of the weighted L_vq and L_recon [M, K, e]


class Codes:
    """Assignments of the unique items and the codebooks' gradient."""

    def __init__(
        self, tokenizer: Tokenizer, items: ItemTensors, config: JointModelConfig, schedule: Schedule, seed: int, input_tau: float | None = None
    ) -> None:
        """input_tau: tau_in of soft history input; None where it is hard."""
        self.input_tau = input_tau
        self.tokenizer, self.items, self.config, self.schedule, self.seed = tokenizer, items, config, schedule, seed
        self.offset_M = torch.arange(tokenizer.levels, device=tokenizer.codebooks.device) * tokenizer.codes

    def forward(self, items_V: Tensor, share_V: Tensor, state: State) -> FastAssignment:
        """share_V: the items' shares in the means of the tokenizer's losses, 0 in unused places."""
        if self.items.z_Ne is None:
            raise ValueError("Codes: the encoder must be frozen, z given")
        books_MKe = self.tokenizer.codebooks.detach()
        z_Ve, table_VM = self.items.z_Ne[items_V], self.items.codes_NM[items_V]
        square_M1K = books_MKe.square().sum(2).unsqueeze(1)
        tau = self.schedule.tau(state["step"])
        if self.config.forward == "cached":
            q_VMe = self._embed(table_VM)
            r_MVe = torch.stack(list(accumulate(q_VMe.unbind(1)[:-1], torch.sub, initial=z_Ve)))
            l_MVK = torch.baddbmm(square_M1K, r_MVe, books_MKe.transpose(1, 2), beta=-1, alpha=2).mul_(self.tokenizer.alpha)
            det_VM = l_MVK.argmax(2).T.contiguous()
            sigma_VM = torch.stack([self.schedule.sigma_level(state, j, det_VM[:, : j + 1]) for j in range(self.tokenizer.levels)], 1)
            y_MVK, sampled_VM = self._noisy(l_MVK, sigma_VM, items_V, state, tau, 0)
            codes_VM = table_VM
        else:
            r_MVe, l_MVK, y_MVK, det_VM, sigma_VM, sampled_VM = self._sampled(z_Ve, items_V, state, tau, square_M1K)
            codes_VM, q_VMe = sampled_VM, self._embed(sampled_VM)
        p_MVK = None if self.input_tau is None else (l_MVK * (self._sharpness() / self.input_tau)).softmax(-1)
        loss_vq, loss_recon, d_books = self._losses(z_Ve, r_MVe, q_VMe, codes_VM, sampled_VM, share_V)
        return FastAssignment(codes_VM, sampled_VM, det_VM, sigma_VM, y_MVK, r_MVe, loss_vq, loss_recon, p_MVK, d_books)

    def _sharpness(self) -> Tensor:
        """[M, 1, 1]: alpha_j / alpha, what soft input's logits have more than the assignment's."""
        return (self.tokenizer.input_alpha_M / self.tokenizer.alpha)[:, None, None]

    def _embed(self, codes_VM: Tensor) -> Tensor:
        return F.embedding(codes_VM + self.offset_M, self.tokenizer.codebooks.detach().flatten(0, 1))

    def _noisy(self, l_MVK: Tensor, sigma_VM: Tensor, items_V: Tensor, state: State, tau: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """(y, sampled) of the levels from `first` on."""
        noise = self.schedule.noise if self.tokenizer.training else "none"
        if noise == "gumbel":
            return kernels.noisy_softmax(l_MVK, sigma_VM, items_V, self.seed, state["step"], tau, first)
        if noise == "gaussian":
            drawn = gaussian_levels(self.seed, state["step"], self.tokenizer.levels, items_V, self.tokenizer.codes)
            l_MVK = l_MVK + sigma_VM.T[:, :, None] * drawn[first : first + len(l_MVK)]
        return (l_MVK / tau).softmax(-1), l_MVK.argmax(-1).T.contiguous()

    def _sampled(self, z_Ve: Tensor, items_V: Tensor, state: State, tau: Tensor, square_M1K: Tensor) -> tuple[Tensor, ...]:
        """The levels one after the other: each residual follows the code that was sampled before."""
        books, residual = self.tokenizer.codebooks.detach(), z_Ve
        residuals, ls, ys, det, sigmas, sampled = [], [], [], [], [], []
        for level in range(self.tokenizer.levels):
            logits = torch.addmm(square_M1K[level], residual, books[level].T, beta=-1, alpha=2).mul_(self.tokenizer.alpha)
            det.append(logits.argmax(1))
            sigmas.append(self.schedule.sigma_level(state, level, torch.stack(det, 1)))
            y_1VK, sampled_V1 = self._noisy(logits[None], sigmas[-1][:, None], items_V, state, tau, level)
            residuals.append(residual)
            ls.append(logits)
            ys.append(y_1VK)
            sampled.append(sampled_V1)
            residual = residual - books[level][sampled_V1[:, 0]]
        return torch.stack(residuals), torch.stack(ls), torch.cat(ys), torch.stack(det, 1), torch.stack(sigmas, 1), torch.cat(sampled, 1)

    def _losses(
        self, z_Ve: Tensor, r_MVe: Tensor, q_VMe: Tensor, codes_VM: Tensor, sampled_VM: Tensor, share_V: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(L_vq, L_recon, gradient of both, weighted): look-ups' residuals, means over the used places."""
        levels, width = self.tokenizer.levels, z_Ve.shape[1]
        share_V1 = share_V[:, None]
        away_VMe = self._embed(sampled_VM) - r_MVe.transpose(0, 1)
        rest_Ve = q_VMe.sum(1) - z_Ve
        vq = (away_VMe.square().sum((1, 2)) * share_V1[:, 0]).sum() * ((1 + self.tokenizer.config.beta) / (levels * width))
        recon = (rest_Ve.square().sum(1) * share_V1[:, 0]).sum() / width
        d_books = torch.zeros_like(self.tokenizer.codebooks)
        flat = d_books.flatten(0, 1)
        d_vq = away_VMe * (share_V1 * (2 * self.config.weight_vq / (levels * width)))[:, None]
        flat.index_add_(0, (sampled_VM + self.offset_M).flatten(), d_vq.flatten(0, 1))
        d_recon = rest_Ve * (share_V1 * (2 * self.config.weight_recon / width))
        flat.index_add_(0, (codes_VM + self.offset_M).flatten(), d_recon[:, None].expand_as(away_VMe).flatten(0, 1))
        return vq, recon, d_books

    def backward(self, given: FastAssignment, dP_MVK: Tensor, state: State, dp_MVK: Tensor | None = None) -> Tensor:
        """The codebooks' gradient [M, K, e] from dP, dp (of soft history input) and the tokenizer's own losses.

        dl = y (dP - y . dP) / tau + alpha_j / alpha p (dp - p . dp) / tau_in;  l = alpha (2 r.E - |E|^2).
        """
        y, tau = given.y_MVK, self.schedule.tau(state["step"])
        scale = self.tokenizer.alpha / tau
        dl_MVK = torch._softmax_backward_data(dP_MVK, y, -1, torch.float32)
        if dp_MVK is not None and given.p_MVK is not None and self.input_tau is not None:
            dl_MVK = dl_MVK + torch._softmax_backward_data(dp_MVK, given.p_MVK, -1, torch.float32) * (self._sharpness() * (tau / self.input_tau))
        books = self.tokenizer.codebooks.detach()
        levels, places, _ = dl_MVK.shape
        parts = next(n for n in (8, 4, 2, 1) if places % n == 0)  # a sum over thousands of items for few results: in parts, for more parallel work
        left, right = (x.reshape(levels * parts, places // parts, -1) for x in (dl_MVK, given.residual_MVe))
        pull = torch.bmm(left.transpose(1, 2), right).view(levels, parts, *books.shape[1:]).sum(1)
        return given.d_codebooks + 2 * scale * (pull - dl_MVK.sum(1).unsqueeze(2) * books)

    def soft_gradient(
        self,
        d_tokens_VQd: Tensor | None,
        d_decoder: Tensor | None,
        d_labels: Tensor | None,
        target_B: Tensor,
        tables_MKd: Tensor,
        places: int,
    ) -> Tensor:
        """dP [M, V, K]. d_tokens_VQd: gradient of the items' tokens in histories; d_decoder [(M+1) B, d]: of the decoder's; d_labels [M, B, K]."""
        levels, codes, width = tables_MKd.shape
        if d_tokens_VQd is None and d_decoder is None:
            dP = torch.zeros(levels, places, codes, device=tables_MKd.device)
        else:
            if d_tokens_VQd is None:
                d_tokens_VQd = torch.zeros(places, levels + 1, width, device=tables_MKd.device)
            tokens_MVd = d_tokens_VQd[:, :levels].transpose(0, 1)
            if d_decoder is not None:
                tokens_MVd = tokens_MVd.index_add(1, target_B, d_decoder.view(levels + 1, len(target_B), width)[1:])
            dP = torch.bmm(tokens_MVd, tables_MKd.transpose(1, 2))
        return dP if d_labels is None else dP.index_add_(1, target_B, d_labels)
