"""Around every request: whether its Host is known, the limit on its size, and a line of the log and the metrics when it is over."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from orchestration.params.serve import ServeConfig
from orchestration.serving.http.hosts import Hosts
from orchestration.serving.http.metrics import Metrics

LOG = logging.getLogger("diger.serve")
PATHS = ("/recommend", "/similar", "/health", "/version", "/metrics", "/openapi.json")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class Named:
    """400 where the Host is none of the service's names."""

    def __init__(self, app: App, hosts: Hosts):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = [value for name, value in scope.get("headers", ()) if name == b"host"]
        if scope["type"] == "http" and not (len(given) == 1 and self._hosts.know(given[0].decode("latin-1"))):
            await _refuse(send, 400, "the Host header is none of this service's names: who runs the service adds one by --allow-host NAME")
            return
        await self._app(scope, receive, send)


class Limited:
    """Reads the whole body first: 413 where it is too large, 408 where it takes too long."""

    def __init__(self, app: App, config: ServeConfig):
        self._app, self._config = app, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._config.max_body_bytes
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        body = bytearray()
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                more = int(declared) <= limit if declared.isdigit() else True
                too_large = not more
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return  # the client is gone
                    body += message.get("body", b"")
                    too_large = len(body) > limit
                    more = message.get("more_body", False) and not too_large
        except TimeoutError:
            await _refuse(send, 408, f"the request's body took more than {self._config.timeout_seconds:g} s (serve.timeout_seconds)")
            return
        if too_large:
            await _refuse(send, 413, f"the request has more than {limit} bytes (serve.max_body_bytes): send a shorter history")
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, again, send)


class Observed:
    """Counts and logs each request; what nobody caught becomes 500 and a line with the error's type and frames."""

    def __init__(self, app: App, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"  # nothing that a caller chose gets into logs and labels
        started, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception as error:  # noqa: BLE001 - the last resort: it is logged, and the caller gets an answer
            LOG.error("error", exc_info=error, extra={"told": {"path": path}})
            if not status:
                await _refuse(told, 500, "an unexpected error; the service's log has it")
        seconds = time.perf_counter() - started
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        level = logging.DEBUG if path in ("/health", "/metrics") else logging.INFO
        LOG.log(level, "request", extra={"told": {"path": path, "status": status, "ms": round(1000 * seconds, 1)}})


async def _refuse(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
