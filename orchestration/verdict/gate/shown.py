"""What the gate stores for the report beside its figures: the champion's lists for a few users, and the settings that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from orchestration.verdict.evaluation import SAMPLE

if TYPE_CHECKING:
    import pyarrow as pa

    from diger_core.evaluation.ranking import EvaluationResult

__all__ = ["SAMPLE", "SHOWN", "differing", "flat", "shown_lists"]

SHOWN: Final = "recommendations.parquet"
_RESULTS = ("best_epoch", "alarm")  # of a model's config.json: what its training found, not how it was set


def flat(value: Any, name: str) -> dict[str, Any]:
    """{"a": {"b": 1}} under "x" becomes {"x.a.b": 1}."""
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: leaf for part, inner in value.items() for key, leaf in flat(inner, f"{name}.{part}").items()}


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """{"training.epochs": [5, 3]}: the settings of two trained models that differ, null where one lacks the key."""
    old, new = (
        {key: leaf for part, inner in side.items() if part not in _RESULTS for key, leaf in flat(inner, part).items()} for side in (before, after)
    )
    return {key: [old.get(key), new.get(key)] for key in sorted({*old, *new}) if old.get(key) != new.get(key)}


def shown_lists(result: EvaluationResult, users_S: np.ndarray) -> pa.Table:
    """user_index, rank (0: not in the list) and the list as item indices, of those of the users [S] that were ranked."""
    import pyarrow as pa

    rows = np.flatnonzero(np.isin(result.users_T, users_S))
    return pa.table(
        {
            "user_index": pa.array(result.users_T[rows].astype(np.int32)),
            "rank": pa.array(result.rank_T[rows].astype(np.int32)),
            "champion": pa.array([items[items >= 0] for items in result.items_Tk[rows]], pa.list_(pa.int32())),
        }
    )
