"""Follows the champion log: a release, promotion or rollback takes over between two requests, and what does not load changes nothing.

A thread of its own asks for the log's newest entry, opens its bundle beside the one that serves, and puts it in its place by one assignment. Whoever
holds the old one keeps it until their request ends; then nobody names it any more and its memory is free.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from diger_core.errors import DigerError
from orchestration.champion.log import Entry
from orchestration.params.serve import ServeConfig
from orchestration.serving.online.live import LiveChampion

LOG = logging.getLogger("diger.serve")
LONGEST_LINE = 300  # characters of an error that is not ours
LONGEST_PAUSE = 300.0  # seconds between two attempts at a bundle that does not load


class Follower:
    """`newest`: the log's newest entry, read at this moment. `open_`: loads what an entry names; whatever it raises is told and changes nothing.
    `stamp`: of what else the lists depend on (files of rules, prepared snapshots, users who were forgotten); when it changes, the same entry is
    opened again. `outdated`: whether what serves holds somebody who was forgotten; it serves on without users' histories until another one loads."""

    def __init__(
        self,
        newest: Callable[[], Entry | None],
        open_: Callable[[Entry], LiveChampion],
        config: ServeConfig,
        stamp: Callable[[], str] = lambda: "",
        outdated: Callable[[LiveChampion], bool] = lambda live: False,
    ):
        self._newest, self._open, self._config, self._stamp, self._outdated = newest, open_, config, stamp, outdated
        self._live: LiveChampion | None = None
        self._loaded: tuple[int, str] | None = None  # number and stamp of what serves
        self._failed: tuple[int, str] | None = None  # of what did not load
        self._pause, self._again = config.poll_seconds, 0.0  # until it is tried again, and when, by the monotonic clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: str | None = None
        self.changes = 0
        self.failures = 0

    @property
    def live(self) -> LiveChampion | None:
        """What serves at this moment; None before anything was released. Take it once for each batch of requests."""
        return self._live

    def look(self) -> bool:
        """Asks the store once; whether another champion, or the same one over other data, serves now."""
        try:
            entry, stamp = self._newest(), self._stamp()
        except Exception as error:  # noqa: BLE001 - a store that cannot be read for a moment must not end the service
            self._told(f"the store cannot be read ({_line(error)}); the last champion serves on")
            return False
        if entry is None:
            self._told("nothing was released yet: `diger run` or `diger promote` makes the first champion")
            return False
        wanted = (entry.number, stamp)
        if self._loaded == wanted:
            self.problem, self._failed = None, None
            return False
        if self._failed == wanted and time.monotonic() < self._again:
            return False
        try:
            opened = self._open(entry)
        except Exception as error:  # noqa: BLE001 - whatever it is, the champion before serves on and /health says why
            self._not_loaded(entry, wanted, error)
            return False
        self.problem, self._failed, self._loaded = None, None, wanted
        if opened is self._live:
            return False
        self._live = opened
        self.changes += 1
        data = opened.sources.sequences[:12]
        LOG.info("champion", extra={"told": {"entry": entry.number, "bundle": entry.bundle[:12], "action": entry.action, "sequences": data}})
        for warning in opened.warnings:
            LOG.warning("rules", extra={"told": {"warning": warning}})
        return True

    def _not_loaded(self, entry: Entry, wanted: tuple[int, str], error: Exception) -> None:
        """The same entry is tried again, ever more rarely: it may only have been a network's fault. Another entry is tried at once."""
        self._pause = min(LONGEST_PAUSE, 2 * self._pause) if self._failed == wanted else self._config.poll_seconds
        self._failed, self._again = wanted, time.monotonic() + self._pause
        self.failures += 1
        serves = f"bundle {self._live.bundle[:12]} (entry {self._live.entry.number}) serves on" if self._live else "nothing serves"
        try:
            forgotten = self._live is not None and (self._live.withheld or self._outdated(self._live))
        except Exception as unread:  # noqa: BLE001 - the next attempt asks again; until then /health says that it is not known
            forgotten, serves = False, f"{serves}; whether a user was forgotten cannot be read ({_line(unread)})"
        if self._live is not None and forgotten:
            self._live.withheld = True
            serves += " without users' histories, as one of them was forgotten"
        self._told(f"entry {entry.number} names bundle {entry.bundle[:12]}, which does not load: {_line(error)}; {serves}")

    def _told(self, problem: str) -> None:
        if problem != self.problem:
            LOG.warning("problem", extra={"told": {"problem": problem}})
        self.problem = problem

    def start(self) -> None:
        """Follows in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name="diger-champion", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._config.poll_seconds):
            self.look()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self._config.timeout_seconds)


def _line(error: Exception) -> str:
    """The error on one line. Ours end with the remedy and are never cut; others may be of any length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, DigerError) else text[:LONGEST_LINE]
