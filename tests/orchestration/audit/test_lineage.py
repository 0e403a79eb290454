"""Records told as OpenLineage events: to a file, and to a receiver on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestration.audit.index import Index
from orchestration.cli import main

pytest.importorskip("openlineage", reason="openlineage-python is not installed: pip install 'diger[lineage]'")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

TEXT, URI = {"type": "string", "minLength": 1}, {"type": "string", "format": "uri", "pattern": "^[a-z]+:"}
FACETS = {"additionalProperties": {"type": "object", "required": ["_producer", "_schemaURL"], "properties": {"_producer": URI, "_schemaURL": URI}}}
NAMED = {"type": "object", "required": ["namespace", "name"], "properties": {"namespace": TEXT, "name": TEXT, "facets": FACETS}}
# What OpenLineage asks of a RunEvent (OpenLineage.json), and this project beside it: both datasets and an event's type.
SCHEMA = {
    "type": "object",
    "required": ["eventTime", "eventType", "producer", "run", "job", "inputs", "outputs"],
    "properties": {
        "eventTime": {"type": "string", "format": "date-time"},
        "eventType": {"enum": ["START", "COMPLETE"]},
        "producer": URI,
        "run": {"type": "object", "required": ["runId"], "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": FACETS}},
        "job": NAMED,
        "inputs": {"type": "array", "items": NAMED},
        "outputs": {"type": "array", "items": NAMED, "minItems": 1, "maxItems": 1},
    },
}


def diger(audit_world: Any, *arguments: str) -> int:
    try:
        main(["lineage", *arguments, "--store", str(audit_world.store.url)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]], list[str | None]]]:
    """(address, events, keys) of an OpenLineage receiver that wants the key `right` where one is sent."""
    events: list[dict[str, Any]] = []
    keys: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            keys.append(self.headers.get("Authorization"))
            refused = keys[-1] not in (None, "Bearer right")
            if not refused:
                assert self.path == "/api/v1/lineage"
                events.append(json.loads(body))
            self.send_response(401 if refused else 201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", events, keys
    server.shutdown()
    server.server_close()


def test_the_events_hold_to_the_schema_and_name_every_record(audit_world, tmp_path):
    assert diger(audit_world, "--out", str(tmp_path / "events.jsonl")) == 0
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    checker = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
    assert [error.message for event in events for error in checker.iter_errors(event)] == []
    made = Index(audit_world.store, cached=False).made
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"] * len(made)
    for one, begun, done in zip(made, events[::2], events[1::2], strict=True):
        assert begun["run"] == done["run"]
        assert begun["eventTime"] <= done["eventTime"]
        assert done["job"]["name"] == one.stage
        assert done["outputs"][0]["facets"]["version"]["datasetVersion"] == one.artefact
        versions = {each["facets"]["version"]["datasetVersion"] for each in done["inputs"]}
        assert versions >= set(one.inputs.values())
        tags = {tag["key"]: tag["value"] for tag in done["run"]["facets"]["tags"]["tags"]}
        assert (tags.get("snapshot"), tags["key"]) == (one.snapshot, one.key)  # the encoder serves all snapshots
        assert done["inputs"] or one.stage == "encoder"
    assert len({event["run"]["runId"] for event in events}) == len(made)


def test_an_artefact_is_the_same_dataset_where_it_is_made_and_where_it_is_used(audit_world, tmp_path):
    diger(audit_world, "--out", str(tmp_path / "events.jsonl"), "--snapshot", audit_world.snapshots[0].key)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    made = {(each["namespace"], each["name"], each["facets"]["version"]["datasetVersion"]) for event in events for each in event["outputs"]}
    used = {(each["namespace"], each["name"], each["facets"]["version"]["datasetVersion"]) for event in events for each in event["inputs"]}
    outside = {name.rpartition("/")[2] for _, name, _ in used - made}
    assert outside == {"items.parquet", "interactions.parquet"}  # the snapshot's own files, where the chain begins


def test_a_place_is_named_whole_and_as_it_is(tmp_path, monkeypatch):
    from orchestration.audit.lineage_events import _address

    monkeypatch.chdir(tmp_path)
    assert _address("store/records/a") == ("file", f"{tmp_path}/store/records/a")  # else the stores of two shops, each called store, were one
    assert _address(f"{tmp_path}/what?#1") == ("file", f"{tmp_path}/what?#1")
    assert _address("s3://bucket/shop/artefacts/gate") == ("s3://bucket", "shop/artefacts/gate")


def test_a_receiver_gets_them_and_the_same_again(audit_world, receiver, monkeypatch):
    url, events, keys = receiver
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "right")
    assert diger(audit_world, "--to", url, "--snapshot", audit_world.snapshots[0].key) == 0
    first = list(events)
    assert diger(audit_world, "--to", url, "--snapshot", audit_world.snapshots[0].key) == 0
    assert first
    assert events == first * 2
    assert set(keys) == {"Bearer right"}


def test_what_is_wrong_is_said_in_a_line(audit_world, receiver, tmp_path, monkeypatch, capsys):
    url = receiver[0]
    (tmp_path / "there").touch()

    def told(*arguments: str, code: int = 1) -> str:
        assert diger(audit_world, *arguments) == code
        return capsys.readouterr().err

    assert "give --to URL or --out FILE" in told(code=2)
    assert "name a new file" in told("--out", str(tmp_path / "there"))
    assert "knows monday-" in told("--out", str(tmp_path / "a"), "--snapshot", "friday")
    assert "there is nothing to tell" in told("--out", str(tmp_path / "a"), "--since", "2999-01-01")
    assert "give a date or a time" in told("--out", str(tmp_path / "a"), "--since", "yesterday")
    assert "no user, password or key" in told("--to", "https://me:secret@example.org")
    assert "secret" not in told("--to", "https://me:secret@example.org")
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "wrong")
    assert "unencrypted" in told("--to", "http://marquez.example.org")
    refused = told("--to", url)
    assert "answered 401" in refused
    assert "OPENLINEAGE_API_KEY" in refused
    assert "wrong" not in refused
    assert not (tmp_path / "a").exists()


def test_nobody_answers(audit_world, capsys, monkeypatch):
    monkeypatch.setattr("orchestration.audit.lineage_events.RETRIES", {"total": 0})
    assert diger(audit_world, "--to", "http://127.0.0.1:9") == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_where_nothing_is_asked_for_nothing_is_written(audit_world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert diger(audit_world) == 2
    assert list(Path(tmp_path).iterdir()) == []
