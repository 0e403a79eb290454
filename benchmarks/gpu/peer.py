"""The peer: a Hugging Face T5 of the same size on the same histories and codes. Eager, padded to the batch, bf16 autocast, AdamW.

Its tokens are 0 padding, 1 end, then M K codes and S suffixes; a target is the item's four tokens.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import Data, device, wait
from diger_core.config import RecommenderConfig
from diger_core.data.sequences import Sequences
from diger_core.data.splits import targets, training_rows

SHIFT = 2  # padding and end
NO_BEAM = -1e8  # `generate` begins all beams but one with -1e9


def model(config: RecommenderConfig, vocabulary: int) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    shape = T5Config(
        vocab_size=vocabulary, d_model=config.d_model, d_kv=config.d_head, d_ff=config.d_ff, num_layers=config.encoder_layers,
        num_decoder_layers=config.decoder_layers, num_heads=config.heads, dropout_rate=config.dropout, feed_forward_proj="relu",
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    return T5ForConditionalGeneration(shape).to(device())


def tokens(codes_NM: Tensor, suffix_N: Tensor, codes: int) -> Tensor:
    """[N, M+1] token ids of each item."""
    table = torch.cat((codes_NM.long().cpu(), suffix_N.long().cpu()[:, None]), 1)
    return table + torch.arange(table.shape[1]) * codes + SHIFT


class Histories:
    """Batches as a loader makes them: token ids padded to the longest row of the batch."""

    def __init__(self, seq: Sequences, token_NQ: Tensor, history: int) -> None:
        self.events, self.token_NQ, self.history = np.asarray(seq.events_E, dtype=np.int64), token_NQ, history

    def __call__(self, begin_B: np.ndarray, end_B: np.ndarray) -> dict[str, Tensor]:
        begin_B = np.maximum(begin_B, end_B - self.history)
        length_B = end_B - begin_B
        time_L = np.arange(length_B.max())
        present = time_L < length_B[:, None]
        items = self.events[np.where(present, begin_B[:, None] + time_L, 0)]
        ids = self.token_NQ[torch.from_numpy(items)] * torch.from_numpy(present)[:, :, None]
        mask = torch.from_numpy(present).repeat_interleave(ids.shape[2], 1).long()
        return {"input_ids": ids.flatten(1).to(device()), "attention_mask": mask.to(device())}


class Trainer:
    """The peer in training, on batches of random rows."""

    def __init__(self, data: Data, config: RecommenderConfig, token_NQ: Tensor, vocabulary: int, batch: int, bf16: bool = True) -> None:
        self.net, self.batch, self.bf16 = model(config, vocabulary).train(), batch, bf16
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-3, weight_decay=0.05)
        self.data, self.token_NQ, self.histories = data, token_NQ, Histories(data.sequences, token_NQ, config.history)
        self.user_R, self.position_R = training_rows(data.sequences)
        self.order, self.done = np.random.default_rng(0).permutation(len(self.user_R)), 0

    def run(self, steps: int) -> Tensor:
        """So many steps; the last loss."""
        for _ in range(steps):
            rows = self.order[(self.done * self.batch) % (len(self.order) - self.batch) :][: self.batch]
            given = self.histories(self.data.sequences.offsets_U1[self.user_R[rows]], self.position_R[rows])
            labels = self.token_NQ[torch.from_numpy(self.histories.events[self.position_R[rows]])].to(device())
            with torch.autocast(device().type, torch.bfloat16, enabled=self.bf16):
                loss = self.net(**given, labels=labels).loss
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            self.done += 1
        return loss.detach()


def train(data: Data, config: RecommenderConfig, token_NQ: Tensor, vocabulary: int, batch: int, steps: int, bf16: bool = True) -> dict[str, Any]:
    """Rows per second over `steps` steps on random rows, after five for warming up."""
    trainer = Trainer(data, config, token_NQ, vocabulary, batch, bf16)
    trainer.run(5)
    wait()
    started = time.perf_counter()
    loss = trainer.run(steps)
    wait()
    taken = time.perf_counter() - started
    return {"rows_per_second": steps * batch / taken, "ms_per_step": 1000 * taken / steps, "batch": batch, "loss": float(loss)}


class Generated:
    """`generate` with the KV cache, as a plain service calls it. `constrained`: with `prefix_allowed_tokens_fn` over a dictionary of all prefixes of
    the items' tokens, so that every beam is a real item."""

    def __init__(self, config: RecommenderConfig, token_NQ: Tensor, vocabulary: int, beams: int, top: int = 10, constrained: bool = True,
                 bf16: bool = True) -> None:  # fmt: skip
        self.net, self.config, self.token_NQ = model(config, vocabulary).eval(), config, token_NQ
        self.beams, self.top, self.constrained, self.bf16 = beams, top, constrained, bf16
        allowed: dict[tuple[int, ...], set[int]] = {}
        for row in token_NQ.tolist():
            for depth in range(len(row)):
                allowed.setdefault(tuple(row[:depth]), set()).add(row[depth])
        self.following = {prefix: sorted(found) for prefix, found in allowed.items()}
        self.item_of = {tuple(row): item for item, row in enumerate(token_NQ.tolist())}

    def prefix(self, _: int, ids: Tensor) -> list[int]:
        """What may follow a beam's tokens; the end for a beam that has left the items, whose score is -inf."""
        return self.following.get(tuple(ids.tolist()[1:]), [1])

    def search(self, given: dict[str, Tensor], **options: Any) -> Any:
        """What `generate` returns for a batch of `Histories`."""
        depth = self.token_NQ.shape[1]
        with torch.no_grad(), torch.autocast(device().type, torch.bfloat16, enabled=self.bf16):
            return self.net.generate(
                **given, num_beams=self.beams, num_return_sequences=self.top, max_new_tokens=depth, min_new_tokens=depth,
                use_cache=True, do_sample=False, prefix_allowed_tokens_fn=self.prefix if self.constrained else None, **options,
            )  # fmt: skip

    def __call__(self, seq: Sequences, begin_B: np.ndarray, end_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(items int32 [B, top], log-probabilities float32 [B, top]), best first; -1 and -inf where a beam is no item."""
        given = Histories(seq, self.token_NQ, self.config.history)(begin_B, end_B)
        found = self.search(given, return_dict_in_generate=True, output_scores=True, length_penalty=0.0)
        items_X = np.array([self.item_of.get(tuple(ids), -1) for ids in found.sequences[:, 1:].tolist()], dtype=np.int32)
        scores_X = found.sequences_scores.float().cpu().numpy()
        items_X[scores_X < NO_BEAM] = -1
        scores_X = np.where(items_X < 0, np.float32(-np.inf), scores_X)
        return items_X.reshape(len(begin_B), self.top), scores_X.reshape(len(begin_B), self.top)


def generate(
    data: Data,
    config: RecommenderConfig,
    token_NQ: Tensor,
    vocabulary: int,
    batch: int,
    batches: int,
    beams: int,
    constrained: bool,
    bf16: bool = True,
) -> dict[str, Any]:
    """Users per second of `generate` with the KV cache; `constrained`: with `prefix_allowed_tokens_fn` over a dictionary of prefixes."""
    generated = Generated(config, token_NQ, vocabulary, beams, constrained=constrained, bf16=bf16)
    histories = Histories(data.sequences, token_NQ, config.history)
    users_T, end_T, _ = targets(data.sequences, "test")
    begin_T = data.sequences.offsets_U1[users_T]
    order, started = np.random.default_rng(0).permutation(len(users_T)), 0.0
    for index in range(batches + 1):
        if index == 1:
            wait()
            started = time.perf_counter()
        rows = order[index * batch : (index + 1) * batch] if (index + 1) * batch <= len(order) else order[:batch]
        generated.search(histories(begin_T[rows], end_T[rows]))
    wait()
    return {"users_per_second": batches * batch / (time.perf_counter() - started), "batch": batch, "beams": beams, "constrained": constrained}
