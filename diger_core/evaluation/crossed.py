"""Two ways of training over several seeds and the same users: the mean difference with an interval that has both sources of chance in it.

d_su is user u's gain under seed s, a minus b. Seeds and users are crossed: every seed is judged by the same users.

    mean = mean_su d_su        error^2 = var_s(mean_u d_su) / S + var_u(mean_s d_su) / U
    interval = mean -+ t(df) error,   df by Welch and Satterthwaite from S - 1 and U - 1

What is random in seed and user together is in both terms, so the interval is a little too wide rather than too narrow. S seeds, U users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Word = Literal["better", "worse", "open", "unclaimed"]
FEWEST = 3  # seeds from which on a difference may be called better or worse
# Two-sided 95% quantiles of Student's t by degrees of freedom.
_QUANTILES = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 11: 2.201, 12: 2.179, 13: 2.16,
    14: 2.145, 15: 2.131, 20: 2.086, 30: 2.042, 60: 2.0, 120: 1.98,
}  # fmt: skip
NORMAL = 1.96


@dataclass(frozen=True)
class Crossed:
    """A mean difference. `low`, `high`: its 95% interval; `seed_error`, `user_error`: the two parts of its standard error. All None with one seed."""

    mean: float
    low: float | None = None
    high: float | None = None
    seed_error: float | None = None
    user_error: float | None = None

    def word(self, seeds: int) -> Word:
        """better, worse, open (the interval includes zero), or unclaimed (fewer than `FEWEST` seeds)."""
        if seeds < FEWEST or self.low is None or self.high is None:
            return "unclaimed"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"


def crossed(gain_SU: npt.NDArray[np.float64]) -> Crossed:
    """The mean of paired differences [S, U] with its interval. ValueError where there is no seed or no user."""
    seeds, users = gain_SU.shape
    if not seeds or not users:
        raise ValueError(f"crossed: {seeds} seeds and {users} users: at least one of each is needed")
    mean = float(gain_SU.mean())
    if seeds < 2 or users < 2:
        return Crossed(mean)
    by_seed = float(gain_SU.mean(axis=1).var(ddof=1)) / seeds
    by_user = float(gain_SU.mean(axis=0).var(ddof=1)) / users
    total = by_seed + by_user
    if total == 0:
        return Crossed(mean, mean, mean, 0.0, 0.0)
    freedom = total**2 / (by_seed**2 / (seeds - 1) + by_user**2 / (users - 1))
    half = student_t(freedom) * total**0.5
    return Crossed(mean, mean - half, mean + half, by_seed**0.5, by_user**0.5)


def student_t(freedom: float) -> float:
    """The two-sided 95% quantile of Student's t; between the table's degrees of freedom by their reciprocals. ValueError below 1."""
    if freedom < 1:
        raise ValueError(f"student_t: {freedom} degrees of freedom: at least 1 is needed")
    inverse = [0.0, *sorted(1 / known for known in _QUANTILES)]
    values = [NORMAL, *(_QUANTILES[known] for known in sorted(_QUANTILES, reverse=True))]
    return float(np.interp(1 / freedom, inverse, values))
