"""The tables as a teacher: nobody's own future speaks for a training row, and what nobody bought is taught by what reads alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diger_core.config import NeighboursConfig, TeacherConfig
from diger_core.data.batches import Batches
from diger_core.data.distillation import DistillationTargets
from diger_core.data.neighbours import ItemTable, empty_table, outgoing, transitions
from diger_core.data.sequences import Sequences
from diger_core.data.splits import training_ends, training_rows
from diger_core.data.teacher import SyntheticHistories, TeacherTables, synthetic_rows, taught
from diger_core.fast.rows import RowsOnDevice
from tests.support import small_setting as small

ITEMS = 9
COUNTED = NeighboursConfig(window=3, gap=2.0, keep=50)
CONFIG = TeacherConfig(share=0.5, synthetic=0.5, tau=2.0, candidates=ITEMS)
USERS = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=9), min_size=1, max_size=6)
# by text item 0 is like 1 and 8, and 8, which nobody has bought, like 0
ALIKE = ItemTable(np.array([0] + [2] * 8 + [3]), np.array([1, 8, 0], dtype=np.int32), np.array([0.9, 0.5, 0.4], dtype=np.float32))


def made(users: list[list[int]], times: bool = False) -> Sequences:
    offsets = np.concatenate(([0], np.cumsum([len(user) for user in users])))
    events = np.array([item for user in users for item in user], dtype=np.int32)
    seq = Sequences(events, offsets, items=ITEMS)
    if not times:
        return seq
    day_E = np.concatenate([np.arange(len(user)) // 2 for user in users]) * 86_400  # every second pair shares its time
    return replace(seq, timestamps_E=day_E.astype(np.int64), boundaries=(3 * 86_400, 3 * 86_400 + 1))


def _share(seq: Sequences, first: int, second: int) -> float:
    tied = seq.timestamps_E is not None and seq.timestamps_E[first] == seq.timestamps_E[second]
    return float(np.exp(-(second - first - 1) / COUNTED.gap) * (0.5 if tied else 1))


def expected(seq: Sequences, user: int, end: int, text: ItemTable) -> np.ndarray:
    """Scores of one row by the definition: row sums of all users, pairs without those from this user's history to what it did at `end` and later."""
    whole, without = np.zeros((ITEMS, ITEMS)), np.zeros((ITEMS, ITEMS))
    for u, last in enumerate(training_ends(seq)):
        for j in range(seq.offsets_U1[u], last):
            for i in range(max(seq.offsets_U1[u], j - COUNTED.window), j):
                a, b = seq.events_E[i], seq.events_E[j]
                if a == b:
                    continue
                tied = seq.timestamps_E is not None and seq.timestamps_E[i] == seq.timestamps_E[j]
                for x, y, own in ((a, b, True), (b, a, False))[: 1 + tied]:
                    whole[x, y] += _share(seq, i, j)
                    without[x, y] += 0.0 if own and u == user and i < end <= j else _share(seq, i, j)
    scale = 1 / np.sqrt(np.maximum(whole.sum(1), 1e-12))[:, None]
    reads = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        found, weight = text.row(item)
        reads[item, found] = weight
    history = seq.events_E[seq.offsets_U1[user] : end][::-1][:10]  # exp(-9 / 2) is the last weight above 0.01
    weights = [np.exp(-age / CONFIG.tau) for age in range(len(history))]
    return sum(w * (without * scale + CONFIG.text * reads)[item] for w, item in zip(weights, history, strict=True) if w >= 0.01)


def _probabilities(found: DistillationTargets) -> np.ndarray:
    share_Rk = np.diff(found.cumulative_Rk, axis=1, prepend=0)
    dense_RN = np.zeros((len(share_Rk), ITEMS))
    np.add.at(dense_RN, (np.arange(len(share_Rk))[:, None], found.items_Rk), share_Rk)
    return dense_RN


@given(USERS, st.booleans())
def test_a_training_row_is_scored_without_what_its_user_did_then_and_later(users: list[list[int]], times: bool) -> None:
    seq = made([*users, [0, 1, 2, 3, 4, 5, 6, 7], [3, 2, 1, 0]], times)
    user_R, end_R = training_rows(seq)
    found_RN = _probabilities(taught(seq, TeacherTables(transitions(seq, COUNTED), ALIKE, COUNTED), CONFIG))
    for row, (user, end) in enumerate(zip(user_R, end_R, strict=True)):
        score = np.where((wanted := expected(seq, user, end, ALIKE)) < 1e-6, 0, wanted)
        np.testing.assert_allclose(found_RN[row], score / max(score.sum(), 1e-12), atol=1e-4)


def test_a_pair_that_only_its_own_user_has_made_is_not_taught() -> None:
    seq = made([[0, 1, 2, 3, 4], [5, 6, 5, 6, 5]])
    found = taught(seq, TeacherTables(transitions(seq, COUNTED), empty_table(ITEMS), COUNTED), CONFIG)
    target_R = seq.events_E[training_rows(seq)[1]].astype(np.int64)
    own_R = _probabilities(found)[np.arange(len(target_R)), target_R]
    assert not own_R[training_rows(seq)[0] == 0].any()
    assert not found.cumulative_Rk[0].any()  # 0 was followed by its own 1 and 2 alone: the row keeps its target
    assert all(found.draw(target_R, 0, epoch)[0] == target_R[0] for epoch in range(20))


def test_the_row_sums_are_those_of_the_table() -> None:
    seq = made([[0, 1, 2, 3, 1, 0, 4, 5], [1, 2, 0, 1, 2, 3]], times=True)
    table = transitions(seq, COUNTED)
    sums_N = np.array([table.row(item)[1].sum() for item in range(ITEMS)]) ** 2  # of C = c / sqrt(sum c), uncut
    np.testing.assert_allclose(outgoing(seq, COUNTED), sums_N, rtol=1e-5, atol=1e-9)


