"""Tells people of a failure: log, webhook, command. What breaks here is told, never raised: a notifier must not stop the one who calls it."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass

from orchestration.params.arrival import NotifyConfig


@dataclass(frozen=True)
class Trouble:
    """One failure: where, and the line that says what to do. Never user data beyond what that line names."""

    job: str
    snapshot: str
    stage: str
    message: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.job} failed for snapshot {self.snapshot} at {self.stage}: {self.message} (run {self.run_id})"


def notify(trouble: Trouble, config: NotifyConfig, log: Callable[[str], object]) -> list[str]:
    """Sends the message over every channel; returns those that failed, without addresses, which may hold secrets."""
    failed = []
    if config.log:
        log(str(trouble))
    for name, send in (("webhook", _post), ("command", _execute)):
        if getattr(config, name):
            try:
                send(trouble, config)
            except Exception as error:  # noqa: BLE001 - whatever it is, the failure that is being told matters more
                failed.append(f"{name}: {_explain(error)}")
    for line in failed:
        log(f"notification failed: {line}")
    return failed


def _post(trouble: Trouble, config: NotifyConfig) -> None:
    assert config.webhook is not None
    url = os.environ.get(config.webhook, "")
    if not url.startswith(("https://", "http://")):
        raise LookupError(f"environment variable {config.webhook} holds no http(s) URL: set it for the daemon's process")
    body = json.dumps({"text": str(trouble), **asdict(trouble)}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=config.timeout_seconds) as reply:
        reply.read(1024)


def _execute(trouble: Trouble, config: NotifyConfig) -> None:
    subprocess.run(
        list(config.command), input=str(trouble) + "\n", text=True, timeout=config.timeout_seconds, check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _explain(error: Exception) -> str:
    if isinstance(error, LookupError):
        return str(error.args[0])
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    if isinstance(error, subprocess.CalledProcessError):
        return f"ended with exit code {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired | TimeoutError):
        return "no answer in time"
    return type(error).__name__
