"""Row rules: ids survive exactly, order is canonical, and each bad row leaves with its reason."""

import datetime

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from diger_core.errors import DigerError
from orchestration.engine.registry import Volume
from orchestration.params.data import ValidatedInteractionsConfig, ValidatedItemsConfig
from orchestration.validation.interaction_rules import CHECKS, time_limits, validate_interactions
from orchestration.validation.item_rules import validate_items
from orchestration.validation.quarantine import refusal, report
from tests.support import snapshot_material as material

ANY = ValidatedItemsConfig(max_quarantined=0.9)
EVENTS = ValidatedInteractionsConfig(max_quarantined=0.9, latest="2030-01-01")
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
leading_zeros = st.integers(0, 999).map(lambda n: f"{n:08d}")


def known(values, kind=None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def events(users, item_ids, **more) -> pa.Table:
    return pa.table({"user_id": users, "item_id": item_ids, "pos": pa.array(range(len(users))), **more})


def reasons(validated) -> dict[int, str]:
    return {row["row"]: row["reason"] for row in validated.quarantine.to_pylist()}


def through_parquet(table: pa.Table, path) -> pa.Table:
    pq.write_table(table, path)
    return pq.read_table(path)


def assert_ids_survive(ids, kind, path) -> None:
    """Through Parquet, both validations and Parquet again, as a set and in canonical order."""
    column = pa.array(ids, kind)
    items = validate_items(through_parquet(pa.table({"item_id": column, "title": ["x"] * len(ids)}), path), None, ANY)
    expected = sorted(ids, key=lambda v: v.encode() if isinstance(v, str) else v)
    assert through_parquet(items.table, path)["item_id"].to_pylist() == expected
    kept = validate_interactions(through_parquet(events(column, column), path), items.table["item_id"], EVENTS).table
    again = through_parquet(kept, path)
    assert again["user_id"].to_pylist() == expected
    assert again["item_id"].to_pylist() == expected


@SETTINGS
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=20, unique=True))
def test_int64_ids_survive_exactly(tmp_path, ids):
    assert_ids_survive(ids, pa.int64(), tmp_path / "t.parquet")


@SETTINGS
@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=20, unique=True))
def test_uint64_ids_survive_exactly(tmp_path, ids):
    assert_ids_survive(ids, pa.uint64(), tmp_path / "t.parquet")


@SETTINGS
@given(st.lists(texts | leading_zeros, min_size=2, max_size=20, unique=True), st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]))
def test_text_ids_survive_exactly(tmp_path, ids, kind):
    assert_ids_survive(ids, kind, tmp_path / "t.parquet")


def test_neighbours_above_2_to_53_and_at_2_to_63_stay_apart():
    ids = [2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1]
    items = validate_items(pa.table({"item_id": pa.array(ids, pa.uint64()), "t": ["a"] * 6}), None, ANY)
    assert items.table["item_id"].to_pylist() == ids
    kept = validate_interactions(events(pa.array([1] * 6), pa.array(ids, pa.uint64())), items.table["item_id"], EVENTS)
    assert kept.table["item_id"].to_pylist() == ids


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()])
def test_every_integer_width_becomes_int64(kind):
    items = validate_items(pa.table({"item_id": pa.array([3, 1, 2], kind), "t": ["a"] * 3}), None, ANY)
    assert items.table["item_id"].type == pa.int64()
    assert items.table["item_id"].to_pylist() == [1, 2, 3]


def test_events_meet_a_catalogue_of_the_other_integer_type():
    kept = validate_interactions(events([1, 1, 1], pa.array([5, -5, 7])), known([5, 2**63, 2**64 - 5], pa.uint64()), EVENTS)
    assert kept.table["item_id"].to_pylist() == [5]
    assert kept.table["item_id"].type == pa.uint64()
    kept = validate_interactions(events([1, 1], pa.array([5, 2**64 - 1], pa.uint64())), known([5, -1]), EVENTS)
    assert kept.table["item_id"].to_pylist() == [5]


