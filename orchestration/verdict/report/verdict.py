"""The one verdict: may this model serve, are its lists above what counting gives, and does joint training help? In this order, by one metric.

Page, Markdown, the UI's metadata, the terminal and `--json` are all written from `verdict()`, so that none of them can say something else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestration.verdict.gate.document import NDCG, GateVerdict
from orchestration.verdict.models import NAMES, strongest_baseline
from orchestration.verdict.report import gate
from orchestration.verdict.report.compared import Compared, Tone, compared, over_the_period
from orchestration.verdict.report.figures import judged_metric, metric_label
from orchestration.verdict.report.reasons import FEW, Forest, Rules, Why, forests, rules_of, why

if TYPE_CHECKING:
    from diger_core.evaluation.metrics import Metrics

SLICES = {"head": "popular targets", "tail": "rare targets", "new_items": "targets without a training event", "other_time": "targets at another time"}


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
    """`title`: the first line; `word`: the decision alone. `parts`: gate (where one ran), lists against counting, joint against frozen.
    `failed`: rules that refuse; `warnings`: what else to look at. `champion`, `baseline`: the lists beside them; `control`: the joint model alone
    beside the frozen one. `where`: the difference by kind of target; `why`: what of it is training."""

    title: str
    word: str
    tone: Tone
    parts: tuple[Part, ...]
    failed: tuple[str, ...]
    warnings: tuple[str, ...]
    champion: Compared | None
    baseline: Compared | None
    control: Compared | None
    rules: Rules | None
    where: tuple[Forest, ...]
    why: Why

    @property
    def headline(self) -> str:
        """The released lists against the best baseline, in one sentence."""
        return next(part.told for part in self.parts if part.label == LISTS)

    def plain(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {**asdict(self), "headline": self.headline}


GATE, LISTS, METHOD = "Gate", "Lists against counting", "Joint against frozen"


def verdict(metrics: Metrics, stored: GateVerdict | None = None) -> Verdict:
    """From an evaluation's metrics.json and, where the run had a gate, its verdict.json."""
    metric = judged_metric(metrics)
    baseline = compared(metrics, "lists", strongest_baseline(metrics["models"], metric), metric)
    control = compared(metrics, "joint_model", "frozen_model", metric)
    lists = _lists(baseline, None if baseline is None else over_the_period(metrics, "lists", baseline.theirs, metric))
    judged = None if stored is None else _gate(stored)
    title = lists.word if judged is None else f"{judged.word}; {lists.word[0].lower()}{lists.word[1:]}"
    champion = None if stored is None else _champion(stored)
    return Verdict(
        title=title,
        word="Not judged by a gate" if stored is None else "Refused" if stored["verdict"] == "refuse" else "Accepted",
        tone=_tone(judged, lists),
        parts=tuple(part for part in (judged, lists, _method(control)) if part is not None),
        failed=() if stored is None else tuple(f"{gate.RULES.get(r['name'], r['name'])}: {r['message']}" for r in stored["rules"] if not r["passed"]),
        warnings=_warnings(metrics, metric, stored) + (() if stored is None else _excused(stored)),
        champion=champion,
        baseline=baseline,
        control=control,
        rules=None if stored is None else rules_of(stored),
        where=forests(stored),
        why=why(champion, compared(metrics, "lists", "lists_frozen", metric)),
    )


def _champion(stored: GateVerdict) -> Compared | None:
    """Candidate and champion over all users that the gate ranked; None for a first release."""
    row = gate.overall(stored)
    if row is None:
        return None
    users, found = stored["metrics"]["slices"]["all"]["users"], row["difference"]
    return Compared("lists", "champion", NDCG, row["candidate"], row["champion"], found["mean"], found["low"], found["high"], users)


def _excused(stored: GateVerdict) -> tuple[str, ...]:
    names = (gate.RULES.get(rule["name"], rule["name"]) for rule in stored["rules"] if rule.get("excused"))
    return tuple(f"Rule “{name}” is not met, but the champion is no better." for name in names)


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


