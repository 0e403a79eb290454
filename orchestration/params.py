"""params.yaml as typed, frozen configuration: an unknown key, a wrong type or a value out of range is one clear line."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from diger_core.config import STRICT, EvaluationConfig, JointModelConfig, RecommenderConfig, TableConfig, TokenizerConfig, TrainingConfig
from diger_core.errors import DigerError
from orchestration.automation.config import ArrivalConfig
from orchestration.baseline import RetrainingConfig
from orchestration.catalogue import CatalogueDiffConfig, ColdStartConfig, IdDiffConfig
from orchestration.encoders import EmbeddingsConfig
from orchestration.ray_session import ClusterConfig
from orchestration.release_config import BundleConfig, GateConfig, RecommendationsConfig, ReleaseConfig
from orchestration.report import ReportConfig
from orchestration.search.config import PromotionConfig, SearchConfig
from orchestration.validation import RawInteractionsConfig, RawItemsConfig, ValidatedInteractionsConfig, ValidatedItemsConfig

DEFAULT_FILE = "params.yaml"


@dataclass(frozen=True)
class SequencesConfig:
    """Stage `sequences`."""

    __pydantic_config__: ClassVar = STRICT
    use_weights: bool = False  # scale each training row's loss by the event's weight


@dataclass(frozen=True)
class FrozenModelConfig:
    """Stage `frozen_model`: the control. It shares `recommender` and `training` with the joint model."""

    __pydantic_config__: ClassVar = STRICT
    enabled: bool = True


@dataclass(frozen=True)
class Params:
    """All sections. Those named like a stage belong to it; `recommender` and `training` to both models."""

    __pydantic_config__: ClassVar = STRICT
    snapshot: str = "data/snapshots/demo-1"
    raw_items: RawItemsConfig = field(default_factory=RawItemsConfig)
    raw_interactions: RawInteractionsConfig = field(default_factory=RawInteractionsConfig)
    validated_items: ValidatedItemsConfig = field(default_factory=ValidatedItemsConfig)
    validated_interactions: ValidatedInteractionsConfig = field(default_factory=ValidatedInteractionsConfig)
    sequences: SequencesConfig = field(default_factory=SequencesConfig)
    embeddings: EmbeddingsConfig = field(default_factory=EmbeddingsConfig)
    catalogue_diff: CatalogueDiffConfig = field(default_factory=CatalogueDiffConfig)
    cold_start: ColdStartConfig = field(default_factory=ColdStartConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    recommender: RecommenderConfig = field(default_factory=RecommenderConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    frozen_model: FrozenModelConfig = field(default_factory=FrozenModelConfig)
    joint_model: JointModelConfig = field(default_factory=JointModelConfig)
    retraining: RetrainingConfig = field(default_factory=RetrainingConfig)
    semantic_ids: TableConfig = field(default_factory=TableConfig)
    id_diff: IdDiffConfig = field(default_factory=IdDiffConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    bundle: BundleConfig = field(default_factory=BundleConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    recommendations: RecommendationsConfig = field(default_factory=RecommendationsConfig)
    decay_search: SearchConfig = field(default_factory=SearchConfig)
    tuned_model: PromotionConfig = field(default_factory=PromotionConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    arrival: ArrivalConfig = field(default_factory=ArrivalConfig)

    def section(self, names: Iterable[str]) -> dict[str, Any]:
        """The named sections as plain data: what a record's key is computed from."""
        return {name: dataclasses.asdict(getattr(self, name)) for name in names}


def load_params(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Params:
    """Reads params.yaml (default: the one in the working directory, if any) and applies `section.key=value` overrides."""
    import yaml

    source = Path(path) if path else Path(DEFAULT_FILE)
    data: Any = {}
    if source.exists():
        try:
            data = yaml.safe_load(source.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DigerError(f"{source}: not valid YAML ({' '.join(str(error).split())}): correct it") from error
    elif path:
        raise DigerError(f"{source}: no such file: give an existing --params file")
    if not isinstance(data, Mapping):
        raise DigerError(f"{source}: must hold sections of keys, not {type(data).__name__}")
    data = dict(data)
    for override in overrides:
        _apply(data, override)
    return build_params(data, str(source))


def _apply(data: dict[str, Any], override: str) -> None:
    import yaml

    key, separator, value = override.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise DigerError(f"--set {override!r}: write it as section.key=value")
    node = data
    for name in names[:-1]:
        node[name] = dict(node.get(name) or {}) if isinstance(node.get(name), Mapping | None) else {}
        node = node[name]
    try:
        node[names[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise DigerError(f"--set {override!r}: the value is not valid YAML: quote it") from error


def build_params(data: Mapping[str, Any], source: str = DEFAULT_FILE) -> Params:
    """Checks plain data against the typed sections."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Params).validate_python(dict(data))
    except ValidationError as error:
        raise DigerError(f"{source}: " + "; ".join(_explain(fault) for fault in error.errors(include_url=False)[:5])) from error


def _explain(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "unexpected_keyword_argument":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _keys(fault["loc"][:-1]), n=1)
        return f"{where}: unknown key" + (f" (did you mean {near[0]}?)" if near else "") + ": remove it or correct its name"
    if fault["type"] == "value_error":
        return f"{where}.{str(fault['msg']).removeprefix('Value error, ')}" if where else str(fault["msg"])
    given = repr(fault.get("input"))
    return f"{where} = {given[:80]}: {str(fault['msg'])[0].lower()}{str(fault['msg'])[1:]}"


def _keys(loc: tuple[Any, ...]) -> list[str]:
    node: Any = Params()
    for part in loc:
        node = getattr(node, str(part), None)
    return [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []
