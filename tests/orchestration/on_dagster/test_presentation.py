"""What the UI shows of an artefact: rows of catalogues and IDs, of people only counts and columns; numbers that plot; what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from orchestration.engine.runner import Result
from orchestration.graph import BY_NAME
from orchestration.on_dagster.checks import check_results, remedies
from orchestration.on_dagster.presentation import PREVIEW_ROWS, PREVIEW_TEXT, present
from tests.support.report_material import fake_fusion, fake_metrics

SECRET = "anna.karenina@example.org"
CHECKS = {"passed": True, "checks": [], "counts": {}}


def artefact(folder: Path, stage: str, tables: dict[str, pa.Table], documents: dict[str, Any] | None = None, **facts: Any) -> Artefact:
    store = Store(folder / "store")
    with store.writer(stage) as out:
        for name, table in tables.items():
            out.table(name, table)
        for name, document in (documents or {}).items():
            out.json(name, document)
        out.facts.update(facts)
        return store.publish(out)


def shown(made: Artefact) -> dict[str, Any]:
    return present(Result(BY_NAME[made.stage], "0" * 64, made, False, 1.0))


def columns(metadata: dict[str, Any]) -> dict[str, str | None]:
    return {column.name: column.description for column in metadata["dagster/column_schema"].columns}


def test_a_catalogue_is_previewed_shortened_and_counted(tmp_path: Path) -> None:
    titles = ["x" * 500, *(f"lamp {i}" for i in range(30))]
    items = pa.table({"item_id": [f"i{i:02d}" for i in range(31)], "title": titles})
    found = shown(artefact(tmp_path, "validated_items", {"items.parquet": items}, {"checks.json": CHECKS}))
    rows = found["preview"].records
    assert len(rows) == PREVIEW_ROWS
    assert max(len(str(value)) for row in rows for value in row.data.values()) == PREVIEW_TEXT
    assert found["dagster/row_count"] == 31
    assert columns(found) == {"item_id": "The item, as the snapshot names it.", "title": None}


@pytest.mark.parametrize(
    ("stage", "file", "documents"),
    [
        ("raw_interactions", "interactions.parquet", {}),
        ("validated_interactions", "interactions.parquet", {"checks.json": CHECKS}),
        ("recommendations", "part-00000.parquet", {}),
    ],
)
def test_of_what_people_did_only_the_columns_are_shown(tmp_path: Path, stage: str, file: str, documents: dict[str, Any]) -> None:
    events = pa.table({"user_id": [SECRET] * 3, "item_id": ["a", "b", "c"]})
    found = shown(artefact(tmp_path, stage, {file: events}, documents))
    assert set(columns(found)) == {"user_id", "item_id"}
    assert "preview" not in found
    assert SECRET not in repr(found)
    assert ("dagster/row_count" in found) == (stage != "recommendations")  # one shard of several


def test_semantic_ids_come_with_a_map_of_their_codes_and_columns_that_are_explained(tmp_path: Path) -> None:
    ids = pa.table({"item_id": ["a", "b", "c"], "code_1": [0, 1, 1], "code_2": [3, 3, 2], "suffix": [0, 0, 0]})
    found = shown(artefact(tmp_path, "semantic_ids", {"semantic_ids.parquet": ids}))
    assert "2, 2 codes are in use" in found["code_usage"].value
    assert "data:image/png;base64," in found["code_usage"].value
    assert all(columns(found).values())
    assert columns(found)["code_2"] == "The semantic ID's code at level 2."


def test_numbers_are_few_enough_to_be_read_and_short(tmp_path: Path) -> None:
    metrics = fake_metrics()
    per_user = pa.table({"user_index": [0], "joint_model": [1]})
    facts = {"users": 1234, "joint_model_recall_10": 0.123456789, "joint_model_recall_1": 0.02, "gain_ndcg_10_mean": 0.005, "gain_ndcg_20_low": 0.1}
    found = shown(artefact(tmp_path, "evaluation", {"per_user.parquet": per_user}, {"metrics.json": metrics}, **facts))
    assert {name: found[name] for name in facts if name in found} == {"users": 1234, "joint_model_recall_10": 0.123457, "gain_ndcg_10_mean": 0.005}
    assert "data:image/png;base64," in found["metrics"].value
    items = pa.table({"item_id": ["a", "b"]})
    facts = {"quarantined": 0, "quarantined_long_text": 0, "quarantined_duplicate_id": 2}
    found = shown(artefact(tmp_path, "validated_items", {"items.parquet": items}, {"checks.json": CHECKS}, **facts))
    assert {name for name in found if name.startswith("quarantined")} == {"quarantined", "quarantined_duplicate_id"}


@pytest.mark.parametrize(
    ("beats", "passed", "word"),
    [((0.01, 0.006, 0.014), True, "above every"), ((0.01, -0.001, 0.02), False, "not distinguishable"), ((-0.01, -0.02, -0.001), False, "below")],
)
def test_the_check_of_the_baselines_judges_the_lists_by_the_interval(tmp_path: Path, beats: Any, passed: bool, word: str) -> None:
    made = artefact(tmp_path, "evaluation", {}, {"metrics.json": fake_metrics(beats=beats)})
    (result,) = check_results(BY_NAME["evaluation"], made)
    assert (result.passed, result.check_name, result.severity) == (passed, "beats_baselines", dg.AssetCheckSeverity.WARN)
    assert word in result.description
    assert result.metadata["baseline"].value == "item_item_text"
    assert (result.metadata["low"].value, result.metadata["high"].value) == beats[1:]


def test_the_recipe_shows_its_weights(tmp_path: Path) -> None:
    found = shown(artefact(tmp_path, "fusion", {}, {"fusion.json": fake_fusion()}, weight_generative=0.42))
    assert "| generative model | 42.0% |" in found["weights"].value
    assert "data:image/png;base64," in found["weights"].value
    assert found["weight_generative"] == 0.42


def test_a_refused_candidate_is_told_what_to_do_and_an_accepted_one_nothing(tmp_path: Path) -> None:
    for verdict, lines in (("refuse", 1), ("accept", 0)):
        made = artefact(tmp_path / verdict, "report", {}, {"x.json": {}}, gate=f"The gate says {verdict}.", gate_verdict=verdict)
        results = check_results(BY_NAME["report"], made)
        assert [(r.passed, r.severity) for r in results] == [(verdict == "accept", dg.AssetCheckSeverity.ERROR)]
        told = remedies(BY_NAME["report"], results)
        assert len(told) == lines
        assert all(line.startswith("report: The gate says refuse. What served before still serves") and "Launchpad" in line for line in told)
