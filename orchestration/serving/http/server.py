"""Binds the address, loads the champion and serves until a signal ends it."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from diger_core.errors import DigerError
from orchestration.params.serve import ServeConfig
from orchestration.serving.http.app import create_app
from orchestration.serving.http.hosts import Hosts
from orchestration.serving.http.logs import configure
from orchestration.serving.online.follow import Follower

BACKLOG = 2048
SPARE = 64  # connections beside those whose requests wait: health checks, metrics, refusals


def serve(follower: Follower, config: ServeConfig, host: str, port: int, hosts: tuple[str, ...], ready: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; requests that are being answered are answered first. `port` 0: a free one. `hosts`: more names beside `host`
    and loopback's under which it may be asked. `ready`: told the URL once the address is bound. DigerError where it is taken."""
    known = Hosts.of(host, hosts)
    listening = _bound(host, port)
    configure()
    follower.look()
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{listening.getsockname()[1]}")
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(follower, config, known),
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=config.max_waiting + SPARE,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=max(1, round(config.timeout_seconds)),
        )
    )
    server.run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)  # whoever asks while the champion is loaded waits, and is not turned away
    except OSError as error:
        listening.close()
        raise DigerError(f"--host {host} --port {port}: cannot listen there ({error.strerror}): choose another port, or 0 for a free one") from error
    return listening
