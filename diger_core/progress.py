"""How long work tells the user where it stands, without knowing whether a terminal, a log or Dagster listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the state of one piece of long work. Implementations must be cheap: called once per batch or chunk."""

    def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
        """`what`: a short label, the same for the whole piece; `done` of `total` units; values to show (loss, sigma)."""

    def message(self, text: str) -> None:
        """One line that stays: a decision, a warning, a result."""


class Silent:
    """The default: says nothing."""

    def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
        return None

    def message(self, text: str) -> None:
        return None
