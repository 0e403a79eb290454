"""Full training runs, several variants and seeds at once on one device: their captured steps are replayed in turns, on one stream
(capture.py says why).

All runs of a seed start from one warmed-up tokenizer, so a joint model and its frozen control differ in what is learned and in nothing else.
Paper preset; the number of epochs, over which the cosine runs, is the preset's or what fits into `--seconds`, the same for every run of a command.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from benchmarks.common import Data, device, record, wait
from diger_core.config import EvaluationConfig, JointModelConfig, TableConfig, TokenizerConfig, TrainingConfig
from diger_core.distributed import Distributed
from diger_core.errors import CollapseError
from diger_core.evaluation import rank_targets
from diger_core.item_factors import item_factors
from diger_core.metrics import ndcg, recall
from diger_core.presets import Preset, preset
from diger_core.progress import Silent
from diger_core.tokenizer import Tokenizer, tokenizer
from diger_core.training import Loop

DONE = object()
PROBE = 2  # epochs that tell what one costs


@dataclass
class Run:
    """One training run among several."""

    variant: str
    seed: int
    loop: Loop
    done: bool = False
    alarm: str | None = None
    best: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def stop(self, alarm: str) -> None:
        self.done, self.alarm = True, alarm


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


def warmed_up(data: Data, config: TokenizerConfig) -> Tokenizer:
    """The seed's tokenizer: of text vectors, or with item factors of training events beside them where the configuration asks for them."""
    vectors, weight = data.vectors_ND, None
    if config.item_factors:
        factors = torch.from_numpy(item_factors(data.sequences, config.item_factors, config.seed))
        vectors = torch.cat((vectors, factors), 1)
        weight = torch.cat((torch.ones(data.vectors_ND.shape[1]), torch.full((config.item_factors,), config.item_factors_weight)))
    return tokenizer(vectors.to(device()), config, device=device(), weight_D=weight)[0]


def step_all(runs: list[Run]) -> None:
    """One epoch of every run, batch by batch in turns."""
    steps = []
    for run in runs:
        steps.append((run, run.loop.epoch_steps()))
    while steps:
        left = []
        for run, iterator in steps:
            try:
                if next(iterator, DONE) is not DONE:
                    left.append((run, iterator))
            except CollapseError as stopped:
                run.stop(str(stopped))
        steps = left


def end_epoch(run: Run, started: float) -> None:
    """Table, monitors, validation; early stop and alarm."""
    loop = run.loop
    try:
        loop.end_of_epoch()
    except CollapseError as stopped:
        run.stop(str(stopped))
    run.seconds = time.perf_counter() - started
    run.done = run.done or loop.position.epoch >= loop.training.epochs or loop.position.stale >= loop.training.patience
    row = loop.curves[-1]
    if loop.position.epoch % 5 == 1 or run.done:
        shown = {name: row[name] for name in ("epoch", "loss_gen", "sigma", "validation_ndcg_10", "unique_prefixes", "flipped")}
        print(f"{run.seconds:6.1f} s  {run.variant}-{run.seed}", {k: round(v, 4) if v is not None else v for k, v in shown.items()}, flush=True)


def test(run: Run, data: Data, first_codes: torch.Tensor, beams: int) -> dict[str, Any]:
    """Test figures of the best validated state, and the state of its codes."""
    loop = run.loop
    table = loop.best.load(loop.recommender, loop.tokenizer)
    config = EvaluationConfig(beams=beams, recall_at=(1, 5, 10), ndcg_at=(5, 10), batch_size=4096 if device().type == "cuda" else 512)
    with torch.autocast(device().type, torch.bfloat16, enabled=loop.training.precision == "bf16"):
        found = rank_targets(loop.recommender.eval(), table.codes_NM, table.suffix_N, data.sequences, "test", config, device())
    figures = {f"recall@{k}": float(recall(found.rank_T, k).mean()) for k in (1, 5, 10)}
    figures |= {f"ndcg@{k}": float(ndcg(found.rank_T, k).mean()) for k in (5, 10)}
    monitors = loop.refresh.monitors(loop.tokenizer, table, None)
    drift = float((table.codes_NM.to(first_codes.device) != first_codes).any(1).double().mean())
    return {
        **figures, "validation_ndcg@10": loop.best.ndcg, "best_epoch": loop.best.epoch, "epochs_run": loop.position.epoch,
        "unique_prefixes": monitors["unique_prefixes"], "perplexity": [round(p, 1) for p in monitors["perplexity"]],
        "dead_codes": monitors["dead_codes"], "drift": drift, "alarm": run.alarm, "seconds": run.seconds,
        "loss_gen": loop.curves[-1]["loss_gen"], "sigma": loop.curves[-1]["sigma"],
    }  # fmt: skip


