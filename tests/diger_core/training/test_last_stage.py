"""The last stage: the recommender alone on the final table, for both kinds of training; and a run on a table that is given."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diger_core.config import JointModelConfig
from diger_core.data.splits import to_the_end
from diger_core.ids.id_table import IdTable
from diger_core.training.checkpoint import Checkpoint
from tests.diger_core.fast.test_capture import _different, _fast
from tests.support import small_setting as small

TRAINING = replace(small.TRAINING, epochs=2, last_stage_epochs=2)
FROZEN = replace(small.JOINT, tokenizer="frozen")


def _checkpoints(joint: JointModelConfig, **more: object) -> list[Checkpoint]:
    kept: list[Checkpoint] = []
    small.run(joint, TRAINING, small.without_dropout(), on_checkpoint=kept.append, **more)
    return kept


@pytest.mark.parametrize("joint", [small.JOINT, FROZEN], ids=["joint", "frozen"])
def test_the_last_stage_trains_the_recommender_alone_from_the_best_state(joint: JointModelConfig) -> None:
    kept = _checkpoints(joint)
    assert [c.state["epoch"] for c in kept] == [1, 2, 3, 4]
    before, after = kept[1], kept[-1]
    best = {name.removeprefix("tokenizer."): value for name, value in before.tensors["best"].items() if name.startswith("tokenizer.")}
    for name, value in after.tensors["tokenizer"].items():
        assert torch.equal(value, best[name])
    assert torch.equal(after.tensors["table"]["codes"], before.tensors["best"]["codes"])
    assert torch.equal(after.tensors["table"]["suffix"], before.tensors["best"]["suffix"])
    assert not torch.equal(after.tensors["recommender"]["start"], before.tensors["best"]["recommender.start"])
    assert not any(name.startswith("tokenizer.") for name in after.tensors["optimizer"])
    assert [row["epoch"] for row in after.state["curves"]] == [1, 2, 3, 4]


def test_both_kinds_of_training_take_the_same_number_of_epochs() -> None:
    assert len(_checkpoints(small.JOINT)) == len(_checkpoints(FROZEN)) == 4


def test_an_early_stop_leads_into_the_last_stage() -> None:
    training = replace(TRAINING, epochs=40, patience=1, last_stage_epochs=1)
    trained = small.run(small.JOINT, training)
    assert len(trained.curves) < 41
    assert trained.curves[-1]["flipped"] == 0


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_resumes_before_and_inside_the_last_stage(epoch: int) -> None:
    whole: list[Checkpoint] = []
    small.run(small.JOINT, TRAINING, on_checkpoint=whole.append, checkpoint_steps=3)
    middle = next(c for c in whole if c.state["epoch"] == epoch and c.state["batch"] > 0)
    resumed = small.last_checkpoint(small.JOINT, TRAINING, resume=middle)
    assert small.equal(resumed, whole[-1]) == []


@pytest.mark.parametrize("joint", [small.JOINT, FROZEN], ids=["joint", "frozen"])
def test_fast_steps_take_the_last_stage_as_reference_steps_do(joint: JointModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = _checkpoints(joint)[-1]
    _fast(monkeypatch)
    assert _different(wanted, _checkpoints(joint)[-1]) == []


def test_a_run_on_a_given_table_and_all_events_keeps_the_table_and_its_last_state() -> None:
    first = small.run(small.JOINT, replace(small.TRAINING, epochs=1))
    moved = IdTable(first.table.codes_NM, (first.table.suffix_N + 3) % 32)  # no refresh would give these suffixes
    given = {
        "sequences": to_the_end(small.sequences()),
        "tokenizer": first.tokenizer,
        "start": first.recommender.state_dict(),
        "table": moved,
    }
    before = {name: value.clone() for name, value in first.recommender.state_dict().items()}
    trained = small.run(FROZEN, replace(small.TRAINING, epochs=2, learning_rate=1e-4), **given)
    assert torch.equal(trained.table.suffix_N, moved.suffix_N)
    assert torch.equal(trained.table.codes_NM, moved.codes_NM)
    assert trained.best_epoch == 2
    assert all(row["validation_ndcg_10"] is None for row in trained.curves)
    assert not torch.equal(trained.recommender.state_dict()["start"], before["start"])
    with pytest.raises(ValueError, match="joint.tokenizer frozen"):
        small.run(small.JOINT, **given)
