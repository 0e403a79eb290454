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
    """One rule: what was found, what is wanted, and what to do about it."""

    name: str
    passed: bool
    observed: Any  # a number, a text or null, as the rule has it
    wanted: Any
    message: str


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


class Baseline(TypedDict):
    """The best counting baseline on these users, and the candidate's NDCG@10 minus its, with the 95% interval."""

    name: str
    mean: float
    low: float
    high: float


class Figures(TypedDict):
    """The models side by side. The last three only where there is a champion; `fresh_targets` is null where events have no times."""

    users: int
    users_with_a_target: int
    baseline: Baseline
    models: dict[str, ModelFigures]
    coverage: dict[str, float]
    ids: Ids
    alarm: str | None
    slices: NotRequired[dict[str, Slice]]
    fresh_targets: NotRequired[int | None]
    churn: NotRequired[Churn]


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
