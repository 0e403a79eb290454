"""Section `arrival` of params.yaml: what is watched, when, and who is told of a failure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from diger_core.config import STRICT

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class NotifyConfig:
    """How a failure is told. Every channel that is set is tried; one that breaks does not keep the others from being tried."""

    __pydantic_config__: ClassVar = STRICT
    log: bool = True  # as an error of the sensor's tick, in Dagster's log
    webhook: str | None = None  # NAME of the environment variable that holds the URL: a URL may hold a secret, and this file is no place for one
    command: tuple[str, ...] = ()  # program and arguments, no shell; gets the message on standard input
    timeout_seconds: float = 10.0  # for each channel

    def __post_init__(self) -> None:
        if self.webhook is not None and not _VARIABLE.fullmatch(self.webhook):
            raise ValueError("webhook: must be the name of an environment variable that holds the URL, not a URL")
        if self.command and not self.command[0].strip():
            raise ValueError(f"command = {self.command!r}: must begin with a program")
        if not 0 < self.timeout_seconds <= 60:
            raise ValueError(f"timeout_seconds = {self.timeout_seconds!r}: must be above 0 and at most 60")


@dataclass(frozen=True)
class ArrivalConfig:
    """Section `arrival`. By default nothing is watched and nothing starts by itself."""

    __pydantic_config__: ClassVar = STRICT
    enabled: bool = False  # sensors and schedule run from the start; otherwise a person starts them in the UI, under Automation
    watch: str | None = None  # directory or s3:// prefix whose subdirectories are snapshots
    cron: str | None = None  # when to ask again without new files, for instance "0 3 * * *"; null: no schedule
    timezone: str = "UTC"  # of cron
    interval_seconds: int = 60  # between two looks
    at_most: int = 4  # new snapshots that one look reads in full, for their content hash
    look_at: int = 500  # subdirectories, the last ones by name
    allow_older: bool = False  # process snapshots that are older than one which is registered already, oldest first
    release: bool = True  # release an accepted candidate; false: a person launches gate_and_release
    recommend: bool = False  # write recommendations behind a release and behind a cold start
    freshness_hours: float | None = None  # the UI marks a champion that was released longer ago; null: no such mark
    notify: NotifyConfig = field(default_factory=NotifyConfig)

    def __post_init__(self) -> None:
        if self.cron is not None and not (self.cron.startswith("@") or len(self.cron.split()) == 5):
            raise ValueError(f"cron = {self.cron!r}: must have five fields (minute hour day month weekday)")
        for key in ("interval_seconds", "at_most", "look_at"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} = {getattr(self, key)!r}: must be at least 1")
        if not _is_zone(self.timezone):
            raise ValueError(f"timezone = {self.timezone!r}: must be the name of a time zone, such as 'Europe/Berlin'")
        if self.freshness_hours is not None and not self.freshness_hours > 0:
            raise ValueError(f"freshness_hours = {self.freshness_hours!r}: must be above 0, or null")


def _is_zone(name: str) -> bool:
    try:
        return bool(ZoneInfo(name).key)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return False
