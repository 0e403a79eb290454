"""The item-level reference (full-softmax SASRec of the same width and history), which is also the teacher of distilled runs.

`sasrec` trains it for each seed, writes its figures, and leaves `<data>/teacher-<seed>.safetensors`: each training row's candidates and the item
embeddings. `quality --set teacher.share=0.5` reads that file.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.common import Data, at_once, device, record, wait
from diger_core.data.distillation import DistillationTargets
from diger_core.data.splits import training_rows
from diger_core.evaluation.metrics import ndcg, recall
from diger_core.progress import Progress
from diger_core.recommender.sasrec import SasRec, SasRecConfig, candidates, rank, sasrec

CANDIDATES = 20


@dataclass(frozen=True)
class TeacherConfig:
    """`quality --set teacher.KEY=value`. share 0: no teacher. `factors`: width of its item embeddings beside the text (0: none)."""

    share: float = 0.0
    count: int = CANDIDATES
    temperature: float = 1.0
    factors: int = 0
    factors_weight: float = 1.0
    name: str = "teacher"


class Shown(Progress):
    def update(self, what: str, done: int, total: int, **figures: Any) -> None:
        if done % 10 == 0:
            print(what, done, figures, flush=True)


def run(data: Data, given: argparse.Namespace, changed: Any) -> None:
    """Each seed's reference: its figures and weights, and the file for its pupils."""
    config, name = changed(SasRecConfig(history=given.history), "sasrec", given.set), changed(TeacherConfig(), "teacher", given.set).name
    for seed in given.seeds:
        wait()
        begun = time.perf_counter()
        model, curve = sasrec(data.sequences, replace(config, seed=seed), device(), bf16=True, progress=Shown())
        wait()
        best = max(curve, key=lambda row: row["validation_ndcg_10"])
        told = {"best_epoch": best["epoch"], "epochs_run": curve[-1]["epoch"], "epochs": config.epochs, "seconds": time.perf_counter() - begun}
        _written(data, given, [model], "sasrec", seed, told)
        _teach(data, given.data, name, seed, [model])
        save_file(model.state_dict(), given.data / f"{name}-{seed}.model")


def ensemble(data: Data, given: argparse.Namespace, changed: Any) -> None:
    """One teacher of the references of all `--seeds`, for each seed: "ensemble"."""
    config, teaching = changed(SasRecConfig(history=given.history), "sasrec", given.set), changed(TeacherConfig(), "teacher", given.set)
    models = []
    for seed in given.seeds:
        model = SasRec(config, data.sequences.items).to(device())
        model.load_state_dict(load_file(given.data / f"{teaching.name}-{seed}.model"))
        models.append(model.eval())
    _written(data, given, models, f"sasrec x {len(models)}", given.seeds[0], {})
    for seed in given.seeds:
        _teach(data, given.data, "ensemble", seed, models)


def _written(data: Data, given: argparse.Namespace, models: list[SasRec], variant: str, seed: int, told: dict[str, Any]) -> None:
    rank_T = rank(models, data.sequences, "test", device())
    figures = {f"recall@{k}": float(recall(rank_T, k).mean()) for k in (1, 5, 10)} | {f"ndcg@{k}": float(ndcg(rank_T, k).mean()) for k in (5, 10)}
    figures["validation_ndcg@10"] = float(ndcg(rank(models, data.sequences, "validation", device()), 10).mean())
    of = {"data": data.name, "label": given.label, "variant": variant, "seed": seed, "history": given.history}
    record("quality", {**of, "changes": given.set, "alarm": None, "at_once": at_once(), **figures, **told}, given.out)


def _teach(data: Data, folder: Path, name: str, seed: int, models: list[SasRec]) -> None:
    user_R, position_R = training_rows(data.sequences)
    begin_R = data.sequences.offsets_U1[user_R]
    items_Rk, share_Rk = candidates(models, data.sequences, begin_R, position_R, CANDIDATES, 1.0, device())
    kept = {"items": torch.from_numpy(items_Rk), "log_share": torch.from_numpy(np.log(np.maximum(share_Rk, 1e-7))).half()}
    save_file({**kept, "embeddings": models[0].items.weight.detach().float().cpu().contiguous()}, _path(folder, name, seed))


def _path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}-{seed}.safetensors"


def load(folder: Path, config: TeacherConfig, seed: int) -> DistillationTargets | None:
    """The seed's teacher: its first `count` candidates, their probabilities taken to the power 1/temperature."""
    if not config.share:
        return None
    found = load_file(_path(folder, config.name, seed))
    share_Rk = (found["log_share"][:, : config.count].float() / config.temperature).softmax(1)
    return DistillationTargets.of(found["items"][:, : config.count].numpy(), share_Rk.numpy(), config.share)


def factors(folder: Path, config: TeacherConfig, seed: int) -> torch.Tensor:
    """[N, width]: the principal directions of the teacher's item embeddings."""
    embeddings = load_file(_path(folder, config.name, seed))["embeddings"]
    centred = embeddings - embeddings.mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[: config.factors]
    return centred @ directions.T
