"""Two models on the same users in one metric, with the paired difference and its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestration.verdict.models import EARLIER
from orchestration.verdict.report.figures import metric_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diger_core.evaluation.metrics import Difference, Metrics

Tone = Literal["better", "worse", "open"]


def tone_of(low: float, high: float) -> Tone:
    """Better or worse only where the whole interval lies on one side of zero."""
    return "better" if low > 0 else "worse" if high < 0 else "open"


@dataclass(frozen=True)
class Compared:
    """Two models on the same users: their means in `metric`, and the paired difference `ours` minus `theirs` with its 95% interval."""

    ours: str
    theirs: str
    metric: str
    value: float
    base: float
    mean: float
    low: float
    high: float
    users: int
    events: int | None = None  # where several targets of a user count

    @property
    def tone(self) -> Tone:
        return tone_of(self.low, self.high)

    @property
    def told(self) -> str:
        return (
            f"{metric_label(self.metric)} {self.value:.4f} against {self.base:.4f}, a difference of {self.mean:+.4f} "
            f"(95% interval {self.low:+.4f} to {self.high:+.4f}, {self.counted})"
        )

    @property
    def counted(self) -> str:
        """How many users, and how many targets of theirs where a user may have several."""
        return f"{self.users:,} users" if self.events is None else f"{self.events:,} events of {self.users:,} users"

    @property
    def relative(self) -> tuple[float, float, float] | None:
        """The difference and its ends over the other model's mean; None where that finds nothing."""
        return (self.mean / self.base, self.low / self.base, self.high / self.base) if self.base > 0 else None


def difference(metrics: Metrics, ours: str, theirs: str, metric: str) -> Difference | None:
    """`ours` minus `theirs` with its interval, whichever way it is stored; None where it was not measured."""
    return _signed(metrics["differences"], ours, theirs, metric)


def _signed(differences: Mapping[str, Mapping[str, Difference]], ours: str, theirs: str, metric: str) -> Difference | None:
    found = differences.get(f"{ours} - {theirs}", {}).get(metric)
    if found is not None:
        return found
    other = differences.get(f"{theirs} - {ours}", {}).get(metric)
    return None if other is None else {"mean": -other["mean"], "low": -other["high"], "high": -other["low"]}


def lists_minus(metrics: Metrics, name: str, metric: str) -> Compared | None:
    """The lists minus this model; what counts training events alone stands beside lists that do, too. None for the lists themselves."""
    ours = "lists_earlier" if name in EARLIER else "lists"
    return None if name == ours else compared(metrics, ours, name, metric)


def compared(metrics: Metrics, ours: str, theirs: str | None, metric: str) -> Compared | None:
    """None where one of the two was not ranked."""
    row = None if theirs is None else difference(metrics, ours, theirs, metric)
    if theirs is None or row is None:
        return None
    value, base = (float(metrics["models"][name][metric]) for name in (ours, theirs))
    return Compared(ours, theirs, metric, value, base, float(row["mean"]), float(row["low"]), float(row["high"]), metrics["users"])


def over_the_period(metrics: Metrics, ours: str, theirs: str | None, metric: str) -> Compared | None:
    """The same over every event of the test period; None without a temporal split, or where one of the two was not ranked."""
    period = metrics.get("period")
    row = None if period is None or theirs is None else _signed(period["differences"], ours, theirs, metric)
    if period is None or theirs is None or row is None:
        return None
    value, base = (float(period["models"][name][metric]) for name in (ours, theirs))
    return Compared(ours, theirs, metric, value, base, row["mean"], row["low"], row["high"], metrics["users"], period["events"])
