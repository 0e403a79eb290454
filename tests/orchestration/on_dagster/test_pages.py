"""The stored pages beside the UI: the page that belongs to a name, sandboxed, and never a file of the machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from diger_core.store.artefacts import Store
from orchestration.on_dagster import pages


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hash of a study with a page, in the store of the UI."""
    store = Store(tmp_path / "store")
    with store.writer("decay_search") as out:
        out.bytes("report.html", b"<h1>A study</h1>")
        out.facts.update(verdict="Better <script>")
        made = store.publish(out)
    store.append_record("decay_search", "k" * 64, {"artefact": made.hash, "inputs": {}, "snapshot": "monday-1", "started_at": "2026-01-02T03:04:05"})
    monkeypatch.setenv("DIGER_STORE", store.url)
    monkeypatch.setenv("DIGER_CACHE", str(tmp_path / "cache"))
    return made.hash


def get(path: str) -> Response:
    """What the first route that fits answers."""
    for route in pages.routes():
        scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
        match, child = route.matches(scope)
        if match.value == 2:
            return asyncio.run(route.endpoint(Request({**scope, **child})))
    raise AssertionError(f"no route for {path}")


def test_a_page_is_found_by_its_hash_and_has_an_origin_of_its_own(report: str) -> None:
    answer = get(pages.link(report[:12]))
    assert (answer.status_code, answer.body) == (200, b"<h1>A study</h1>")
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in answer.headers["content-security-policy"], "its scripts could launch runs"


def test_the_list_names_what_was_made_and_escapes_it(report: str) -> None:
    told = get("/diger/reports").body.decode()
    assert f'<a href="/diger/report/{report}">' in told
    assert "monday-1" in told
    assert "Better &lt;script&gt;" in told


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "params.yaml", "abc", "0" * 12, "champion"])
def test_what_leads_to_no_page_is_not_found(report: str, name: str) -> None:
    assert get(pages.link(name)).status_code == 404
