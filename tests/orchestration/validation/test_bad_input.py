"""Bad snapshots through the registry, the runner and the stages: one clear line with the remedy, nothing half-written, earlier artefacts intact."""

import decimal
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.engine.registry import register
from orchestration.engine.runner import Session, refuse_failed
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from tests.support import snapshot_material as material

STAGES = ("raw_items", "raw_interactions", "validated_items", "validated_interactions")
REMEDY = re.compile(r"rename|write|add |set |raise |fix|complete|change|fill|divide|name:|register|take |bring|keep one|copy|choose|leave")


@pytest.fixture
def shop(tmp_path):
    """Runs the stages over a snapshot, each gated by its stored verdict; returns the artefacts by stage."""

    def run(interactions=None, items=None, vectors=None, spoil=None, **params):
        directory = tmp_path / "shop"
        given = (material.interactions() if interactions is None else interactions, material.items() if items is None else items, vectors)
        (directory / "vectors.parquet").unlink(missing_ok=True)
        material.write(directory, *given)
        if spoil is not None:
            spoil(directory)
        store = Store(tmp_path / "store")
        session = Session(store, build_params(params), register(store, str(directory)))
        made = {}
        for name in STAGES:
            made[name] = session.materialise(BY_NAME[name]).artefact
            refuse_failed(made[name])
        return made

    return run


@pytest.fixture
def message(shop, tmp_path):
    """The one line that a bad snapshot ends with."""

    def run(**given) -> str:
        with pytest.raises(DigerError) as caught:
            shop(**given)
        text = str(caught.value)
        assert "\n" not in text
        assert REMEDY.search(text), text
        assert not list((tmp_path / "store" / "tmp").glob("*")) if (tmp_path / "store" / "tmp").exists() else True
        return text

    return run


def changed(table, column, values):
    return table.set_column(table.column_names.index(column), column, values)


def test_good_input_passes_and_a_second_run_reuses_it(shop):
    first, second = shop(vectors=material.vectors()), shop(vectors=material.vectors())
    assert [a.hash for a in first.values()] == [a.hash for a in second.values()]
    assert first["validated_items"].names == ["checks.json", "items.parquet", "quarantine.parquet", "vectors.parquet"]
    assert first["validated_interactions"].table("interactions.parquet").num_rows == 200
    assert first["raw_items"].facts == {"rows": 40, "vectors": 40}


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("items.parquet", lambda d: (d / "items.parquet").unlink()),
        ("interactions.parquet", lambda d: (d / "interactions.parquet").write_bytes(b"")),
        ("items.parquet", lambda d: (d / "items.parquet").write_bytes((d / "items.parquet").read_bytes()[:-20])),
        ("interactions.parquet", lambda d: (d / "interactions.parquet").write_text("user_id,item_id\n1,2\n")),
    ],
)
def test_missing_empty_and_truncated_files_are_named(message, file, spoil):
    assert file in message(spoil=spoil)


def test_a_damaged_page_is_found_although_the_footer_reads_well(message):
    def spoil(directory):
        data = bytearray((directory / "interactions.parquet").read_bytes())
        data[10:600] = bytes(590)
        (directory / "interactions.parquet").write_bytes(bytes(data))

    assert "interactions.parquet" in message(spoil=spoil)


@pytest.mark.parametrize(("old", "new"), [("user_id", "UserID"), ("item_id", "asin"), ("user_id", "usr_id"), ("item_id", "stuff")])
def test_renamed_columns_name_the_nearest_one(message, old, new):
    table = material.interactions()
    text = message(interactions=table.rename_columns([new if n == old else n for n in table.column_names]))
    assert f"interactions.parquet: column {old} is missing" in text
    assert (f"rename column {new} to {old}" in text) or new == "stuff"


@pytest.mark.parametrize(
    "values",
    [
        pa.array(np.arange(200.0)),
        pa.array([decimal.Decimal(i) for i in range(200)]),
        pa.array([True, False] * 100),
        pa.array([b"x"] * 200),
        pa.array(np.arange(200), pa.timestamp("s")),
        pa.nulls(200),
    ],
    ids=["float", "decimal", "bool", "binary", "timestamp", "null"],
)
@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_ids_of_inexact_types_are_refused(message, column, values):
    text = message(interactions=changed(material.interactions(), column, values))
    assert f"interactions.parquet: column {column}" in text
    assert "integers or" in text


def test_float_item_ids_of_the_catalogue_are_refused(message):
    text = message(items=changed(material.items(), "item_id", pa.array(np.arange(40.0))))
    assert "items.parquet: column item_id has type double" in text


def test_integers_against_text_ids_name_both_files(message):
    text = message(items=changed(material.items(), "item_id", pa.array([str(i) for i in range(40)])))
    assert "interactions.parquet: column item_id holds integers but that of items.parquet holds text" in text


