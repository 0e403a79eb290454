"""`diger params`: what is printed says what keys mean and what is not the default, and loads as the same parameters."""

import pytest
import yaml

from diger_core.errors import DigerError
from orchestration.params.load import build_params, load_params
from orchestration.params.shown import WIDTH, shown

CHANGED = {"training": {"epochs": 3, "teacher": {"share": 0.25}}, "tokenizer": {"hidden": [8]}, "joint_model": {"schedule": {"r": float("inf")}}}


def test_what_is_printed_loads_as_the_same_parameters(tmp_path):
    params = load_params(None, ["training.epochs=3", "tokenizer.hidden=[8]", "evaluation.beams=20", "joint_model.schedule.r=.inf"])
    for how in ({}, {"meanings": False}, {"changed": True}):
        (tmp_path / "again.yaml").write_text(shown(params, **how))
        assert load_params(tmp_path / "again.yaml") == params


def test_a_key_stands_with_its_meaning_and_its_default_where_it_differs():
    lines = shown(build_params(CHANGED)).splitlines()
    assert any(line.startswith("  epochs: 3  # default ") for line in lines)
    assert lines[lines.index("  hidden: [8]") - 2].startswith("  # default [512, 256, 128]; widths of "), "what does not fit stands above its key"
    assert "  batch_size: 256  # B, over all ranks" in lines
    assert "# Stage `tokenizer`: the RQ-VAE and its warm-up (docs/method.md, section 2)." in lines
    assert max(len(line) for line in lines) <= WIDTH


def test_only_what_differs_can_be_asked_for():
    params = build_params(CHANGED)
    assert yaml.safe_load(shown(params, changed=True)) == CHANGED
    assert yaml.safe_load(shown(params, ["tokenizer"], changed=True)) == {"tokenizer": {"hidden": [8]}}
    assert shown(build_params({}), changed=True) == "# nothing differs from the defaults\n"
    assert "#" not in shown(params, ["training"], meanings=False)
    with pytest.raises(DigerError, match="nonsense: is no section"):
        shown(params, ["nonsense"])


def test_a_warm_start_says_which_of_its_own_keys_counts():
    warm = build_params({"retraining": {"epochs": 3}}).retraining
    (told,) = warm.shadowed(["training.epochs=7", "training.learning_rate=0.1"])
    assert "training.epochs=7 does not count here" in told
    assert "--set retraining.epochs=7" in told
    assert warm.shadowed(["training.epochs=7", "retraining.epochs=7"]) == []
    assert build_params({}).retraining.shadowed(["training.epochs=7"]) == []
