"""Dagster's webserver behind our doors (doors.py), with the stored pages beside the UI (pages.py).

`python -m orchestration.on_dagster.webserver`, with the options of `dagster-webserver`.
"""

from __future__ import annotations

from typing import Any

from dagster_webserver import app, cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware

from orchestration.on_dagster.doors import Doors
from orchestration.on_dagster.pages import routes


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """The doors come before everything else that the server does; the pages before the UI, which answers to every other path."""

    def build_routes(self) -> list[Any]:
        return [*routes(), *super().build_routes()]  # type: ignore[no-untyped-call]

    def build_middleware(self) -> list[Middleware]:
        return [Middleware(Doors), *super().build_middleware()]


def main() -> None:
    """Runs Dagster's own command with the guarded server in the place of its own."""
    if getattr(app, "DagsterWebserver", None) is not DagsterWebserver:
        raise RuntimeError("dagster_webserver.app makes another server than it did: look at orchestration/on_dagster/webserver.py")
    setattr(app, "DagsterWebserver", GuardedWebserver)  # noqa: B010 - Dagster exports it not, but makes its server by this name
    cli.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