def test_dictionary_encoded_columns_are_decoded():
    items = pa.table({"item_id": pa.array(["b", "a"]).dictionary_encode(), "t": pa.array(["x", "y"]).dictionary_encode()})
    assert validate_items(items, None, ANY).table.to_pydict() == {"item_id": ["a", "b"], "t": ["y", "x"]}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_row_order_changes_nothing_but_row_numbers(seed):
    items = material.items().append_column("n", pa.array(range(40)))
    items = material.replaced(material.replaced(items, "item_id", {7: 3, 9: 3, 11: None}), "title", {3: "z", 7: "a", 9: "m"})
    rows = material.interactions()
    rows = rows.append_column("weight", pa.array(np.arange(rows.num_rows) % 3 * 0.5)).append_column("event_type", pa.array(["view", "buy"] * 100))
    rows = material.replaced(rows, "timestamp", {i: material.START for i in range(60)})
    order = np.random.default_rng(seed).permutation(rows.num_rows)
    catalogue = validate_items(items, None, ANY)
    again = validate_items(items.take(pa.array(np.random.default_rng(seed).permutation(40))), None, ANY)
    assert again.table.equals(catalogue.table)
    assert again.counts == catalogue.counts
    first = validate_interactions(rows, catalogue.table["item_id"], EVENTS)
    second = validate_interactions(rows.take(pa.array(order)), again.table["item_id"], EVENTS)
    assert second.table.equals(first.table)
    assert second.counts == first.counts


def test_events_are_ordered_by_user_then_pos_then_item():
    rows = pa.table(
        {"user_id": ["b", "a", "b", "b", "é", "a"], "item_id": [1, 2, 0, 2, 0, 1], "pos": [1, 5, 1, 0, 0, 5], "timestamp": [material.START] * 6}
    )
    kept = validate_interactions(rows, known([0, 1, 2]), EVENTS).table
    assert kept["user_id"].to_pylist() == ["a", "a", "b", "b", "b", "é"]
    assert kept["item_id"].to_pylist() == [1, 2, 2, 0, 1, 0]


def test_pos_orders_even_against_timestamps():
    rows = pa.table({"user_id": [1, 1], "item_id": [0, 1], "pos": [1, 0], "timestamp": [material.START, material.START + 9]})
    assert validate_interactions(rows, known([0, 1]), EVENTS).table["item_id"].to_pylist() == [1, 0]


def test_of_repeated_items_the_content_decides_not_the_row():
    table = pa.table({"item_id": [1, 2, 1, 2, 3, 3], "title": ["b", "same", "a", "same", None, None]})
    for rows in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 3, 4, 1, 5]):
        found = validate_items(table.take(pa.array(rows)), None, ANY)
        assert found.table.to_pydict() == {"item_id": [1, 2, 3], "title": ["a", "same", None]}
        assert (found.counts["quarantined_duplicate_id"], found.counts["quarantined_equal_row"]) == (1, 2)


def test_null_and_empty_ids_are_quarantined_with_the_row():
    found = validate_items(pa.table({"item_id": ["a", None, "", "b"], "t": ["x"] * 4}), None, ANY)
    assert reasons(found) == {1: "item_id is null or empty", 2: "item_id is null or empty"}
    events_ = validate_interactions(events(["u", None, "u"], ["a", "a", None]), found.table["item_id"], EVENTS)
    assert reasons(events_) == {1: "user_id is null or empty", 2: "item_id is null or empty"}


def test_a_catalogue_without_a_single_id_is_emptied_and_fails():
    vectors = pa.table({"item_id": ["x"], "vector": [[1.0, 2.0]]})
    found = validate_items(pa.table({"item_id": pa.nulls(3, pa.string()), "t": ["a", "b", "c"]}), vectors, ANY)
    assert (found.table.num_rows, found.quarantine.num_rows) == (0, 3)
    assert {c["name"] for c in found.checks if not c["passed"] and c["severity"] == "critical"} == {"items_left", "quarantined_share"}
    assert validate_interactions(events([1, 2], ["a", "b"]), found.table["item_id"], EVENTS).table.num_rows == 0


def test_long_ids_pass_up_to_the_limit_and_leave_by_name_over_it():
    long, longer = "é" * 5_000, "x" * 20_000
    found = validate_items(pa.table({"item_id": [long, longer, "b"], "t": ["x"] * 3}), None, ANY)
    assert found.table["item_id"].to_pylist() == ["b", long]
    row = found.quarantine.to_pylist()[0]
    assert row["reason"] == "item_id is longer than max_id_bytes"
    assert len(row["item_id"]) == 80


