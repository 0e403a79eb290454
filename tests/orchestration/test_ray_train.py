"""Training stages: in this process, on Ray with two workers, killed and resumed; and what their artefacts promise."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from diger_core import checkpoint as checkpoints
from diger_core.errors import DigerError
from orchestration import ray_train
from orchestration.model_artefact import ASSIGNMENT, load_model
from orchestration.stages.frozen_model import frozen_model
from orchestration.stages.joint_model import joint_model
from orchestration.stages.semantic_ids import semantic_ids
from tests.orchestration.training_world import ITEMS, Recorder, World, params


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_joint_model_artefact_loads_as_one_model_with_its_own_table(world: World) -> None:
    artefact, notes = world.compute("joint_model", joint_model, params(), key="a" * 64)
    model = load_model(artefact)
    assert len(model.item_ids) == ITEMS == len(model.table.codes_NM)
    assert artefact.facts["assignment_hash"] == artefact.tensors_metadata("model.safetensors")[ASSIGNMENT]
    assert len(artefact.json("curves.json")) == 2
    assert notes["workers"] == 0
    assert notes["rows_per_second"] > 0


def test_a_table_from_another_model_is_refused(world: World, tmp_path) -> None:
    one, _ = world.compute("joint_model", joint_model, params(), key="a" * 64)
    with world.store.writer("joint_model") as out:
        for name in one.names:
            if name != "id_table.parquet":
                out.file(name, one.path(name))
        table = one.table("id_table.parquet")
        out.table("id_table.parquet", table.set_column(1, "code_1", table.column("code_1").take(list(range(ITEMS))[::-1])), sort_by=("item_id",))
        mixed = world.store.publish(out)
    with pytest.raises(DigerError, match="is not the table"):
        load_model(mixed)


def test_semantic_ids_are_those_of_the_model_and_their_inverse(world: World) -> None:
    artefact, _ = world.compute("joint_model", joint_model, params(), key="a" * 64)
    world.inputs["joint_model"] = artefact
    ids, _ = world.compute("semantic_ids", semantic_ids, params())
    table, inverse = ids.table("semantic_ids.parquet"), ids.table("items_by_code.parquet")
    assert table.schema.metadata[ASSIGNMENT.encode()].decode() == artefact.facts["assignment_hash"]
    columns = ["code_1", "code_2", "suffix"]
    assert table.column("item_id").to_pylist() == list(range(ITEMS))
    assert len({tuple(row[c] for c in columns) for row in table.to_pylist()}) == ITEMS
    assert inverse.sort_by("item_id").select(table.column_names).equals(table)
    keys = [tuple(row[c] for c in columns) for row in inverse.to_pylist()]
    assert keys == sorted(keys)


def test_codes_that_the_tokenizer_does_not_give_are_refused(world: World) -> None:
    artefact, _ = world.compute("joint_model", joint_model, params(), key="a" * 64)
    other = World(world.folder / "other")
    with other.store.writer("embeddings") as out:
        vectors = other.inputs["embeddings"].tensors("vectors.safetensors")["vectors"]
        out.tensors("vectors.safetensors", {"vectors": vectors.flip(0)})
        out.table("texts.parquet", other.inputs["embeddings"].table("texts.parquet"), sort_by=("item_index",))
        other.inputs["embeddings"] = other.store.publish(out)
    other.inputs["joint_model"] = artefact
    with pytest.raises(DigerError, match="get other codes from the joint model's tokenizer"):
        other.compute("semantic_ids", semantic_ids, params())


def test_frozen_model_leaves_the_tokenizer_as_it_was(world: World) -> None:
    artefact, _ = world.compute("frozen_model", frozen_model, params(), key="f" * 64)
    warm = world.inputs["tokenizer"].tensors("tokenizer.safetensors")
    for name, value in load_model(artefact).tokenizer.state_dict().items():
        assert torch.equal(value, warm[name]), name
    joint, _ = world.compute("joint_model", joint_model, params(), key="a" * 64)
    assert not torch.equal(load_model(joint).tokenizer.codebooks, warm["codebooks"])


def test_a_control_that_is_switched_off_says_so(world: World) -> None:
    artefact, _ = world.compute("frozen_model", frozen_model, params(frozen_model=SimpleNamespace(enabled=False)))
    assert artefact.json("config.json") == {"enabled": False}
    with pytest.raises(DigerError, match=r"frozen_model\.enabled=true"):
        load_model(artefact)


def test_a_run_that_stopped_resumes_from_its_newest_valid_checkpoint_and_ends_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = replace(params().cluster, checkpoint_steps=3)
    unbroken, _ = world.compute("joint_model", joint_model, params(cluster=steps), key="1" * 64)
    saved: list[int] = []
    save = checkpoints.Checkpoint.save

    def interrupted(self: checkpoints.Checkpoint, directory: str) -> str:
        place = save(self, directory)
        saved.append(self.step)
        if len(saved) == 3:
            raise KeyboardInterrupt
        return place

    monkeypatch.setattr(checkpoints.Checkpoint, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.compute("joint_model", joint_model, params(cluster=steps), key="2" * 64)
    monkeypatch.undo()
    newest = world.store.root.at("checkpoints", "2" * 64, f"{saved[-1]:08d}", "recommender.safetensors")
    with open(newest, "r+b") as file:
        file.truncate(100)  # the newest is damaged: the one before has to do
    recorder = Recorder()
    resumed, _ = world.compute("joint_model", joint_model, params(cluster=steps), key="2" * 64, progress=recorder)
    assert any("falling back" in text for text in recorder.messages)
    assert any("resumed at" in text and f"step {saved[-2]} " in text for text in recorder.messages)
    assert resumed.hash == unbroken.hash


def test_a_finished_result_is_not_computed_again_and_is_cleared_once_published(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = world.compute("joint_model", joint_model, params(), key="3" * 64)
    monkeypatch.setattr(ray_train, "train_job", lambda *_: pytest.fail("trained again"))
    second, _ = world.compute("joint_model", joint_model, params(), key="3" * 64)
    assert second.hash == first.hash
    ray_train.published(world.store, "3" * 64)
    assert not world.store.root.exists("checkpoints", "3" * 64)


def test_a_checkpoint_that_cannot_be_stored_costs_a_warning_not_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_train, "_SAVE_AGAIN_AFTER", (0.0,))
    save, attempts = checkpoints.Checkpoint.save, []

    def failing(self: checkpoints.Checkpoint, directory: str) -> str:
        if directory.endswith("result"):
            return save(self, directory)
        attempts.append(self.step)
        raise DigerError("the object store does not answer")

    monkeypatch.setattr(checkpoints.Checkpoint, "save", failing)
    recorder = Recorder()
    artefact, _ = world.compute("joint_model", joint_model, params(), key="4" * 64, progress=recorder)
    assert len(attempts) == 2 * 2
    assert sum("training goes on without it" in text for text in recorder.messages) == 2
    assert artefact.names
