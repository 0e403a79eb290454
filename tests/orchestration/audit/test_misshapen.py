"""Documents of a store that are whole JSON and yet none of ours: each is named, with what to do, and hides nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diger_core.errors import Damaged
from diger_core.store.artefacts import Store
from orchestration.audit.index import Index
from orchestration.audit.journal import Journal
from orchestration.audit.verify import verify_store
from orchestration.engine.registry import lookup, readable

ENTRY: dict[str, Any] = {
    "key": "one-01234567",
    "url": "data/one",
    "content_hash": "0" * 64,
    "files": {"items.parquet": {"sha256": "0" * 64, "bytes": 1, "rows": 1}},
    "previous": None,
    "registered_at": "2026-01-01T00:00:00+00:00",
    "number": 1,
    "compared": None,
}
DEEP = "[" * 100_000


def write(store: Store, text: str, *names: str) -> None:
    assert store.root.create(text.encode(), *names)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.parametrize("text", ["{}", json.dumps(dict.fromkeys(ENTRY)), json.dumps({**ENTRY, "files": []}), json.dumps({**ENTRY, "odd": 1}), DEEP])
def test_a_misshapen_snapshot_entry_is_named_and_hides_no_other(store: Store, text: str) -> None:
    write(store, json.dumps(ENTRY), "snapshots", "one-01234567.json")
    write(store, text, "snapshots", "two-01234567.json")
    known, damaged = readable(store)
    assert [entry.key for entry in known] == ["one-01234567"]
    assert len(damaged) == 1
    assert "snapshots/two-01234567.json: damaged" in damaged[0]
    assert "diger snapshot add" in damaged[0]
    with pytest.raises(Damaged, match="two-01234567"):
        lookup(store, "two-01234567")
    index = Index(store, cached=False)
    assert list(index.snapshots) == ["one-01234567"]
    assert any("two-01234567" in fault for fault in index.damaged())


@pytest.mark.parametrize("record", [{}, {"artefact": None}, {"artefact": ["a"]}])
def test_a_record_that_names_no_artefact_is_damaged(store: Store, record: dict[str, Any]) -> None:
    write(store, json.dumps(record), "records", "tokenizer", "0" * 64, "000001.json")
    with pytest.raises(Damaged, match=r"records/tokenizer/0{64}/000001\.json: damaged, it names no artefact: .* its stage is then computed again"):
        store.lookup("tokenizer", "0" * 64)


@pytest.mark.parametrize(
    "text", [json.dumps({"artefact": "a", "inputs": ["b"], "code": "c"}), json.dumps({"artefact": "a", "number": None}), DEEP, "null"]
)
def test_the_verification_survives_misshapen_records_and_names_each(store: Store, text: str) -> None:
    write(store, text, "records", "tokenizer", "0" * 64, "000001.json")
    faults = verify_store(Index(store, cached=False)).faults
    assert any(f"records/tokenizer/{'0' * 64}/000001.json" in fault for fault in faults)


@pytest.mark.parametrize("text", ["{}", json.dumps({"number": None, "bundle": "b"}), DEEP])
def test_a_misshapen_champion_entry_is_named(store: Store, text: str) -> None:
    write(store, text, "champion", "000001.json")
    with pytest.raises(Damaged, match=r"champion/000001\.json"):
        _ = Index(store, cached=False).releases


def test_scratch_files_that_were_damaged_are_no_evidence_and_no_fault(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "journal").write_bytes(b"\xff\x00 \xfe\n")
    assert Journal(tmp_path / "journal").untouched(Index(store, cached=False)) == set()
    monkeypatch.setenv("DIGER_CACHE", str(tmp_path / "cache"))
    write(store, json.dumps({"artefact": "a", "number": 1, "inputs": {}}), "records", "tokenizer", "0" * 64, "000001.json")
    assert len(Index(store).made) == 1
    (cache,) = (tmp_path / "cache" / "records").iterdir()
    cache.write_bytes(DEEP.encode() + b"\n\xff\n[[], 1]\n")
    assert [made.artefact for made in Index(store).made] == ["a"]