def test_texts_pass_exactly_up_to_the_limit():
    title, hostile = "x" * 1_000_000, "<script>alert(1)</script> [a](javascript:x) | \u202eevil\u202c \x00\x07"
    found = validate_items(pa.table({"item_id": [1, 2, 3], "title": [title, hostile, "y" * 1_100_000]}), None, ANY)
    assert found.table["title"].to_pylist() == [title, hostile]
    assert reasons(found) == {2: "a text is longer than max_text_bytes"}
    assert found.counts["texts_with_control_characters"] == 1


def test_look_alike_ids_stay_apart_and_are_counted():
    ids = ["ﬁg", "fig", "e\u0301", "é", "a", "a "]
    found = validate_items(pa.table({"item_id": ids, "t": list("uvwxyz")}), None, ANY)
    assert sorted(found.table["item_id"].to_pylist()) == sorted(ids)
    assert found.counts["look_alike_ids"] == 3


def test_ten_thousand_items_with_one_text_are_kept_with_a_warning():
    found = validate_items(pa.table({"item_id": range(10_000), "title": ["one text"] * 10_000}), None, ValidatedItemsConfig())
    assert found.table.num_rows == 10_000
    assert found.counts["largest_group_of_equal_texts"] == 10_000
    assert not next(c for c in found.checks if c["name"] == "equal_texts")["passed"]
    assert all(c["passed"] for c in found.checks if c["severity"] == "critical")


def test_items_with_missing_text_are_kept_and_counted():
    found = validate_items(pa.table({"item_id": [1, 2, 3], "title": ["a", None, " "], "brand": ["x", "y", None]}), None, ANY)
    assert found.table["title"].to_pylist() == ["a", None, " "]
    assert (found.counts["items_with_some_text_missing"], found.counts["items_without_text"]) == (2, 1)
    assert not next(c for c in found.checks if c["name"] == "text_missing")["passed"]


def test_vectors_follow_their_items():
    ids, width = [30, 10, 20], 3
    given_vectors = pa.table({"item_id": [10, 20, 30, 99], "vector": pa.array([[float(i)] * width for i in (1, 2, 3, 9)])})
    found = validate_items(pa.table({"item_id": ids, "t": ["a", "b", "c"]}), given_vectors, ANY)
    assert found.vectors is not None
    assert found.vectors["item_id"].to_pylist() == [10, 20, 30]
    assert found.vectors["vector"].to_pylist() == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    assert found.vectors["vector"].type == pa.list_(pa.float32(), 3)
    assert found.counts["vectors_of_unknown_items"] == 1


def test_items_without_one_usable_vector_are_quarantined():
    rows = [
        (1, [1.0, 2.0]),
        (2, [float("nan"), 0.0]),
        (3, [float("inf"), 0.0]),
        (5, None),
        (6, [1.0, 1.0]),
        (6, [1.0, 1.0]),
        (7, [0.0, 1.0]),
        (7, [1.0, 0.0]),
    ]
    rows += [(8, [1e300, 0.0]), (9, [None, 0.0])]
    given_vectors = pa.table({"item_id": [r[0] for r in rows], "vector": pa.array([r[1] for r in rows], pa.list_(pa.float64()))})
    found = validate_items(pa.table({"item_id": range(1, 10), "t": ["x"] * 9}), given_vectors, ANY)
    bad, none = "its vector holds NaN or infinite values", "vectors.parquet has no vector for it"
    assert reasons(found) == {1: bad, 2: bad, 3: none, 4: none, 6: "vectors.parquet has several different vectors for it", 7: bad, 8: bad}
    assert found.table["item_id"].to_pylist() == [1, 6]


def test_equal_vectors_with_missing_values_are_one_and_invalid():
    nan = float("nan")
    vectors = pa.table({"item_id": [0, 1, 2, 0], "vector": [[1.0, nan], [1.0, 2.0], [2.0, 1.0], [1.0, nan]]})
    found = validate_items(pa.table({"item_id": [0, 1, 2]}), vectors, ANY)
    assert reasons(found) == {0: "its vector holds NaN or infinite values"}


