"""The server: the address is bound before it is told, and one that is taken is named."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from diger_core.errors import DigerError
from orchestration.serving.http import server
from tests.support.serving_world import LIMITS, ServingWorld


def test_who_asks_as_soon_as_the_address_is_told_is_answered(tmp_path, monkeypatch):
    """Before anything serves, too: health checks of a new machine see 503, no refused connection."""
    running, told = [], []

    def run(self, sockets=None):
        running.append(self)
        with socket.create_connection(told[0].removeprefix("http://").split(":"), timeout=5):
            pass  # nobody accepts yet, and it is not refused

        async def ended():
            async with httpx.AsyncClient() as client:
                told.append((await client.get(f"{told[0]}/health")).status_code)
            self.should_exit = True

        async def both():
            await asyncio.gather(self.serve(sockets=sockets), ended())

        asyncio.run(both())

    monkeypatch.setattr(uvicorn.Server, "run", run)
    server.serve(ServingWorld(tmp_path / "store").follower(), LIMITS, "127.0.0.1", 0, (), told.append)
    assert (len(running), told[1]) == (1, 503)


def test_a_service_that_the_network_reaches_starts_with_its_own_names_alone(tmp_path, monkeypatch):
    """As `diger serve --host 0.0.0.0`; the socket of the test stays on loopback."""
    bound, found = server._bound, []

    def run(self, sockets=None):
        with TestClient(self.config.app) as client:
            found.extend(client.get("/health", headers={"Host": host}).status_code for host in ("evil.example", "10.1.2.3:8000", "lists"))
        sockets[0].close()

    monkeypatch.setattr(server, "_bound", lambda host, port: bound("127.0.0.1", port))
    monkeypatch.setattr(uvicorn.Server, "run", run)
    for hosts in ((), ("lists",)):
        server.serve(ServingWorld(tmp_path / "store").follower(), LIMITS, "0.0.0.0", 0, hosts, lambda url: None)
    assert found == [400, 503, 400, 400, 503, 503]


def test_an_address_that_is_taken_is_named_with_the_remedy(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DigerError, match=f"--host 127.0.0.1 --port {port}: cannot listen there .*choose another port"):
            server.serve(ServingWorld(tmp_path / "store").follower(), LIMITS, "127.0.0.1", port, (), print)
