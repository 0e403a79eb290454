"""One differentiable step: unique items -> codes -> embedded tokens -> recommender -> losses (docs/method.md, section 3).

B rows, T history items, V unique items of the batch, M levels, K codes, d d_model. Everything that depends on an item alone is computed once for
each unique item and gathered; nothing here grows with the catalogue, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diger_core.config import JointModelConfig
from diger_core.data.batches import Batch
from diger_core.recommender.history_input import input_weights, soft_tokens
from diger_core.recommender.model import Recommender
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.assignment import Assignment, assign
from diger_core.training.schedules import Schedule, State

LOSSES = ("loss", "loss_gen", "loss_vq", "loss_recon")
PER_LEVEL = ("sigma", "noisy_share", "agreement")  # means over the batch's items: of sigma, of sigma > 0, of c_j = the table's code


def statistics(sums: Sequence[float], levels: int, steps: int) -> dict[str, Any]:
    """Means over `steps` steps of what the loop sums up: the losses, then each figure of PER_LEVEL for each level. A figure is told as its mean
    over the levels under its name, and level by level as `<name>_by_level`."""
    found: dict[str, Any] = {name: value / max(1, steps) for name, value in zip(LOSSES, sums, strict=False)}
    for place, name in enumerate(PER_LEVEL):
        first = len(LOSSES) + place * levels
        by_level = [value / max(1, steps) for value in sums[first : first + levels]]
        found |= {name: sum(by_level) / levels, f"{name}_by_level": by_level}
    return found


@dataclass
class ItemTensors:
    """What the step reads of the items, on its device: z_Ne, encoded once (or vectors_ND where the encoder learns; neither where codes are all
    that is read), and the current ID table."""

    codes_NM: Tensor
    suffix_N: Tensor
    z_Ne: Tensor | None = None
    vectors_ND: Tensor | None = None

    def set_table(self, codes_NM: Tensor, suffix_N: Tensor) -> None:
        """Overwrites the table in place: captured steps keep their addresses."""
        self.codes_NM.copy_(codes_NM)
        self.suffix_N.copy_(suffix_N)

    def encode(self, tokenizer: Tokenizer, items_V: Tensor) -> Tensor:
        """z [V, d_e]; with a gradient only where the encoder learns."""
        if self.z_Ne is not None:
            return self.z_Ne[items_V]
        if self.vectors_ND is None:
            raise ValueError("ItemTensors: give z_Ne or vectors_ND")
        return tokenizer.encode(self.vectors_ND[items_V])


class Outcome(NamedTuple):
    """`loss`: what this rank differentiates; `loss_gen`: its share of L_gen (the ranks' sum is L_gen); the others are the same on every rank."""

    loss: Tensor
    loss_gen: Tensor
    loss_vq: Tensor
    loss_recon: Tensor
    figures_3M: Tensor  # PER_LEVEL
    det_VM: Tensor | None


class SoftLookup(torch.autograd.Function):
    """P T for P = onehot(k) + (y - sg y): forward the rows T_k, exactly; backward dT = onehot(k)^T g and dP = g T^T, as the product's would be."""

    @staticmethod
    def forward(ctx: Any, p_VK: Tensor, table_Kd: Tensor, codes_V: Tensor) -> Tensor:
        ctx.save_for_backward(table_Kd, codes_V)
        return F.embedding(codes_V, table_Kd)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        table_Kd, codes_V = ctx.saved_tensors
        (gradient_Vd,) = gradients
        gradient_Kd = torch.ops.aten.embedding_dense_backward(gradient_Vd, codes_V, len(table_Kd), -1, False)
        return gradient_Vd @ table_Kd.T, gradient_Kd, None


def joint_outcome(
    recommender: Recommender,
    tokenizer: Tokenizer,
    items: ItemTensors,
    batch: Batch,
    config: JointModelConfig,
    schedule: Schedule,
    state: State,
    *,
    seed: int,
    world: int = 1,
    bf16: bool = False,
) -> Outcome:
    """The losses of one joint step. `batch` holds this rank's rows and the whole batch's items; `world` ranks share L_vq and L_recon evenly.

    The step's number, which keys the noise and tau, is the schedule state's: a tensor, so that a captured step can be replayed.
    """
    paths, table_VM = config.paths, items.codes_NM[batch.items_V]
    given = assign(
        tokenizer,
        items.encode(tokenizer, batch.items_V),
        batch.items_V,
        schedule.bind(state),
        table_VM,
        tau=schedule.tau(state["step"]),
        forward=config.forward,
        noise=schedule.noise,
        seed=seed,
        step=state["step"],
    )
    suffix_V = items.suffix_N[batch.items_V]
    soft_V = embed_items(recommender, given, suffix_V, soft=True) if paths.history or paths.teacher else None
    hard_V = embed_items(recommender, given, suffix_V, soft=False) if not (paths.history and paths.teacher) else None
    history_V = soft_V if paths.history else hard_V
    if recommender.config.history_input == "soft":
        weights_VMK = input_weights(tokenizer, given.z, given.codes_VM, recommender.config.history_tau)
        history_V = soft_tokens(recommender, weights_VMK if paths.history else weights_VMK.detach(), suffix_V)
    with torch.autocast(batch.items_V.device.type, torch.bfloat16, enabled=bf16):
        logits = forward_rows(recommender, history_V, soft_V if paths.teacher else hard_V, batch)
    loss_gen = generation_loss(logits, given, suffix_V, batch, soft=paths.labels)
    loss = loss_gen + (config.weight_vq * given.loss_vq + config.weight_recon * given.loss_recon) / world
    figures_3M = torch.stack((given.sigma_VM, (given.sigma_VM > 0).float(), (given.sampled_VM == table_VM).float())).mean(1)
    return Outcome(loss, loss_gen.detach(), given.loss_vq.detach(), given.loss_recon.detach(), figures_3M, given.det_VM)


def frozen_outcome(recommender: Recommender, tokenizer: Tokenizer, items: ItemTensors, batch: Batch, *, bf16: bool = False) -> Outcome:
    """The losses of one step with the tokenizer frozen: look-ups of the ID table, no assignment (docs/method.md, section 7)."""
    codes_VQ = torch.cat((items.codes_NM[batch.items_V], items.suffix_N[batch.items_V, None]), dim=1)
    items_V = history_V = recommender.embed_codes(codes_VQ)
    if recommender.config.history_input == "soft":
        z_Ve = items.encode(tokenizer, batch.items_V)
        history_V = soft_tokens(recommender, input_weights(tokenizer, z_Ve, codes_VQ, recommender.config.history_tau), codes_VQ[:, -1])
    with torch.autocast(batch.items_V.device.type, torch.bfloat16, enabled=bf16):
        logits = forward_rows(recommender, history_V, items_V, batch)
    target_BQ = codes_VQ[batch.target_B]
    loss_gen = _share(torch.stack([_hard(level, target_BQ[:, j]) for j, level in enumerate(logits)]).mean(0), batch)
    zero = torch.zeros_like(loss_gen.detach())
    return Outcome(loss_gen, loss_gen.detach(), zero, zero, frozen_figures(items.codes_NM), None)


def frozen_figures(codes_NM: Tensor) -> Tensor:
    """PER_LEVEL without noise: the table's own codes are fed forward. Fill kernels only: nothing is copied from the host."""
    figures_3M = torch.zeros(len(PER_LEVEL), codes_NM.shape[1], device=codes_NM.device)
    figures_3M[-1].fill_(1)
    return figures_3M


def embed_items(recommender: Recommender, given: Assignment, suffix_V: Tensor, *, soft: bool) -> Tensor:
    """[V, M+1, d]: P_j T_j of each unique item (soft), or T_j[k_j] with a gradient for T_j alone; the suffix is always hard."""
    *tables, last = recommender.token_tables
    tokens = []
    for level, table_Kd in enumerate(tables):
        codes_V = given.codes_VM[:, level]
        tokens.append(SoftLookup.apply(given.P_VMK[:, level], table_Kd, codes_V) if soft else F.embedding(codes_V, table_Kd))
    return torch.stack([*tokens, F.embedding(suffix_V, last)], dim=1)


def forward_rows(recommender: Recommender, history_V: Tensor | None, target_V: Tensor | None, batch: Batch) -> tuple[Tensor, ...]:
    """Gathers the unique items' tokens [V, M+1, d] to histories and decoder inputs; logits ([B, K] for each level, [B, S])."""
    if history_V is None or target_V is None:
        raise ValueError("forward_rows: one of the two look-ups is missing")
    history_V, (tokens, width) = recommender.merged(history_V), target_V.shape[1:]
    present_BT = batch.history_BT >= 0
    rows = len(present_BT)
    history = F.embedding(batch.history_BT.clamp_min(0), history_V.flatten(1)).view(rows, -1, width)
    mask = present_BT.repeat_interleave(history_V.shape[1], dim=1)
    target_BQd = F.embedding(batch.target_B, target_V.flatten(1)).view(rows, tokens, width)
    logits: tuple[Tensor, ...] = recommender(history, mask, recommender.decoder_input(target_BQd))
    return logits


def generation_loss(logits: tuple[Tensor, ...], given: Assignment, suffix_V: Tensor, batch: Batch, *, soft: bool) -> Tensor:
    """This rank's share of L_gen = mean over the M+1 positions and the batch, in nats: labels P_j (soft) or k_j, and the suffix's code."""
    *levels, last = logits
    if soft:
        p_BMK = F.embedding(batch.target_B, given.P_VMK.flatten(1)).unflatten(1, given.P_VMK.shape[1:])
        losses = [-(p_BMK[:, level] * F.log_softmax(logits_BK.float(), dim=-1)).sum(-1) for level, logits_BK in enumerate(levels)]
    else:
        codes_BM = given.codes_VM[batch.target_B]
        losses = [_hard(logits_BK, codes_BM[:, level]) for level, logits_BK in enumerate(levels)]
    losses.append(_hard(last, suffix_V[batch.target_B]))
    return _share(torch.stack(losses).mean(0), batch)


def _hard(logits_BK: Tensor, codes_B: Tensor) -> Tensor:
    return F.cross_entropy(logits_BK.float(), codes_B, reduction="none")


def _share(loss_B: Tensor, batch: Batch) -> Tensor:
    """This rank's share of the weighted mean: the weights are divided by the whole batch's rows, so the ranks' shares may be uneven."""
    return (loss_B * batch.weight_B).sum()
