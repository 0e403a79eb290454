from __future__ import annotations

import numpy as np
import pytest
import torch

from diger_core.data.batches import LENGTHS, Batches, padded_length
from diger_core.data.sequences import Sequences
from diger_core.data.splits import training_rows
from diger_core.errors import DigerError
from diger_core.fast.rows import RowsOnDevice
from diger_core.training.distributed import Distributed


def made(users: int = 60, items: int = 40, seed: int = 0, weights: bool = False) -> Sequences:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 30, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    events = random.integers(0, items, offsets[-1]).astype(np.int32)
    return Sequences(events, offsets, items, None, random.uniform(0.5, 2, offsets[-1]).astype(np.float32) if weights else None)


def as_rows(batches: Batches, epoch: int, **kwargs: int) -> list[tuple[tuple[int, ...], int]]:
    found = []
    for batch in batches.epoch(epoch, **kwargs):
        for history, target in zip(batch.history_BT.tolist(), batch.target_B.tolist(), strict=True):
            found.append((tuple(int(batch.items_V[i]) for i in history if i >= 0), int(batch.items_V[target])))
    return found


def test_an_epoch_holds_every_training_row_once_with_its_true_history() -> None:
    seq = made()
    user_R, position_R = training_rows(seq)
    wanted = []
    for user, position in zip(user_R.tolist(), position_R.tolist(), strict=True):
        start = max(int(seq.offsets_U1[user]), position - 7)
        wanted.append((tuple(seq.events_E[start:position].tolist()), int(seq.events_E[position])))
    assert sorted(as_rows(Batches(seq, 16, 7, seed=3), epoch=0)) == sorted(wanted)


def test_padding_stands_at_the_end_and_lengths_come_from_a_small_set() -> None:
    batches = Batches(made(), 16, 20, seed=0)
    shapes = set()
    for batch in batches.epoch(0):
        present = batch.history_BT >= 0
        assert bool((present[:, :-1] | ~present[:, 1:]).all()), "an item after padding"
        assert bool(present[:, 0].all())
        shapes.add(batch.history_BT.shape[1])
    assert shapes <= {*LENGTHS, 20}
    assert [padded_length(n, 50) for n in (1, 2, 3, 17, 33, 49, 50)] == [2, 2, 4, 20, 40, 50, 50]


def test_unique_items_are_each_there_once_and_all_used() -> None:
    for batch in Batches(made(), 16, 20, seed=0).epoch(1):
        items = batch.items_V.tolist()
        assert items == sorted(set(items))
        used = set(batch.history_BT[batch.history_BT >= 0].tolist()) | set(batch.target_B.tolist())
        assert used == set(range(len(items)))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    one, again = Batches(made(), 16, 20, seed=0), Batches(made(), 16, 20, seed=0)
    list(one.epoch(0))
    assert as_rows(one, 5) == as_rows(again, 5)
    assert as_rows(one, 5) != as_rows(one, 6)
    assert as_rows(one, 5) != as_rows(Batches(made(), 16, 20, seed=1), 5)


@pytest.mark.parametrize("start", [0, 1, 7, 19])
def test_an_epoch_resumes_at_any_batch(start: int) -> None:
    batches = Batches(made(), 16, 20, seed=0)
    whole, rest = list(batches.epoch(2)), list(batches.epoch(2, start))
    assert [b.index for b in rest] == list(range(start, len(batches)))
    for left, right in zip(whole[start:], rest, strict=True):
        assert torch.equal(left.history_BT, right.history_BT)
        assert torch.equal(left.items_V, right.items_V)


