"""The page's first words: may this model serve, and is it better than the champion? Then what joint training gains over its control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestration.verdict.gate.document import NDCG, Comparison, GateVerdict
from orchestration.verdict.report import gate
from orchestration.verdict.report.verdict import Verdict

if TYPE_CHECKING:
    from diger_core.evaluation.metrics import Difference

METHOD = {"better": "joint training helps", "worse": "joint training hurts", "open": "not established"}


@dataclass(frozen=True)
class Opening:
    """`title` follows "Verdict: "; `tone` colours the box; `lead` is its first paragraph; `details` are shorter sentences."""

    title: str
    tone: str
    lead: str
    details: tuple[str, ...]


def opening(stored: GateVerdict | None, method: Verdict) -> Opening:
    """From the gate's stored verdict, where the run had one; else from the comparison with the control alone."""
    if stored is None:
        return Opening(METHOD[method.tone], method.tone, method.sentence, method.details)
    accepted = stored["verdict"] == "accept"
    if not accepted:
        return Opening(
            "refused: this model may not serve", "worse", gate.conclusion(stored), tuple(filter(None, (against(stored), *_slices(stored))))
        )
    if stored["champion"] is None:
        return Opening("accepted as the first model to serve", "better", gate.conclusion(stored), ())
    gain = _row(stored, "all")
    if gain is None:
        return Opening("accepted", "open", gate.conclusion(stored), ())
    title, tone = _title(gain["difference"])
    return Opening(title, tone, str(against(stored)), (*_slices(stored), gate.conclusion(stored)))


def _title(difference: Difference) -> tuple[str, str]:
    if difference["low"] > 0:
        return "accepted, and better than the champion", "better"
    if difference["high"] < 0:
        return "accepted within the gate's tolerance, but worse than the champion", "open"
    return "accepted; no difference from the champion is established", "open"


def _row(stored: GateVerdict, name: str) -> Comparison | None:
    """Candidate, champion and difference on a slice; None where it was not measured."""
    found = stored["metrics"].get("slices", {}).get(name)
    return found.get(NDCG) if found is not None else None


def against(stored: GateVerdict) -> str | None:
    """NDCG@10 of candidate and champion with the interval of the paired difference."""
    row = _row(stored, "all")
    if row is None:
        return None
    gain = row["difference"]
    says = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "a difference that may be chance"
    relative = f", {100 * gain['mean'] / row['champion']:+.1f}%" if row["champion"] > 0 else ""
    users = stored["metrics"]["slices"]["all"]["users"]
    return (
        f"On the same {users:,} users the new model reaches NDCG@10 {row['candidate']:.4f}, "
        f"the champion it was compared with {row['champion']:.4f}: {says} "
        f"({gain['mean']:+.4f}{relative}; 95% interval {gain['low']:+.4f} to {gain['high']:+.4f})."
    )


def _slices(stored: GateVerdict) -> tuple[str, ...]:
    """One sentence a slice of users."""
    told = []
    for name in ("fresh", "head", "tail"):
        row = _row(stored, name)
        if row is None:
            continue
        gain = row["difference"]
        says = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "interval includes zero: not established"
        users = stored["metrics"]["slices"][name]["users"]
        label = {"fresh": "Targets newer than the champion's data", "head": "Popular targets", "tail": "Rare targets"}[name]
        interval = f"95% interval {gain['low']:+.4f} to {gain['high']:+.4f}, {users:,} users"
        told.append(f"{label}: NDCG@10 {row['candidate']:.4f} against {row['champion']:.4f} ({interval}): {says}")
    return tuple(told)
