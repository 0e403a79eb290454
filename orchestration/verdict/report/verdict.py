"""The answer first: is the joint model better than its frozen control and than the baselines, and how sure is that?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestration.verdict.report.figures import headline_metrics, metric_label

if TYPE_CHECKING:
    from diger_core.evaluation.metrics import Metrics

NAMES = {"joint_model": "joint model", "frozen_model": "frozen control", "markov": "last-item Markov", "most_popular": "most popular"}


@dataclass(frozen=True)
class Verdict:
    """`tone`: "better", "worse" or "open". `sentence`: plain words with the interval. `details`: one sentence for each other comparison."""

    tone: str
    sentence: str
    details: tuple[str, ...]


def difference(metrics: Metrics, other: str, metric: str) -> tuple[float, float, float] | None:
    """(joint minus `other`, low, high) of `metric`, paired over users; None where it was not measured."""
    row = metrics.get("differences", {}).get(f"joint_model - {other}", {}).get(metric)
    return None if row is None else (float(row["mean"]), float(row["low"]), float(row["high"]))


def verdict(metrics: Metrics) -> Verdict:
    """Better or worse only where the 95% interval of the paired difference lies on one side of zero; otherwise open."""
    metric = headline_metrics(metrics)[0]
    models = metrics["models"]
    joint = models["joint_model"][metric]
    others: list[str] = [name for name in ("most_popular", "markov") if name in models]
    details = tuple(_comparison(metrics, name, m) for m in headline_metrics(metrics) for name in ("frozen_model", *others) if name in models)
    control = difference(metrics, "frozen_model", metric)
    if control is None:
        sentence = (
            f"No frozen control was trained, so nothing can be said about what joint training gains: the joint model reaches {metric_label(metric)} "
            f"{joint:.4f} on {metrics['users']:,} users{_baselines(metrics, others, metric)}."
        )
        return Verdict("open", sentence, details)
    gain, low, high = control
    values = f"{metric_label(metric)} {joint:.4f} against {models['frozen_model'][metric]:.4f}"
    interval = f"a difference of {gain:+.4f} (95% interval {low:+.4f} to {high:+.4f}, {metrics['users']:,} users)"
    ending = _baselines(metrics, others, metric)
    if low > 0:
        return Verdict("better", f"The joint model is better than its frozen control: {values}, {interval}{ending}.", details)
    if high < 0:
        return Verdict("worse", f"The joint model is worse than its frozen control: {values}, {interval}{ending}.", details)
    sentence = f"No difference from the frozen control is established: {values}, {interval}; the interval includes zero{ending}."
    return Verdict("open", sentence, details)


def _baselines(metrics: Metrics, others: list[str], metric: str) -> str:
    """The half-sentence about the baselines, sorted by what the intervals say."""
    groups: dict[str, list[str]] = {"it beats": [], "it is below": [], "it is not distinguishable from": []}
    for name in others:
        row = difference(metrics, name, metric)
        value = f"{NAMES[name]} ({metrics['models'][name][metric]:.4f})"
        if row is not None:
            groups["it beats" if row[1] > 0 else "it is below" if row[2] < 0 else "it is not distinguishable from"].append(value)
    said = [f"{words} {' and '.join(names)}" for words, names in groups.items() if names]
    return "; " + "; ".join(said) if said else ""


def _comparison(metrics: Metrics, name: str, metric: str) -> str:
    row = difference(metrics, name, metric)
    if row is None:
        return f"{metric_label(metric)} against {NAMES[name]}: no paired interval was computed"
    gain, low, high = row
    base = metrics["models"][name][metric]
    relative = f", {100 * gain / base:+.1f}%" if base > 0 else ""
    says = "better" if low > 0 else "worse" if high < 0 else "interval includes zero: not established"
    return f"{metric_label(metric)} against {NAMES[name]}: {gain:+.4f}{relative} (95% interval {low:+.4f} to {high:+.4f}): {says}"
