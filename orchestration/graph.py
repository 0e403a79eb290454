"""The stages, declared once. Dagster's assets, the two dvc.yaml files, `diger run`, the report and the audit are all built from this table.

Add a stage: one file in its group's folder with a function `(run: StageRun) -> None`, and one `Stage` below. A hook is named as
"module:function" and imported when it is called, so that reading the table costs nothing and no stage imports another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Literal

PIPELINE = "pipeline"  # the directory that holds the outs of dvc.yaml
GROUPS = ("snapshot", "validation", "features", "change", "training", "ids", "verdict", "serving", "search")
Group = Literal["snapshot", "validation", "features", "change", "training", "ids", "verdict", "serving", "search"]


@dataclass(frozen=True)
class Hook:
    """A function of the stage's own module, imported when it is first called."""

    target: str  # "package.module:function"

    def load(self) -> Callable[..., Any]:
        """The function itself. ImportError or AttributeError where there is none."""
        found: Callable[..., Any] = resolve_name(self.target)
        return found

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.load()(*arguments, **named)


@dataclass(frozen=True)
class Preview:
    """The table that an artefact is about, for the UI. `rows`: its first rows may be shown; never of what people did."""

    file: str
    rows: bool = False
    counted: bool = True  # False: the file is one part of several, so its row count says nothing


@dataclass(frozen=True)
class Stage:
    """One stage, with all that anything needs to know of it.

    `version` is part of every record's key: raise it when a change alters the stage's result.
    """

    name: str
    title: str  # what its artefact is, in a few words: lineage of the report
    group: Group  # the folder of its file, and the group in the UI
    compute: Hook  # (StageRun) -> None: writes the artefact's files
    inputs: tuple[str, ...]
    params: tuple[str, ...]  # sections of params.yaml that the result depends on
    kinds: tuple[str, ...]  # badges in the UI
    description: str
    version: str = "1"
    on_demand: str | None = None  # when somebody asks for it: it is no part of a retraining
    after: tuple[str, ...] = ()  # stages whose work it finds in the champion log: where both run, they run first; no input artefact
    snapshot_files: tuple[str, ...] = ()  # files of the snapshot that it takes, in the order of their importance
    names_snapshot: bool = False  # its result carries the snapshot's key, which is then part of its own
    volume_of: str | None = None  # the file whose row count is compared with the previous snapshot's, which is then part of its key
    remote: bool = False  # runs as a job where the cluster is behind a job server
    blocks: bool = False  # a snapshot of more than `cluster.block_events` events is worked on in blocks, on Ray; then it runs as a job, too
    pool: str | None = None  # at most one stage of a pool runs at a time
    low_priority: bool = False  # "Materialize all" has the others first
    extra_inputs: Hook | None = None  # (params, store, inputs, snapshot, fit) -> further inputs, or None where they are not decided yet
    missing: Hook | None = None  # (store, inputs) -> why it is missing where its inputs are there, or None
    published: Hook | None = None  # (store, key): after the artefact is in the store, also for a reused one
    refuse: Hook | None = None  # (artefact): raises where the artefact's stored verdict is "failed"
    presented: Hook | None = None  # (artefact) -> metadata of the UI
    checks: Hook | None = None  # () -> the asset checks that it declares
    preview: Preview | None = None
    holds_ids: bool = False  # its artefact holds an ID table: an assignment
    fits_events: bool = False  # something in it was learnt from users' events
    dvc_metrics: tuple[str, ...] = ()  # files that `dvc metrics show` reads


_BASELINE = Hook("orchestration.champion.baseline:extra_inputs")
_TRAINED = Hook("orchestration.engine.checkpoints:remove")
_PRESENT = "orchestration.on_dagster.presentation:"
_CHECKS = "orchestration.on_dagster.checks:"

