"""How a worker's progress reaches the process that started the training. Imports nothing heavy: the actor starts in a process of its own."""

from __future__ import annotations

import time
from typing import Any

POLL = 0.2  # seconds between two looks into the mailbox, and between two updates put into it


class Mailbox:
    """An actor that carries progress from rank 0 to the driver, and a fault that no retry can fix."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.updates: dict[str, tuple[int, int | None, dict[str, Any]]] = {}
        self.failure: str | None = None
        self.starts = 0
        self.controller: Any = None

    def message(self, text: str) -> None:
        self.messages.append(text)

    def update(self, what: str, done: int, total: int | None, values: dict[str, Any]) -> None:
        self.updates[what] = (done, total, values)  # the newest state replaces one that nobody has read

    def start(self) -> str | None:
        """Counts the start of rank 0; returns the message of a failure that no retry can fix, or None."""
        self.starts += 1
        return self.failure

    def controlled_by(self, controller: Any) -> None:
        """Takes the handle of the actor that must end for the training to end."""
        self.controller = controller

    def its_controller(self) -> Any:
        return self.controller

    def fail(self, text: str) -> None:
        self.failure = self.failure or text

    def failed(self) -> str | None:
        return self.failure

    def take(self) -> tuple[list[str], dict[str, tuple[int, int | None, dict[str, Any]]], str | None, int]:
        taken = self.messages, self.updates, self.failure, self.starts
        self.messages, self.updates = [], {}
        return taken


class MailboxProgress:
    """Progress that goes to the driver; updates at most every `POLL` seconds, messages always."""

    def __init__(self, mailbox: Any) -> None:
        self.mailbox, self.last = mailbox, 0.0

    def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
        if time.monotonic() - self.last >= POLL or done == total:
            self.last = time.monotonic()
            self.mailbox.update.remote(what, done, total, values)

    def message(self, text: str) -> None:
        self.mailbox.message.remote(text)
