"""A model ranks in the precision that its artefact names, wherever it ranks."""

from __future__ import annotations

from typing import Any

import pytest

from diger_core.data.sequences import Sequences
from diger_core.evaluation import ranking
from diger_core.progress import Silent
from diger_core.store.files import Root
from orchestration.champion.model_artefact import Model, load_model
from orchestration.params.cluster import ClusterConfig
from orchestration.serving import ranker
from orchestration.serving.lists import Request
from orchestration.serving.shards import Shards, recommend
from orchestration.verdict import evaluation
from orchestration.verdict.gate import ranked
from tests.support.release_world import ReleaseWorld, easy


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluation_gate_and_recommendations_rank_in_the_model_s_precision(precision: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = ReleaseWorld(tmp_path / "store")
    made = world.candidate(seed=1)
    champion = world.candidate(seed=2, data={name: made[name] for name in world.data()})
    assert load_model(made["refit"]).precision == "fp32", "as it was trained"
    monkeypatch.setattr(Model, "precision", precision)
    asked: list[tuple[str, str]] = []
    recommended = ranking.recommended

    def recorded(where: str) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            asked.append((where, options.get("precision", "not told")))
            return recommended(*given, **options)

        return call

    monkeypatch.setattr(ranked, "recommended", recorded("gate"))
    monkeypatch.setattr(ranker, "recommended", recorded("recommendations"))
    seq = Sequences.from_tensors(made["sequences"].tensors("sequences.safetensors"))
    with monkeypatch.context() as patched:
        patched.setattr(ranking, "recommended", recorded("evaluation"))
        evaluation.model_beams(
            made["joint_model"], made["semantic_ids"], "semantic_ids.parquet", made["sequences"], seq, "test", easy().evaluation, Silent()
        )
    world.compute("gate", {**made, "champion": champion["bundle"]}, easy())
    hashes = [made[name].hash for name in ("bundle", "sequences", "neighbours", "validated_items")]
    request = Request(world.store.url, *hashes, None, 10, 40, 1000, None, False)
    recommend(request, Shards(Root(tmp_path / "lists")), ClusterConfig(workers=0), Silent())
    assert {where for where, _ in asked} == {"evaluation", "gate", "recommendations"}
    assert {told for _, told in asked} == {precision}
    assert [where for where, _ in asked].count("gate") == 2, "the candidate and the champion"
