"""What a record says of the code that made it."""

from __future__ import annotations

import pytest

from orchestration.engine import provenance


def test_outside_a_checkout_the_image_names_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_git", lambda *arguments: None)
    monkeypatch.delenv("DIGER_COMMIT", raising=False)
    assert provenance.code.__wrapped__()["commit"] == "unknown"
    monkeypatch.setenv("DIGER_COMMIT", "abc123")
    assert provenance.code.__wrapped__()["commit"] == "abc123"
    assert provenance.code.__wrapped__()["dirty_diff"] == "unknown"


def test_a_checkout_knows_its_commit_better_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_git", lambda *arguments: b"def456\n" if arguments[0] == "rev-parse" else b"")
    monkeypatch.setenv("DIGER_COMMIT", "abc123")
    assert provenance.code.__wrapped__()["commit"] == "def456"
    assert provenance.code.__wrapped__()["dirty_diff"] is None
