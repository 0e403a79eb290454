"""Full training runs, one after the other: each variant and seed to its early stop.

All runs of a seed start from one warmed-up tokenizer, so a joint model and its frozen control differ in what is learned and in nothing else.
The paper's preset; `--set training.epochs=N` shortens the budget, over which the cosine runs, for all runs of a command alike. A run's figures
are written as soon as it has ended.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Data, at_once, device, record, wait
from benchmarks.gpu import teacher
from benchmarks.gpu.teacher import TeacherConfig
from diger_core.config import EvaluationConfig, ModelConfig, TokenizerConfig
from diger_core.data.item_factors import item_factors
from diger_core.errors import CollapseError
from diger_core.evaluation.metrics import ndcg, recall
from diger_core.evaluation.ranking import rank_targets
from diger_core.presets import preset
from diger_core.recommender.history_input import table_tokens
from diger_core.tokenizer.warm_up import tokenizer
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import Loop


@dataclass
class Run:
    """One training run."""

    variant: str
    seed: int
    loop: Loop
    alarm: str | None = None
    seconds: float = 0.0

    def run(self, deadline: float) -> None:
        """Epochs until the last one, the early stop, an alarm or the deadline (of `time.perf_counter`)."""
        loop, started = self.loop, time.perf_counter()
        loop.use_graphs()
        try:
            while loop.state.position.epoch < loop.training.epochs and loop.state.position.stale < loop.training.patience and self.alarm is None:
                for _ in loop.epoch_steps():
                    pass
                loop.end_of_epoch()
                self.seconds = time.perf_counter() - started
                self._show()
                if time.perf_counter() > deadline:
                    self.alarm = "stopped by the time limit of the command"
        except CollapseError as stopped:
            self.alarm = str(stopped)

    def _show(self) -> None:
        row = self.loop.state.curves[-1]
        if row["epoch"] % 10 == 1:
            shown = {name: row[name] for name in ("epoch", "loss_gen", "sigma", "validation_ndcg_10", "unique_prefixes", "flipped")}
            told = {name: round(value, 4) if value is not None else value for name, value in shown.items()}
            print(f"{self.seconds:6.1f} s  {self.variant}-{self.seed}", told, flush=True)


def changed(config: Any, prefix: str, changes: list[str]) -> Any:
    """`prefix.key=value` of the command line put into a configuration."""
    types = {f.name: type(getattr(config, f.name)) for f in fields(config)}
    for change in changes:
        place, _, value = change.partition("=")
        if place.startswith(f"{prefix}."):
            key = place.removeprefix(f"{prefix}.")
            config = replace(
                config, **{key: value == "true" if types[key] is bool else (types[key] if types[key] is not type(None) else float)(value)}
            )
    return config


def vectors(data: Data, config: TokenizerConfig, teaching: TeacherConfig, folder: Path, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """([N, D], the dimensions' weights [D]): text vectors, and beside them the item factors that the configurations ask for."""
    parts, weights = [data.vectors_ND], [torch.ones(data.vectors_ND.shape[1])]
    if config.item_factors:
        parts.append(torch.from_numpy(item_factors(data.sequences, config.item_factors, config.seed)))
        weights.append(torch.full((config.item_factors,), config.item_factors_weight))
    if teaching.factors:
        parts.append(teacher.factors(folder, teaching, seed))
        weights.append(torch.full((teaching.factors,), teaching.factors_weight))
    return torch.cat(parts, 1), torch.cat(weights)


def test(run: Run, data: Data, first_codes: torch.Tensor, beams: int) -> dict[str, Any]:
    """Test figures of the best validated state, and the state of its codes."""
    loop = run.loop
    table = loop.state.best.load(loop.state.recommender, loop.state.tokenizer)
    config = EvaluationConfig(beams=beams, recall_at=(1, 5, 10), ndcg_at=(5, 10))
    loop.state.recommender.eval()
    tokens = table_tokens(loop.state.recommender, table, loop.state.tokenizer, loop.refresh.z(loop.state.tokenizer))
    given = (loop.state.recommender, table.codes_NM, table.suffix_N, data.sequences, "test", config, device())
    found, fused = (rank_targets(*given, precision=loop.training.precision, fused=kernels, tokens_NTd=tokens) for kernels in (False, True))
    figures = {f"recall@{k}": float(recall(found.rank_T, k).mean()) for k in (1, 5, 10)}
    figures |= {f"ndcg@{k}": float(ndcg(found.rank_T, k).mean()) for k in (5, 10)}
    figures["ndcg@10 over fused kernels"] = float(ndcg(fused.rank_T, 10).mean())
    monitors = loop.refresh.monitors(loop.state.tokenizer, table, None)
    drift = float((table.codes_NM.to(first_codes.device) != first_codes).any(1).double().mean())
    return {
        **figures, "validation_ndcg@10": loop.state.best.ndcg, "best_epoch": loop.state.best.epoch, "epochs_run": loop.state.position.epoch,
        "unique_prefixes": monitors["unique_prefixes"], "perplexity": [round(p, 1) for p in monitors["perplexity"]],
        "dead_codes": monitors["dead_codes"], "drift": drift, "alarm": run.alarm, "seconds": run.seconds,
        "loss_gen": loop.state.curves[-1]["loss_gen"], "sigma": loop.state.curves[-1]["sigma"],
    }  # fmt: skip


def run(data: Data, given: argparse.Namespace) -> None:
    """All variants and seeds of the command."""
    chosen, begun = preset(given.preset), time.perf_counter()
    training = changed(replace(chosen.training, deterministic=False, compile=True, device=device().type), "training", given.set)
    settings = changed(chosen.tokenizer, "tokenizer", given.set)
    teaching = changed(TeacherConfig(), "teacher", given.set)
    recommender = changed(replace(chosen.recommender, history=given.history), "recommender", given.set)
    for seed in given.seeds:
        vectors_ND, weight_D = vectors(data, replace(settings, seed=seed), teaching, given.data, seed)
        tok = tokenizer(vectors_ND.to(device()), replace(settings, seed=seed), device=device(), weight_D=weight_D)[0]
        taught = teacher.load(given.data, teaching, seed)
        wait()
        print(f"tokenizer {seed} after {time.perf_counter() - begun:.1f} s", flush=True)
        for variant in given.variants:
            joint = changed(chosen.variant(variant), "joint", given.set)
            joint = replace(joint, schedule=changed(joint.schedule, "schedule", given.set))
            inputs = TrainingInputs(vectors_ND, data.sequences, data.item_ids, tok, distillation=taught)
            loop = Loop(inputs, ModelConfig(recommender, replace(training, seed=seed), joint), device=device())
            one = Run(variant, seed, loop)
            first_codes = loop.state.table.codes_NM.clone()
            one.run(begun + given.seconds)
            _written(one, data, first_codes, training.beams, given)


def _written(one: Run, data: Data, first_codes: torch.Tensor, beams: int, given: argparse.Namespace) -> None:
    """The run's figures on the test events, and its epochs."""
    figures = test(one, data, first_codes, beams)
    of = {"data": data.name, "label": given.label, "variant": one.variant, "seed": one.seed}
    record(
        "quality",
        {**of, "epochs": one.loop.training.epochs, "history": given.history, "changes": given.set, **figures, "at_once": at_once()},
        given.out,
    )
    rows = [{k: row[k] for k in ("epoch", "loss_gen", "sigma", "validation_ndcg_10", "unique_prefixes", "flipped")} for row in one.loop.state.curves]
    record("curves", {**of, "rows": rows}, given.out)
