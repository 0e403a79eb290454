"""The settings of one run of `benchmarks.lists`: shared defaults, and "SECTION.KEY=value" changes of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any

from benchmarks.common import device
from diger_core.config import JointModelConfig, PathsConfig, RecommenderConfig, ScheduleConfig, TeacherConfig, TokenizerConfig, TrainingConfig


@dataclass(frozen=True)
class Settings:
    """One run's configuration: the shared defaults with the run's own changes."""

    recommender: RecommenderConfig
    training: TrainingConfig
    joint: JointModelConfig
    tokenizer: TokenizerConfig

    @classmethod
    def of(cls, joint: bool, seed: int, changes: list[str]) -> Settings:
        recommender = RecommenderConfig(encoder_layers=2, decoder_layers=2, d_model=128, d_ff=512, heads=4, d_head=32, dropout=0.1, history=20)
        training = TrainingConfig(epochs=30, batch_size=512, learning_rate=2e-3, seed=seed, beams=20, patience=8, evaluation_users=4000)
        training = replace(training, device=device().type, precision="bf16" if device().type == "cuda" else "fp32", compile=device().type == "cuda")
        model = JointModelConfig(
            tokenizer="joint" if joint else "frozen", paths=PathsConfig(), schedule=ScheduleConfig(name="frqud"), codebook_learning_rate=1e-4
        )
        found = {
            "recommender": recommender,
            "training": training,
            "teacher": TeacherConfig(),
            "joint": model,
            "schedule": model.schedule,
            "tokenizer": TokenizerConfig(hidden=(512, 256), code_dim=64, epochs=60, seed=seed),
        }
        for change in changes:
            section, _, rest = change.partition(".")
            key, _, value = rest.partition("=")
            kinds = {f.name: getattr(found[section], f.name) for f in fields(found[section])}
            found[section] = replace(found[section], **{key: _typed(kinds[key], value)})
        joint_config = replace(found["joint"], schedule=found["schedule"])
        return cls(found["recommender"], replace(found["training"], teacher=found["teacher"]), joint_config, found["tokenizer"])


def _typed(before: Any, value: str) -> Any:
    if isinstance(before, bool):
        return value == "true"
    if isinstance(before, int | float):
        return type(before)(value)
    parsed = value if isinstance(before, str) else json.loads(value)
    return tuple(parsed) if isinstance(before, tuple) else parsed
