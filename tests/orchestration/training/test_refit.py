"""The refit: the judged model trained on over all events, with its tokenizer and table as they were; and soft input from training to serving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diger_core.config import EvaluationConfig, NeighboursConfig
from diger_core.data.neighbours import empty_table, transitions
from diger_core.data.sequences import Sequences
from diger_core.data.splits import to_the_end, training_rows
from diger_core.evaluation.metrics import ndcg
from diger_core.evaluation.ranking import rank_targets
from diger_core.store.artefact import Artefact
from orchestration.champion.model_artefact import load_model
from orchestration.ids.semantic_ids import semantic_ids
from orchestration.params.training import RefitConfig
from orchestration.training.frozen_model import frozen_model
from orchestration.training.job import stage_job, training_inputs
from orchestration.training.joint_model import joint_model
from orchestration.training.refit import refit
from tests.support.training_world import World, params

SOFT = replace(params().recommender, history_input="soft", item_tokens="one")


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    seq = _sequences(made)
    tables = {name: transitions(counted, NeighboursConfig()) for name, counted in (("transitions", seq), ("transitions_end", to_the_end(seq)))}
    tables["text"] = empty_table(seq.items)
    with made.store.writer("neighbours") as out:
        out.tensors("neighbours.safetensors", {key: tensor for name, table in tables.items() for key, tensor in table.to_tensors(name).items()})
        made.inputs["neighbours"] = made.store.publish(out)
    return made


def _sequences(world: World) -> Sequences:
    return Sequences.from_tensors(world.inputs["sequences"].tensors("sequences.safetensors"))


def _trained(world: World, parameters: Any) -> Artefact:
    world.inputs["joint_model"], _ = world.compute("joint_model", joint_model, parameters, key="a" * 64)
    world.inputs["semantic_ids"], _ = world.compute("semantic_ids", semantic_ids, parameters)
    return world.inputs["joint_model"]


def test_the_refit_sees_every_event_and_changes_the_recommender_alone(world: World) -> None:
    parameters = params(refit=RefitConfig(epochs=2))
    judged = load_model(_trained(world, parameters))
    artefact, _ = world.compute("refit", refit, parameters, key="b" * 64)
    served = load_model(artefact)
    assert torch.equal(served.table.tuples, judged.table.tuples)
    for name, value in judged.tokenizer.state_dict().items():
        assert torch.equal(served.tokenizer.state_dict()[name], value)
    assert not torch.equal(served.recommender.start, judged.recommender.start)
    assert artefact.facts["refit_epochs"] == 2
    assert artefact.facts["best_epoch"] == 2
    curves = artefact.json("curves.json")
    assert [row["validation_ndcg_10"] for row in curves] == [None, None]
    rows = len(training_rows(to_the_end(_sequences(world)))[0])
    assert rows == len(_sequences(world).events_E) - _sequences(world).users
    steps = -(-(rows + round(parameters.training.teacher.synthetic * rows)) // parameters.training.batch_size)
    assert curves[-1]["step"] == 2 * steps


def test_switched_off_the_joint_model_serves_as_it_was_judged(world: World) -> None:
    parameters = params(refit=RefitConfig(epochs=0))
    judged = _trained(world, parameters)
    artefact, _ = world.compute("refit", refit, parameters, key="c" * 64)
    for name in ("model.safetensors", "config.json", "id_table.parquet"):
        assert artefact.files[name]["canonical"] == judged.files[name]["canonical"]


@pytest.mark.parametrize(("stage", "function"), [("joint_model", joint_model), ("frozen_model", frozen_model)])
def test_a_stored_soft_model_ranks_as_validation_did(world: World, stage: str, function: Any) -> None:
    artefact, _ = world.compute(stage, function, params(recommender=SOFT), key="d" * 64)
    model = load_model(artefact)
    assert model.z_Ne is not None
    config = EvaluationConfig(beams=10, recall_at=(10,), ndcg_at=(10,))
    found = rank_targets(
        model.recommender, model.table.codes_NM, model.table.suffix_N, _sequences(world), "validation", config, tokens_NTd=model.history_tokens()
    )
    assert float(ndcg(found.rank_T, 10).mean()) == pytest.approx(artefact.facts["validation_ndcg_10"], abs=1e-6)


def test_the_tables_teach_a_stage_s_training_and_nobody_teaches_without_a_share(world: World) -> None:
    taught, alone = (training_inputs(stage_job(_run(world, share, synthetic), params().joint_model)) for share, synthetic in ((0.5, 0.2), (0.0, 0.0)))
    rows = len(training_rows(_sequences(world))[0])
    assert taught.distillation is not None
    assert taught.synthetic is not None
    assert len(taught.distillation.items_Rk) == rows
    assert taught.synthetic.rows == round(0.2 * rows)
    assert alone.distillation is None
    assert alone.synthetic is None


def _run(world: World, share: float, synthetic: float) -> Any:
    from types import SimpleNamespace

    given = params()
    training = replace(given.training, teacher=replace(given.training.teacher, share=share, synthetic=synthetic))
    stage = SimpleNamespace(name="joint_model")
    inputs = {name: world.inputs[name] for name in ("sequences", "embeddings", "tokenizer", "neighbours")}
    return SimpleNamespace(store=world.store, params=params(training=training), inputs=inputs, key="e" * 64, stage=stage)
