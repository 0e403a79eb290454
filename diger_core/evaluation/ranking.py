"""Full ranking of all items for held-out targets, and the metrics of several models side by side (docs/method.md, sections 6 and 7).

T evaluation rows, k places (the largest cut-off), L history items, W beams. Recall and NDCG are item-level: a hit is the target item itself.
Comparisons of codes without the suffix, as some published code makes them, count a colliding item as a hit; this does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diger_core.config import EvaluationConfig, Precision
from diger_core.data.sequences import Float32, Int32, Int64, Sequences, gathered
from diger_core.data.splits import Split, same_time, targets, training_counts
from diger_core.evaluation.baselines import CHUNK, compacted, markov, most_popular
from diger_core.evaluation.metrics import Estimates, Float64, Metrics, distinct, ndcg, ranks, recall
from diger_core.fast.inference import FastRecommender, obstacle
from diger_core.progress import Progress, Silent
from diger_core.recommender.beam import beam_search
from diger_core.recommender.model import Recommender
from diger_core.recommender.trie import Trie

Baseline = Callable[[Sequences, Int64, Int64, int], Int32]


@dataclass(frozen=True)
class EvaluationResult:
    """users_T, target_T, rank_T (0: not among the first k), items_Tk (-1: no item, or a tuple that no item has), invalid_rate in [0, 1]."""

    users_T: Int64
    target_T: Int32
    rank_T: Int32
    items_Tk: Int32
    invalid_rate: float = 0.0

    def at(self, rows: slice | Int64) -> EvaluationResult:
        """Of some of the users."""
        return replace(self, users_T=self.users_T[rows], target_T=self.target_T[rows], rank_T=self.rank_T[rows], items_Tk=self.items_Tk[rows])

    def without_lists(self) -> EvaluationResult:
        """Ranks alone, items_Tk [T, 0]: what `evaluation` needs, and little to keep of many users."""
        return replace(self, items_Tk=self.items_Tk[:, :0].copy())


def joined(blocks: Sequence[Mapping[str, EvaluationResult]]) -> dict[str, EvaluationResult]:
    """Each model's result of consecutive blocks of users (one at least), all models with one copy of users and targets."""
    first = [next(iter(block.values())) for block in blocks]
    users_T, target_T = np.concatenate([each.users_T for each in first]), np.concatenate([each.target_T for each in first])
    found = {}
    for name in blocks[0]:
        own = [block[name] for block in blocks]
        rank_T, items_Tk = np.concatenate([each.rank_T for each in own]), np.concatenate([each.items_Tk for each in own])
        invalid = sum(each.invalid_rate * len(each.users_T) for each in own) / max(1, len(users_T))
        found[name] = EvaluationResult(users_T, target_T, rank_T, items_Tk, own[0].invalid_rate if len(own) == 1 else invalid)
    return found