def test_temperature_takes_the_scores_to_a_power() -> None:
    seq = made([[0, 1, 2, 3, 1, 0, 4, 5], [1, 2, 0, 1, 2, 3], [0, 2, 3, 1, 1, 0]])
    tables = TeacherTables(transitions(seq, COUNTED), ALIKE, COUNTED)
    plain_RN, sharp_RN = (_probabilities(taught(seq, tables, replace(CONFIG, temperature=t))) for t in (1.0, 0.5))
    squared_RN = plain_RN**2
    known = plain_RN.any(axis=1)
    np.testing.assert_allclose(sharp_RN[known], (squared_RN / np.maximum(squared_RN.sum(1, keepdims=True), 1e-12))[known], atol=1e-4)


def _synthetic(rows: int, text: ItemTable = ALIKE) -> tuple[SyntheticHistories, Sequences]:
    seq = made([[0, 1, 2, 3, 1, 0, 4, 5], [1, 2, 0, 1, 2, 3], [0, 2, 3, 1, 1, 0]])
    return SyntheticHistories(TeacherTables(transitions(seq, COUNTED), text, COUNTED), CONFIG, rows), seq


def test_an_item_that_nobody_bought_is_in_histories_and_is_a_target() -> None:
    synthetic, seq = _synthetic(4000)
    batches = Batches(seq, 16, 4, seed=0, synthetic=synthetic)
    drawn = batches.drawn(1)
    begin = len(seq.events_E)
    items_SL, length_S, item_S = drawn.event_X[begin:].reshape(4000, 4), drawn.length_R[batches.real :], drawn.item_R[batches.real :]
    assert 8 not in seq.events_E
    newest_S = items_SL[:, -1]
    single_S = length_S == 1
    assert (newest_S[single_S] == 8).mean() > 0.05
    assert (item_S == 8).any()
    assert (item_S[single_S & (newest_S == 8)] == 0).all()  # its only neighbour, by text
    assert length_S.min() >= 1
    assert length_S.max() <= 4


def test_targets_after_a_single_item_are_drawn_in_the_tables_proportions() -> None:
    synthetic, seq = _synthetic(60_000)
    batches = Batches(seq, 16, 4, seed=0, synthetic=synthetic)
    drawn = batches.drawn(0)
    newest_S = drawn.event_X[len(seq.events_E) :].reshape(-1, 4)[:, -1]
    chosen = (drawn.length_R[batches.real :] == 1) & (newest_S == 0)
    found = np.bincount(drawn.item_R[batches.real :][chosen], minlength=ITEMS) / chosen.sum()
    wanted = np.zeros(ITEMS)
    for table, weight in ((synthetic.tables.transitions, 1.0), (ALIKE, CONFIG.text)):
        items, weights = table.row(0)
        wanted[items] += weight * weights
    np.testing.assert_allclose(found, wanted / wanted.sum(), atol=0.02)


def test_synthetic_rows_follow_seed_and_epoch_alone_and_stand_behind_the_training_rows() -> None:
    synthetic, seq = _synthetic(synthetic_rows(6, CONFIG))
    plain, more = Batches(seq, 4, 4, seed=3), Batches(seq, 4, 4, seed=3, synthetic=synthetic)
    assert more.rows == plain.rows + 3
    assert len(more) == -(-more.rows // 4)
    for one, other in ((more.drawn(2), more.drawn(2)), (plain.drawn(2), more.drawn(2))):
        assert (one.item_R[: plain.rows] == other.item_R[: plain.rows]).all()
    assert (more.drawn(2).event_X == more.drawn(2).event_X).all()
    assert any((more.drawn(2).event_X != more.drawn(epoch).event_X).any() for epoch in range(3, 9))


@pytest.mark.parametrize("epoch", [0, 2])
def test_the_device_s_rows_are_the_batches_with_synthetic_histories(epoch: int) -> None:
    seq = small.sequences()
    counted = NeighboursConfig()
    tables = TeacherTables(transitions(seq, counted), empty_table(seq.items), counted)
    batches = Batches(seq, 15, 6, seed=0, distillation=taught(seq, tables, CONFIG), synthetic=SyntheticHistories(tables, CONFIG, 40), crop=0.3)
    rows = RowsOnDevice(batches, small.vectors().device)
    for index, (count, _) in enumerate(rows.start(epoch, 0)):
        wanted = next(batches.epoch(epoch, index))
        found = rows.gather(wanted.history_BT.shape[1])
        history_BT = np.where(wanted.history_BT >= 0, wanted.items_V[wanted.history_BT], 0)
        assert found.item_BL[:count].tolist() == history_BT.tolist()
        assert found.target_B[:count].tolist() == wanted.items_V[wanted.target_B].tolist()
        assert found.weight_B[:count].tolist() == wanted.weight_B.tolist()
        rows.cursor += 1


def test_a_taught_run_resumes_in_the_middle_of_an_epoch() -> None:
    seq, counted = small.sequences(), NeighboursConfig()
    tables = TeacherTables(transitions(seq, counted), empty_table(seq.items), counted)
    given = {"distillation": taught(seq, tables, CONFIG), "synthetic": SyntheticHistories(tables, CONFIG, 30)}
    kept = []
    small.run(on_checkpoint=kept.append, checkpoint_steps=3, **given)
    middle = next(c for c in kept if c.state["batch"] > 0)
    assert small.equal(small.last_checkpoint(resume=middle, **given), kept[-1]) == []
    other = {**given, "synthetic": SyntheticHistories(tables, CONFIG, 31)}
    with pytest.raises(Exception, match="another configuration"):
        small.run(resume=middle, **other)
