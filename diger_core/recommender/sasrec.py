"""SASRec with a softmax over all items (Kang and McAuley, 2018): an item-level reference beside the generative recommenders, and a teacher for them.
Above `SAMPLED` items the softmax is over a sample of them (Jean et al., 2015): memory grows with the sample, not with the catalogue.

A causal transformer over item embeddings; the score of item i after a history is its last state times the embedding of i. Trained on training
events alone, at every place of a user's sequence at once. Shapes: B users, L history items (the newest at the end), P targets of a batch, N items,
d width, R training rows, k candidates.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diger_core.config import STRICT
from diger_core.data.sequences import Int32, Int64, Sequences
from diger_core.data.splits import Split, targets, training_ends
from diger_core.evaluation.metrics import ndcg, recall
from diger_core.progress import Progress, Silent

CHUNK = 4096  # rows whose scores of all items are held at once, at most
HELD = 1 << 29  # scores held at once, at most: fewer rows of a large catalogue
SAMPLED, NEGATIVES = 200_000, 8192  # items from which on the softmax is sampled; items that a step draws, the same for all its targets


@dataclass(frozen=True)
class SasRecConfig:
    """The item-level reference."""

    __pydantic_config__: ClassVar = STRICT
    d_model: int = 128
    layers: int = 2
    heads: int = 2
    dropout: float = 0.5
    history: int = 20  # L, items
    epochs: int = 200
    batch_size: int = 256  # users
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 10  # evaluations without a better validation NDCG@10
    evaluate_every: int = 2  # epochs
    seed: int = 0


class Block(nn.Module):
    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        width = config.d_model
        self.heads, self.dropout = config.heads, config.dropout
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x_BLd: Tensor, allowed_B1LL: Tensor) -> Tensor:
        rows, length, width = x_BLd.shape
        q, k, v = self.project(self.norm_attention(x_BLd)).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, allowed_B1LL, dropout_p=self.dropout if self.training else 0.0)
        x_BLd = x_BLd + self._drop(self.out(mixed.transpose(1, 2).reshape(rows, length, width)))
        return x_BLd + self._drop(self.down(self._drop(F.gelu(self.up(self.norm_feed_forward(x_BLd))))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class SasRec(nn.Module):
    """`items`: the embedding table [N, d], which also scores."""

    def __init__(self, config: SasRecConfig, items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(items, config.d_model)
        self.places = nn.Embedding(config.history, config.d_model)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.d_model)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, history_BL: Tensor) -> Tensor:
        """History items, -1 where there is none (at the beginning) -> states [B, L, d]; a state knows its own place and those before it."""
        length = history_BL.shape[1]
        present_BL = history_BL >= 0
        x_BLd = self.items(history_BL.clamp_min(0)) * self.config.d_model**0.5 + self.places.weight[self.config.history - length :]
        x_BLd = F.dropout(x_BLd * present_BL.unsqueeze(2), self.config.dropout, self.training)
        causal_LL = torch.ones(length, length, dtype=torch.bool, device=history_BL.device).tril()
        # A place without an item may look at itself, so that no row of the softmax is empty; nothing reads its state.
        itself_LL = torch.eye(length, dtype=torch.bool, device=history_BL.device)
        allowed_B1LL = ((causal_LL & present_BL[:, None, :]) | itself_LL)[:, None]
        for block in self.blocks:
            x_BLd = block(x_BLd, allowed_B1LL)
        out_BLd: Tensor = self.norm(x_BLd)
        return out_BLd

    def scores(self, state_Pd: Tensor) -> Tensor:
        """[P, d] -> [P, N]"""
        return state_Pd @ self.items.weight.T


def histories(seq: Sequences, begin_B: Int64, end_B: Int64, length: int) -> Int64:
    """[B, length] items of events begin..end (absolute, the end exclusive), the newest last; -1 before a shorter history's beginning."""
    at_BL = end_B[:, None] + np.arange(-length, 0)
    return np.where(at_BL >= begin_B[:, None], seq.events_E[np.maximum(at_BL, 0)].astype(np.int64), -1)


def sasrec(
    seq: Sequences, config: SasRecConfig, device: torch.device | str = "cpu", bf16: bool = False, progress: Progress | None = None
) -> tuple[SasRec, list[dict[str, float]]]:
    """The model with the best validation NDCG@10, and one row of figures for each evaluation."""
    progress, device = progress or Silent(), torch.device(device)
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model = SasRec(config, seq.items).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=device.type == "cuda")
        best, best_ndcg, stale, curve = copy.deepcopy(model.state_dict()), -1.0, 0, list[dict[str, float]]()
        for epoch in range(1, config.epochs + 1):
            model.train()
            losses = [_step(model, optimizer, *batch, bf16) for batch in _batches(seq, config, epoch, device)]
            if epoch % config.evaluate_every and epoch != config.epochs:
                continue
            rank_T = rank([model], seq, "validation", device)
            row = {"epoch": epoch, "loss": float(torch.stack(losses).mean())}
            row |= {"validation_recall_10": float(recall(rank_T, 10).mean()), "validation_ndcg_10": float(ndcg(rank_T, 10).mean())}
            curve.append(row)
            progress.update("sasrec", epoch, config.epochs, loss=round(row["loss"], 4), validation_ndcg_10=round(row["validation_ndcg_10"], 4))
            stale += 1
            if row["validation_ndcg_10"] > best_ndcg:
                best, best_ndcg, stale = copy.deepcopy(model.state_dict()), row["validation_ndcg_10"], 0
            if stale >= config.patience:
                break
    model.load_state_dict(best)
    return model.eval(), curve


