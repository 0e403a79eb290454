"""The one verdict: may this model serve, are its lists above what counting gives, and does joint training help? In this order, by one metric.

Page, Markdown, the UI's metadata, the terminal and `--json` are all written from `verdict()`, so that none of them can say something else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestration.verdict.gate.document import GateVerdict
from orchestration.verdict.models import EVE, NAMES, strongest_baseline
from orchestration.verdict.report import gate
from orchestration.verdict.report.figures import judged_metric, metric_label

if TYPE_CHECKING:
    from diger_core.evaluation.metrics import Difference, Metrics

Tone = Literal["better", "worse", "open"]
SLICES = {"head": "popular targets", "tail": "rare targets", "new_items": "targets without a training event", "other_time": "targets at another time"}


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

    @property
    def tone(self) -> Tone:
        """Better or worse only where the whole interval lies on one side of zero."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"

    @property
    def told(self) -> str:
        return (
            f"{metric_label(self.metric)} {self.value:.4f} against {self.base:.4f}, a difference of {self.mean:+.4f} "
            f"(95% interval {self.low:+.4f} to {self.high:+.4f}, {self.users:,} users)"
        )


@dataclass(frozen=True)
class Part:
    """One question with its answer: `word` in a few words, `sentence` with the figures."""

    label: str
    tone: Tone
    word: str
    sentence: str

    @property
    def told(self) -> str:
        return f"{self.word}: {self.sentence}"


