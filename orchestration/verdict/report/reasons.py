"""What stands behind a verdict: how close the gate's rules were, on which targets the lists are better, and how much of the gain is training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestration.verdict.gate.document import NDCG, GateVerdict, Rule
from orchestration.verdict.models import NAMES
from orchestration.verdict.report.compared import Compared, Tone, tone_of
from orchestration.verdict.report.gate import RULES

if TYPE_CHECKING:
    from diger_core.evaluation.metrics import Difference

FEW = 30  # users of a slice below which no interval is shown
SHOWN = {
    "all": "all",
    "head": "head",
    "tail": "tail",
    "new_items": "new items",
    "known_to_both": "known to both",
    "unknown_to_champion": "champion lacks",
    "fresh": "newer events",
}
ALWAYS = ("all", "head", "tail", "new_items")  # the others only where they are a part of the users
AT_MOST = ("churn",)  # rules that want no more than `wanted`; the others with two numbers want no less
_COUNTS = ("servable", "unique_ids", "reserved_ids", "best_baseline")  # met or not: there is no "nearly"


@dataclass(frozen=True)
class Rules:
    """How many of the gate's rules are met, and the one that was met with the least room."""

    met: int
    total: int
    tightest: str | None

    @property
    def told(self) -> str:
        return f"{self.met} of {self.total} rules" + (f" · tightest: {self.tightest}" if self.tightest else "")


@dataclass(frozen=True)
class Where:
    """The difference on one kind of target; no figures where there are too few users for an interval."""

    name: str
    users: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def tone(self) -> Tone:
        return "open" if self.low is None or self.high is None else tone_of(self.low, self.high)

    @property
    def told(self) -> str:
        if self.mean is None or self.low is None or self.high is None:
            return "no targets" if not self.users else "too few users"
        return f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


@dataclass(frozen=True)
class Forest:
    """The lists minus `against` by kind of target, in NDCG@10."""

    against: str
    rows: tuple[Where, ...]


@dataclass(frozen=True)
class Step:
    """One model of the chain: the same users, the same recipe, one thing changed."""

    name: str
    what: str
    value: float


@dataclass(frozen=True)
class Why:
    """Champion, control and joint model on the same users, and what the steps between them say."""

    steps: tuple[Step, ...]
    sentence: str


def rules_of(stored: GateVerdict) -> Rules:
    found = stored["rules"]
    rooms = [(room, rule) for rule in found if rule["passed"] and not rule.get("excused") and (room := room_of(rule)) is not None]
    least = min(rooms, key=lambda pair: pair[0], default=None)
    return Rules(sum(rule["passed"] for rule in found), len(found), None if least is None else _told(least[1]))


def room_of(rule: Rule) -> float | None:
    """How far the figure lies on the right side of what is wanted, as a share of that; None for rules that do not compare two numbers."""
    seen, wanted = rule["observed"], rule["wanted"]
    if rule["name"] in _COUNTS or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (seen, wanted)) or wanted <= 0:
        return None
    return float(1 - seen / wanted if rule["name"] in AT_MOST else seen / wanted - 1)


def _told(rule: Rule) -> str:
    sign = "≤" if rule["name"] in AT_MOST else "≥"
    return f"{RULES.get(rule['name'], rule['name'])} {rule['observed']:.3g} ({sign} {rule['wanted']:.3g})"


def forests(stored: GateVerdict | None) -> tuple[Forest, ...]:
    """Against the champion, where there is one, and against the best counting baseline; nothing without a gate."""
    if stored is None:
        return ()
    return tuple(forest for forest in (_over_champion(stored), _over_baseline(stored)) if forest.rows)


def _over_champion(stored: GateVerdict) -> Forest:
    found = stored["metrics"].get("slices", {})
    everyone = found["all"]["users"] if "all" in found else 0
    shown = [name for name in SHOWN if name in found and (name in ALWAYS or 0 < found[name]["users"] < everyone)]
    rows = (_where(name, found[name]["users"], found[name][NDCG]["difference"] if NDCG in found[name] else None) for name in shown)
    return Forest("the champion", tuple(rows))


def _over_baseline(stored: GateVerdict) -> Forest:
    found = stored["metrics"]["baseline"]
    slices = found.get("slices", {})
    rows = (_where(name, slices[name]["users"], slices[name].get("difference")) for name in SHOWN if name in slices)
    return Forest(NAMES.get(found["name"], found["name"]), tuple(rows))


def _where(name: str, users: int, found: Difference | None) -> Where:
    label = SHOWN.get(name, name.replace("_", " "))
    if found is None or users < FEW:
        return Where(label, users)
    return Where(label, users, found["mean"], found["low"], found["high"])


def why(over_champion: Compared | None, over_control: Compared | None) -> Why:
    """The chain of the figures that were measured. Champion and control stand in one chain only where both were ranked for the same users."""
    steps = tuple(_steps(over_champion, over_control))
    return Why(steps, _says(over_champion, over_control, len(steps) == 3))


def _steps(champion: Compared | None, control: Compared | None) -> Iterator[Step]:
    first = champion if champion is not None and (control is None or champion.users == control.users) else None
    if first is not None:
        yield Step("champion", "as it serves", first.base)
    if control is not None:
        yield Step("control", "trained, IDs frozen" if first is None else "+ new training", control.base)
    ours = control or champion
    if ours is not None:
        yield Step("joint" if control else "this run", "+ IDs trained, too" if control else "as it would serve", ours.value)


def _says(champion: Compared | None, control: Compared | None, together: bool) -> str:
    if control is None:
        return "The lists were not ranked with a frozen control (frozen_model.enabled), so nothing says how much of this is joint training."
    joint = f"Training the IDs, too, {_adds(control)}."
    if champion is None:
        return joint
    if not together:
        return (
            f"{joint} The gate ranked {champion.users:,} users and the evaluation {control.users:,}: gate.users=null puts the champion into one line."
        )
    training = control.base - champion.base
    if champion.tone == "open":
        return f"No difference from the champion is established ({champion.mean:+.4f}, of which new training {training:+.4f}). {joint}"
    if champion.tone == "better" and training > champion.mean / 2:
        return f"Most of the gain is training on the new data ({training:+.4f} of {champion.mean:+.4f}). {joint}"
    return f"New training changes {training:+.4f}, all together {champion.mean:+.4f}. {joint}"


def _adds(control: Compared) -> str:
    interval = f"{control.mean:+.4f}, 95% interval {control.low:+.4f} to {control.high:+.4f}"
    if control.tone == "open":
        return f"changes nothing that is established ({interval})"
    return f"{'adds' if control.tone == 'better' else 'takes'} {abs(control.mean):.4f} ({interval})"
