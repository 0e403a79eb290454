"""The runner: a key is a pure function of params and inputs; the same work is done once; a lone click says what is missing."""

import json
import re

import pytest

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.engine import registry
from orchestration.engine.registry import lookup, register, registered, snapshot_key
from orchestration.engine.runner import MissingInput, Session
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from tests.support.at_once import at_once
from tests.support.snapshot_material import interactions, items, replaced, write

EARLY = ("raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences")


def session(tmp_path, name="snap", params=None, inter=None, catalogue=None, **provenance):
    store = Store(tmp_path / "store")
    directory = write(tmp_path / name, inter if inter is not None else interactions(), catalogue if catalogue is not None else items())
    return Session(store, build_params(params or {}), register(store, str(directory)), provenance=provenance)


def run_all(s: Session):
    return {name: s.materialise(BY_NAME[name]) for name in EARLY}


def test_a_second_run_recomputes_nothing_and_leads_to_the_same_artefacts(tmp_path):
    first = run_all(session(tmp_path))
    second = run_all(session(tmp_path))
    assert not any(r.reused for r in first.values())
    assert all(r.reused for r in second.values())
    assert {n: r.artefact.hash for n, r in first.items()} == {n: r.artefact.hash for n, r in second.items()}
    store = Store(tmp_path / "store")
    assert all(len(store.records(n, r.key)) == 1 for n, r in first.items())


def test_another_row_order_is_another_snapshot_with_the_same_validated_content(tmp_path):
    first = run_all(session(tmp_path))
    shuffled = run_all(session(tmp_path / "elsewhere", inter=interactions().take(list(range(199, -1, -1)))))
    assert shuffled["raw_interactions"].key != first["raw_interactions"].key
    assert shuffled["validated_interactions"].artefact.hash == first["validated_interactions"].artefact.hash
    assert shuffled["sequences"].artefact.hash == first["sequences"].artefact.hash


def test_params_of_other_stages_do_not_change_a_key(tmp_path):
    first = run_all(session(tmp_path))
    other = session(tmp_path, params={"tokenizer": {"epochs": 3}, "cluster": {"workers": 1}})
    assert all(r.reused for r in run_all(other).values())
    own = session(tmp_path, params={"sequences": {"use_weights": True}})
    assert own.resolve(BY_NAME["sequences"])[0] != first["sequences"].key


def test_a_lone_launch_names_what_is_missing(tmp_path):
    s = session(tmp_path)
    with pytest.raises(MissingInput, match=r"raw_items was never made for snapshot snap-.*materialise raw_items first"):
        s.materialise(BY_NAME["validated_items"])


def test_a_failed_verdict_stops_the_next_stage_however_it_is_launched(tmp_path):
    broken = replaced(interactions(), "item_id", dict.fromkeys(range(60), 999_999))
    s = session(tmp_path, inter=broken)
    for name in EARLY[:4]:
        s.materialise(BY_NAME[name])
    for attempt in (s, session(tmp_path, inter=broken)):
        with pytest.raises(DigerError, match=r"validated_interactions.*30"):
            attempt.materialise(BY_NAME["sequences"])


def test_records_hold_provenance_and_artefacts_do_not(tmp_path):
    result = run_all(session(tmp_path, dagster_run_id="run-1"))["sequences"]
    record = Store(tmp_path / "store").records("sequences", result.key)[0]
    assert record["artefact"] == result.artefact.hash
    assert record["dagster_run_id"] == "run-1"
    assert set(record["inputs"]) == {"validated_items", "validated_interactions"}
    assert record["code"]["lock"]
    assert record["peak_memory_mb"] > 50
    assert record["seconds"] > 0
    assert re.match(r"\d{4}-", record["started_at"])
    assert "run-1" not in json.dumps(result.artefact.manifest)
    assert "_at" not in json.dumps(result.artefact.manifest)


