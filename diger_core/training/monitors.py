"""Live figures of the codebooks' health, and the alarm that stops a collapse (docs/method.md, sections 5 and 7).

Recall alone does not reveal a collapse: unique prefixes may halve while it looks normal. Everything here runs between steps, once per refresh.
Shapes: N items, M levels, K codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diger_core.config import JointModelConfig
from diger_core.errors import DigerError


def prefix_counts(codes_NM: Tensor, codes: int) -> Tensor:
    """Items on each occupied prefix, int64 [number of unique prefixes]."""
    key = torch.zeros(len(codes_NM), dtype=torch.int64, device=codes_NM.device)
    room = 1
    for level in range(codes_NM.shape[1]):
        if room * codes >= 1 << 62:
            key = torch.unique(key, return_inverse=True)[1]
            room = len(codes_NM)
        key = key * codes + codes_NM[:, level].long()
        room *= codes
    counts: Tensor = torch.unique(key, return_counts=True)[1]
    return counts


def code_counts(codes_NM: Tensor, codes: int) -> Tensor:
    """Items on each code of each level, int64 [M, K]."""
    return torch.stack([torch.bincount(level_N.long(), minlength=codes) for level_N in codes_NM.unbind(1)])


def table_monitors(codes_NM: Tensor, codes: int, previous: Tensor | None = None) -> dict[str, Any]:
    """Figures of a table's prefixes codes_NM [N, M]; lists have one entry per level.

    entropy: of the usage, in nats; perplexity: e^entropy, 1 (all items on one code) to K; dead_codes: codes no item uses; unique_prefixes;
    largest_group: items on the fullest prefix; flipped: share of the items whose prefix differs from `previous` [N, M] (0 without one; rows
    with -1 are new and do not count)."""
    entropy, perplexity, dead = [], [], []
    for counts in code_counts(codes_NM, codes).double():
        share = counts / counts.sum()
        nats = -(share * share.clamp(min=1e-300).log()).sum()
        entropy.append(float(nats))
        perplexity.append(float(nats.exp()))
        dead.append(int((counts == 0).sum()))
    groups = prefix_counts(codes_NM, codes)
    return {
        "entropy": entropy,
        "perplexity": perplexity,
        "dead_codes": dead,
        "unique_prefixes": len(groups),
        "largest_group": int(groups.max()),
        "flipped": _flipped(codes_NM, previous),
    }


def _flipped(codes_NM: Tensor, previous: Tensor | None) -> float:
    if previous is None:
        return 0.0
    previous = previous.to(codes_NM.device)
    known = (previous >= 0).all(1)
    return float((previous != codes_NM).any(1)[known].double().mean()) if bool(known.any()) else 0.0


def by_level(values: Sequence[float]) -> str:
    """ "62/54/46": a figure of each level, for a line of progress."""
    return "/".join(f"{value:.0f}" for value in values)


class GradientAlarm:
    """Compares the mean gradient norm of the newest steps with those before: an explosion shows long before a loss is no longer finite.

    Fed with sums that the device has accumulated anyway, whenever the loop looks at them; `factor` (0: off) times the geometric mean of the
    earlier windows is an alarm. The state is four numbers, kept in the checkpoint, so that a resumed run alarms as the unbroken one.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.total, self.batch, self.windows, self.log_mean = 0.0, 0, 0, 0.0

    @property
    def state(self) -> list[float]:
        return [self.total, self.batch, self.windows, self.log_mean]

    def load(self, state: list[float]) -> None:
        self.total, self.batch, self.windows, self.log_mean = float(state[0]), int(state[1]), int(state[2]), float(state[3])

    def new_epoch(self) -> None:
        """The sums start again from 0."""
        self.total, self.batch = 0.0, 0

    def check(self, total: float, batch: int) -> str | None:
        """None, or what exploded in one line. `total`: sum of the gradient norms (before clipping) over the `batch` steps of the epoch so far."""
        if batch <= self.batch:
            return None
        norm = (total - self.total) / (batch - self.batch)
        self.total, self.batch = total, batch
        usual = math.exp(self.log_mean)
        if self.factor and self.windows and norm > self.factor * usual:
            return f"the gradient exploded: its mean norm is {norm:.3g}, {usual:.3g} before (alarm above {self.factor:g} times that)"
        self.windows += 1
        self.log_mean += (math.log(max(norm, 1e-12)) - self.log_mean) / self.windows
        return None


class CollapseAlarm:
    """Compares each table with the warm-up's. Thresholds: `collapse_unique_prefixes`, `collapse_perplexity` (shares; 0 switches one off)."""

    def __init__(self, config: JointModelConfig, initial: Mapping[str, Any]) -> None:
        for key in ("unique_prefixes", "perplexity"):
            if key not in initial:
                raise DigerError(f"collapse alarm: the warm-up's figures lack {key}: take them from table_monitors")
        self.config, self.initial = config, initial

    def check(self, monitors: Mapping[str, Any]) -> str | None:
        """None, or what collapsed in one line. `monitors`: of `table_monitors` on the argmin table; "overflow" (optional): items that found no free
        suffix."""
        before, now, share = self.initial["unique_prefixes"], monitors["unique_prefixes"], self.config.collapse_unique_prefixes
        if now < share * before:
            return f"codebooks collapsed: {now} unique prefixes, {before} after the warm-up (alarm below {share:.0%})"
        share = self.config.collapse_perplexity
        for level, (p_before, p_now) in enumerate(zip(self.initial["perplexity"], monitors["perplexity"], strict=True), start=1):
            if p_now < share * p_before:
                return f"codebooks collapsed: level {level} has perplexity {p_now:.1f}, {p_before:.1f} after the warm-up (alarm below {share:.0%})"
        # Behind the collapse: where the codes did not move, it is the items that nothing tells apart.
        if overflow := monitors.get("overflow", 0):
            return (
                f"{overflow} items have no semantic ID of their own: more items share a prefix (equal texts, or none and no events) than there are "
                "suffixes: raise tokenizer.suffixes (beside a champion with retraining.start=scratch), or give them texts that tell them apart"
            )
        return None