@pytest.mark.parametrize("values", [["2020-01-01"] * 200, np.full(200, 1.6e9)], ids=["text", "float"])
def test_mistyped_timestamps_are_refused(message, values):
    assert "interactions.parquet: column timestamp has type" in message(interactions=changed(material.interactions(), "timestamp", pa.array(values)))


@pytest.mark.parametrize(("factor", "unit"), [(10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")])
def test_timestamps_finer_than_seconds_are_refused_with_the_divisor(message, factor, unit):
    finer = pa.array(material.interactions()["timestamp"].to_numpy() * factor)
    text = message(interactions=changed(material.interactions(), "timestamp", finer))
    assert unit in text
    assert f"divide it by {factor}" in text


def test_events_without_any_order_are_refused(message):
    assert "neither pos nor timestamp" in message(interactions=material.interactions().drop(["timestamp"]))
    renamed = material.interactions().rename_columns(["user_id", "item_id", "time"])
    assert "rename column time" in message(interactions=renamed)


def test_float_positions_are_refused(message):
    assert "column pos has type double" in message(interactions=material.interactions().append_column("pos", pa.array(np.arange(200.0))))


def test_a_catalogue_of_one_item_is_refused(message):
    assert "items.parquet: holds too few items, 1: a catalogue needs at least" in message(items=material.items(1))


def test_a_catalogue_of_one_item_and_its_copies_is_refused(message):
    items = pa.concat_tables([material.items(1)] * 3)
    assert "1 of 3 items left" in message(items=items, validated_items={"max_quarantined": 0.9})


def test_a_catalogue_without_text_or_vectors_is_refused_and_passes_with_vectors(message, shop):
    bare = material.items().select(["item_id"])
    assert "items.parquet: has no text column" in message(items=bare, validated_items={"require_text": True})
    assert shop(items=bare, vectors=material.vectors())["validated_items"].facts["passed"]


def test_vectors_of_differing_widths_name_the_row(message):
    rows = [[1.0, 2.0]] * 39 + [[1.0]]
    vectors = pa.table({"item_id": range(40), "vector": pa.array(rows)})
    assert "vectors.parquet: column vector has 1 values in row 39 but 2" in message(vectors=vectors)


@pytest.mark.parametrize("values", [["text"] * 40, [1.0] * 40, [[1, 2]] * 40, [None] * 40], ids=["text", "scalar", "integers", "null"])
def test_mistyped_vectors_are_refused(message, values):
    assert "vectors.parquet: column vector" in message(vectors=pa.table({"item_id": range(40), "vector": values}))


def test_unknown_event_types_are_refused_with_those_that_occur(message):
    table = material.interactions().append_column("event_type", pa.array(["view", "buy"] * 100))
    text = message(interactions=table, validated_interactions={"event_types": ["purchase"]})
    assert "'purchase'" in text
    assert "'buy', 'view'" in text
    text = message(validated_interactions={"event_types": ["buy"]})
    assert "column event_type is missing" in text


def test_unknown_text_columns_are_refused(message):
    assert "column titel is missing; rename column title" in message(validated_items={"text_columns": ["titel"]})


def test_text_that_is_not_utf8_is_refused(message):
    offsets = np.arange(41, dtype=np.int32) * 2
    bad = pa.Array.from_buffers(pa.string(), 40, [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"\xff\xfe" * 40)])
    text = message(items=changed(material.items(), "title", bad))
    assert "items.parquet: column title holds bytes that are not UTF-8" in text


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ({"max_quarantined": 1.5}, "max_quarantined"),
        ({"earliest": "yesterday"}, "earliest"),
        ({"latest": 20240101}, "latest"),
        ({"max_quarantine": 0.1}, "max_quarantined"),
        ({"event_types": []}, "event_types"),
        ({"min_volume_ratio": 2}, "min_volume_ratio"),
    ],
)
def test_bad_parameters_name_the_key(section, value):
    with pytest.raises(DigerError, match=value):
        build_params({"validated_interactions": section})


FUTURE = 4_000_000_000


@pytest.mark.parametrize(
    ("reason", "given"),
    [
        ("user_id is null", {"interactions": material.replaced(material.interactions(), "user_id", {3: None})}),
        ("item_id is null", {"interactions": material.replaced(material.interactions(), "item_id", {3: None})}),
        ("item_id is not among", {"interactions": material.replaced(material.interactions(), "item_id", {3: 999})}),
        ("timestamp lies in the future", {"interactions": material.replaced(material.interactions(), "timestamp", {3: FUTURE})}),
        ("item_id repeats", {"items": material.replaced(material.items(), "item_id", {3: 4})}),
        ("item_id is null", {"items": material.replaced(material.items(), "item_id", {3: None})}),
        ("NaN or infinite", {"vectors": material.replaced(material.vectors(), "vector", {3: [float("nan")] * 4})}),
        ("NaN or infinite", {"vectors": material.replaced(material.vectors(), "vector", {3: [float("inf")] * 4})}),
    ],
)
def test_bad_rows_are_quarantined_with_reason_and_stop_the_run_over_the_share(shop, message, reason, given):
    stage = "validated_interactions" if "interactions" in given else "validated_items"
    allowed = {"validated_items": {"max_quarantined": 0.2}, "validated_interactions": {"max_quarantined": 0.2}}
    rows = shop(**given, **allowed)[stage].table("quarantine.parquet").to_pylist()
    assert len(rows) == 1
    assert reason in rows[0]["reason"]
    strict = message(**given, **{stage: {"max_quarantined": 0.0}})
    assert reason in strict
    assert f"raise {stage}.max_quarantined" in strict
    assert "quarantine.parquet" in strict


