"""The Great Expectations suites: they catch what the row rules would let through, and carry no user data."""

import dataclasses
import re
import subprocess
import sys

import pyarrow as pa
import pytest

from orchestration.engine.registry import Volume
from orchestration.params.data import ValidatedInteractionsConfig, ValidatedItemsConfig
from orchestration.validation import expectations
from orchestration.validation.expectations import check_interactions, check_items
from orchestration.validation.interaction_rules import validate_interactions
from orchestration.validation.item_rules import validate_items
from orchestration.validation.quarantine import refusal, report
from orchestration.validation.suites import expected_check_names
from tests.support import snapshot_material as material

ITEMS, EVENTS = ValidatedItemsConfig(), ValidatedInteractionsConfig(latest="2030-01-01")


def failed(checks) -> set[str]:
    return {c["name"] for c in checks if not c["passed"]}


@pytest.fixture(scope="module")
def catalogue():
    return validate_items(material.items(), material.vectors(), ITEMS)


@pytest.fixture(scope="module")
def events(catalogue):
    return validate_interactions(material.interactions(), catalogue.table["item_id"], EVENTS)


@pytest.fixture
def recheck(catalogue, events):
    """The event suites on a kept table that was tampered with."""

    def run(table):
        return check_interactions(material.interactions(), dataclasses.replace(events, table=table), catalogue.table["item_id"], EVENTS)

    return run


def test_valid_tables_pass_and_yield_every_declared_check_once(catalogue, events):
    checks = [*catalogue.checks, *check_items(material.items(), catalogue, ITEMS)]
    names = expected_check_names("validated_items")
    assert [c["name"] for c in report(checks, {}, names)["checks"]] == names
    assert refusal("s", report(checks, {}, names)) is None
    checks = [*events.checks, *check_interactions(material.interactions(), events, catalogue.table["item_id"], EVENTS)]
    names = expected_check_names("validated_interactions")
    assert sorted(c["name"] for c in checks) == sorted(names)
    assert report(checks, {}, names)["passed"]


def test_check_names_are_static_unique_and_fit_for_dagster():
    for stage in ("validated_items", "validated_interactions"):
        names = expected_check_names(stage)
        assert len(names) == len(set(names)) > 15
        assert all(re.fullmatch("[A-Za-z0-9_]+", name) for name in names)
    assert expected_check_names("tokenizer") == []


def test_an_empty_table_fails_every_expectation(catalogue):
    empty = dataclasses.replace(catalogue, table=catalogue.table.slice(0, 0))
    checks = check_items(material.items().slice(0, 0), empty, ITEMS)
    assert failed(checks) == {c["name"] for c in checks}


@pytest.mark.parametrize(
    ("tampered", "names"),
    [
        (lambda t: material.replaced(t, "user_id", {5: None}), {"gx_user_id_not_null"}),
        (lambda t: material.replaced(t, "item_id", {5: 777}), {"gx_item_id_known"}),
        (lambda t: material.replaced(t, "timestamp", {5: 0}), {"gx_timestamp_not_early", "gx_events_in_order"}),
        (lambda t: material.replaced(t, "timestamp", {199: 2**40}), {"gx_timestamp_not_future"}),
        (lambda t: t.append_column("weight", pa.array([-1.0] + [1.0] * 199)), {"gx_weight_not_negative"}),
        (lambda t: t.set_column(0, "user_id", t["user_id"].cast(pa.float64())), {"gx_user_id_type"}),
        (lambda t: t.slice(0, 0), None),
    ],
)
def test_event_suite_catches_what_slipped_past_the_rules(recheck, events, tampered, names):
    found = failed(recheck(tampered(events.table)))
    assert found == names if names else "gx_row_count" in found


def test_item_suite_catches_repeats_disorder_and_vectors(catalogue):
    def recheck(**changes):
        return failed(check_items(material.items(), dataclasses.replace(catalogue, **changes), ITEMS))

    assert recheck(table=material.replaced(catalogue.table, "item_id", {5: 4})) == {"gx_item_id_unique", "gx_item_id_in_order"}
    assert recheck(table=catalogue.table.take(pa.array([1, 0, *range(2, 40)]))) == {"gx_item_id_in_order"}
    assert recheck(table=material.replaced(material.replaced(catalogue.table, "title", {3: None}), "brand", {3: " "})) == {"gx_text_present"}
    spoiled = material.replaced(catalogue.vectors, "vector", {3: [float("nan")] * 4})
    assert recheck(vectors=spoiled) == {"gx_vector_finite"}


def test_received_nulls_are_tolerated_up_to_the_quarantine_share(catalogue, events):
    for nulls, wanted in ((2, set()), (60, {"gx_received_user_id_not_null"})):
        received = material.replaced(material.interactions(), "user_id", dict.fromkeys(range(nulls)))
        assert failed(check_interactions(received, events, catalogue.table["item_id"], EVENTS)) == wanted


def test_row_count_is_held_against_the_previous_snapshot(catalogue, events):
    known = catalogue.table["item_id"]
    assert failed(check_interactions(material.interactions(), events, known, EVENTS, Volume(401, "before"))) == {"gx_received_row_count"}
    assert failed(check_interactions(material.interactions(), events, known, EVENTS, Volume(400, "before"))) == set()


def test_uint64_and_text_ids_reach_the_suite_exactly():
    for ids in (pa.array([2**63, 2**63 + 1, 2**53, 2**53 + 1], pa.uint64()), pa.array(["007", "7", "é", "\u202ex"])):
        table = pa.table({"item_id": ids, "t": list("abcd")})
        assert failed(check_items(table, validate_items(table, None, ITEMS), ITEMS)) == set()


def test_no_result_quotes_data_or_the_clock(recheck, events):
    users = pa.array([f"secret-{u}" for u in events.table["user_id"].to_pylist()])
    table = material.replaced(events.table.set_column(0, "user_id", users), "timestamp", {0: 1_234_567})
    unlimited = dataclasses.replace(EVENTS, latest=None)
    found = check_interactions(
        material.interactions(), dataclasses.replace(events, table=table), pa.chunked_array([pa.array([0])]), unlimited, now=1_799_999_999.0
    )
    assert {"gx_timestamp_not_early", "gx_item_id_known"} <= failed(found)
    for secret in ("secret", "1234567", "18000"):
        assert secret not in repr(found)


def test_an_expectation_that_gives_no_result_fails(monkeypatch, catalogue):
    monkeypatch.setattr(expectations, "_validate", lambda *_: [])
    checks = check_items(material.items(), catalogue, ITEMS)
    assert all(c["severity"] == "critical" for c in checks if not c["passed"])
    assert failed(checks) == {c["name"] for c in checks}


def test_importing_the_stages_does_not_import_great_expectations():
    code = (
        "import sys; import orchestration.validation.validated_items, orchestration.validation.validated_interactions;"
        "assert not {'great_expectations', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
