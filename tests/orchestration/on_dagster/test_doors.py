"""The doors of the web UI: pages of other sites get nothing and change nothing, whatever they can make a browser send."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestration.on_dagster.doors import Doors, refusal

HOME = {"host": "127.0.0.1:3000"}
JSON = {"content-type": "application/json"}


def scope(method: str = "GET", path: str = "/", query: bytes = b"", kind: str = "http", **headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": kind, "method": method, "path": path, "query_string": query, "headers": named}


def twice(name: str, first: str, second: str, **headers: str) -> dict[str, Any]:
    """A request that names one header two times."""
    given = scope("POST", "/graphql", **JSON, **headers)
    return {**given, "headers": [*given["headers"], (name.encode(), first.encode()), (name.encode(), second.encode())]}


@pytest.mark.parametrize(
    "given",
    [
        scope(host="127.0.0.1:3000"),
        scope(host="localhost:3000", sec_fetch_site="none"),
        scope(host="[::1]:3000", sec_fetch_site="same-origin"),
        scope(host="LOCALHOST:8080"),  # an SSH tunnel with a port of its own
        scope(
            "POST",
            "/graphql",
            **HOME,
            **{"content-type": "application/json; charset=utf-8"},
            origin="http://127.0.0.1:3000",
            sec_fetch_site="same-origin",
        ),
        scope("POST", "/graphql", **HOME, **JSON),  # a program
        scope("GET", "/graphql", **HOME),  # the playground
        scope("POST", "/report_asset_materialization/x", **HOME),
        scope("GET", "/runs/1", **HOME, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document"),  # a link in a mail
        scope(kind="websocket", path="/graphql", **HOME, origin="http://127.0.0.1:3000"),
        scope(kind="websocket", path="/graphql", **HOME),
    ],
)
def test_the_ui_itself_and_programs_of_this_machine_pass(given):
    assert refusal(given) is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (scope(), "Host ''"),
        (scope(host="evil.example"), "Host"),
        (scope(host="evil.example:3000", origin="http://evil.example:3000", sec_fetch_site="same-origin"), "Host"),  # rebound
        (scope(host="127.0.0.1.evil.example"), "Host"),
        (scope(host="localhost.evil.example:3000"), "Host"),
        (scope(host="0.0.0.0:3000"), "Host"),
        (scope("POST", "/graphql", **HOME, **JSON, origin="http://evil.example"), "Origin"),
        (scope("POST", "/graphql", **HOME, **JSON, origin="null"), "Origin"),
        (scope("POST", "/graphql", **HOME, **JSON, origin="http://127.0.0.1:9999"), "Origin"),  # another program's page
        (scope("POST", "/graphql", **HOME, **JSON, origin="http://localhost:3000"), "Origin"),
        (scope("POST", "/graphql", **HOME, **JSON, sec_fetch_site="cross-site"), "another site"),
        (scope("POST", "/graphql", **HOME, **JSON, sec_fetch_site="same-site"), "another site"),
        (scope("GET", "/server_info", **HOME, sec_fetch_site="cross-site", sec_fetch_mode="no-cors", sec_fetch_dest="image"), "another site"),
        (scope("GET", "/", **HOME, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="iframe"), "another site"),
        (scope("GET", "/graphql", **HOME, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document"), "another site"),
        (scope("GET", "/graphql", b"query=mutation{setNuxSeen}", **HOME), "by POST"),
        (scope("GET", "/graphql", b"%71uery=mutation{setNuxSeen}", **HOME), "by POST"),
        (scope("GET", "/graphql/", b"query=x", **HOME), "by POST"),
        (scope("HEAD", "/graphql", b"query=x", **HOME), "by POST"),
        (scope("POST", "/graphql", b"query=mutation{x}", **HOME), "Content-Type"),
        (scope("POST", "/graphql", **HOME, **{"content-type": "text/plain"}), "Content-Type"),
        (scope("POST", "/graphql", **HOME, **{"content-type": "application/x-www-form-urlencoded"}), "Content-Type"),
        (scope("POST", "/graphql", **HOME, **{"content-type": "text/plain; application/json"}), "Content-Type"),
        (scope("POST", "/report_asset_materialization/x", **HOME, origin="http://evil.example"), "Origin"),
        (scope("POST", "/report_asset_materialization/x", **HOME, sec_fetch_site="cross-site"), "another site"),
        (scope("DELETE", "/", **HOME), "method"),
        (scope("POST", "/graphql", **HOME, **JSON, origin="http://[::1"), "Origin"),  # no address
        (scope("GET", "/prefix/graphql", b"query=mutation{x}", **HOME), "by POST"),
        (scope("POST", "/prefix/graphql", **HOME, **{"content-type": "text/plain"}), "Content-Type"),
        (scope("GET", "/a/graphql", **HOME, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document"), "another site"),
        (twice("host", "evil.example", "127.0.0.1:3000"), "host is given more than once"),
        (twice("origin", "http://evil.example", "http://127.0.0.1:3000", **HOME), "origin is given more than once"),
        (scope(kind="websocket", path="/graphql", host="evil.example", origin="http://evil.example"), "Host"),
        (scope(kind="websocket", path="/graphql", **HOME, origin="http://evil.example"), "Origin"),
        (scope(kind="websocket", path="/graphql", **HOME, origin="null"), "Origin"),
        (scope(kind="websocket", path="/graphql", **HOME, sec_fetch_site="cross-site"), "another site"),
    ],
)
def test_pages_of_other_sites_are_refused(given, why):
    assert why in str(refusal(given))


def answered(given: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """(what the middleware sends, what reached the application)."""
    sent: list[dict[str, Any]] = []
    reached: list[str] = []

    async def app(scope, receive, send):
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    asyncio.run(Doors(app)(given, receive, send))
    return sent, reached


def test_a_refused_request_reaches_nothing_and_is_told_why():
    sent, reached = answered(scope(host="evil.example"))
    assert (sent[0]["status"], reached) == (403, [])
    assert b"refused: Host" in sent[1]["body"]
    sent, reached = answered(scope(kind="websocket", path="/graphql", host="evil.example"))
    assert (sent[0]["type"], sent[0]["code"], reached) == ("websocket.close", 1008, [])


def test_an_answer_may_not_be_framed_by_another_site():
    sent, reached = answered(scope(**HOME))
    assert reached == ["/"]
    assert (b"x-frame-options", b"SAMEORIGIN") in sent[0]["headers"]