def test_the_last_partial_batch_is_kept() -> None:
    batches = Batches(made(), 64, 20, seed=0)
    sizes = sorted(len(b.target_B) for b in batches.epoch(0))
    assert batches.rows % 64, "the setting has a partial batch"
    assert sizes == sorted([64] * (batches.rows // 64) + [batches.rows % 64])
    assert len(sizes) == len(batches)


def test_grouping_by_length_saves_most_of_the_padding_and_batches_stay_shuffled() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(4, 40, 800)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    batches = Batches(Sequences(random.integers(0, 99, offsets[-1]).astype(np.int32), offsets, 99), 32, 40, seed=0)
    epoch = list(batches.epoch(0))
    slots, present = sum(b.history_BT.numel() for b in epoch), sum(int((b.history_BT >= 0).sum()) for b in epoch)
    assert present / slots > 0.8
    width = [b.history_BT.shape[1] for b in epoch]
    assert np.abs(np.corrcoef(np.arange(len(width)), width)[0, 1]) < 0.2, "short histories must not all come first"


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_ranks_share_all_rows_and_know_the_same_items(world: int) -> None:
    batches = Batches(made(weights=True), 16, 20, seed=0)
    for batch in batches.epoch(0):
        parts = [batch.share(Distributed(rank, world)) for rank in range(world)]
        kept = [p for p in parts if float(p.weight_B.abs().sum()) > 0]
        assert torch.equal(torch.cat([p.target_B for p in kept]), batch.target_B)
        assert torch.equal(torch.cat([p.history_BT for p in kept]), batch.history_BT)
        assert sum(float(p.weight_B.double().sum()) for p in parts) == pytest.approx(float(batch.weight_B.double().sum()), rel=1e-6)
        assert all(p.items_V is batch.items_V and len(p.target_B) for p in parts)


def test_a_rank_without_rows_gets_one_that_weighs_nothing() -> None:
    batches = Batches(made(users=3), 4, 20, seed=0)
    batch = batches.batch(np.array([0]), batches.drawn(0))
    idle = batch.share(Distributed(1, 2))
    assert len(idle.target_B) == 1
    assert float(idle.weight_B) == 0


def test_weights_scale_rows_across_batches_and_average_one() -> None:
    seq = made(weights=True)
    batches = Batches(seq, 16, 20, seed=0)
    assert seq.weights_E is not None
    assert batches.weight_R.mean() == pytest.approx(1, rel=1e-5)
    of_target = seq.weights_E[training_rows(seq)[1]]
    np.testing.assert_allclose(batches.weight_R / batches.weight_R[0], of_target / of_target[0], rtol=1e-5)
    assert float((batches := Batches(made(), 16, 20, seed=0)).batch(np.arange(10), batches.drawn(0)).weight_B.sum()) == pytest.approx(1)


def test_users_too_short_for_a_row_are_a_clear_error() -> None:
    with pytest.raises(DigerError, match="4 events"):
        Batches(Sequences(np.zeros(6, np.int32), np.array([0, 3, 6]), 1), 4, 20, seed=0)


@pytest.mark.parametrize("bad", [[np.nan] * 8, [-1.0] * 8, [0.0] * 8])
def test_unusable_weights_are_a_clear_error(bad: list[float]) -> None:
    with pytest.raises(DigerError, match="weight"):
        Batches(Sequences(np.zeros(8, np.int32), np.array([0, 8]), 1, None, np.array(bad, np.float32)), 4, 20, seed=0)


def test_cropped_histories_are_the_newest_items_of_the_full_ones_and_only_a_share_of_the_rows_is_cropped() -> None:
    full = {target: length for target, length in _lengths(Batches(made(users=400), 16, 20, seed=0), 0)}
    batches = Batches(made(users=400), 16, 20, seed=0, crop=0.5)
    cropped = dict(_lengths(batches, 0))
    assert cropped.keys() == full.keys()
    assert all(1 <= cropped[target] <= length for target, length in full.items())
    long = [target for target, length in full.items() if length == 20]
    assert np.mean([cropped[target] < 20 for target in long]) == pytest.approx(0.5 * 19 / 20, abs=0.03)
    assert np.mean([cropped[target] for target in long if cropped[target] < 20]) == pytest.approx(10, abs=0.4)
    for history, item in as_rows(batches, epoch=3):
        assert 1 <= len(history) <= 20
        assert _follows(made(users=400), history, item)
    assert (batches.drawn(1).length_R != batches.drawn(2).length_R).any()
    assert (batches.drawn(1).length_R == Batches(made(users=400), 16, 20, seed=0, crop=0.5).drawn(1).length_R).all()


def _lengths(batches: Batches, epoch: int) -> list[tuple[int, int]]:
    return list(zip(batches.target_R.tolist(), batches.drawn(epoch).length_R.tolist(), strict=True))


def _follows(seq: Sequences, history: tuple[int, ...], item: int) -> bool:
    """Whether some user has these items one after the other."""
    wanted = np.array([*history, item])
    windows = np.lib.stride_tricks.sliding_window_view(seq.events_E, len(wanted))
    start = np.flatnonzero((windows == wanted).all(1))
    user = np.searchsorted(seq.offsets_U1, start, side="right")
    return bool((start + len(wanted) <= seq.offsets_U1[user]).any())


def test_a_cropped_epoch_on_the_device_is_the_host_s() -> None:
    batches = Batches(made(), 15, 12, seed=3, crop=0.7)
    rows = RowsOnDevice(batches, torch.device("cpu"))
    planned = rows.start(2, 0)
    for batch, (count, longest) in zip(batches.epoch(2), planned, strict=True):
        found = rows.gather(batch.history_BT.shape[1])
        present = batch.history_BT >= 0
        assert longest == int(present.sum(1).max())
        assert torch.equal(found.present_BL[:count], present)
        assert torch.equal(found.item_BL[:count][present], batch.items_V[batch.history_BT[present]])
        rows.cursor += 1