@dataclass(frozen=True)
class Verdict:
    """`title`: the first line. `parts`: gate (where one ran), lists against counting, joint against frozen. `warnings`: what to look at."""

    title: str
    tone: Tone
    parts: tuple[Part, ...]
    warnings: tuple[str, ...]
    baseline: Compared | None
    control: Compared | None

    @property
    def headline(self) -> str:
        """The released lists against the best baseline, in one sentence."""
        return next(part.told for part in self.parts if part.label == LISTS)

    def plain(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {**asdict(self), "headline": self.headline}


GATE, LISTS, METHOD = "Gate", "Lists against counting", "Joint against frozen"


def difference(metrics: Metrics, ours: str, theirs: str, metric: str) -> Difference | None:
    """`ours` minus `theirs` with its interval, whichever way it is stored; None where it was not measured."""
    found = metrics["differences"].get(f"{ours} - {theirs}", {}).get(metric)
    if found is not None:
        return found
    other = metrics["differences"].get(f"{theirs} - {ours}", {}).get(metric)
    return None if other is None else {"mean": -other["mean"], "low": -other["high"], "high": -other["low"]}


def lists_minus(metrics: Metrics, name: str, metric: str) -> Compared | None:
    """The lists minus this model; what is counted up to the test stands beside the lists that are counted so, too. None for the lists themselves."""
    ours = "lists_eve" if name in EVE else "lists"
    return None if name == ours else compared(metrics, ours, name, metric)


def compared(metrics: Metrics, ours: str, theirs: str | None, metric: str) -> Compared | None:
    """None where one of the two was not ranked."""
    row = None if theirs is None else difference(metrics, ours, theirs, metric)
    if theirs is None or row is None:
        return None
    value, base = (float(metrics["models"][name][metric]) for name in (ours, theirs))
    return Compared(ours, theirs, metric, value, base, float(row["mean"]), float(row["low"]), float(row["high"]), metrics["users"])


def verdict(metrics: Metrics, stored: GateVerdict | None = None) -> Verdict:
    """From an evaluation's metrics.json and, where the run had a gate, its verdict.json."""
    metric = judged_metric(metrics)
    baseline = compared(metrics, "lists", strongest_baseline(metrics["models"], metric), metric)
    control = compared(metrics, "joint_model", "frozen_model", metric)
    lists = _lists(baseline)
    judged = None if stored is None else _gate(stored)
    title = lists.word if judged is None else f"{judged.word}; {lists.word[0].lower()}{lists.word[1:]}"
    parts = tuple(part for part in (judged, lists, _method(control)) if part is not None)
    return Verdict(title, _tone(judged, lists), parts, _warnings(metrics, metric), baseline, control)


def _tone(judged: Part | None, lists: Part) -> Tone:
    """The worst of the first two answers colours the page."""
    tones = [part.tone for part in (judged, lists) if part is not None]
    return "worse" if "worse" in tones else "open" if "open" in tones else "better"


def _gate(stored: GateVerdict) -> Part:
    sentence = gate.conclusion(stored)
    if stored["verdict"] == "refuse":
        return Part(GATE, "worse", "Refused: this model may not serve", sentence)
    if stored["champion"] is None:
        return Part(GATE, "better", "Accepted as the first model to serve", sentence)
    row = gate.overall(stored)
    if row is None:
        return Part(GATE, "open", "Accepted", sentence)
    told = f"{gate.against(stored)} {sentence}"
    if row["difference"]["low"] > 0:
        return Part(GATE, "better", "Accepted, better than the champion", told)
    if row["difference"]["high"] < 0:
        return Part(GATE, "open", "Accepted within the tolerance, but worse than the champion", told)
    return Part(GATE, "open", "Accepted, no difference from the champion established", told)


def _lists(found: Compared | None) -> Part:
    if found is None:
        return Part(LISTS, "open", "No counting baseline was ranked", "nothing says what the lists are worth.")
    name = NAMES[found.theirs]
    if found.mean == found.low == found.high == 0:
        return Part(LISTS, "open", f"Lists no better than {name}", f"they rank as this baseline does, {found.told}.")
    if found.tone == "better":
        return Part(LISTS, "better", "Lists above every baseline", f"the best baseline is {name}; {found.told}.")
    if found.tone == "worse":
        return Part(LISTS, "worse", f"Lists below {name}", f"it only counts; {found.told}.")
    return Part(LISTS, "open", f"Lists not distinguishable from {name}", f"{found.told}; the interval includes zero.")


def _method(found: Compared | None) -> Part:
    if found is None:
        return Part(METHOD, "open", "Not measured", "no frozen control was trained, so nothing can be said about what joint training gains.")
    if found.tone == "open":
        return Part(METHOD, "open", "No difference established", f"{found.told}; the interval includes zero.")
    return Part(METHOD, found.tone, "Better in this run" if found.tone == "better" else "Worse in this run", f"{found.told}. One run is one seed.")


def _warnings(metrics: Metrics, metric: str) -> tuple[str, ...]:
    """Slices where a baseline is above the lists beyond both intervals, and slices where the lists find nothing."""
    told = []
    for name, words in SLICES.items():
        models, users = metrics["slices"].get(name, {}), metrics["slice_users"].get(name, 0)
        best = strongest_baseline(models, metric)
        if best is None or "lists" not in models:
            continue
        ours, theirs = models["lists"], models[best]
        if theirs["intervals"][metric][0] > ours["intervals"][metric][1]:
            figures = f"{metric_label(metric)} {theirs[metric]:.4f} against {ours[metric]:.4f}, {users:,} users"
            told.append(f"On {words} {NAMES[best]} is above the lists: {figures}.")
        elif ours[metric] == 0:
            told.append(f"On {words} the lists find nothing ({users:,} users).")
    return tuple(told)


def facts(found: Verdict, stored: GateVerdict | None) -> dict[str, str | float]:
    """Flat values, which the UI shows and plots: the title, the answer to each question, and the differences with their intervals."""
    said: dict[str, str | float] = {"verdict": found.title, **{_key(part.label): part.told for part in found.parts}}
    if stored is not None:
        said["gate_verdict"] = stored["verdict"]
    for name, row in (("over_baseline", found.baseline), ("over_frozen", found.control)):
        if row is not None:
            said |= {f"{name}_mean": row.mean, f"{name}_low": row.low, f"{name}_high": row.high}
    return said


def _key(label: str) -> str:
    return label.lower().replace(" ", "_")
