"""`dagster dev` with our webserver in the place of its own: `python -m orchestration.on_dagster.dev`, with the options of `dagster dev`."""

from __future__ import annotations

from collections.abc import Sequence
from subprocess import Popen
from typing import Any

from dagster._cli import dev

OWN, GUARDED = "dagster_webserver", "orchestration.on_dagster.webserver"


def main() -> None:
    """Runs Dagster's command. It starts its processes by `open_ipc_subprocess`, the webserver as `python -m dagster_webserver`."""
    start = dev.open_ipc_subprocess  # type: ignore[attr-defined]
    started = False

    def guarded(parts: Sequence[str], **options: Any) -> Popen[Any]:
        nonlocal started
        if not started and OWN not in parts:  # the webserver comes first; it must never run without its doors
            raise RuntimeError("dagster dev starts its webserver in another way than it did: look at orchestration/on_dagster/dev.py")
        started = True
        made: Popen[Any] = start([GUARDED if part == OWN else part for part in parts], **options)
        return made

    dev.open_ipc_subprocess = guarded  # type: ignore[attr-defined]
    dev.dev_command(auto_envvar_prefix="DAGSTER_DEV")


if __name__ == "__main__":
    main()