def search_batch(beams: int, device: torch.device) -> int:
    """Users whose beams are searched at once. An accelerator is four times faster on large batches; memory grows with users times beams, and 80
    beams of 4,096 users took 65 GiB."""
    return max(256, 4096 * 20 // max(beams, 20)) if device.type == "cuda" else 512


def cut_off(config: EvaluationConfig) -> int:
    """k: the largest cut-off of any metric; ranks behind it count as not found."""
    return max((*config.recall_at, *config.ndcg_at))


def rank_targets(
    recommender: Recommender,
    codes_NM: Tensor,
    suffix_N: Tensor,
    seq: Sequences,
    split: Split,
    config: EvaluationConfig,
    device: torch.device | str = "cpu",
    users: npt.NDArray[np.integer] | None = None,
    progress: Progress | None = None,
    trie: Trie | None = None,
    precision: Precision = "fp32",
    fused: bool = True,
    tokens_NTd: Tensor | None = None,
) -> EvaluationResult:
    """Rank each user's held-out target against all items by beam search; rows in the order of `targets(seq, split)`.

    The history are the last L items before the target. Batches are sorted by history length; their composition changes no result.
    `users`: user indices to evaluate (None: all). `trie`: made from the table unless given. With `config.remove_seen` the items of the user's
    whole history leave the W beams before the first k are taken, the target too if it is a repetition. The recommender is evaluated in eval
    mode and left in the mode it came in. `precision`: of the matrix products on an accelerator; a CPU ranks in fp32. `fused`: bf16 on an accelerator
    takes encoder and beams over fused kernels (`fast/inference.py`), about twice as fast; where the model's shapes do not allow it the module itself
    ranks, and `progress` is told why. `tokens_NTd`: the items' tokens in a history (`history_input.table_tokens`), which soft history input needs.
    """
    users_T, end_T, target_T = _chosen(targets(seq, split), users)
    top = cut_off(config)
    items_Tk, scores_Tk = recommended(
        recommender, codes_NM, suffix_N, seq, users_T, end_T, top, beams=config.beams, constrained=config.constrained, remove_seen=config.remove_seen,
        batch_size=config.batch_size, device=device, progress=progress, trie=trie, precision=precision, fused=fused, tokens_NTd=tokens_NTd,
        what=f"ranking ({split})",
    )  # fmt: skip
    wrong = int(((items_Tk == -1) & np.isfinite(scores_Tk)).sum())
    return EvaluationResult(users_T, target_T, ranks(items_Tk, target_T), items_Tk, wrong / max(1, items_Tk.size))


def recommended(
    recommender: Recommender,
    codes_NM: Tensor,
    suffix_N: Tensor,
    seq: Sequences,
    users_T: Int64,
    end_T: Int64,
    top: int,
    *,
    beams: int,
    constrained: bool = True,
    remove_seen: bool = False,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    trie: Trie | None = None,
    precision: Precision = "fp32",
    fused: bool = True,
    tokens_NTd: Tensor | None = None,
    what: str = "recommending",
) -> tuple[Int32, Float32]:
    """(items int32 [T, top], scores float32 [T, top]), best first, after each user's events before `end_T` (absolute, exclusive; at least one).

    -1 where there is no item, or where an unconstrained tuple is no item's; its score then is -inf, or finite. `batch_size`: users ranked at once;
    None: by the device and the beams. Otherwise as in `rank_targets`.
    """
    if (recommender.config.history_input == "soft") != (tokens_NTd is not None):
        raise ValueError("recommended: soft history input, and no other, takes the items' tokens (history_input.table_tokens)")
    progress, device = progress or Silent(), torch.device(device)
    batch_size = batch_size or search_batch(beams, device)
    trie = trie or Trie.from_table(codes_NM, suffix_N, recommender.codes, recommender.suffixes, device)
    begin_T = np.maximum(seq.offsets_U1[users_T], end_T - recommender.config.history)
    if (begin_T >= end_T).any():
        raise ValueError("recommended: a user has no event before the given end")
    # The rows' own events alone go to the device: a shard of users costs what it holds, not what the data hold.
    events_e, offsets_T1 = gathered(seq, begin_T, end_T)
    history = _Histories(events_e, codes_NM, suffix_N, tokens_NTd, device)
    seen = _Seen(seq, users_T, end_T, device) if remove_seen else None
    order_T = np.argsort(end_T - begin_T, kind="stable")
    on_device = [torch.from_numpy(array[order_T]).to(device) for array in (offsets_T1[:-1], offsets_T1[1:], np.arange(len(order_T)))]
    training = recommender.training
    if training:  # a walk through all modules, which one request a call would pay twice
        recommender.eval()
    low = precision == "bf16" and device.type == "cuda"
    reason = obstacle(recommender) if low and fused else None
    if reason is not None:
        progress.message(f"{what}: the torch module ranks, not the fused kernels: {reason}")
    used = FastRecommender(recommender, torch.bfloat16) if low and fused and reason is None else recommender
    batches = []
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            for start in range(0, len(order_T), batch_size):
                rows_B = order_T[start : start + batch_size]
                begin_B, end_B, place_B = (array[start : start + batch_size] for array in on_device)
                longest = int((end_T[rows_B] - begin_T[rows_B]).max())
                items_BW, scores_BW = _recommend(used, history, trie, begin_B, end_B, longest, beams, constrained)
                if seen is not None:
                    items_BW, scores_BW = _without(seen(place_B, items_BW), items_BW, scores_BW)
                batches.append((items_BW[:, :top].int(), scores_BW[:, :top].float()))
                progress.update(what, min(start + batch_size, len(order_T)), len(order_T))
    finally:
        if training:
            recommender.train()
    items_Tk, scores_Tk = np.full((len(order_T), top), -1, dtype=np.int32), np.full((len(order_T), top), -np.inf, dtype=np.float32)
    if batches:
        items_Tk[order_T] = torch.cat([items for items, _ in batches]).cpu().numpy()
        scores_Tk[order_T] = torch.cat([scores for _, scores in batches]).cpu().numpy()
    return items_Tk, scores_Tk


def baseline_results(
    seq: Sequences, split: Split, config: EvaluationConfig, users: npt.NDArray[np.integer] | None = None
) -> dict[str, EvaluationResult]:
    """`most_popular` and `markov` on the same rows; `config.remove_seen` applies to them, too."""
    users_T, end_T, target_T = _chosen(targets(seq, split), users)
    top = cut_off(config)
    found = {}
    for name, baseline in (("most_popular", most_popular), ("markov", markov)):
        ranked = _baseline_without_seen(baseline) if config.remove_seen else baseline
        items_Tk = ranked(seq, users_T, end_T, top)
        found[name] = EvaluationResult(users_T, target_T, ranks(items_Tk, target_T), items_Tk)
    return found


def evaluation(results: Mapping[str, EvaluationResult], seq: Sequences, config: EvaluationConfig, seed: int = 0) -> Metrics:
    """The content of metrics.json: models, slices, differences, users, slice_users (docs/architecture.md).

    Each model: {"recall@k", "ndcg@k", "intervals": {metric: [low, high]}, "invalid_rate"}. Slices by the target's training events: `head` (among
    the `head_share` most popular items), `tail` (all others), `new_items` (at most `new_item_events` events; part of the tail, as a rule); where
    events have times also `same_time` and `other_time`. A slice without users is left out. differences: {"a - b": {metric: {"mean", "low",
    "high"}}} for every pair, in the order of `results`. Intervals: 95%, percentile bootstrap over users; one set of draws for all models, metrics
    and slices, so that differences are paired.
    """
    first = next(iter(results.values()))
    for name, result in results.items():
        if not np.array_equal(result.users_T, first.users_T) or not np.array_equal(result.target_T, first.target_T):
            raise ValueError(f"evaluation: {name} was ranked for other users or targets than {next(iter(results))}")
    parts = {**target_slices(seq, first.target_T, config), **time_slices(seq, first.users_T)}
    slices = {"all": np.ones(len(first.target_T), dtype=bool), **parts}
    slices = {name: mask_T for name, mask_T in slices.items() if name == "all" or mask_T.any()}
    metrics = [("recall", k) for k in config.recall_at] + [("ndcg", k) for k in config.ndcg_at]
    # Users of the same ranks and slices are one kind: there are few, so memory does not grow with users x models x slices.
    row_G, counts_G = distinct([*(result.rank_T for result in results.values()), *slices.values()])
    columns = [_metric(kind, k, result.rank_T[row_G]) for result in results.values() for kind, k in metrics]
    kinds = {name: mask_T[row_G] for name, mask_T in slices.items()}
    estimates = Estimates(np.stack(columns, axis=1), kinds, counts_G, config.bootstrap, seed)
    names, labels = list(results), [f"{kind}@{k}" for kind, k in metrics]
    described = {part: {name: estimates.model(part, place * len(labels), labels) for place, name in enumerate(names)} for part in slices}
    models = described.pop("all")
    for name, result in results.items():
        models[name]["invalid_rate"] = result.invalid_rate
    differences = {
        f"{names[a]} - {names[b]}": estimates.difference("all", a * len(labels), b * len(labels), labels)
        for a in range(len(names))
        for b in range(a + 1, len(names))
    }
    slice_users = {name: int(mask_T.sum()) for name, mask_T in parts.items()}
    return {"models": models, "slices": described, "differences": differences, "users": len(first.users_T), "slice_users": slice_users}


def target_slices(seq: Sequences, target_T: Int32, config: EvaluationConfig) -> dict[str, npt.NDArray[np.bool_]]:
    """{"head", "tail", "new_items"}: masks [T] by the target's training events."""
    counts_N = training_counts(seq)
    head_N = np.zeros(seq.items, dtype=bool)
    head_N[np.argsort(-counts_N, kind="stable")[: max(1, round(config.head_share * seq.items))]] = True
    return {"head": head_N[target_T], "tail": ~head_N[target_T], "new_items": counts_N[target_T] <= config.new_item_events}


def time_slices(seq: Sequences, users_T: Int64) -> dict[str, npt.NDArray[np.bool_]]:
    """{"same_time", "other_time"}: masks [T] of these users' test targets by whether the event before has the same time; {} without times.

    The order of events at one time is not known: what a model gains there may be the order of the file.
    """
    tied_T = same_time(seq, "test")
    if tied_T is None:
        return {}
    all_T = targets(seq, "test")[0]
    chosen_T = tied_T[np.searchsorted(all_T, users_T)]
    return {"same_time": chosen_T, "other_time": ~chosen_T}


class _Histories:
    """The last L items before a target as embedded tokens, gathered on the device: looked up by their IDs, or in `tokens_NTd`."""

    def __init__(self, events_e: Int32, codes_NM: Tensor, suffix_N: Tensor, tokens_NTd: Tensor | None, device: torch.device | str) -> None:
        self.tokens_NTd = None if tokens_NTd is None else tokens_NTd.to(device)
        self.events_e = torch.from_numpy(events_e).to(device)
        self.table_NQ = torch.cat((torch.as_tensor(codes_NM).long(), torch.as_tensor(suffix_N).long()[:, None]), dim=1).to(device)

    def __call__(self, recommender: Recommender | FastRecommender, begin_B: Tensor, end_B: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """(tokens [B, longest t, d], mask [B, longest t]), padded at the end; t tokens an item."""
        place_BL = begin_B[:, None] + torch.arange(longest, device=begin_B.device)
        real_BL = place_BL < end_B[:, None]
        items_BL = self.events_e[place_BL.where(real_BL, begin_B[:, None])].long()
        if self.tokens_NTd is None:
            tokens_BLTd = recommender.merged(recommender.embed_codes(self.table_NQ[items_BL]))
        else:
            tokens_BLTd = torch.nn.functional.embedding(items_BL, self.tokens_NTd.flatten(1)).unflatten(-1, self.tokens_NTd.shape[1:])
        return tokens_BLTd.flatten(1, 2), real_BL.repeat_interleave(tokens_BLTd.shape[2], dim=1)


class _Seen:
    """Whether an item occurs in a row's history: a binary search among the sorted keys row * N + item of these rows alone."""

    def __init__(self, seq: Sequences, users_T: Int64, end_T: Int64, device: torch.device | str) -> None:
        events_e, offsets_T1 = gathered(seq, seq.offsets_U1[users_T], end_T)
        key_e = np.repeat(np.arange(len(users_T), dtype=np.int64), np.diff(offsets_T1)) * seq.items + events_e
        self.keys, self.items = torch.from_numpy(np.sort(key_e)).to(device), seq.items

    def __call__(self, place_B: Tensor, items_BW: Tensor) -> Tensor:
        """Bool [B, W] for the rows at `place_B`; False for -1."""
        key_BW = place_B[:, None] * self.items + items_BW.clamp_min(0)
        found_BW = torch.searchsorted(self.keys, key_BW).clamp_max(len(self.keys) - 1)
        return (self.keys[found_BW] == key_BW) & (items_BW >= 0)


def _metric(kind: str, k: int, rank_T: Int32) -> Float64:
    return recall(rank_T, k) if kind == "recall" else ndcg(rank_T, k)


def _chosen(rows: tuple[Int64, Int64, Int32], users: npt.NDArray[np.integer] | None) -> tuple[Int64, Int64, Int32]:
    users_T, end_T, target_T = rows
    if users is None:
        return rows
    keep_T = np.isin(users_T, users)
    return users_T[keep_T], end_T[keep_T], target_T[keep_T]


def _recommend(
    recommender: Recommender | FastRecommender,
    history: _Histories,
    trie: Trie,
    begin_B: Tensor,
    end_B: Tensor,
    longest: int,
    beams: int,
    constrained: bool,
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        history_BTd, mask_BT = history(recommender, begin_B, end_B, longest)
        memory_BTd = recommender.encode(history_BTd, mask_BT)
        return beam_search(recommender, memory_BTd, mask_BT, trie, beams, constrained=constrained)


def _without(gone_BW: Tensor, items_BW: Tensor, scores_BW: Tensor) -> tuple[Tensor, Tensor]:
    """Items and scores with those that are gone taken out, the others moved up, and -1 and -inf in the places that become free."""
    order_BW = gone_BW.int().argsort(dim=1, stable=True)
    items_BW, scores_BW = items_BW.masked_fill(gone_BW, -1), scores_BW.masked_fill(gone_BW, -torch.inf)
    return items_BW.gather(1, order_BW), scores_BW.gather(1, order_BW)


def _baseline_without_seen(baseline: Baseline) -> Baseline:
    """The baseline without each user's seen items: enough candidates are ranked that k unseen ones are left wherever the catalogue has them."""

    def ranked(seq: Sequences, users_T: Int64, end_T: Int64, k: int) -> Int32:
        parts = [np.empty((0, k), dtype=np.int32)]
        for start in range(0, len(users_T), CHUNK):
            users_t, end_t = users_T[start : start + CHUNK], end_T[start : start + CHUNK]
            items_tx = baseline(seq, users_t, end_t, k + int((end_t - seq.offsets_U1[users_t]).max()))
            gone_tx = _Seen(seq, users_t, end_t, "cpu")(torch.arange(len(users_t)), torch.from_numpy(items_tx).long())
            parts.append(compacted(np.where(gone_tx.numpy(), np.int32(-1), items_tx), k))
        return np.concatenate(parts)

    return ranked