def test_a_lost_artefact_is_made_again_under_the_same_key(tmp_path):
    first = run_all(session(tmp_path))["sequences"]
    store = Store(tmp_path / "store")
    store.root.remove_directory("artefacts", "sequences", first.artefact.hash)
    again = run_all(session(tmp_path))["sequences"]
    assert not again.reused
    assert again.artefact.hash == first.artefact.hash
    assert len(store.records("sequences", first.key)) == 2


def _launch(tmp_path):
    store = Store(tmp_path / "store")
    results = run_all(Session(store, build_params({}), register(store, str(tmp_path / "snap"))))  # written before: two writers at once race
    return {name: (r.key, r.artefact.hash, r.reused) for name, r in results.items()}


def test_the_same_work_launched_twice_at_once_is_done_once(tmp_path):
    write(tmp_path / "snap", interactions(), items())
    with at_once().Pool(2) as pool:
        one, two = pool.map(_launch, [tmp_path, tmp_path])
    store = Store(tmp_path / "store")
    for name in EARLY:
        assert one[name][:2] == two[name][:2]
        assert len(store.records(name, one[name][0])) == 1


def test_registering_the_same_bytes_twice_changes_nothing(tmp_path):
    store = Store(tmp_path / "store")
    directory = write(tmp_path / "snap", interactions(), items())
    assert register(store, str(directory)) == register(store, str(directory))
    write(directory, interactions(26), items())
    later = register(store, str(directory))
    assert [e.key for e in registered(store)][-1] == later.key
    assert later.compared is None, "nothing was released: nothing to compare with"
    assert later.previous["key"] == registered(store)[0].key
    assert len(registered(store)) == 2


def test_the_order_of_snapshots_does_not_hang_on_a_clock(tmp_path, monkeypatch):
    class Ahead(registry.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 1, tzinfo=tz)

    store, directory = Store(tmp_path / "store"), tmp_path / "snap"
    monkeypatch.setattr(registry, "datetime", Ahead)
    register(store, str(write(directory, interactions(), items())))
    monkeypatch.undo()
    two = register(store, str(write(directory, interactions(26), items())))
    three = register(store, str(write(directory, interactions(27), items())))
    assert three.previous["key"] == two.key
    assert [entry.number for entry in registered(store)] == [1, 2, 3]


def test_the_same_bytes_are_one_snapshot_and_are_read_where_they_are(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    write(tmp_path / "a" / "monday", interactions(), items())
    monkeypatch.chdir(tmp_path / "a")
    first = register(store, "monday")
    monkeypatch.chdir(tmp_path)
    again = register(store, str(tmp_path / "a" / "monday"))
    assert (again.key, again.url) == (first.key, str(tmp_path / "a" / "monday"))
    (tmp_path / "a" / "monday").rename(tmp_path / "moved")
    with pytest.raises(DigerError, match="give its new place"):
        Session(store, build_params({}), lookup(store, first.key)).materialise(BY_NAME["raw_items"])
    moved = register(store, str(tmp_path / "moved"))
    assert moved.key == first.key
    assert len(registered(store)) == 1
    assert not Session(store, build_params({}), lookup(store, first.key)).materialise(BY_NAME["raw_items"]).reused


def test_changed_bytes_under_a_registered_key_are_refused(tmp_path):
    s = session(tmp_path)
    write(tmp_path / "snap", interactions(26), items())
    with pytest.raises(DigerError, match=r"interactions\.parquet"):
        s.materialise(BY_NAME["raw_interactions"])


@pytest.mark.parametrize("key", ["../../evil", "a\nb", "x" * 5000, "", "unknown-00000000"])
def test_partition_keys_are_validated(tmp_path, key):
    with pytest.raises(DigerError):
        lookup(Store(tmp_path / "store"), key)


def test_keys_are_readable_and_safe():
    assert snapshot_key("s3://bucket/shop/2026-11-01/", "abcdef0123") == "2026-11-01-abcdef01"
    assert snapshot_key("/x/../..weird name\n", "abcdef0123") == "weird-name-abcdef01"
