"""The stored pages beside the UI: the page that belongs to a name, sandboxed, and never a file of the machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from diger_core.store.artefacts import Store
from orchestration.on_dagster import pages
from tests.orchestration.verdict.test_report_compare import publish_run
from tests.support.report_material import fake_inputs, fake_verdict


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


def test_a_report_names_its_run_its_predecessor_and_their_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stored page has no links, as its bytes follow from its inputs; the served one has, all on this server."""
    store, hashes = Store(tmp_path / "store"), []
    monkeypatch.setenv("DIGER_STORE", store.url)
    monkeypatch.setenv("DIGER_CACHE", str(tmp_path / "cache"))
    inputs = fake_inputs(tmp_path / "store", items=60, users=40)
    for place, (bundle, champion) in enumerate((("a" * 64, None), ("b" * 64, "a" * 64))):
        with store.writer("gate") as out:
            out.json("verdict.json", {**fake_verdict((0.01, 0.002, 0.018) if place else None), "candidate": bundle, "champion": champion})
            gate = store.publish(out)
        hashes.append(publish_run(store, f"s{place}", {**inputs, "gate": gate}, place + 3, f"2026-01-0{place + 1}2"))
    first, second = (get(pages.link(hash_)).body.decode() for hash_ in hashes)
    assert '<p class="identity">2026-01-02' not in first
    assert f'<a href="/diger/report/{hashes[0]}">previous s0 ↗</a> · <a href="/diger/compared/{hashes[1]}">compared ↗</a></p></header>' in second
    assert second.count('class="identity"') == 1
    assert "/diger/compared/" not in first
    assert get(f"/diger/compared/{hashes[0]}").status_code == 404
    beside = get(f"/diger/compared/{hashes[1]}")
    assert (beside.status_code, "A and B" in beside.body.decode()) == (200, True)
    assert beside.headers["content-security-policy"].startswith("sandbox")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "params.yaml", "abc", "0" * 12, "champion"])
def test_what_leads_to_no_page_is_not_found(report: str, name: str) -> None:
    assert get(pages.link(name)).status_code == 404
