"""A tiny catalogue with its sequences, vectors and tokenizer in a store: what the training stages start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from diger_core.config import JointModelConfig, NeighboursConfig, RecommenderConfig, ScheduleConfig, TableConfig, TokenizerConfig, TrainingConfig
from diger_core.data.sequences import sequences
from diger_core.progress import Silent
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from orchestration.graph import BY_NAME
from orchestration.params.cluster import ClusterConfig
from orchestration.params.training import RetrainingConfig
from orchestration.training.tokenizer import tokenizer

ITEMS, USERS = 60, 80


class Recorder:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.updates: list[tuple[str, int]] = []

    def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
        self.updates.append((what, done))

    def message(self, text: str) -> None:
        self.messages.append(text)


def params(**changes: Any) -> Any:
    """Small, dropout-free parameters; `changes` replaces whole sections."""
    sections: dict[str, Any] = {
        "tokenizer": TokenizerConfig(levels=2, codes=8, suffixes=32, code_dim=8, hidden=(16,), epochs=10, item_factors=4),
        "recommender": RecommenderConfig(encoder_layers=1, decoder_layers=1, d_model=16, d_ff=32, heads=2, d_head=8, dropout=0.0, history=5),
        "training": TrainingConfig(epochs=2, batch_size=32, beams=5, device="cpu", warmup_steps=2),
        "joint_model": JointModelConfig(schedule=ScheduleConfig(name="sdud+frqud"), codebook_learning_rate=1e-3),
        "frozen_model": SimpleNamespace(enabled=True),
        "semantic_ids": TableConfig(),
        "retraining": RetrainingConfig(),
        "neighbours": NeighboursConfig(),
        "cluster": ClusterConfig(workers=0),
    }
    return SimpleNamespace(**(sections | changes))


class World:
    """A store with the artefacts up to the tokenizer; `compute` runs one stage function as the runner would."""

    def __init__(self, folder: Path, parameters: Any = None) -> None:
        self.folder, self.store = folder, Store(folder / "store")
        self.inputs: dict[str, Artefact] = {}
        self._sequences()
        self._embeddings()
        self.inputs["tokenizer"], _ = self.compute("tokenizer", tokenizer, parameters or params())

    def _sequences(self) -> None:
        rng = np.random.default_rng(0)
        user = np.repeat(np.arange(USERS), 8)
        item = (rng.integers(0, ITEMS, len(user)) // 6 * 6 + np.tile(np.arange(8), USERS) % 6) % ITEMS
        events = pa.table({"user_id": user, "item_id": item, "pos": np.tile(np.arange(8), USERS)})
        seq, items, users = sequences(events, pa.table({"item_id": np.arange(ITEMS)}))
        with self.store.writer("sequences") as out:
            out.tensors("sequences.safetensors", seq.to_tensors())
            out.table("items.parquet", items, sort_by=("item_index",))
            out.table("users.parquet", users, sort_by=("user_index",))
            out.facts.update(events=len(user))
            self.inputs["sequences"] = self.store.publish(out)

    def _embeddings(self) -> None:
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(10, 12, generator=generator)
        vectors = centres[torch.arange(ITEMS) // 6] + 0.3 * torch.randn(ITEMS, 12, generator=generator)
        columns = {"item_index": np.arange(ITEMS, dtype=np.int32), "item_id": np.arange(ITEMS), "text_hash": [str(i) for i in range(ITEMS)]}
        with self.store.writer("embeddings") as out:
            out.tensors("vectors.safetensors", {"vectors": vectors})
            out.table("texts.parquet", pa.table(columns), sort_by=("item_index",))
            self.inputs["embeddings"] = self.store.publish(out)

    def compute(self, name: str, function: Any, parameters: Any, key: str = "k" * 64, progress: Any = None) -> tuple[Artefact, Mapping[str, Any]]:
        """Runs a stage function on this world's artefacts: (its artefact, its notes)."""
        notes: dict[str, Any] = {}
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        with self.store.writer(name) as out:
            run = SimpleNamespace(
                stage=BY_NAME[name],
                key=key,
                inputs=self.inputs,
                params=parameters,
                out=out,
                store=self.store,
                scratch=scratch,
                progress=progress or Silent(),
                snapshot=SimpleNamespace(key="snap-00000000"),
                facts=lambda **values: out.facts.update(values),
                note=lambda **values: notes.update(values),
            )
            function(run)
            return self.store.publish(out), notes