def test_times_in_the_future_or_too_early_are_quarantined():
    day = int(datetime.datetime(2024, 3, 1, tzinfo=datetime.UTC).timestamp())
    config = ValidatedInteractionsConfig(max_quarantined=0.9, latest="2024-03-01")
    times = [day, day + 86_399, day + 86_400, 0, None, 631_152_000]
    rows = pa.table({"user_id": [1] * 6, "item_id": [0] * 6, "timestamp": times})
    found = validate_interactions(rows, known([0, 1]), config)
    early = "timestamp lies before the earliest date"
    assert reasons(found) == {2: "timestamp lies in the future", 3: early, 4: "timestamp is null"}


def test_without_latest_the_clock_decides_with_a_day_of_grace():
    assert time_limits(ValidatedInteractionsConfig(earliest=None), now=1_700_000_000.5) == (None, 1_700_086_400)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_arrow_timestamps_become_seconds_or_keep_their_fraction(unit):
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    whole = pa.array([material.START * per, (material.START + 1) * per], pa.int64()).cast(pa.timestamp(unit, "Europe/Berlin"))
    found = validate_interactions(pa.table({"user_id": [1, 1], "item_id": [0, 1], "timestamp": whole}), known([0, 1]), EVENTS)
    assert found.table["timestamp"].to_pylist() == [material.START, material.START + 1]
    if unit != "s":
        parts = pa.array([material.START * per + 2, material.START * per + 1], pa.int64()).cast(pa.timestamp(unit))
        found = validate_interactions(pa.table({"user_id": [1, 1], "item_id": [0, 1], "timestamp": parts}), known([0, 1]), EVENTS)
        assert found.table["timestamp"].type == pa.timestamp(unit)
        assert found.table["item_id"].to_pylist() == [1, 0]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([20240229, 20231231], "values that read like a date, such as 20231231; write .* --timestamp-format '%Y%m%d'"),
        ([20240229120000, 20231231235959], "--timestamp-format '%Y%m%d%H%M%S'"),
        ([45292, 45293], "values that read like the day number of a spreadsheet, such as 45292; write Unix seconds"),
    ],
)
def test_dates_written_as_numbers_are_no_seconds(times, said):
    rows = pa.table({"user_id": [1, 1], "item_id": [0, 1], "timestamp": times})
    with pytest.raises(DigerError, match=said):
        validate_interactions(rows, known([0, 1]), EVENTS)


@pytest.mark.parametrize("kinds", [[["view"], ["buy"]], [{"a": 1}, {"a": 2}], [b"view", b"buy"], [1.0, float("nan")]])
def test_event_types_that_are_neither_text_nor_integers_are_refused_by_name(kinds):
    with pytest.raises(DigerError, match=r"interactions\.parquet: column event_type has type .* write it as string or leave it out"):
        validate_interactions(events([1, 1], [0, 1], event_type=pa.array(kinds)), known([0, 1]), EVENTS)


def test_a_column_may_have_any_name_also_where_items_repeat():
    items = pa.table({"item_id": ["a", "b", "a"], "#": ["x", "y", "z"], "item": ["1", "2", "3"], "": ["", "", ""]})
    found = validate_items(items, None, ANY)
    assert found.table["#"].to_pylist() == ["x", "y"]
    assert reasons(found) == {2: "item_id repeats an earlier item with other content"}


def test_bad_weights_and_missing_positions_are_quarantined():
    rows = pa.table(
        {"user_id": [1] * 6, "item_id": [0] * 6, "pos": [0, 1, 2, 3, 4, None], "weight": [1.0, -1.0, float("nan"), float("inf"), None, 1.0]}
    )
    weight = "weight is null, negative, NaN or infinite"
    assert reasons(validate_interactions(rows, known([0, 1]), EVENTS)) == {1: weight, 2: weight, 3: weight, 4: weight, 5: "pos is null"}