def _batches(seq: Sequences, config: SasRecConfig, epoch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(history [B, L], places int64 [P] of its targets in [B L], target items [P]); of a long sequence a random window."""
    random = np.random.Generator(np.random.Philox(key=np.array([config.seed, epoch], dtype=np.uint64)))
    begin_U, end_U = seq.offsets_U1[:-1], training_ends(seq)
    users = random.permutation(np.flatnonzero(end_U - begin_U >= 2))
    for start in range(0, len(users), config.batch_size):
        chosen = users[start : start + config.batch_size]
        begin_B, end_B = begin_U[chosen], end_U[chosen]
        spare_B = np.maximum(end_B - begin_B - (config.history + 1), 0)
        end_B = end_B - random.integers(0, spare_B + 1)
        window_BL1 = histories(seq, begin_B, end_B, config.history + 1)
        place_P = np.flatnonzero(window_BL1[:, :-1].ravel() >= 0)
        arrays = window_BL1[:, :-1], place_P, window_BL1[:, 1:].ravel()[place_P]
        history, place, target = (torch.from_numpy(np.ascontiguousarray(a)).to(device, non_blocking=True) for a in arrays)
        yield history, place, target


def _step(model: SasRec, optimizer: torch.optim.Optimizer, history_BL: Tensor, place_P: Tensor, target_P: Tensor, bf16: bool) -> Tensor:
    with torch.autocast(history_BL.device.type, torch.bfloat16, enabled=bf16):
        state_Pd = model(history_BL).flatten(0, 1)[place_P]
        loss = sampled_loss(model, state_Pd, target_P, NEGATIVES) if model.items.num_embeddings > SAMPLED else full_loss(model, state_Pd, target_P)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def full_loss(model: SasRec, state_Pd: Tensor, target_P: Tensor) -> Tensor:
    return F.cross_entropy(model.scores(state_Pd).float(), target_P)


def sampled_loss(model: SasRec, state_Pd: Tensor, target_P: Tensor, negatives: int) -> Tensor:
    """The cross-entropy over each target and `negatives` items drawn evenly, with replacement, whose scores are raised by log(N / negatives), so that
    they stand for the N items that they were drawn from. A draw that is the target itself does not count."""
    items = model.items.num_embeddings
    drawn_S = torch.randint(0, items, (negatives,), device=target_P.device)
    own_P1 = (state_Pd * model.items(target_P)).sum(1, keepdim=True)
    other_PS = (state_Pd @ model.items(drawn_S).T).float() + math.log(items / negatives)
    other_PS = other_PS.masked_fill(drawn_S == target_P[:, None], -torch.inf)
    scores_P = torch.cat((own_P1.float(), other_PS), 1)
    return (scores_P.logsumexp(1) - scores_P[:, 0]).mean()


def rank(models: Sequence[SasRec], seq: Sequences, split: Split, device: torch.device | str) -> Int32:
    """[T]: the targets' ranks among all items, 1 the best; seen items are not removed. Rows in the order of `targets(seq, split)`."""
    users_T, end_T, target_T = targets(seq, split)
    found = []
    for scores_CN, rows in _scored(models, seq, seq.offsets_U1[users_T], end_T, device):
        own_C1 = scores_CN.gather(1, torch.from_numpy(target_T[rows].astype(np.int64)).to(scores_CN.device)[:, None])
        found.append((scores_CN > own_C1).sum(1) + 1)
    return torch.cat(found).cpu().numpy().astype(np.int32)


def candidates(
    models: Sequence[SasRec],
    seq: Sequences,
    begin_R: Int64,
    end_R: Int64,
    count: int,
    temperature: float,
    device: torch.device | str,
) -> tuple[Int32, npt.NDArray[np.float32]]:
    """(items [R, k], probabilities [R, k]): the k likeliest next items after each history, softmax(log p / temperature) over these k."""
    items, shares = [], []
    for scores_CN, _ in _scored(models, seq, begin_R, end_R, device):
        best = scores_CN.topk(count, dim=1)
        items.append(best.indices.int().cpu())
        shares.append((best.values / temperature).softmax(1).cpu())
    return torch.cat(items).numpy(), torch.cat(shares).numpy()


@torch.no_grad()
def _scored(models: Sequence[SasRec], seq: Sequences, begin_R: Int64, end_R: Int64, device: torch.device | str) -> Iterator[tuple[Tensor, slice]]:
    """(log p float32 [C, N] of all items, the rows they belong to), chunk by chunk."""
    chunk = max(1, min(CHUNK, HELD // seq.items))
    for start in range(0, len(end_R), chunk):
        rows = slice(start, start + chunk)
        total_CN = torch.zeros(())
        for model in models:
            history = torch.from_numpy(histories(seq, begin_R[rows], end_R[rows], model.config.history)).to(device)
            total_CN = model.eval().scores(model(history)[:, -1]).float().log_softmax(1) + total_CN.to(device)
        log_p_CN = total_CN / len(models)
        yield log_p_CN, rows
