"""Which Host headers name the service: its own names and those that it is given, and never one that a page of another site made up."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from diger_core.errors import DigerError
from orchestration.serving.http.app import create_app
from orchestration.serving.http.hosts import Hosts
from tests.support.serving_world import LIMITS, ServingWorld


@pytest.mark.parametrize(
    ("listens", "more", "given", "known"),
    [
        ("127.0.0.1", (), "localhost:8000", True),
        ("127.0.0.1", (), "LocalHost", True),
        ("127.0.0.1", (), "127.0.0.1:8000", True),
        ("127.0.0.1", (), "[::1]:8000", True),
        ("127.0.0.1", (), "10.1.2.3:8000", False),
        ("127.0.0.1", (), "evil.example:8000", False),
        ("127.0.0.1", (), "testserver", False),
        ("127.0.0.1", ("lists.shop",), "lists.shop", True),
        ("127.0.0.1", ("lists.shop",), "evil.lists.shop", False),
        ("0.0.0.0", (), "127.0.0.1:8000", True),
        ("0.0.0.0", (), "10.1.2.3:8000", True),  # a probe of Kubernetes, a scrape of Prometheus, a published port
        ("0.0.0.0", (), "[fd00::7]:8000", True),
        ("0.0.0.0", (), "evil.example:8000", False),
        ("0.0.0.0", (), "10.1.2.3.evil.example", False),
        ("::", ("serve",), "serve:8000", True),
        ("shop-3", (), "shop-3:8000", True),
        ("0.0.0.0", ("Serve",), "serve", True),
        ("0.0.0.0", ("serve",), "evil.example", False),
        *(("0.0.0.0", (), odd, False) for odd in ("", "[", "[::1]evil", "evil@localhost", "localhost/x", "*", "localhost:x", "a b")),
    ],
)
def test_a_host_header_is_known_or_not(listens, more, given, known):
    assert Hosts.of(listens, more).know(given) is known


@pytest.mark.parametrize("name", ["*", "*.shop", "http://shop", "shop:8000", "shop/x", "", "a b"])
def test_what_is_no_name_is_refused_at_the_start(name):
    with pytest.raises(DigerError, match=r"--allow-host .*: give a host name or an address alone"):
        Hosts.of("0.0.0.0", (name,))


@pytest.mark.parametrize(("host", "status"), [("10.1.2.3:8000", 503), ("serve:8000", 503), ("evil.example", 400)])
def test_a_service_that_the_network_reaches_answers_to_its_names_alone(tmp_path, host, status):
    """503: nothing was released yet."""
    app = create_app(ServingWorld(tmp_path / "store").follower(), LIMITS, Hosts.of("0.0.0.0", ("serve",)))
    with TestClient(app) as client:
        assert client.get("/health", headers={"Host": host}).status_code == status
