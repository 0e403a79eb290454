"""What a snapshot's newest events say of the champion: figures that are plotted over the snapshots, and a warning where one leaves its limits.

Fresh events are those newer than every event that the champion was made from. They are set beside the window before, which ends with the champion's
newest event and is as long, or as long as the events reach back. E events, N items of the snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from orchestration.params.data import DriftConfig

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class Lists(TypedDict):
    """How good the champion's lists are on fresh events (fresh_lists.py); null where nothing could be judged.

    list_users: who were judged. list_ndcg_10: of the lists that it serves; counted_ndcg_10: of its best counting baseline on the same targets.
    `_at_release`: what its gate found on its own test targets. list_decay: 1 - list_ndcg_10 over that at the release, with its 95% interval.
    """

    list_users: int
    list_ndcg_10: float | None
    list_ndcg_10_at_release: float | None
    list_decay: float | None
    list_decay_low: float | None
    list_decay_high: float | None
    counted_ndcg_10: float | None
    counted_ndcg_10_at_release: float | None


class Drift(Lists):
    """`fresh_events`: how many; null where the events, or the champion's, have no times. The others are null where there is nothing to say.

    event_volume: fresh events over those of the window before, each by its length. new_item_share: of fresh events, on items that the champion lacks.
    Among the items that the champion knows, so that like is compared with like, coverage: share of the items with an event; concentration: Gini
    coefficient of the events over the items, 0: all alike, 1: one item has all; code_usage: perplexity of the first codes of the events' items over
    the number of codes. Each `_before` is of the window before. embedding_drift: 1 - mean cosine between the champion's and the new vectors.
    """

    fresh_events: int | None
    event_volume: float | None
    new_item_share: float | None
    coverage: float | None
    coverage_before: float | None
    concentration: float | None
    concentration_before: float | None
    code_usage: float | None
    code_usage_before: float | None
    embedding_drift: float | None


UNJUDGED: Lists = {
    "list_users": 0, "list_ndcg_10": None, "list_ndcg_10_at_release": None, "list_decay": None, "list_decay_low": None, "list_decay_high": None,
    "counted_ndcg_10": None, "counted_ndcg_10_at_release": None,
}  # fmt: skip


def figures(
    items_E: Int32, times_E: Int64 | None, newest: int | None, code_N: Int64, codes: int, cosine: float | None, lists: Lists = UNJUDGED
) -> Drift:
    """times_E, newest: Unix seconds, of the events and of the champion's newest one. code_N: the champion's first code of each item, -1 where it
    lacks the item. codes: how many there are. cosine: mean over common items, old and new vector."""
    found: Drift = {
        **lists, "fresh_events": None, "event_volume": None, "new_item_share": None, "coverage": None, "coverage_before": None,
        "concentration": None, "concentration_before": None, "code_usage": None, "code_usage_before": None,
        "embedding_drift": None if cosine is None else 1 - cosine,
    }  # fmt: skip
    if times_E is None or newest is None:
        return found
    fresh_E = times_E > newest
    found["fresh_events"] = int(fresh_E.sum())
    if not fresh_E.any():
        return found
    now = items_E[fresh_E]
    found["new_item_share"] = float((code_N[now] < 0).mean())
    found["coverage"], found["concentration"], found["code_usage"] = _spread(now, code_N, codes)
    span = int(times_E.max()) - newest
    before = items_E[(times_E <= newest) & (times_E > newest - span)]
    reach = min(span, newest - int(times_E.min()) + 1)  # the events may not reach back so far
    if len(before):
        found["event_volume"] = len(now) / span / (len(before) / reach)
        found["coverage_before"], found["concentration_before"], found["code_usage_before"] = _spread(before, code_N, codes)
    return found


def _spread(items: Int32, code_N: Int64, codes: int) -> tuple[float, float, float]:
    """(coverage, concentration, code usage) of some events, among the items that have a code."""
    count_n = np.bincount(items, minlength=len(code_N))[code_N >= 0]
    used = code_N[items]
    share = np.bincount(used[used >= 0], minlength=codes) / max(1, int((used >= 0).sum()))
    share = share[share > 0]
    usage = float(np.exp(-(share * np.log(share)).sum()) / codes) if len(share) else 0.0
    return float((count_n > 0).mean()) if len(count_n) else 0.0, gini(count_n), usage


def gini(count_n: Int64) -> float:
    """Gini coefficient of counts, scaled to 1 where one of n has all."""
    total, n = int(count_n.sum()), len(count_n)
    if total == 0 or n < 2:
        return 0.0
    rank = np.arange(1, n + 1)
    return float((2 * (rank * np.sort(count_n)).sum() / total - n - 1) / (n - 1))


def passed(found: Drift, config: DriftConfig) -> dict[str, str]:
    """Figure -> what is said of it, with its key, for each that is outside its limits. With fewer fresh events than `min_events` only the vectors
    are judged."""
    said = {}
    if (distance := found["embedding_drift"]) is not None and distance > config.max_embedding_drift:
        said["embedding_drift"] = f"the vectors of known items moved by {distance:.1%} (max_embedding_drift: {config.max_embedding_drift:.1%})"
    if (found["fresh_events"] or 0) < config.min_events:
        return said
    if (volume := found["event_volume"]) is not None and not config.min_volume <= volume <= config.max_volume:
        key, limit = ("min_volume", config.min_volume) if volume < config.min_volume else ("max_volume", config.max_volume)
        said["event_volume"] = f"{volume:.2f} times the events of the window before ({key}: {limit:.2f})"
    if (new := found["new_item_share"]) is not None and new > config.max_new_items:
        said["new_item_share"] = f"{new:.1%} of the fresh events are on items that the champion lacks (max_new_items: {config.max_new_items:.1%})"
    now, before = found["concentration"], found["concentration_before"]
    if now is not None and before is not None and now - before > config.max_concentration_rise:
        rise = config.max_concentration_rise
        said["concentration"] = f"popularity is more concentrated: from {before:.2f} to {now:.2f} (max_concentration_rise: {rise:.2f})"
    now, before = found["coverage"], found["coverage_before"]
    if now is not None and before is not None and now < config.min_coverage_ratio * before:
        said["coverage"] = f"coverage fell from {before:.1%} to {now:.1%} (min_coverage_ratio: {config.min_coverage_ratio:.2f})"
    now, before = found["code_usage"], found["code_usage_before"]
    if now is not None and before is not None and now < config.min_code_usage_ratio * before:
        said["code_usage"] = f"code usage fell from {before:.1%} to {now:.1%} (min_code_usage_ratio: {config.min_code_usage_ratio:.2f})"
    return said | _decayed(found, config)


def told(found: Drift, config: DriftConfig) -> str:
    """What the figures say, in one line: the limits that were passed, else that there are none, or why little could be judged."""
    if beyond := passed(found, config):
        return "; ".join(beyond.values())
    if found["fresh_events"] is None:
        return "not measured: the events have no times"
    if not found["fresh_events"]:
        return "no event is newer than the champion's newest"
    if found["fresh_events"] < config.min_events:
        return f"{found['fresh_events']:,} fresh events are too few to judge by (min_events: {config.min_events:,})"
    return "within its limits"


def _decayed(found: Lists, config: DriftConfig) -> dict[str, str]:
    """A loss counts where it is real, too: where its 95% interval lies above 0."""
    decay, low, now, then = (found["list_decay"], found["list_decay_low"], found["list_ndcg_10"], found["list_ndcg_10_at_release"])
    if decay is None or low is None or decay <= config.max_list_decay or low <= 0:
        return {}
    limit = f"max_list_decay: {config.max_list_decay:.1%}"
    return {"list_decay": f"the champion's lists lost {decay:.1%}: NDCG@10 {then:.4f} at the release, {now:.4f} on fresh events ({limit})"}
