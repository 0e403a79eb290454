"""Section `cluster`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from diger_core.config import STRICT

_SECRETISH = re.compile(r"(?i)key|secret|token|pass|pwd|credential|auth(?!or)")


@dataclass(frozen=True)
class ClusterConfig:
    """Section `cluster`: where Ray runs and how much of it is used. No part of any stage's key; each record notes it."""

    __pydantic_config__: ClassVar = STRICT
    workers: int = 2  # of training, embeddings, lists and blocks of events; 0: in this process, without Ray
    gpus: Literal["auto"] | int = "auto"  # auto: one per worker where the cluster has so many, otherwise CPUs
    address: str | None = None  # http://HOST:8265: submit jobs there; host:port or auto: join it; null: RAY_ADDRESS, or a private cluster
    runtime_env: dict[str, Any] = field(default_factory=dict)  # of submitted jobs: working_dir, pip, env_vars (never secrets)
    object_store_mb: int = 200  # memory of Ray's object store, of a private cluster
    # Events of a block of `validated_interactions`, `sequences` and `neighbours`: with more, they work block by block, the blocks shared by the
    # workers; with fewer, in this process. The result is the same.
    block_events: int = 10_000_000
    # Events times epochs up to which a training runs in this process although there are workers: it is over before they would have started. 0: never.
    short_training: int = 0
    min_workers: int | None = None  # continue with so few where the others are lost; null: wait until there is room for all
    max_failures: int = 2  # new starts of training, embeddings, lists and blocks of events after a worker died
    checkpoint_steps: int | None = None  # a checkpoint also every so many steps, beside training.checkpoint_every
    dashboard: bool = False  # on 127.0.0.1; costs a gigabyte

    def __post_init__(self) -> None:
        secret = [name for name in self.runtime_env.get("env_vars", {}) if _SECRETISH.search(str(name))]
        if secret:
            raise ValueError(f"runtime_env.env_vars.{secret[0]}: whoever reads a job's details reads it: give the nodes their own credentials")
        if not 0 <= self.workers <= 4096:
            raise ValueError(f"workers = {self.workers!r}: must be between 0 and 4096")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise ValueError(f"min_workers = {self.min_workers!r}: must be between 1 and workers = {self.workers}, or null")
        if self.gpus != "auto" and self.gpus < 0:
            raise ValueError(f"gpus = {self.gpus!r}: must be auto, or at least 0")
        if self.short_training < 0:
            raise ValueError(f"short_training = {self.short_training!r}: must be at least 0")
        if self.block_events < 1:
            raise ValueError(f"block_events = {self.block_events!r}: must be at least 1")
        if self.object_store_mb < 80:
            raise ValueError(f"object_store_mb = {self.object_store_mb!r}: must be at least 80")
        if self.checkpoint_steps is not None and self.checkpoint_steps < 1:
            raise ValueError(f"checkpoint_steps = {self.checkpoint_steps!r}: must be at least 1, or null")
        if self.max_failures < 0:
            raise ValueError(f"max_failures = {self.max_failures!r}: must be at least 0")
