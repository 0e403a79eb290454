"""The bundle: complete, and every mix of parts is refused with both hashes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from diger_core.store.content_hash import table_hash
from orchestration.champion.bundle import load_bundle, reserved_table
from tests.support.release_world import MODEL_ALONE, ReleaseWorld


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return ReleaseWorld(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def made(world):
    return world.candidate(seed=1)


@pytest.fixture(scope="module")
def other(world):
    return world.candidate(seed=2)


def rebuilt(world: ReleaseWorld, source: Artefact, **replaced: Path | None) -> str:
    """The hash of a stored bundle with some files (by stem) taken from elsewhere, or left out."""
    with world.store.writer("bundle") as out:
        for name in source.names:
            path = replaced.get(name.split(".")[0], source.path(name))
            if path is not None:
                out.file(name, path, sort_by=source.files[name]["sort_by"])
        out.facts.update(source.facts)
        return world.store.publish(out).hash


def test_a_bundle_serves_from_its_own_files_alone(world, made, tmp_path):
    alone = tmp_path / "alone" / "artefacts" / "bundle" / made["bundle"].hash
    shutil.copytree(made["bundle"].directory, alone)
    bundle = load_bundle(Store(tmp_path / "alone"), made["bundle"].hash)
    assert bundle.item_ids.to_pylist() == made["sequences"].table("items.parquet")["item_id"].to_pylist()
    assert bundle.assignment_hash == made["semantic_ids"].facts["assignment_hash"]
    assert torch.equal(bundle.factors_NF, made["tokenizer"].tensors("inputs.safetensors")["factors"])
    assert bundle.encoder_state.document == {"encoder": "vectors", "width": 5}
    components = {name: made[name].hash for name in bundle.components if name != "encoder"}
    assert bundle.components == {**components, "encoder": world.encoder.hash}
    assert len(components) == 10


def test_equal_parts_make_an_equal_bundle(world, made):
    assert world.compute("bundle", made).hash == made["bundle"].hash


def test_an_old_table_with_a_new_model_is_refused_with_both_hashes(world, made, other):
    mixed = rebuilt(world, made["bundle"], id_table=other["bundle"].path("id_table.parquet"))
    with pytest.raises(DigerError, match=r"mixed parts: id_table.parquet is ") as refused:
        load_bundle(world.store, mixed)
    for each in (made, other):
        assert each["semantic_ids"].facts["assignment_hash"][:12] in str(refused.value)


def test_a_model_and_its_table_under_another_document_are_refused(world, made, other):
    parts = {name: other["bundle"].path(f"{name}.{kind}") for name, kind in (("id_table", "parquet"), ("model", "safetensors"))}
    with pytest.raises(DigerError, match=r"mixed parts: id_table.parquet is .*, but bundle.json names"):
        load_bundle(world.store, rebuilt(world, made["bundle"], **parts))


def test_another_encoder_is_refused_with_both_hashes(world, made, tmp_path):
    foreign = tmp_path / "encoder.json"
    foreign.write_text('{"encoder": "vectors", "width": 6}')
    with pytest.raises(DigerError, match="mixed parts: encoder.json") as refused:
        load_bundle(world.store, rebuilt(world, made["bundle"], encoder=foreign))
    assert world.encoder.hash[:12] in str(refused.value)


def test_other_factors_are_refused(world, made, other):
    with pytest.raises(DigerError, match="mixed parts: factors.safetensors"):
        load_bundle(world.store, rebuilt(world, made["bundle"], factors=other["bundle"].path("factors.safetensors")))


def test_the_recipe_of_other_lists_is_refused(world, made, tmp_path):
    """Weights that validation chose for another model say nothing about this one."""
    foreign = tmp_path / "fusion.json"
    foreign.write_text(json.dumps({**MODEL_ALONE.document(), "moved": 0.5}))
    with pytest.raises(DigerError, match="mixed parts: fusion.json"):
        load_bundle(world.store, rebuilt(world, made["bundle"], fusion=foreign))


@pytest.mark.parametrize(
    "name",
    ["id_table.parquet", "model.safetensors", "bundle.json", "encoder.json", "factors.safetensors", "fusion.json", "reserved.parquet"],
)
def test_a_bundle_without_one_of_its_files_is_refused(world, made, name):
    with pytest.raises(DigerError, match=name.replace(".", r"\.")):
        load_bundle(world.store, rebuilt(world, made["bundle"], **{name.split(".")[0]: None}))


@pytest.mark.parametrize(
    "name",
    ["id_table.parquet", "model.safetensors", "config.json", "encoder.json", "factors.safetensors", "fusion.json", "reserved.parquet"],
)
def test_a_flipped_bit_in_any_file_is_refused_by_name(made, tmp_path, name):
    root = tmp_path / "damaged"
    place = root / "artefacts" / "bundle" / made["bundle"].hash
    shutil.copytree(made["bundle"].directory, place)
    data = bytearray((place / name).read_bytes())
    data[len(data) // 2] ^= 1
    (place / name).chmod(0o644)
    (place / name).write_bytes(data)
    with pytest.raises(DigerError, match=name.replace(".", r"\.")):
        load_bundle(Store(root), made["bundle"].hash)


def test_semantic_ids_of_another_model_make_no_bundle(world, made, other):
    with pytest.raises(DigerError, match="semantic_ids holds assignment"):
        world.compute("bundle", {**made, "semantic_ids": other["semantic_ids"]})


def test_tuples_of_released_ancestors_stay_reserved_through_generations(world, made):
    data = world.data()
    first = world.candidate(seed=1, data=data)
    assert load_bundle(world.store, first["bundle"].hash).reserved.num_rows == 0
    held = load_bundle(world.store, first["bundle"].hash).table
    moved = IdTable(held.codes_NM.clone(), held.suffix_N.clone())
    moved.suffix_N[3] = 15  # item 3 leaves its tuple
    second = world.candidate(seed=1, data=data, table=moved, baseline=first["bundle"])
    fewer = world.data(items=range(30))
    third_table = IdTable(moved.codes_NM[:30], moved.suffix_N[:30])
    third = world.candidate(seed=1, data=fewer, table=third_table, baseline=second["bundle"])
    reserved = {tuple(row) for row in load_bundle(world.store, third["bundle"].hash).reserved_RQ.tolist()}
    assert reserved == {tuple(held.tuples[3].tolist())} | {tuple(row) for row in held.tuples[30:].tolist()}
    assert third["bundle"].json("bundle.json")["parent"] == second["bundle"].hash
    assert third["bundle"].json("bundle.json")["parent_assignment"] == second["semantic_ids"].facts["assignment_hash"]


def test_reserved_tuples_are_distinct_free_and_in_order():
    released = np.array([[2, 1, 0], [0, 0, 1], [0, 0, 1], [1, 1, 1]])
    table = reserved_table(released, np.array([[1, 1, 1], [5, 5, 5]]))
    assert [list(row.values()) for row in table.to_pylist()] == [[0, 0, 1], [2, 1, 0]]
    assert table_hash(table, table.column_names) == table_hash(reserved_table(released[::-1], np.array([[1, 1, 1]])), table.column_names)
