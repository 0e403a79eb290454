"""`diger params --suggest`: every size gives parameters that the configuration accepts, with reasons, and the page shows the same table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from diger_core.errors import DigerError
from orchestration.cli import main
from orchestration.params.load import build_params, load_params
from orchestration.params.suggest import TIERS, suggestion, table, tier
from orchestration.validation.snapshot_size import SnapshotSize, snapshot_size
from tests.support.snapshot_material import write

SIZE = SnapshotSize("a b: 'c'", 12_000, 22_000, 200_000, 6, 14, 0.0, 4_000, 5_500, True, False)
DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(
    "size",
    [
        SIZE,
        replace(SIZE, items=3, users=2, events=5, median_events=2, long_events=3, days=0, test_users=1),
        replace(SIZE, days=None, test_users=0, text=False),
        replace(SIZE, vectors=True, repeats=0.4, long_events=700),
        replace(SIZE, items=3_000_000, users=9_000_000, events=200_000_000),
    ],
)
def test_what_is_suggested_is_accepted_and_every_leaf_has_a_reason_or_a_tier(size):
    text = suggestion(size)
    params = build_params(yaml.safe_load(text))
    assert params.snapshot == size.url
    chosen = tier(size.rows)
    assert (params.recommender.encoder_layers, params.recommender.d_model, params.training.batch_size) == (
        chosen.layers,
        chosen.d_model,
        chosen.batch_size,
    )
    assert text.count(" # ") >= 10


def values(size):
    return build_params(yaml.safe_load(suggestion(size)))


def test_values_follow_the_size():
    assert values(SIZE).sequences.split == "temporal"
    assert values(replace(SIZE, test_users=99)).sequences.split == "leave_one_out"
    assert "leave 99 test users, under the 100" in suggestion(replace(SIZE, test_users=99))
    assert values(replace(SIZE, days=None)).sequences.split == "leave_one_out"
    assert values(replace(SIZE, items=100)).tokenizer.codes == 16
    assert [values(replace(SIZE, long_events=n)).recommender.history for n in (3, 14, 21, 900)] == [5, 20, 50, 50]
    assert values(replace(SIZE, vectors=True)).embeddings.encoder == "vectors"
    assert values(replace(SIZE, repeats=0.05)).recommendations.seen == "keep"
    assert values(replace(SIZE, repeats=0.04)).recommendations.seen == "remove"
    assert [tier(rows).name for rows in (20_000, 20_001, 10**9)] == [TIERS[0].name, TIERS[1].name, TIERS[3].name]


def test_the_page_shows_the_same_table():
    assert table() in (DOCS / "data.md").read_text(encoding="utf-8"), "put what orchestration.params.suggest.table() gives into docs/data.md"


def shop(folder, **columns):
    events = {
        "user_id": [1, 1, 1, 2, 2, 3, None],
        "item_id": ["a", "b", "a", "a", "b", "c", "a"],
        "timestamp": [0, 86_400, 5 * 86_400, 10, 20, 30, 40],
    }
    write(folder, pa.table(events | columns), pa.table({"item_id": ["a", "b", "c"], "title": ["x", "y", "z"]}))
    return folder


def test_a_snapshot_is_counted_as_it_is(tmp_path):
    found = snapshot_size(str(shop(tmp_path / "snap")))
    assert (found.items, found.users, found.events, found.median_events, found.days) == (3, 3, 6, 2, 5)
    assert found.repeats == pytest.approx(1 / 6)
    assert (found.test_users, found.text, found.vectors) == (0, True, False), "nobody has an event after the newest one"


def test_test_users_have_an_event_on_both_sides_of_the_newest_tenth(tmp_path):
    users = [f"u{n % 10}" for n in range(40)]
    times = list(range(40))
    write(tmp_path / "snap", pa.table({"user_id": users, "item_id": ["a"] * 40, "timestamp": times}), pa.table({"item_id": ["a"]}))
    found = snapshot_size(str(tmp_path / "snap"))
    assert found.test_users == 4
    assert not found.text


def test_the_command_prints_what_a_run_takes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shop(tmp_path / "snap")
    main(["params", "--suggest", "snap"])
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert load_params("mine.yaml").snapshot == "snap"


def test_a_column_that_is_missing_or_empty_is_named(tmp_path):
    write(tmp_path / "a", pa.table({"user": [1], "item_id": ["a"], "timestamp": [1]}), pa.table({"item_id": ["a"]}))
    with pytest.raises(DigerError, match=r"interactions.parquet.*user_id"):
        snapshot_size(str(tmp_path / "a"))
    nobody = pa.table({"user_id": pa.array([None], pa.int64()), "item_id": ["a"], "timestamp": [1]})
    write(tmp_path / "b", nobody, pa.table({"item_id": ["a"]}))
    with pytest.raises(DigerError, match="no event with user and item"):
        snapshot_size(str(tmp_path / "b"))
