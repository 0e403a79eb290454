"""Who may ask the local web UI: itself, and programs of this machine; no other page that is open in a browser.

Dagster's webserver answers any Host and executes a mutation that comes as a GET from anywhere, so a page of another site could launch runs
(cross-site request forgery) or, by a name that resolves to 127.0.0.1, read the answers too (DNS rebinding). This middleware stands before all of
its routes, HTTP and WebSocket. A browser always says where a request comes from, in `Origin` or `Sec-Fetch-Site`; what says neither is no page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_SAME = ("same-origin", "none")  # none: typed into the address bar
_READING = ("GET", "HEAD")
_JUDGED = ("host", "origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "content-type")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def refusal(scope: Scope) -> str | None:
    """Why a request is refused, in one line; None where it may pass."""
    given = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    headers, names = dict(given), [name for name, _ in given]
    if double := next((name for name in _JUDGED if names.count(name) > 1), None):
        return f"{double} is given more than once"
    method = "GET" if scope["type"] == "websocket" else str(scope["method"])
    host = headers.get("host", "")
    if _name(host) not in LOOPBACK:
        return f"Host {host[:100]!r} is not this machine's loopback: open http://127.0.0.1:PORT"
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and _place(origin) != host.lower():
        return f"Origin {origin[:100]!r} is another site than {host}"
    if site is not None and site not in _SAME and not _followed_link(scope, method, headers):
        return f"the request comes from another site (Sec-Fetch-Site: {site[:40]})"
    if scope["type"] == "websocket":
        return None
    if method not in (*_READING, "POST", "OPTIONS"):
        return f"{method[:20]} is not a method of this server"
    if not _graphql(scope):
        return None
    if method in _READING and scope.get("query_string"):
        return "GraphQL is asked by POST: a GET changes nothing"
    if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return "GraphQL takes Content-Type: application/json"
    return None


def _followed_link(scope: Scope, method: str, headers: dict[str, str]) -> bool:
    """A link on another site that leads here: it shows a page to the person who followed it and tells the other site nothing."""
    shown = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return scope["type"] == "http" and method == "GET" and shown and not _graphql(scope)


def _graphql(scope: Scope) -> bool:
    """Whether a path may lead to GraphQL, also below a prefix (`--path-prefix`)."""
    return any(part.lower() == "graphql" for part in str(scope["path"]).split("/"))


def _name(host: str) -> str:
    """The name of a Host header, without its port: an SSH tunnel may give the port another number."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _place(origin: str) -> str:
    """host:port of an Origin; empty for `null`, as sandboxed pages and files have it."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # no address at all
        return ""


class Doors:
    """ASGI middleware: answers 403 (WebSocket: closes with 1008) where `refusal` has a reason, and lets no other site frame the pages."""

    def __init__(self, app: App):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        told = refusal(scope)
        if told is None:
            await self._app(scope, receive, _unframed(send) if scope["type"] == "http" else send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": told[:120]})
        else:
            body = f"refused: {told}\n".encode()
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _unframed(send: Send) -> Send:
    async def with_header(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), (b"x-frame-options", b"SAMEORIGIN")]}
        await send(message)

    return with_header
