from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diger_core.data.sequences import Sequences
from diger_core.data.splits import targets, training_rows
from diger_core.evaluation.metrics import recall
from diger_core.recommender import sasrec as module
from diger_core.recommender.sasrec import SasRec, SasRecConfig, candidates, full_loss, histories, rank, sampled_loss, sasrec

SMALL = SasRecConfig(d_model=16, layers=1, heads=2, dropout=0.0, history=5, epochs=12, batch_size=16, learning_rate=1e-2, evaluate_every=4)
ITEMS = 30


def walks(users: int = 120, step: int = 7) -> Sequences:
    """Every user walks round the items in equal steps, so that the next item follows from the last."""
    random = np.random.default_rng(0)
    lengths = random.integers(3, 12, users)
    starts = random.integers(0, ITEMS, users)
    events = np.concatenate([(start + step * np.arange(length)) % ITEMS for start, length in zip(starts, lengths, strict=True)])
    return Sequences(events.astype(np.int32), np.concatenate(([0], np.cumsum(lengths))), ITEMS)


def test_it_learns_a_walk_that_a_rule_describes() -> None:
    model, curve = sasrec(walks(), SMALL)
    assert recall(rank([model], walks(), "test", "cpu"), 1).mean() > 0.95
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_a_place_sees_no_later_item_and_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = SasRec(SMALL, ITEMS).eval()
    history = torch.tensor([[-1, -1, 4, 9, 2]])
    other = torch.tensor([[-1, -1, 4, 9, 17]])
    assert torch.equal(model(history)[0, 3], model(other)[0, 3])
    assert not torch.equal(model(history)[0, 4], model(other)[0, 4])
    torch.testing.assert_close(model(history)[0, 2:], model(history[:, 2:])[0])


def test_histories_end_at_the_newest_item_and_are_filled_up_before() -> None:
    seq = Sequences(np.array([3, 4, 5, 6, 7], np.int32), np.array([0, 2, 5]), ITEMS)
    assert histories(seq, np.array([0, 2]), np.array([2, 5]), 4).tolist() == [[-1, -1, 3, 4], [-1, 5, 6, 7]]


def test_held_out_events_are_never_learned_from() -> None:
    seq = walks()
    events = seq.events_E.copy()
    users, end, _ = targets(seq, "validation")
    events[end], events[end + 1] = 0, 0
    changed = Sequences(events, seq.offsets_U1, ITEMS)
    one_epoch = replace(SMALL, epochs=1, evaluate_every=1)
    (first, _), (second, _) = sasrec(seq, one_epoch), sasrec(changed, one_epoch)
    assert torch.equal(first.items.weight, second.items.weight)


def test_the_epoch_is_chosen_without_the_test_events() -> None:
    seq = walks()
    events = seq.events_E.copy()
    _, end, _ = targets(seq, "test")
    events[end] = (events[end] + 13) % ITEMS
    every = replace(SMALL, epochs=3, evaluate_every=1)
    (first, curve), (second, other) = sasrec(seq, every), sasrec(Sequences(events, seq.offsets_U1, ITEMS), every)
    assert curve == other
    assert torch.equal(first.items.weight, second.items.weight)


def test_candidates_are_the_best_scores_of_each_training_row() -> None:
    seq = walks()
    model, _ = sasrec(seq, replace(SMALL, epochs=1))
    user_R, position_R = training_rows(seq)
    items_Rk, share_Rk = candidates([model], seq, seq.offsets_U1[user_R], position_R, 4, 2.0, "cpu")
    history = torch.from_numpy(histories(seq, seq.offsets_U1[user_R], position_R, SMALL.history))
    with torch.no_grad():
        scores = model.scores(model(history)[:, -1])
    best = scores.topk(4, dim=1)
    assert items_Rk.tolist() == best.indices.tolist()
    np.testing.assert_allclose(share_Rk, (best.values / 2).softmax(1), rtol=1e-4)


def test_several_models_rank_by_their_mean_log_probability() -> None:
    seq = walks()
    models = [sasrec(seq, replace(SMALL, epochs=1, seed=seed))[0] for seed in (0, 1)]
    user_R, position_R = training_rows(seq)
    items_Rk, _ = candidates(models, seq, seq.offsets_U1[user_R], position_R, 3, 1.0, "cpu")
    history = torch.from_numpy(histories(seq, seq.offsets_U1[user_R], position_R, SMALL.history))
    with torch.no_grad():
        mean = sum(model.scores(model(history)[:, -1]).log_softmax(1) for model in models)
    assert items_Rk.tolist() == mean.topk(3, dim=1).indices.tolist()


def test_the_sampled_softmax_estimates_the_full_one_and_its_gradient() -> None:
    torch.manual_seed(0)
    model = SasRec(SMALL, ITEMS)
    with torch.no_grad():
        model.items.weight.mul_(30)
    state_Pd, target_P = torch.randn(200, SMALL.d_model), torch.randint(0, ITEMS, (200,))
    losses, gradients = [], []
    for loss_of in (full_loss, *[lambda *given: sampled_loss(*given, 20_000)] * 3):
        model.zero_grad()
        loss = loss_of(model, state_Pd, target_P)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(model.items.weight.grad.clone())
    assert losses[1:] == pytest.approx([losses[0]] * 3, rel=0.02)
    assert all(float((g - gradients[0]).norm() / gradients[0].norm()) < 0.05 for g in gradients[1:])


def test_a_large_catalogue_is_learned_from_samples_and_ranked_in_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLED", ITEMS - 1)
    monkeypatch.setattr(module, "NEGATIVES", 12)
    monkeypatch.setattr(module, "full_loss", None)
    model, _ = sasrec(walks(), SMALL)
    whole = rank([model], walks(), "test", "cpu")
    assert recall(whole, 1).mean() > 0.9
    monkeypatch.setattr(module, "HELD", 7 * ITEMS)
    assert np.array_equal(rank([model], walks(), "test", "cpu"), whole)
