"""Every accident and every tampering is detected and named; a re-encoded file with equal content passes and is said to be one."""

from __future__ import annotations

import pytest

from benchmarks.tamper import CASES, Case, Damage, Scene, copy_store, outcome, try_case
from diger_core.store import Store


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
