"""Held codes (pinned, anchored, free) and what they promise about released IDs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.config import TableConfig, TokenizerConfig
from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable, argmin_codes, item_hash_order, refresh
from diger_core.ids.stability import Hold, StabilityConfig, held_codes, traffic_weights
from diger_core.tokenizer.rqvae import Tokenizer

LEVELS, CODES, WIDTH = 3, 6, 4
seeds = st.integers(0, 10_000)


def world(seed, items=40, new=5):
    """A tokenizer, encoded items, and the table released before the codebooks moved, -1 in the rows of new items."""
    generator = torch.Generator().manual_seed(seed)
    tok = Tokenizer(WIDTH, CODES, TokenizerConfig(levels=LEVELS, codes=CODES, code_dim=WIDTH, hidden=(4,), suffixes=64)).eval()
    with torch.no_grad():
        tok.codebooks.copy_(torch.randn(tok.codebooks.shape, generator=generator))
        tok.alpha.fill_(0.5 + float(torch.rand((), generator=generator)))
    z = torch.randn(items, WIDTH, generator=generator)
    order = item_hash_order(list(range(items)))
    before, _ = refresh(tok, z, order, suffixes=64, encoded=True)
    released = IdTable(before.codes_NM.clone(), before.suffix_N.clone())
    released.codes_NM[items - new :], released.suffix_N[items - new :] = -1, -1
    with torch.no_grad():
        tok.codebooks.add_(0.7 * torch.randn(tok.codebooks.shape, generator=generator))
    weight = torch.rand(items, generator=generator) * 2
    return tok, z, order, released, weight, items - new


def kept(codes, released, old):
    return (codes[:old] == released.codes_NM[:old]).all(1)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_without_a_cost_anchored_is_free_and_with_an_infinite_one_pinned(seed):
    tok, z, _, released, weight, old = world(seed)
    weight[:3] = 0
    free = argmin_codes(tok, z, encoded=True)
    assert torch.equal(held_codes(tok, z, released.codes_NM, Hold("anchored", 0.0, weight)), free)
    assert torch.equal(held_codes(tok, z, released.codes_NM, Hold("free", 9.0, weight)), free)
    pinned = held_codes(tok, z, released.codes_NM, Hold("pinned"))
    assert torch.equal(held_codes(tok, z, released.codes_NM, Hold("anchored", math.inf, weight)), pinned)
    assert kept(pinned, released, old).all()


@settings(max_examples=30, deadline=None)
@given(seeds, st.lists(st.floats(0, 20), min_size=2, max_size=5))
def test_the_items_that_keep_their_codes_only_grow_with_the_cost(seed, anchors):
    tok, z, _, released, weight, old = world(seed)
    masks = [kept(held_codes(tok, z, released.codes_NM, Hold("anchored", a, weight)), released, old) for a in sorted(anchors)]
    for less, more in zip(masks, masks[1:], strict=False):
        assert (more | ~less).all()


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from(["pinned", "anchored", "free"]), st.floats(0, 10))
def test_new_items_get_the_plain_argmin_whatever_the_mode(seed, mode, anchor):
    tok, z, _, released, weight, old = world(seed)
    assert torch.equal(held_codes(tok, z, released.codes_NM, Hold(mode, anchor, weight))[old:], argmin_codes(tok, z, encoded=True)[old:])


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0, 5))
def test_a_move_is_made_exactly_where_it_gains_enough(seed, anchor):
    """Against a plain loop over items and levels, with distances in place of scores."""
    tok, z, _, released, weight, _ = world(seed, items=12)
    found = held_codes(tok, z, released.codes_NM, Hold("anchored", anchor, weight), chunk=5)
    for v in range(len(z)):
        residual = z[v].double()
        for level in range(LEVELS):
            distance = (residual - tok.codebooks[level].double()).square().sum(1)
            home, best = int(released.codes_NM[v, level]), int(distance.argmin())
            gain = math.inf if home < 0 else float((distance[home] - distance[best]).detach())
            limit = anchor * float(weight[v]) / float(tok.alpha)
            if abs(gain - limit) < 1e-4:
                break  # too close to call in float32
            code = best if gain >= limit else home
            assert found[v, level] == code
            residual = residual - tok.codebooks[level, code].double()


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from(["pinned", "anchored", "free"]), st.integers(0, 2))
def test_full_ids_stay_unique_and_released_tuples_go_to_nobody_else(seed, mode, removed):
    tok, z, order, released, weight, old = world(seed, items=60)
    gone = released.tuples[:removed]  # tuples of items that left the catalogue earlier, as if these had stood there
    table, overflow = refresh(tok, z, order, suffixes=64, encoded=True, released=released, held=Hold(mode, 1.0, weight), reserved=gone)
    assert overflow == 0
    assert table.duplicates() == 0
    owner = {tuple(t): v for v, t in enumerate(released.tuples[:old].tolist())}
    for v, t in enumerate(table.tuples.tolist()):
        assert owner.get(tuple(t), v) == v
    if mode == "pinned":
        assert torch.equal(table.tuples[:old], released.tuples[:old])


def test_an_item_that_returns_to_its_released_prefix_has_its_released_suffix_again():
    tok, z, order, released, _, old = world(3)
    away, _ = refresh(tok, z, order, suffixes=64, encoded=True, released=released)
    moved = ~kept(away.codes_NM, released, old)
    assert moved.any()
    back, _ = refresh(
        tok, z, order, suffixes=64, encoded=True, previous=(away.codes_NM, away.suffix_N), released=released, held=Hold("pinned")
    )  # fmt: skip
    assert torch.equal(back.tuples[:old], released.tuples[:old])


def test_an_item_off_its_released_prefix_keeps_the_suffix_of_the_epoch_before():
    tok, z, order, released, _, old = world(4)
    before, _ = refresh(tok, z, order, suffixes=64, encoded=True, released=released)
    raised = IdTable(before.codes_NM, torch.where((before.codes_NM == released.codes_NM).all(1), before.suffix_N, before.suffix_N + 20))
    again, _ = refresh(tok, z, order, suffixes=64, encoded=True, previous=(raised.codes_NM, raised.suffix_N), released=released)
    assert torch.equal(again.tuples, raised.tuples)


def test_a_released_table_that_repeats_a_tuple_is_mended_and_not_copied_back():
    tok, z, order, released, _, old = world(5)
    released.codes_NM[1], released.suffix_N[1] = released.codes_NM[0], released.suffix_N[0]
    table, _ = refresh(tok, z, order, suffixes=64, encoded=True, released=released, held=Hold("pinned"))
    assert table.duplicates() == 0
    assert torch.equal(table.codes_NM[:old], released.codes_NM[:old])


def test_sinkhorn_cannot_hold_ids():
    tok, z, order, released, _, _ = world(6)
    with pytest.raises(DigerError, match="sinkhorn cannot hold"):
        refresh(tok, z, order, suffixes=64, encoded=True, released=released, held=Hold("anchored", 1.0), config=TableConfig(method="sinkhorn"))


def test_a_released_table_of_another_shape_is_refused():
    tok, z, _, released, _, _ = world(7)
    with pytest.raises(DigerError, match="retraining.start=scratch"):
        held_codes(tok, z, released.codes_NM[:, :2], Hold("pinned"))


def test_a_negative_cost_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        StabilityConfig(anchor=-1.0)


def test_traffic_weights_have_mean_one_and_follow_training_events_only():
    import numpy as np

    from diger_core.data.sequences import Sequences

    seq = Sequences(np.array([0, 0, 0, 1, 2, 3], np.int32), np.array([0, 6], np.int64), 4)  # the last two events are held out
    for weighting in ("none", "log", "count"):
        assert float(traffic_weights(seq, weighting).mean()) == pytest.approx(1)
    assert traffic_weights(seq, "count").tolist() == [3.0, 1.0, 0.0, 0.0]
    assert traffic_weights(seq, "log")[2] == 0
