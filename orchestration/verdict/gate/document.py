"""What verdict.json holds: the figures that were measured, the rules that judged them, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from diger_core.evaluation.metrics import Difference

VERDICT: Final = "verdict.json"
K: Final = 10  # the cut-off of both metrics
RECALL: Final = "recall@10"
NDCG: Final = "ndcg@10"


class Rule(TypedDict):
    """One rule: what was found, what is wanted, and what to do about it.

    `excused`: not met, and passed all the same, because the champion, which would stay, meets it no better.
    """

    name: str
    passed: bool
    observed: Any  # a number, a text or null, as the rule has it
    wanted: Any
    message: str
    excused: NotRequired[bool]


ModelFigures = TypedDict("ModelFigures", {"recall@10": float, "ndcg@10": float, "intervals": dict[str, list[float]]})


class Comparison(TypedDict):
    """One metric of both models on a slice. `relative`: the candidate's mean over the champion's; null where the champion finds nothing."""

    candidate: float
    champion: float
    difference: Difference
    relative: Difference | None


# A slice of fewer users than an interval needs has no metrics.
Slice = TypedDict("Slice", {"users": int, "recall@10": NotRequired[Comparison], "ndcg@10": NotRequired[Comparison]})


class Ids(TypedDict):
    """The candidate's ID table."""

    items: int
    unique_prefixes: int
    unique_prefix_share: float
    largest_group: int
    perplexity: list[float]
    dead_codes: list[int]
    duplicates: int
    reused_tuples: int


class Churn(TypedDict):
    """Shares of the champion's IDs that the candidate changes, by item and by event; `counts` only where the catalogues share an item."""

    common_items: float
    items: float
    events: float
    counts: NotRequired[dict[str, int]]


class Servability(TypedDict):
    """Whether the bundle, opened cold, recommends; `users` decoded."""

    passed: bool
    message: str
    users: int


class Gain(TypedDict):
    """The candidate's NDCG@10 minus the baseline's on a slice; no difference where an interval needs more users."""

    users: int
    difference: NotRequired[Difference]


class Baseline(TypedDict):
    """The best counting baseline on these users, and the candidate's NDCG@10 minus its, with the 95% interval; likewise the champion's.
    `slices`: the same by slice."""

    name: str
    mean: float
    low: float
    high: float
    champion: NotRequired[Difference]
    slices: NotRequired[dict[str, Gain]]  # a verdict of an earlier version has none


class NewItems(TypedDict):
    """NDCG@10 on targets without a training event: the lists, the text neighbours alone, the lists minus those with the 95% interval."""

    users: int
    candidate: float
    text: float
    difference: Difference
    champion: NotRequired[float]


class Anchor(TypedDict):
    """Candidate and champion beside the fixed bundle, on the targets that it knows. In both slices the anchor stands in the champion's place."""

    bundle: str
    common_items: float  # share of its items that the catalogue still has
    candidate: Slice
    champion: Slice


class Figures(TypedDict):
    """The models side by side. `new_items` only where there are such targets and texts. What follows it only where there is a champion:
    `fresh_targets` is null where events have no times; `champion_prefixes`: its unique prefixes over its items; `settings`: those of
    its training that differ from the candidate's, each as [champion's, candidate's]; `anchor` where it is a third bundle.
    """

    users: int
    users_with_a_target: int
    baseline: Baseline
    models: dict[str, ModelFigures]
    coverage: dict[str, float]
    ids: Ids
    alarm: str | None
    new_items: NotRequired[NewItems]
    slices: NotRequired[dict[str, Slice]]
    fresh_targets: NotRequired[int | None]
    churn: NotRequired[Churn]
    champion_prefixes: NotRequired[float]
    settings: NotRequired[dict[str, list[Any]]]
    anchor: NotRequired[Anchor]


class Measured(Figures):
    """All that the rules read."""

    servability: Servability


class GateVerdict(TypedDict):
    """verdict.json. `candidate` and `champion` are hashes of bundles; no champion: a first release."""

    format: int
    verdict: Literal["accept", "refuse"]
    candidate: str
    champion: str | None
    rules: list[Rule]
    metrics: Measured