def _loop(data: Data, tok: Tokenizer, vectors: torch.Tensor, chosen: Preset, joint: JointModelConfig, training: TrainingConfig, history: int) -> Loop:
    recommender = replace(chosen.recommender, history=history)
    return Loop(vectors, data.sequences, data.item_ids, tok, recommender, training, joint, TableConfig(), None, None,
                Distributed(), device(), Silent(), None, None)  # fmt: skip


def run(data: Data, given: argparse.Namespace) -> None:
    """All variants and seeds of the command at once."""
    chosen, begun = preset(given.preset), time.perf_counter()
    training = changed(replace(chosen.training, deterministic=False, compile=True, device=device().type), "training", given.set)
    settings = changed(chosen.tokenizer, "tokenizer", given.set)
    toks = {seed: warmed_up(data, replace(settings, seed=seed)) for seed in given.seeds}
    wait()
    print(f"tokenizers after {time.perf_counter() - begun:.1f} s", flush=True)

    def made(epochs: int) -> list[Run]:
        runs = []
        for variant in given.variants:
            for seed, tok in toks.items():
                config = replace(training, epochs=epochs, seed=seed)
                vectors = data.vectors_ND if tok.dim == data.vectors_ND.shape[1] else _with_factors(data, tok)
                joint = changed(chosen.variant(variant), "joint", given.set)
                loop = _loop(data, tok, vectors, chosen, joint, config, given.history)
                loop.use_graphs()
                runs.append(Run(variant, seed, loop))
        return runs

    epochs = training.epochs
    probe = made(epochs)
    for index in range(PROBE):
        wait()
        started = time.perf_counter()
        step_all(probe)
        wait()
        stepped = time.perf_counter() - started
        for one in probe:
            end_epoch(one, begun)
        wait()
        cost = time.perf_counter() - started
        print(f"probe epoch {index + 1}: {stepped:.2f} s of steps, {cost:.2f} s in all for {len(probe)} runs", flush=True)
    left = given.seconds - (time.perf_counter() - begun) - 6 * cost
    if left < cost * epochs:
        epochs = int(left / cost)
    print(f"{epochs} epochs for each of {len(probe)} runs", flush=True)
    del probe
    runs = made(epochs)
    first = {seed: one.loop.table.codes_NM.clone() for one in runs for seed in [one.seed]}
    wait()
    started = time.perf_counter()
    while active := [one for one in runs if not one.done]:
        step_all(active)
        for one in active:
            end_epoch(one, started)
        if time.perf_counter() - begun > given.seconds:
            for one in active:
                one.stop("stopped by the time limit of the command")
    for one in runs:
        figures = test(one, data, first[one.seed], training.beams)
        record("quality", {"data": data.name, "label": given.label, "variant": one.variant, "seed": one.seed, "epochs": epochs,
                           "history": given.history, "changes": given.set, "runs_at_once": len(runs), **figures}, given.out)  # fmt: skip
    curves(runs, given)


def curves(runs: list[Run], given: argparse.Namespace) -> None:
    """Every run's epochs in one file."""
    for one in runs:
        rows = [{k: row[k] for k in ("epoch", "loss_gen", "sigma", "validation_ndcg_10", "unique_prefixes", "flipped")} for row in one.loop.curves]
        record("curves", {"label": given.label, "variant": one.variant, "seed": one.seed, "rows": rows}, given.out)


def _with_factors(data: Data, tok: Tokenizer) -> torch.Tensor:
    width = tok.dim - data.vectors_ND.shape[1]
    return torch.cat((data.vectors_ND, torch.from_numpy(np.asarray(item_factors(data.sequences, width, tok.config.seed)))), 1)