STAGES: tuple[Stage, ...] = (
    Stage(
        name="raw_items",
        title="the catalogue as registered",
        group="snapshot",
        compute=Hook("orchestration.snapshot.raw_items:raw_items"),
        inputs=(),
        params=(),
        kinds=("parquet",),
        description="The snapshot's catalogue, byte for byte, and the vectors that it may bring.",
        snapshot_files=("items.parquet", "vectors.parquet"),
        preview=Preview("items.parquet"),
    ),
    Stage(
        name="raw_interactions",
        title="the events as registered",
        group="snapshot",
        compute=Hook("orchestration.snapshot.raw_interactions:raw_interactions"),
        inputs=(),
        params=(),
        kinds=("parquet",),
        description="The snapshot's events, byte for byte.",
        snapshot_files=("interactions.parquet",),
        preview=Preview("interactions.parquet"),
    ),
    Stage(
        name="validated_items",
        title="items that passed the checks",
        group="validation",
        compute=Hook("orchestration.validation.validated_items:validated_items"),
        inputs=("raw_items",),
        params=("validated_items",),
        kinds=("parquet", "greatexpectations"),
        description="Items that pass the rules, in canonical order; the others are quarantined with the reason.",
        volume_of="items.parquet",
        refuse=Hook("orchestration.validation.validated_items:refuse"),
        presented=Hook(_PRESENT + "validated"),
        checks=Hook(_CHECKS + "validated"),
        preview=Preview("items.parquet", rows=True),
    ),
    Stage(
        name="validated_interactions",
        title="events that passed the checks",
        group="validation",
        compute=Hook("orchestration.validation.validated_interactions:validated_interactions"),
        inputs=("raw_interactions", "validated_items"),
        params=("validated_interactions",),
        kinds=("parquet", "greatexpectations"),
        description="Events of known items that pass the rules, ordered by user and time; the others are quarantined with the reason.",
        volume_of="interactions.parquet",
        blocks=True,
        refuse=Hook("orchestration.validation.validated_interactions:refuse"),
        presented=Hook(_PRESENT + "validated"),
        checks=Hook(_CHECKS + "validated"),
        preview=Preview("interactions.parquet"),
    ),
    Stage(
        name="sequences",
        title="each user's events in order, with the splits",
        group="features",
        compute=Hook("orchestration.features.sequences:sequences"),
        inputs=("validated_items", "validated_interactions"),
        params=("sequences",),
        kinds=("parquet", "numpy"),
        description="Each user's events in order, as item indices, and what is held out: the first event after a date, else the last one.",
        version="2",
        blocks=True,
    ),
    Stage(
        name="embeddings",
        title="a vector for each item's text",
        group="features",
        compute=Hook("orchestration.features.embeddings:embeddings"),
        inputs=("validated_items",),
        params=("embeddings",),
        kinds=("ray", "scikitlearn"),
        description="One frozen vector per item, from its text or brought by the snapshot. The encoder is fitted once and kept.",
        remote=True,
        extra_inputs=Hook("orchestration.features.embeddings:extra_inputs"),
    ),
    Stage(
        name="neighbours",
        title="what follows what, and what reads like what",
        group="features",
        compute=Hook("orchestration.features.neighbours:neighbours"),
        inputs=("validated_items", "sequences", "embeddings"),
        params=("neighbours", "embeddings"),
        kinds=("numpy", "scikitlearn"),
        description="Item-to-item tables: transitions counted from training events, and neighbours by text, which a new item has at once.",
        blocks=True,
        fits_events=True,
        version="2",
    ),
    Stage(
        name="catalogue_diff",
        title="what changed since the starting bundle, and what it asks for",
        group="change",
        compute=Hook("orchestration.change.catalogue_diff:catalogue_diff"),
        inputs=("validated_items", "sequences", "embeddings"),
        params=("catalogue_diff", "retraining", "evaluation"),
        kinds=("parquet", "matplotlib"),
        description=(
            "What changed since the starting bundle (items, texts, events, vectors), how far it has drifted from it and what its lists are worth on "
            "fresh events, and what that asks for: nothing, a cold start or a retraining."
        ),
        version="2",
        extra_inputs=Hook("orchestration.change.catalogue_diff:extra_inputs"),
        refuse=Hook("orchestration.change.catalogue_diff:refuse"),
        presented=Hook(_PRESENT + "catalogue_diff"),
        checks=Hook(_CHECKS + "catalogue_diff"),
        preview=Preview("items.parquet", rows=True),
    ),
    Stage(
        name="cold_start",
        title="IDs for new items, without training",
        group="change",
        compute=Hook("orchestration.change.cold_start:cold_start"),
        inputs=("validated_items", "embeddings"),
        params=(),
        kinds=("parquet",),
        description="IDs for items that the champion lacks, under its tokenizer and without training. No existing ID changes.",
        extra_inputs=Hook("orchestration.champion.baseline:champion_input"),
        preview=Preview("new_items.parquet", rows=True),
        holds_ids=True,
    ),
    Stage(
        name="tokenizer",
        title="vectors to codes, after warm-up",
        group="training",
        compute=Hook("orchestration.training.tokenizer:tokenizer"),
        inputs=("sequences", "embeddings"),
        params=("tokenizer", "retraining"),
        kinds=("pytorch",),
        description="The RQ-VAE after its warm-up: an encoder and three codebooks that turn a vector into a semantic ID.",
        version="2",
        extra_inputs=_BASELINE,
        presented=Hook(_PRESENT + "model"),
        fits_events=True,
    ),
    Stage(
        name="frozen_model",
        title="recommender on frozen codes: the control",
        group="training",
        compute=Hook("orchestration.training.frozen_model:frozen_model"),
        inputs=("sequences", "embeddings", "neighbours", "tokenizer"),
        params=("recommender", "training", "neighbours", "frozen_model", "semantic_ids", "retraining"),
        kinds=("pytorch", "ray"),
        description="The frozen control: the same recommender, data and budget, with the tokenizer frozen after its warm-up.",
        remote=True,
        pool="training",
        extra_inputs=_BASELINE,
        published=_TRAINED,
        presented=Hook(_PRESENT + "model"),
        checks=Hook(_CHECKS + "trained"),
        holds_ids=True,
        fits_events=True,
    ),
    Stage(
        name="joint_model",
        title="tokenizer and recommender trained together",
        group="training",
        compute=Hook("orchestration.training.joint_model:joint_model"),
        inputs=("sequences", "embeddings", "neighbours", "tokenizer"),
        params=("recommender", "training", "neighbours", "joint_model", "semantic_ids", "retraining"),
        kinds=("pytorch", "ray"),
        description="Recommender and tokenizer trained together: recommendations reshape the semantic IDs while Gumbel noise decays.",
        version="2",
        remote=True,
        pool="training",
        extra_inputs=_BASELINE,
        published=_TRAINED,
        presented=Hook(_PRESENT + "model"),
        checks=Hook(_CHECKS + "trained"),
        holds_ids=True,
        fits_events=True,
    ),
    Stage(
        name="refit",
        title="the joint model, trained on over all events",
        group="training",
        compute=Hook("orchestration.training.refit:refit"),
        inputs=("sequences", "embeddings", "neighbours", "tokenizer", "joint_model"),
        params=("recommender", "training", "neighbours", "semantic_ids", "refit"),
        kinds=("pytorch", "ray"),
        description="The joint model's recommender trained on over all events, on its fixed table: it serves; the state before is what is judged.",
        remote=True,
        pool="training",
        published=_TRAINED,
        holds_ids=True,
        fits_events=True,
    ),
    Stage(
        name="semantic_ids",
        title="each item's codes and suffix",
        group="ids",
        compute=Hook("orchestration.ids.semantic_ids:semantic_ids"),
        inputs=("sequences", "embeddings", "tokenizer", "joint_model"),
        params=("semantic_ids", "retraining"),
        kinds=("parquet",),
        description="The table of semantic IDs that belongs to the joint model, and its inverse.",
        extra_inputs=_BASELINE,
        presented=Hook(_PRESENT + "semantic_ids"),
        preview=Preview("semantic_ids.parquet", rows=True),
        holds_ids=True,
    ),
    Stage(
        name="id_diff",
        title="IDs kept, moved and added against the starting bundle's",
        group="ids",
        compute=Hook("orchestration.ids.id_diff:id_diff"),
        inputs=("sequences", "semantic_ids"),
        params=("retraining",),
        kinds=("parquet", "matplotlib"),
        description=(
            "Which IDs the new table kept, moved, added and lost against the starting bundle's, by item, traffic and users; the migration old to new."
        ),
        extra_inputs=_BASELINE,
        presented=Hook(_PRESENT + "id_diff"),
        preview=Preview("migration.parquet", rows=True),
    ),
    Stage(
        name="fusion",
        title="what the lists listen to",
        group="verdict",
        compute=Hook("orchestration.verdict.fusion:fusion"),
        inputs=("sequences", "neighbours", "joint_model", "semantic_ids"),
        params=("fusion", "evaluation"),
        version="4",
        kinds=("numpy", "pytorch"),
        description="The released lists' recipe: weights of model, transitions, text, repeats and popularity, and the trend, by validation.",
        presented=Hook(_PRESENT + "fusion"),
    ),
    Stage(
        name="evaluation",
        title="full ranking on the test targets",
        group="verdict",
        compute=Hook("orchestration.verdict.evaluation:evaluation"),
        inputs=("sequences", "neighbours", "frozen_model", "joint_model", "semantic_ids", "fusion"),
        params=("evaluation", "neighbours"),
        kinds=("pytorch",),
        description="Full ranking of the test events, item by item: the released lists, the models alone, and every counting baseline.",
        version="9",
        presented=Hook(_PRESENT + "evaluation"),
        checks=Hook(_CHECKS + "evaluation"),
        preview=Preview("per_user.parquet"),
        dvc_metrics=("summary.json",),
    ),
    Stage(
        name="bundle",
        title="model, tokenizer, IDs and encoder in one",
        group="verdict",
        compute=Hook("orchestration.verdict.bundle:bundle"),
        inputs=(
            "validated_items",
            "validated_interactions",
            "sequences",
            "embeddings",
            "neighbours",
            "tokenizer",
            "joint_model",
            "semantic_ids",
            "refit",
            "fusion",
        ),
        params=(),
        kinds=("pytorch",),
        description="What serving needs in one artefact: recommender, tokenizer, ID table, item factors, encoder and recipe, each naming the others.",
        extra_inputs=_BASELINE,
        holds_ids=True,
        fits_events=True,
    ),
    Stage(
        name="gate",
        title="candidate against champion, and the verdict",
        group="verdict",
        compute=Hook("orchestration.verdict.gate.gate:gate"),
        inputs=("sequences", "neighbours", "bundle"),
        params=("evaluation", "gate"),
        kinds=("pytorch",),
        description="May the candidate serve? Candidate and champion on the same users, by rules; the verdict is stored and release re-reads it.",
        version="6",
        extra_inputs=Hook("orchestration.verdict.gate.gate:extra_inputs"),
        missing=Hook("orchestration.verdict.gate.gate:missing"),
        presented=Hook(_PRESENT + "gate"),
        checks=Hook(_CHECKS + "gate"),
    ),
    Stage(
        name="report",
        title="the page for people",
        group="verdict",
        compute=Hook("orchestration.verdict.report.report:report"),
        inputs=(
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
            "fusion",
            "evaluation",
            "gate",
        ),
        params=("report",),
        kinds=("html", "matplotlib"),
        description=(
            "One self-contained page: verdict, metrics with intervals, what changed, curves, code usage, the ID tree, slices, examples, lineage."
        ),
        version="7",
        names_snapshot=True,
        presented=Hook(_PRESENT + "report"),
        checks=Hook(_CHECKS + "report"),
    ),
    Stage(
        name="release",
        title="the entry of the champion log",
        group="serving",
        compute=Hook("orchestration.serving.release:release"),
        inputs=("bundle", "gate", "report"),
        params=("release",),
        kinds=("json",),
        description="Makes an accepted candidate the champion: a new entry of the append-only log. Without an accepting verdict it refuses.",
        published=Hook("orchestration.serving.release:published"),
        presented=Hook(_PRESENT + "release"),
    ),
    Stage(
        name="recommendations",
        title="a list for each user",
        group="serving",
        compute=Hook("orchestration.serving.recommendations:recommendations"),
        inputs=("validated_items", "sequences", "neighbours", "cold_start"),
        params=("recommendations", "rules"),
        kinds=("parquet", "ray"),
        description=(
            "The present champion's top items for every user of the snapshot, from all events and under the rules; "
            "users without history get the most popular ones."
        ),
        version="3",
        on_demand="job `recommend` makes them again whenever the champion has changed. In one run with a release they come after it.",
        after=("release",),
        remote=True,
        extra_inputs=Hook("orchestration.serving.recommendations:extra_inputs"),
        published=_TRAINED,
        preview=Preview("part-00000.parquet", counted=False),
    ),
    Stage(
        name="decay_search",
        title="the study of decay schedules",
        group="search",
        compute=Hook("orchestration.search.decay_search:decay_search"),
        inputs=("sequences", "embeddings", "neighbours", "tokenizer"),
        params=("recommender", "training", "neighbours", "joint_model", "semantic_ids", "retraining", "decay_search"),
        kinds=("pytorch", "ray"),
        description="A study of decay schedules: trials of joint training under pruning, the best configurations on more seeds, a report.",
        version="2",
        on_demand="job `tune`, no part of a retraining: it trains tens of models. It may be terminated at any time and continues where it was.",
        remote=True,
        pool="training",
        low_priority=True,
        extra_inputs=_BASELINE,
        presented=Hook(_PRESENT + "study"),
        fits_events=True,
    ),
    Stage(
        name="tuned_model",
        title="the study's winner, trained in full",
        group="search",
        compute=Hook("orchestration.search.tuned_model:tuned_model"),
        inputs=("sequences", "embeddings", "neighbours", "tokenizer", "decay_search"),
        params=("recommender", "training", "neighbours", "joint_model", "semantic_ids", "retraining", "tuned_model"),
        kinds=("pytorch", "ray"),
        description="The promotion of a study's winner: the joint model trained in full with its configuration, linked to study and trial.",
        version="2",
        on_demand="materialise it where the study's winner is to be trained in full.",
        remote=True,
        pool="training",
        low_priority=True,
        extra_inputs=_BASELINE,
        fits_events=True,
    ),
    Stage(
        name="training_comparison",
        title="ways to train, over seeds",
        group="search",
        compute=Hook("orchestration.search.training_comparison:training_comparison"),
        inputs=("sequences", "embeddings", "neighbours"),
        params=(
            "tokenizer",
            "recommender",
            "training",
            "neighbours",
            "joint_model",
            "semantic_ids",
            "retraining",
            "evaluation",
            "training_comparison",
        ),
        kinds=("pytorch", "ray"),
        description="Ways to train, each on several seeds, paired by seed and user: mean differences with an interval that has both sources in it.",
        on_demand="job `compare_training`, no part of a retraining: it trains variants times seeds. It may be terminated and continues where it was.",
        pool="training",
        low_priority=True,
        extra_inputs=_BASELINE,
        presented=Hook(_PRESENT + "study"),
        fits_events=True,
    ),
)

FLOW: tuple[Stage, ...] = tuple(stage for stage in STAGES if not stage.on_demand)
BY_NAME: dict[str, Stage] = {stage.name: stage for stage in STAGES}


ORDER: dict[str, int] = {stage.name: place for place, stage in enumerate(STAGES)}


def upstream(names: set[str]) -> set[str]:
    """The named stages and everything that they are made from."""
    found = set(names)
    for stage in reversed(STAGES):
        if stage.name in found:
            found |= set(stage.inputs)
    return found
