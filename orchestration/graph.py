"""The stages, declared once. Dagster's assets, dvc.yaml and `diger run` are all built from, or held to, this table."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One stage. `version` is part of every record's key: raise it when a change alters the stage's result.

    `group`: of the UI, whose list is alphabetical; the numbers make it read as the flow, and no group points back to one before it.
    """

    name: str
    group: str
    inputs: tuple[str, ...]
    params: tuple[str, ...]  # sections of params.yaml that the result depends on
    kinds: tuple[str, ...]
    description: str
    version: str = "1"
    on_demand: bool = False  # runs only when asked for by name: no part of a retraining
    after: tuple[str, ...] = ()  # stages whose work it finds in the champion log: where both run, they run first; no input artefact

    @property
    def module(self) -> Any:
        return import_module(f"orchestration.stages.{self.name}")

    def compute(self, run: Any) -> None:
        getattr(self.module, self.name)(run)


STAGES: tuple[Stage, ...] = (
    Stage("raw_items", "1_snapshot", (), ("raw_items",), ("parquet",), "The snapshot's catalogue, byte for byte, and the vectors that it may bring."),
    Stage("raw_interactions", "1_snapshot", (), ("raw_interactions",), ("parquet",), "The snapshot's events, byte for byte."),
    Stage(
        "validated_items",
        "2_validation",
        ("raw_items",),
        ("validated_items",),
        ("parquet", "greatexpectations"),
        "Items that pass the rules, in canonical order; the others are quarantined with the reason.",
    ),
    Stage(
        "validated_interactions",
        "2_validation",
        ("raw_interactions", "validated_items"),
        ("validated_interactions",),
        ("parquet", "greatexpectations"),
        "Events of known items that pass the rules, ordered by user and time; the others are quarantined with the reason.",
    ),
    Stage(
        "sequences",
        "3_features",
        ("validated_items", "validated_interactions"),
        ("sequences",),
        ("parquet", "numpy"),
        "Each user's events in order, as item indices. Leave-one-out: the last event is the test target, the one before it validates.",
    ),
    Stage(
        "embeddings",
        "3_features",
        ("validated_items",),
        ("embeddings",),
        ("ray", "scikitlearn"),
        "One frozen vector per item, from its text or brought by the snapshot. The encoder is fitted once and kept.",
    ),
    Stage(
        "catalogue_diff",
        "4_change",
        ("validated_items", "sequences", "embeddings"),
        ("catalogue_diff", "retraining"),
        ("parquet", "matplotlib"),
        "What changed since the baseline was made (items, texts, events, vectors), and what that asks for: nothing, a cold start or a retraining.",
    ),
    Stage(
        "cold_start",
        "4_change",
        ("validated_items", "embeddings"),
        ("cold_start",),
        ("parquet",),
        "IDs for items that the champion lacks, under its tokenizer and without training. No existing ID changes.",
    ),
    Stage(
        "tokenizer",
        "5_training",
        ("sequences", "embeddings"),
        ("tokenizer", "retraining"),
        ("pytorch",),
        "The RQ-VAE after its warm-up: an encoder and three codebooks that turn a vector into a semantic ID.",
    ),
    Stage(
        "frozen_model",
        "5_training",
        ("sequences", "embeddings", "tokenizer"),
        ("recommender", "training", "frozen_model", "semantic_ids", "retraining"),
        ("pytorch", "ray"),
        "The control: the same recommender, data and budget, with the tokenizer frozen after its warm-up.",
    ),
    Stage(
        "joint_model",
        "5_training",
        ("sequences", "embeddings", "tokenizer"),
        ("recommender", "training", "joint_model", "semantic_ids", "retraining"),
        ("pytorch", "ray"),
        "Recommender and tokenizer trained together: recommendations reshape the semantic IDs while Gumbel noise decays.",
        version="2",
    ),
    Stage(
        "semantic_ids",
        "6_ids",
        ("sequences", "embeddings", "tokenizer", "joint_model"),
        ("semantic_ids", "retraining"),
        ("parquet",),
        "The table of semantic IDs that belongs to the joint model, and its inverse.",
    ),
    Stage(
        "id_diff",
        "6_ids",
        ("sequences", "semantic_ids"),
        ("id_diff", "retraining"),
        ("parquet", "matplotlib"),
        "Which IDs the new table kept, moved, added and lost against the baseline's, by item, traffic and users, and a migration old to new.",
    ),
    Stage(
        "evaluation",
        "7_verdict",
        ("sequences", "frozen_model", "joint_model", "semantic_ids"),
        ("evaluation",),
        ("pytorch",),
        "Full ranking of the test events, item by item, beside the frozen control, most popular and Markov.",
        version="2",
    ),
    Stage(
        "bundle",
        "7_verdict",
        ("validated_items", "validated_interactions", "sequences", "embeddings", "tokenizer", "joint_model", "semantic_ids"),
        ("bundle",),
        ("pytorch",),
        "What serving needs in one artefact: recommender, tokenizer, ID table, item factors and encoder, each naming the others.",
    ),
    Stage(
        "gate",
        "7_verdict",
        ("sequences", "bundle"),
        ("evaluation", "gate"),
        ("pytorch",),
        "May the candidate serve? Candidate and champion on the same users, by rules; the verdict is stored and release re-reads it.",
    ),
    Stage(
        "report",
        "7_verdict",
        (
            "validated_items",
            "validated_interactions",
            "sequences",
            "embeddings",
            "catalogue_diff",
            "tokenizer",
            "frozen_model",
            "joint_model",
            "semantic_ids",
            "id_diff",
            "evaluation",
            "gate",
        ),
        ("report",),
        ("html", "matplotlib"),
        "One self-contained page: verdict, metrics with intervals, what changed, curves, code usage, the ID tree, slices, examples, lineage.",
        version="4",
    ),
    Stage(
        "release",
        "8_serving",
        ("bundle", "gate", "report"),
        ("release",),
        ("json",),
        "Makes an accepted candidate the champion: a new entry of the append-only log. Without an accepting verdict it refuses.",
    ),
    Stage(
        "recommendations",
        "8_serving",
        ("sequences", "cold_start"),
        ("recommendations",),
        ("parquet", "ray"),
        "The present champion's top items for every user of the snapshot, from all events; users without history get the most popular ones.",
        on_demand=True,
        after=("release",),
    ),
    Stage(
        "decay_search",
        "search",
        ("sequences", "embeddings", "tokenizer"),
        ("recommender", "training", "joint_model", "semantic_ids", "retraining", "decay_search"),
        ("pytorch", "ray"),
        "A study of decay schedules: trials of joint training under pruning, the best configurations on more seeds, a report.",
        version="2",
        on_demand=True,
    ),
    Stage(
        "tuned_model",
        "search",
        ("sequences", "embeddings", "tokenizer", "decay_search"),
        ("recommender", "training", "joint_model", "semantic_ids", "retraining", "tuned_model"),
        ("pytorch", "ray"),
        "The promotion of a study's winner: the joint model trained in full with its configuration, linked to study and trial.",
        version="2",
        on_demand=True,
    ),
)

FLOW: tuple[Stage, ...] = tuple(stage for stage in STAGES if not stage.on_demand)
BY_NAME: dict[str, Stage] = {stage.name: stage for stage in STAGES}


def upstream(names: set[str]) -> set[str]:
    """The named stages and everything that they are made from."""
    found = set(names)
    for stage in reversed(STAGES):
        if stage.name in found:
            found |= set(stage.inputs)
    return found