def _lists(found: Compared | None, period: Compared | None) -> Part:
    if found is None:
        return Part(LISTS, "open", "No counting baseline was ranked", "nothing says what the lists are worth.")
    name = NAMES[found.theirs]
    told = f"{found.told}{_whole(period)}"
    if found.mean == found.low == found.high == 0:
        return Part(LISTS, "open", f"Lists no better than {name}", f"they rank as this baseline does, {told}.")
    if found.tone == "better":
        return Part(LISTS, "better", "Lists above every baseline", f"the best baseline is {name}; {told}.")
    if found.tone == "worse":
        return Part(LISTS, "worse", f"Lists below {name}", f"it only counts; {told}.")
    return Part(LISTS, "open", f"Lists not distinguishable from {name}", f"the interval includes zero; {told}.")


def _whole(period: Compared | None) -> str:
    """The same comparison over every event of the test period, not each user's first alone."""
    if period is None:
        return ""
    return f"; over the whole test period {period.mean:+.4f} ({period.low:+.4f} to {period.high:+.4f}, {period.events:,} events)"


def _method(found: Compared | None) -> Part:
    if found is None:
        return Part(METHOD, "open", "Not measured", "no frozen control was trained, so nothing can be said about what joint training gains.")
    if found.tone == "open":
        return Part(METHOD, "open", "No difference established", f"{found.told}; the interval includes zero.")
    return Part(METHOD, found.tone, "Better in this run" if found.tone == "better" else "Worse in this run", f"{found.told}. One run is one seed.")


def _warnings(metrics: Metrics, metric: str, stored: GateVerdict | None) -> tuple[str, ...]:
    """Slices where a baseline is above the lists, by the gate's paired interval or else beyond both intervals, and slices where they find nothing."""
    told = []
    for name, words in SLICES.items():
        models, users = metrics["slices"].get(name, {}), metrics["slice_users"].get(name, 0)
        best, loss = strongest_baseline(models, metric), None if stored is None else _loss(stored, name)
        if loss is not None:
            told.append(f"On {words} {loss}.")
            continue
        if best is None or "lists" not in models:
            continue
        ours, theirs = models["lists"], models[best]
        if theirs["intervals"][metric][0] > ours["intervals"][metric][1]:
            figures = f"{metric_label(metric)} {theirs[metric]:.4f} against {ours[metric]:.4f}, {users:,} users"
            told.append(f"On {words} {NAMES[best]} is above the lists: {figures}.")
        elif ours[metric] == 0:
            told.append(f"On {words} the lists find nothing ({users:,} users).")
    return tuple(told)


def _loss(stored: GateVerdict, name: str) -> str | None:
    """What the gate's best baseline is above the lists on a slice, user by user; None where the interval reaches zero or the users are few."""
    best = stored["metrics"]["baseline"]
    row = best.get("slices", {}).get(name)
    gain = None if row is None or row["users"] < FEW else row.get("difference")
    if row is None or gain is None or gain["high"] >= 0:
        return None
    interval = f"95% interval {gain['low']:+.4f} to {gain['high']:+.4f}, {row['users']:,} users"
    return f"{NAMES[best['name']]} is above the lists: {metric_label(NDCG)} {gain['mean']:+.4f}, {interval}"


def facts(found: Verdict, stored: GateVerdict | None) -> dict[str, str | float]:
    """Flat values, which the UI shows and plots: the title, the answer to each question, and the differences with their intervals."""
    said: dict[str, str | float] = {"verdict": found.title, **{_key(part.label): part.told for part in found.parts}}
    if stored is not None:
        said["gate_verdict"] = stored["verdict"]
    for name, row in (("over_champion", found.champion), ("over_baseline", found.baseline), ("over_frozen", found.control)):
        if row is not None:
            said |= {f"{name}_mean": row.mean, f"{name}_low": row.low, f"{name}_high": row.high}
    return said


def _key(label: str) -> str:
    return label.lower().replace(" ", "_")
