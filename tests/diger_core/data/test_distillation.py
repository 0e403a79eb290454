from __future__ import annotations

import numpy as np
import pytest

from diger_core.data.batches import Batches
from diger_core.data.distillation import DistillationTargets
from diger_core.errors import DigerError
from diger_core.fast.rows import RowsOnDevice
from tests.diger_core.data.test_batches import as_rows, made
from tests.support import small_setting as small


def taught(rows: int, share: float) -> DistillationTargets:
    """Items 0, 1 and 2 with probabilities .5, .3 and .2 for every row."""
    return DistillationTargets.of(np.tile(np.array([0, 1, 2], np.int32), (rows, 1)), np.tile(np.array([0.5, 0.3, 0.2], np.float32), (rows, 1)), share)


def test_targets_are_drawn_in_the_teachers_proportions_and_only_for_its_share_of_the_rows() -> None:
    target_R = np.full(200_000, 9, dtype=np.int64)
    drawn_R = taught(len(target_R), 0.4).draw(target_R, seed=3, epoch=5)
    shares = [float((drawn_R == item).mean()) for item in (9, 0, 1, 2)]
    assert shares == pytest.approx([0.6, 0.2, 0.12, 0.08], abs=0.005)


def test_an_epochs_targets_depend_on_seed_and_epoch_alone() -> None:
    target_R = np.arange(500, dtype=np.int64)
    teacher = taught(500, 0.5)
    assert (teacher.draw(target_R, 1, 2) == teacher.draw(target_R, 1, 2)).all()
    assert (teacher.draw(target_R, 1, 2) != teacher.draw(target_R, 1, 3)).any()
    assert (teacher.draw(target_R, 1, 2) != teacher.draw(target_R, 2, 2)).any()


def test_share_0_leaves_every_target_and_share_1_none() -> None:
    target_R = np.full(500, 9, dtype=np.int64)
    assert (taught(500, 0.0).draw(target_R, 0, 0) == 9).all()
    assert set(taught(500, 1.0).draw(target_R, 0, 0).tolist()) == {0, 1, 2}


def test_a_distilled_epoch_keeps_every_history_and_replaces_targets_alone() -> None:
    seq = made()
    plain = Batches(seq, 16, 7, seed=3)
    distilled = Batches(seq, 16, 7, seed=3, distillation=taught(plain.rows, 0.5))
    before, after = as_rows(plain, epoch=1), as_rows(distilled, epoch=1)
    assert [history for history, _ in before] == [history for history, _ in after]
    changed = [new for (_, old), (_, new) in zip(before, after, strict=True) if old != new]
    assert changed
    assert set(changed) <= {0, 1, 2}


def test_the_device_s_rows_are_the_batches_with_their_drawn_targets() -> None:
    seq = small.sequences()
    batches = Batches(seq, 15, 6, seed=0, distillation=taught(Batches(seq, 15, 6, seed=0).rows, 0.7))
    rows = RowsOnDevice(batches, small.vectors().device)
    for index, (count, length) in enumerate(rows.start(2, 0)):
        wanted = next(batches.epoch(2, index))
        found = rows.gather(length)
        assert found.target_B[:count].tolist() == wanted.items_V[wanted.target_B].tolist()
        rows.cursor += 1


def test_candidates_of_other_rows_are_refused() -> None:
    with pytest.raises(DigerError, match="candidates of 3 rows"):
        Batches(made(), 16, 7, seed=0, distillation=taught(3, 0.5))


def test_probabilities_that_do_not_sum_to_1_are_refused() -> None:
    with pytest.raises(ValueError, match="do not sum to 1"):
        DistillationTargets.of(np.zeros((2, 2), np.int32), np.full((2, 2), 0.4, np.float32), 0.5)
