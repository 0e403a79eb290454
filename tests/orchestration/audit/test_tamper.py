"""Every accident and every tampering is detected and named; a re-encoded file with equal content passes and is said to be one."""

from __future__ import annotations

import hashlib
import json

import pytest

from benchmarks.tamper import CASES, Case, Damage, Scene, copy_store, flip, outcome, try_case, undone
from diger_core.store.artefacts import Store
from orchestration.audit import tree
from orchestration.audit.chain import chain
from orchestration.audit.index import Index
from orchestration.audit.journal import Journal
from orchestration.audit.names import resolve
from orchestration.audit.verify import verify_store
from tests.support.s3_faults import environment, faulty_s3


@pytest.fixture(scope="module")
def scene(audit_world, tmp_path_factory) -> Scene:
    return Scene(Damage(audit_world.copy(tmp_path_factory.mktemp("tamper"))), "champion", audit_world.runs[1], audit_world.runs[0])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_damage_is_detected_and_named(scene: Scene, case: Case):
    right, line = try_case(scene, case)
    assert right, line
    assert case.passes or any(word in line for word in ("restore", "run stage", "roll back", "remove", "register")), f"no remedy: {line}"


@pytest.mark.parametrize("content", [False, True])
def test_a_sound_store_has_no_faults(scene: Scene, content: bool):
    found = outcome(scene, content)
    assert found.faults == []
    assert found.notes == []
    assert found.artefacts > 20
    assert found.records >= found.artefacts


def verified(scene: Scene) -> list[str]:
    return verify_store(Index(scene.damage.store, cached=False)).faults


def edit_manifest(scene: Scene, stage: str, file: str, data: bytes) -> None:
    """The manifest's SHA-256 and size of a file fitted to other bytes; its name does not cover them."""
    manifest = json.loads(scene.damage.read(scene.manifest(stage)))
    entry = next(entry for entry in manifest["files"] if entry["name"] == file)
    entry["sha256"], entry["bytes"] = hashlib.sha256(data).hexdigest(), len(data)
    scene.damage.write(scene.manifest(stage), json.dumps(manifest).encode())


def test_a_json_file_edited_with_its_manifest_is_named_with_the_manifest(scene: Scene):
    names = scene.file("gate", "verdict.json")
    with undone(scene):
        edited = scene.damage.read(names).replace(b'"observed": ', b'"observed": 1')
        scene.damage.write(names, edited)
        edit_manifest(scene, "gate", "verdict.json", edited)
        for faults in (outcome(scene).faults, verified(scene)):
            assert any("/".join(scene.manifest("gate")) in fault and "its records say" in fault for fault in faults), faults
            assert any("/".join(names) in fault and "canonical" in fault for fault in faults), faults


def test_an_edited_manifest_does_not_blame_the_intact_file(scene: Scene):
    with undone(scene):
        edit_manifest(scene, "joint_model", "model.safetensors", b"something else")
        for faults in (outcome(scene).faults, verified(scene)):
            (fault,) = faults
            assert "/".join(scene.manifest("joint_model")) in fault
            assert "edited or replaced" in fault


def test_an_artefact_without_a_record_is_a_fault(scene: Scene):
    with undone(scene):
        hash_ = scene.run["id_diff"]
        for made in Index(scene.damage.store, cached=False).makers[hash_]:
            scene.damage.remove(("records", *made.path.split("/")))
        (fault,) = verified(scene)
        assert f"artefacts/id_diff/{hash_}: no record of stage id_diff" in fault
        assert "run stage id_diff again" in fault


def test_a_release_without_its_log_entry_is_a_fault(scene: Scene):
    with undone(scene):
        names = ("champion", scene.damage.store.root.list("champion")[-1])
        scene.damage.remove(names)
        (fault,) = verified(scene)
        assert f"artefacts/release/{scene.run['release']}: no entry of the champion log names this release" in fault


@pytest.mark.parametrize("file", ["verdict.json", "manifest.json"])
def test_a_damaged_verdict_is_reported_and_the_rest_is_still_checked(scene: Scene, file: str):
    names = scene.manifest("gate") if file == "manifest.json" else scene.file("gate", file)
    other = scene.file("joint_model", "model.safetensors")
    with undone(scene):
        scene.damage.write(names, scene.damage.read(names)[:-20])
        scene.damage.write(other, scene.damage.read(other)[:-1])
        index = Index(scene.damage.store, cached=False)
        assert any("FAULT" in line for line in tree.text(index, chain(index, resolve(index, "champion"))))
        for faults in (outcome(scene).faults, verified(scene)):
            assert any("/".join(names) in fault for fault in faults), faults
            assert any("/".join(other) in fault for fault in faults), faults


ON_S3 = ("one bit flipped in joint_model", "model file cut in half", "an input's whole artefact deleted", "two ID tables swapped")
ON_S3 += ("a model replaced by another under the same name", "a manifest's fact edited", "bundles mixed, manifest made anew")
ON_S3 += ("Parquet re-encoded and re-ordered, content asked",)


@pytest.mark.s3
@pytest.mark.slow
def test_damage_is_detected_and_named_on_an_object_store(audit_world, s3_bucket):
    store = Store(f"{s3_bucket}/store")
    copy_store(audit_world.store, store)
    scene = Scene(Damage(store), "champion", audit_world.runs[1], audit_world.runs[0])
    assert outcome(scene).faults == []
    wrong = {case.name: line for case in CASES if case.name in ON_S3 for right, line in [try_case(scene, case)] if not right}
    assert wrong == {}


def test_a_reencoded_object_passes_on_a_machine_that_has_no_copy_of_the_right_one(audit_world, tmp_path, monkeypatch):
    import s3fs

    with faulty_s3() as (server, endpoint):
        for name, value in {**environment(endpoint), "DIGER_CACHE": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        root = audit_world.store.root
        server.objects |= {f"shop/store/{name}": root.read(*name.split("/")) for name in root.tree()}
        scene = Scene(Damage(Store("s3://shop/store")), audit_world.runs[1]["semantic_ids"], audit_world.runs[1], audit_world.runs[0])
        (case,) = [case for case in CASES if case.passes]
        right, line = try_case(scene, case)
        s3fs.S3FileSystem.clear_instance_cache()
    assert right, line


@pytest.mark.s3
@pytest.mark.slow
def test_an_object_written_again_is_not_passed_over(s3_bucket, tmp_path):
    store = Store(f"{s3_bucket}/journal")
    with store.writer("raw_items") as out:
        out.json("a.json", {"value": 1})
        hash_ = store.publish(out).hash

    def journal() -> Journal:
        return Journal(tmp_path / "journal")

    first = journal()
    assert first.untouched(Index(store, cached=False)) == set()
    first.add(hash_)
    assert journal().untouched(Index(store, cached=False)) == {hash_}
    names = ("artefacts", "raw_items", hash_, store.artefact("raw_items", hash_).files["a.json"]["path"])
    store.root.fs.pipe_file(store.root.at(*names), flip(store.root.read(*names)))
    assert journal().untouched(Index(store, cached=False)) == set()