def test_event_types_select_rows_and_keep_their_file_row_numbers():
    rows = events([1, 1, None, 2], [0, 1, 0, 9], event_type=["view", "buy", "buy", "buy"])
    found = validate_interactions(rows, known([0, 1]), ValidatedInteractionsConfig(event_types=("buy",), max_quarantined=0.9))
    assert found.table["event_type"].to_pylist() == ["buy"]
    assert found.counts["not_selected"] == 1
    assert sorted(reasons(found)) == [2, 3]


def test_counts_of_what_is_kept_with_a_warning():
    rows = events(["a", "a", "a", "b", "b"], [0, 0, 1, 0, 1])
    found = validate_interactions(rows, known([0, 1, 2, 3]), EVENTS)
    assert found.table.num_rows == 5
    wanted = {"users": 2, "users_with_fewer_than_3_events": 1, "repeated_events": 1, "items_never_seen": 2, "events": 5}
    assert {key: found.counts[key] for key in wanted} == wanted
    failed = {c["name"]: c["severity"] for c in found.checks if not c["passed"]}
    assert failed == {"short_histories": "warning", "repeated_events": "warning", "items_never_seen": "warning"}


def test_share_over_the_limit_names_share_reason_and_example():
    rows = material.replaced(material.interactions(), "item_id", {i: 1000 + i for i in range(30)})
    found = validate_interactions(rows, known(range(40)), ValidatedInteractionsConfig(latest="2030-01-01"))
    message = refusal("validated_interactions", report(found.checks, found.counts, list(CHECKS)))
    assert message is not None
    for part in ("30 of 200 rows of interactions.parquet", "15.00%", "at most 5.00%", "item_id is not among the validated items", "row 0", "1000"):
        assert part in message
    assert "raise validated_interactions.max_quarantined" in message


def test_no_check_and_no_quarantine_row_names_a_user():
    rows = events(["secret-user"] * 4 + [None], ["a", "a", "zz", "a", "a"], event_type=["view"] * 5)
    found = validate_interactions(rows, known(["a", "b"]), EVENTS)
    assert "secret-user" not in repr(found.checks) + repr(found.counts) + repr(found.quarantine.to_pylist())


def test_nothing_left_is_a_failed_critical_check():
    found = validate_interactions(events([1, 2], [8, 9]), known([0, 1]), EVENTS)
    left = next(c for c in found.checks if c["name"] == "events_left")
    assert (left["passed"], left["severity"]) == (False, "critical")


@pytest.mark.parametrize(("previous", "passed"), [(None, True), (200, True), (401, False), (19, False), (400, True)])
def test_volume_against_the_previous_snapshot(previous, passed):
    found = validate_interactions(material.interactions(), known(range(40)), EVENTS, previous and Volume(previous, "monday-1"))
    volume = next(c for c in found.checks if c["name"] == "volume")
    assert volume["passed"] is passed
    assert passed or "validated_interactions.min_volume_ratio" in volume["message"]
    assert previous is None or f"the {previous} of snapshot monday-1" in volume["message"]


def test_an_expected_check_without_a_result_fails_the_report():
    found = report([], {}, ["never_ran"])
    assert not found["passed"]
    assert "never_ran yielded no result" in str(refusal("stage", found))


def test_quarantine_and_table_account_for_every_row():
    rows = material.replaced(material.interactions(), "user_id", {3: None, 90: None})
    found = validate_interactions(rows, known(range(0, 40, 2)), EVENTS)
    assert found.table.num_rows + found.quarantine.num_rows == rows.num_rows
    assert sum(v for k, v in found.counts.items() if k.startswith("quarantined_")) == found.counts["quarantined"] == found.quarantine.num_rows


def test_a_catalogue_of_ids_alone_is_told_and_refused_only_where_text_is_required():
    items = pa.table({"item_id": [3, 1, 2]})
    found = validate_items(items, None, ANY)
    assert found.table.to_pydict() == {"item_id": [1, 2, 3]}
    told = next(check for check in found.checks if check["name"] == "text_missing")
    assert not told["passed"]
    assert told["severity"] == "warning"
    assert "no item has text: IDs come from behaviour alone" in told["message"]
    with pytest.raises(DigerError, match="has no text column to embed; add one"):
        validate_items(items, None, ValidatedItemsConfig(require_text=True))
