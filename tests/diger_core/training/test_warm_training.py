"""Training that continues from given weights and a released table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable
from diger_core.ids.stability import Hold
from diger_core.training.checkpoint import Checkpoint, newest_valid
from diger_core.training.loop import Trained
from tests.support import small_setting as small

NEW = 5  # the last items are new in the second training
FAST = replace(small.JOINT, codebook_learning_rate=0.03)  # codebooks that move far in three epochs


@pytest.fixture(scope="module")
def first() -> Trained:
    return small.run()


def warm(first: Trained, mode: str = "free", anchor: float = 1.0, **more):
    released = IdTable(first.table.codes_NM.clone(), first.table.suffix_N.clone())
    released.codes_NM[-NEW:], released.suffix_N[-NEW:] = -1, -1
    given = {"joint": FAST, **more}
    held = Hold(mode, anchor, torch.ones(small.ITEMS))  # type: ignore[arg-type]
    return released, {"tokenizer": first.tokenizer, "start": first.recommender.state_dict(), "previous": released, "held": held, **given}


def test_a_warm_start_begins_where_the_first_training_ended(first: Trained) -> None:
    _, arguments = warm(first, training=replace(small.TRAINING, learning_rate=1e-9, epochs=1), joint=replace(FAST, codebook_learning_rate=0.0))
    again = small.run(**arguments)
    assert again.best_ndcg == pytest.approx(first.best_ndcg)
    assert torch.equal(again.table.codes_NM, first.table.codes_NM)


def test_training_that_only_harms_gives_back_the_start(first: Trained) -> None:
    _, arguments = warm(first, training=replace(small.TRAINING, learning_rate=5.0))
    harmed = small.run(**arguments)
    assert harmed.best_epoch == 0
    assert harmed.best_ndcg == pytest.approx(first.best_ndcg)
    assert all(torch.equal(a, b) for a, b in zip(harmed.recommender.state_dict().values(), first.recommender.state_dict().values(), strict=True))


@pytest.mark.parametrize("mode", ["pinned", "anchored", "free"])
def test_ids_move_as_far_as_the_mode_allows_after_every_epoch(first: Trained, mode: str) -> None:
    kept: list[Checkpoint] = []
    released, arguments = warm(first, mode, anchor=1.0)
    small.run(**arguments, on_checkpoint=kept.append)
    last = kept[-1].tensors["table"]
    same = (last["codes"] == released.codes_NM).all(1)[:-NEW]
    if mode == "pinned":
        assert bool(same.all())
        assert torch.equal(last["suffix"][:-NEW], released.suffix_N[:-NEW])
    else:
        assert not bool(same.all())  # otherwise this setting would show nothing
    if mode == "anchored":
        free = _last_codes(*warm(first, "free"))
        assert int(same.sum()) > int((free == released.codes_NM).all(1)[:-NEW].sum())
    assert IdTable(last["codes"], last["suffix"]).duplicates() == 0


def _last_codes(_: IdTable, arguments: dict) -> torch.Tensor:
    kept: list[Checkpoint] = []
    small.run(**arguments, on_checkpoint=kept.append)
    return kept[-1].tensors["table"]["codes"]


def test_monitors_show_the_argmin_table_where_the_ids_are_pinned(first: Trained) -> None:
    _, arguments = warm(first, "pinned")
    pinned = small.run(**arguments)
    assert [row["unique_prefixes"] for row in pinned.curves] != [pinned.curves[0]["unique_prefixes"]] * len(pinned.curves)
    assert all(row["flipped"] <= NEW / small.ITEMS for row in pinned.curves)  # new items follow the codebooks until they are released


class Killed(Exception):
    pass


def test_a_killed_warm_run_resumes_into_the_uninterrupted_one(first: Trained, tmp_path: Path) -> None:
    _, arguments = warm(first, "anchored")
    whole: list[Checkpoint] = []
    small.run(**arguments, on_checkpoint=whole.append)

    def dies(checkpoint: Checkpoint) -> None:
        checkpoint.save(tmp_path)
        if checkpoint.step >= 9:
            raise Killed

    with pytest.raises(Killed):
        small.run(**arguments, on_checkpoint=dies, checkpoint_steps=3)
    resumed: list[Checkpoint] = []
    small.run(**arguments, on_checkpoint=resumed.append, resume=newest_valid(tmp_path))
    assert small.equal(resumed[-1], whole[-1]) == []


@pytest.mark.parametrize("change", ["held", "previous", "start", "reserved"])
def test_a_checkpoint_of_another_start_is_refused(first: Trained, change: str) -> None:
    released, arguments = warm(first, "anchored")
    kept: list[Checkpoint] = []
    small.run(**arguments, on_checkpoint=kept.append)
    other = {
        "held": Hold("anchored", 2.0, torch.ones(small.ITEMS)),
        "previous": IdTable(released.codes_NM, torch.where(released.suffix_N == 0, 9, released.suffix_N)),
        "start": {name: value + 1 for name, value in first.recommender.state_dict().items()},
        "reserved": torch.tensor([[0, 0, 0]]),
    }
    with pytest.raises(DigerError, match="another configuration"):
        small.run(**{**arguments, change: other[change]}, resume=kept[0])


def test_a_recommender_of_other_sizes_is_refused_with_the_remedy(first: Trained) -> None:
    _, arguments = warm(first)
    with pytest.raises(DigerError, match=r"warm start: .* retraining.start=scratch"):
        small.run(**arguments, recommender=replace(small.RECOMMENDER, d_ff=48))
