"""Two reports on one user set: the users whose test target is the same event in both, with every model's difference and its paired interval.

The same item is not enough: who buys it again has it as target in both, and the later model was trained on the earlier purchase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diger_core.config import EvaluationConfig
from orchestration.verdict.models import NAMES, ordered
from orchestration.verdict.report.reasons import FEW, SHOWN, Where

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestration.verdict.report.material import Material

RESAMPLES = 1000
K = 10
LEAST = 30  # users below which nothing is compared


@dataclass(frozen=True)
class Beside:
    """One model of A and of B on the same users in NDCG@10: their means and B minus A."""

    name: str
    a: float
    b: float
    recall_a: float
    recall_b: float
    difference: Where


@dataclass(frozen=True)
class Paired:
    """`users` of A's `all_a` and B's `all_b`. `models`: those that both ranked, the lists first; `where`: the lists by kind of target."""

    users: int
    all_a: int
    all_b: int
    models: tuple[Beside, ...]
    where: tuple[Where, ...]

    @property
    def lists(self) -> Beside:
        return self.models[0]


def paired(a: Material, b: Material, ranking: EvaluationConfig) -> Paired | None:
    """B minus A; None where the two share too few users, or a side's ranks were not stored. `ranking`: what head, tail and new mean."""
    if not all(material.has("evaluation", "per_user.parquet") for material in (a, b)):
        return None
    left, right = (_ranks(material) for material in (a, b))
    names = [name for name in ordered(left.column_names) if name in right.column_names and name in NAMES]
    joined = left.join(right, ["user", "target", "moment"], join_type="inner", right_suffix=" b").combine_chunks().sort_by([("user", "ascending")])
    if joined.num_rows < LEAST or "lists" not in names:
        return None
    ranks = {name: (joined[name].to_numpy(), joined[f"{name} b"].to_numpy()) for name in names}
    models = tuple(_beside(name, *ranks[name]) for name in names)
    parts = _parts(b, joined["place b"].to_numpy(), ranking)
    where = tuple(_where(SHOWN[name], *(rank[mask] for rank in ranks["lists"])) for name, mask in parts.items())
    return Paired(joined.num_rows, left.num_rows, right.num_rows, models, where)


def _beside(name: str, a_U: np.ndarray, b_U: np.ndarray) -> Beside:
    from diger_core.evaluation.metrics import ndcg, recall

    a, b, recall_a, recall_b = (float(metric(rank, K).mean()) for metric in (ndcg, recall) for rank in (a_U, b_U))
    return Beside(name, a, b, recall_a, recall_b, _where(NAMES[name], a_U, b_U))


def _where(name: str, a_U: np.ndarray, b_U: np.ndarray) -> Where:
    from diger_core.evaluation.metrics import ndcg, paired_bootstrap

    if len(a_U) < FEW:
        return Where(name, len(a_U))
    return Where(name, len(a_U), *paired_bootstrap(ndcg(b_U, K), ndcg(a_U, K), RESAMPLES, 0))


def _parts(b: Material, place_U: np.ndarray, ranking: EvaluationConfig) -> dict[str, np.ndarray]:
    """Masks by kind of target, as B's training events have it."""
    from diger_core.data.splits import targets
    from diger_core.evaluation.ranking import target_slices

    target_U = targets(b.seq, "test")[2][place_U]
    return {"all": np.ones(len(place_U), dtype=bool), **target_slices(b.seq, target_U, ranking)}


def _ranks(material: Material) -> pa.Table:
    """user and target item (as text), when it happened (0 without times), its place among the side's test targets, each model's rank of it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from diger_core.data.splits import targets

    ranks = material.inputs["evaluation"].table("per_user.parquet")
    users_T, end_T, target_T = targets(material.seq, "test")
    times_E = material.seq.timestamps_E
    moment_T = np.zeros(len(end_T), dtype=np.int64) if times_E is None else times_E[end_T]
    places = np.searchsorted(users_T, ranks["user_index"].to_numpy())
    users = material.inputs["sequences"].table("users.parquet")["user_id"].take(pa.array(users_T[places]))
    target = material.item_ids.take(pa.array(target_T[places]))
    columns: dict[str, Any] = {name: ranks[name] for name in ranks.column_names if name != "user_index"}
    keys = {"user": pc.cast(users, pa.string()), "target": pc.cast(target, pa.string()), "moment": pa.array(moment_T[places])}
    return pa.table({**keys, "place": pa.array(places), **columns})
