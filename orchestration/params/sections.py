"""All sections of params.yaml as one typed, frozen configuration. A section named like a stage belongs to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from diger_core.config import (
    STRICT,
    EvaluationConfig,
    JointModelConfig,
    NeighboursConfig,
    RecommenderConfig,
    TableConfig,
    TokenizerConfig,
    TrainingConfig,
    check,
)
from orchestration.features.encoders.base import EmbeddingsConfig
from orchestration.params.arrival import ArrivalConfig
from orchestration.params.cluster import ClusterConfig
from orchestration.params.comparison import ComparisonConfig
from orchestration.params.data import CatalogueDiffConfig, SequencesConfig, ValidatedInteractionsConfig, ValidatedItemsConfig
from orchestration.params.rules import RulesConfig
from orchestration.params.search import PromotionConfig, SearchConfig
from orchestration.params.serve import ServeConfig
from orchestration.params.training import FrozenModelConfig, RefitConfig, RetrainingConfig
from orchestration.params.verdict import FusionConfig, GateConfig, RecommendationsConfig, ReleaseConfig, ReportConfig


@dataclass(frozen=True)
class Params:
    """All sections. Those named like a stage belong to it; `recommender` and `training` to both models."""

    __pydantic_config__: ClassVar = STRICT
    snapshot: str = "data/snapshots/demo-1"
    validated_items: ValidatedItemsConfig = field(default_factory=ValidatedItemsConfig)
    validated_interactions: ValidatedInteractionsConfig = field(default_factory=ValidatedInteractionsConfig)
    sequences: SequencesConfig = field(default_factory=SequencesConfig)
    embeddings: EmbeddingsConfig = field(default_factory=EmbeddingsConfig)
    neighbours: NeighboursConfig = field(default_factory=NeighboursConfig)
    catalogue_diff: CatalogueDiffConfig = field(default_factory=CatalogueDiffConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    recommender: RecommenderConfig = field(default_factory=RecommenderConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    frozen_model: FrozenModelConfig = field(default_factory=FrozenModelConfig)
    joint_model: JointModelConfig = field(default_factory=JointModelConfig)
    retraining: RetrainingConfig = field(default_factory=RetrainingConfig)
    semantic_ids: TableConfig = field(default_factory=TableConfig)
    refit: RefitConfig = field(default_factory=RefitConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    recommendations: RecommendationsConfig = field(default_factory=RecommendationsConfig)
    rules: RulesConfig = field(default_factory=RulesConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    decay_search: SearchConfig = field(default_factory=SearchConfig)
    tuned_model: PromotionConfig = field(default_factory=PromotionConfig)
    training_comparison: ComparisonConfig = field(default_factory=ComparisonConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    arrival: ArrivalConfig = field(default_factory=ArrivalConfig)

    def __post_init__(self) -> None:
        check(bool(self.snapshot.strip()), "snapshot", self.snapshot, "a directory or an s3:// address")

    def section(self, names: Iterable[str]) -> dict[str, Any]:
        """The named sections as plain data: what a record's key is computed from."""
        return {name: dataclasses.asdict(getattr(self, name)) for name in names}
