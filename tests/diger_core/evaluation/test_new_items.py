"""Items without a training event: the share of the places that they have of the targets, if that costs next to nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diger_core.config import NeighboursConfig
from diger_core.data.neighbours import ItemTable, transitions
from diger_core.data.sequences import Sequences
from diger_core.data.splits import targets, up_to_test
from diger_core.evaluation.counts import Counts, Trend
from diger_core.evaluation.fusion import candidates
from diger_core.evaluation.recipes import NEW_ITEMS, Beams, Fitted, Recipe, fit, ranked

USERS, GROUPS, SIZE, MOMENTS = 900, 10, 40, 12
ITEMS, OLD = GROUPS * SIZE, 34
NEW = np.arange(ITEMS) % SIZE >= OLD  # of every group of forty, six arrive after the training events


def shop(share: float, seed: int = 0) -> Sequences:
    """Users who stay in their group of items and take none twice, first the popular ones. After the sixth event so large a share is new items."""
    random = np.random.default_rng(seed)
    popular_O = 1 / np.arange(1, OLD + 1)
    rows = np.empty((USERS, MOMENTS), np.int32)
    for user in range(USERS):
        taken = random.choice(OLD, MOMENTS, replace=False, p=popular_O / popular_O.sum())
        new = OLD + random.permutation(SIZE - OLD)
        late = np.flatnonzero((random.random(MOMENTS) < share) & (np.arange(MOMENTS) > 5))
        taken[late] = new[: len(late)]
        rows[user] = user % GROUPS * SIZE + taken
    times = np.tile(np.arange(MOMENTS, dtype=np.int64), USERS)
    return Sequences(rows.ravel(), np.arange(USERS + 1, dtype=np.int64) * MOMENTS, ITEMS, times, boundaries=(5, 8))


def counted(seq: Sequences) -> Counts:
    """Texts say which group an item belongs to: all others of it are its neighbours."""
    members_NX = np.array([[other for other in range(i // SIZE * SIZE, i // SIZE * SIZE + SIZE) if other != i] for i in range(ITEMS)], np.int32)
    weights_NX = np.random.default_rng(0).uniform(0.2, 1, members_NX.shape).astype(np.float32)
    order_NX = np.argsort(-weights_NX, axis=1)
    members_NX, weights_NX = np.take_along_axis(members_NX, order_NX, 1), np.take_along_axis(weights_NX, order_NX, 1)
    text = ItemTable(np.arange(ITEMS + 1, dtype=np.int64) * (SIZE - 1), members_NX.ravel(), weights_NX.ravel())
    return Counts.of(seq, transitions(seq, NeighboursConfig()), text)


def beams(seq: Sequences) -> Beams:
    """A model that knows a third of the validation targets, so that the mixture is better than every baseline; it has never seen a new item."""
    target_T = targets(seq, "validation")[2]
    known_T = (np.arange(len(target_T)) % 3 == 0) & ~NEW[target_T]
    return np.where(known_T, target_T, -1)[:, None].astype(np.int32), np.where(known_T, 0, -np.inf)[:, None].astype(np.float32)


def fitted_on(seq: Sequences, cost: float) -> Fitted:
    return fit(counted(seq), seq, beams(seq), new_items_cost=cost)


def places(recipe: Recipe, seq: Sequences) -> float:
    """Share of new items among the first ten places of the validation users."""
    items_Tk, _ = ranked(recipe, counted(seq), seq, *targets(seq, "validation")[:2], 10, beams(seq))
    return float(NEW[items_Tk[items_Tk >= 0]].mean())


def test_new_items_get_places_up_to_their_share_of_the_targets():
    seq = shop(0.3)
    fitted = fitted_on(seq, 0.5)
    new, without = fitted.new_items, replace(fitted.lists, new_items=1.0)
    assert fitted.lists.new_items in NEW_ITEMS, "something is raised, else this shop shows nothing"
    assert (new.targets, new.share) == (NEW[targets(seq, "validation")[2]].sum(), pytest.approx(NEW[targets(seq, "validation")[2]].mean()))
    assert places(without, seq) < new.places <= new.share
    assert new.places == pytest.approx(places(fitted.lists, seq))
    assert new.ndcg > new.without
    following = NEW_ITEMS[NEW_ITEMS.index(fitted.lists.new_items) + 1]
    assert places(replace(fitted.lists, new_items=following), seq) > new.share, "the next factor would give them more"
    assert Fitted.from_document(fitted.document()) == fitted


def test_where_nobody_takes_new_items_nothing_raises_them():
    fitted = fitted_on(shop(0.0), 0.5)
    assert (fitted.lists.new_items, fitted.new_items.targets, fitted.new_items.share) == (1.0, 0, 0.0)


def test_a_place_may_cost_no_more_than_it_is_told():
    seq = shop(0.1)
    free, bound = (fitted_on(seq, cost) for cost in (1.0, 0.0))
    assert bound.lists.new_items < free.lists.new_items
    assert bound.lists.ndcg > free.lists.ndcg
    assert bound.new_items.places < free.new_items.places


def test_an_item_is_new_until_its_first_training_event():
    """The factor goes by the counts that it is used with: on the eve of the test what sold in the validation period is new no longer."""
    seq = shop(0.15)
    counts, eve = counted(seq), counted(up_to_test(seq))
    assert counts.new_N.tolist() == NEW.tolist()
    assert not eve.new_N.any()
    assert counts.factor_N(Trend(), 3.0).tolist() == np.where(NEW, 3.0, 1.0).tolist()
    assert (eve.factor_N(Trend(), 3.0) == 1).all()
    sold = counts.factor_N(Trend(0.1, 0.5), 3.0)
    assert (sold[NEW] == 3).all()
    assert (sold[~NEW] > 1).any(), "the trend goes on beside it"
    rows = targets(seq, "validation")[:2]
    plain, raised = candidates(counts, seq, *rows), candidates(counts, seq, *rows, new_items=3.0)
    assert raised.value_KP == pytest.approx(plain.value_KP * np.where(NEW, 3, 1)[plain.item_P])
