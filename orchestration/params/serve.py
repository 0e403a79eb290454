"""Section `serve`: limits of `diger serve`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diger_core.config import STRICT, check


@dataclass(frozen=True)
class ServeConfig:
    """`diger serve`. What its lists hold is configured in `recommendations`."""

    __pydantic_config__: ClassVar = STRICT
    max_batch: int = 32  # requests that one pass of the model answers; they gather while the pass before runs
    max_waiting: int = 256  # requests that wait or are being answered; one more is refused with 429
    timeout_seconds: float = 5.0  # from a request's arrival to its answer; later ones end with 504
    max_body_bytes: int = 65_536  # of a request; larger ones are refused with 413
    poll_seconds: float = 2.0  # between two looks at the champion log

    def __post_init__(self) -> None:
        for key in ("max_batch", "max_waiting", "max_body_bytes"):
            check(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        for key in ("timeout_seconds", "poll_seconds"):
            check(getattr(self, key) > 0, key, getattr(self, key), "above 0")