def test_a_refused_run_is_refused_again_without_being_computed_again(shop, tmp_path):
    bad = material.replaced(material.interactions(), "item_id", {i: 999 for i in range(100)})
    for _ in range(2):
        with pytest.raises(DigerError, match=r"100 of 200 rows .*\(50\.00%"):
            shop(interactions=bad)
    assert len(list((tmp_path / "store" / "records" / "validated_interactions").glob("*/*.json"))) == 1


def test_nothing_left_stops_the_run(message):
    text = message(interactions=changed(material.interactions(), "item_id", pa.array(np.arange(200) + 900)))
    assert "0 of 200 selected events left" in text


def released(tmp_path):
    """As if something had been released: then snapshots have a measure."""
    (tmp_path / "store" / "champion").mkdir(parents=True, exist_ok=True)
    (tmp_path / "store" / "champion" / "000001.json").write_text("{}")


def test_a_shrunken_snapshot_is_refused_against_the_last_accepted_one(shop, message, tmp_path):
    shop()
    released(tmp_path)
    text = message(interactions=material.interactions().slice(0, 80))
    assert "0.40 times the 200 of snapshot shop-" in text
    assert "min_volume_ratio" in text


def test_before_anything_was_released_no_snapshot_is_a_measure(shop):
    """A first attempt that was small, or was interrupted, does not block the whole export that follows it."""
    shop(interactions=material.interactions().slice(0, 20))
    found = shop()["validated_interactions"].json("checks.json")["checks"]
    volume = next(check for check in found if check["name"] == "volume")
    assert volume["passed"]
    assert "no released snapshot before it" in volume["message"]


def test_a_refused_snapshot_and_one_that_nobody_ran_are_no_measure(shop, message, tmp_path):
    shop()
    released(tmp_path)
    message(interactions=material.interactions().slice(0, 80))
    register(Store(tmp_path / "store"), str(material.write(tmp_path / "never", material.interactions(3), material.items())))
    found = shop(interactions=material.interactions().slice(0, 190))["validated_interactions"].json("checks.json")["checks"]
    assert "0.95 times the 200 of snapshot shop-" in next(check["message"] for check in found if check["name"] == "volume")


def test_the_demo_is_no_measure_for_a_shop_of_ones_own_and_shares_no_store_with_it_once_something_serves(tmp_path):
    store = Store(tmp_path / "store")
    demo = [
        material.write(tmp_path / "data/snapshots" / name, material.interactions(users), material.items())
        for name, users in (("demo-1", 25), ("demo-2", 26))
    ]
    register(store, str(demo[0]))
    own = register(store, str(material.write(tmp_path / "monday", material.interactions(7), material.items())))
    assert own.previous is None, "what a look at the UI has registered"
    again = Store(tmp_path / "again")
    register(again, str(demo[0]))
    again.root.create(b"{}", "champion", "000001.json")
    with pytest.raises(DigerError, match="what serves there is the demo's shop: give yours a store of its own"):
        register(again, str(tmp_path / "monday"))
    assert register(again, str(demo[1])).previous["key"].startswith("demo-1-")


def test_earlier_artefacts_survive_a_bad_snapshot(shop, message):
    good = shop()
    message(items=changed(material.items(), "item_id", pa.array(np.arange(40.0))))
    assert all(artefact.verify() == [] for artefact in good.values())


def test_bytes_changed_after_registration_are_refused(tmp_path):
    directory = material.write(tmp_path / "shop", material.interactions(), material.items())
    store = Store(tmp_path / "store")
    entry = register(store, str(directory))
    pq.write_table(material.items(39), directory / "items.parquet")
    with pytest.raises(DigerError, match=r"items\.parquet: its bytes changed"):
        Session(store, build_params({}), entry).materialise(BY_NAME["raw_items"])


def test_foreign_columns_are_carried_in_raw_and_ignored_after_it(shop):
    more = {"stars": pa.array([1.5] * 40), "tags": pa.array([["a", "b"]] * 40), "when": pa.array([0] * 40, pa.date32())}
    found = shop(items=material.items(**more))
    assert found["raw_items"].table("items.parquet").column_names == ["item_id", "title", "brand", "stars", "tags", "when"]
    assert found["validated_items"].table("items.parquet").column_names == ["item_id", "title", "brand"]
    ignored = next(c for c in found["validated_items"].json("checks.json")["checks"] if c["name"] == "columns_ignored")
    assert "stars, tags, when" in ignored["message"]
