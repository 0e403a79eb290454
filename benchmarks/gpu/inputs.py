"""Soft and hard histories side by side: the captured step's time, and whether the kernels rank as the module does.

Steps: joint and frozen, all tokens of an item and one, in turns; a figure is the median of its repetitions. Ranking: a model trained for a few epochs
ranks every test user over the fused kernels and over the module, in bf16 and in fp32.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import numpy as np
import torch

from benchmarks.common import Data, device, record, seconds
from benchmarks.gpu import speed
from diger_core.config import EvaluationConfig, ModelConfig, RecommenderConfig, TableConfig
from diger_core.evaluation.metrics import ndcg
from diger_core.evaluation.ranking import rank_targets
from diger_core.fast.inference import FastRecommender
from diger_core.presets import Preset
from diger_core.recommender.history_input import table_tokens
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import train

REPEATS = 3


def run(data: Data, tok: Tokenizer, preset: Preset, recommender: RecommenderConfig, given: argparse.Namespace) -> None:
    forms = {(kind, tokens): replace(recommender, history_input=kind, item_tokens=tokens) for tokens in ("all", "one") for kind in ("hard", "soft")}
    for variant in given.variants:
        for batch in given.batches:
            taken: dict[tuple[str, str], list[float]] = {form: [] for form in forms}
            for _ in range(REPEATS):
                for form, config in forms.items():
                    taken[form].append(speed.train(data, tok, preset, variant, config, batch, True, given.steps)["ms_per_step"])
            median = {form: statistics.median(each) for form, each in taken.items()}
            for tokens in ("all", "one"):
                soft, hard = median["soft", tokens], median["hard", tokens]
                told = {"variant": variant, "batch": batch, "item_tokens": tokens, "soft_ms": soft, "hard_ms": hard, "times": soft / hard}
                record("input_steps", {"data": data.name, **told}, given.out)
    for (kind, tokens), config in forms.items():
        record("input_ranks", {"data": data.name, "history_input": kind, "item_tokens": tokens, **ranking(data, tok, preset, config)}, given.out)


def ranking(data: Data, tok: Tokenizer, preset: Preset, recommender: RecommenderConfig, epochs: int = 6) -> dict[str, float | int]:
    """Users a second of each way, and the share of the users whose target gets the module's rank."""
    training = replace(preset.training, epochs=epochs, evaluate_every=epochs, batch_size=1024, learning_rate=2e-3, compile=True, deterministic=False)
    config = ModelConfig(recommender, replace(training, device=device().type), preset.variant("frozen"), TableConfig())
    model = train(TrainingInputs(data.vectors_ND, data.sequences, data.item_ids, tok), config)
    tokens = table_tokens(model.recommender, model.table, model.tokenizer, model.z_Ne)
    judged = EvaluationConfig(beams=20, recall_at=(1, 5, 10), ndcg_at=(5, 10))
    model.recommender.to(device())
    calls = 0
    encode = FastRecommender.encode

    def counted(fast: FastRecommender, history_BTd: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return encode(fast, history_BTd, mask_BT)

    FastRecommender.encode = counted  # type: ignore[method-assign]
    rank: dict[str, np.ndarray] = {}
    told: dict[str, float | int] = {}
    for name, precision, fused in (("fused bf16", "bf16", True), ("module bf16", "bf16", False), ("module fp32", "fp32", False)):
        before = calls
        options = {"precision": precision, "fused": fused, "tokens_NTd": tokens}

        def ranks(options: dict[str, object] = options) -> np.ndarray:
            given = (model.recommender, model.table.codes_NM, model.table.suffix_N, data.sequences, "test", judged, device())
            return rank_targets(*given, **options).rank_T  # type: ignore[arg-type]

        rank[name] = ranks()
        told[f"{name}, users/s"] = len(rank[name]) / seconds(ranks, REPEATS, warmup=0)
        told[f"{name}, NDCG@10"] = float(ndcg(rank[name], 10).mean())
        told[f"{name}, batches over the kernels"] = calls - before
    FastRecommender.encode = encode  # type: ignore[method-assign]
    pairs = (("fused bf16", "module bf16"), ("fused bf16", "module fp32"), ("module bf16", "module fp32"))
    agree = {f"{a} = {b}": float((np.where(rank[a] <= 10, rank[a], 0) == np.where(rank[b] <= 10, rank[b], 0)).mean()) for a, b in pairs}
    return {"users": len(rank["module fp32"]), **told, **agree}
