"""The mixture: shares that sum to 1, lists by its definition, weights that a search finds again, and a baseline where nothing is won."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diger_core.config import NeighboursConfig
from diger_core.data.neighbours import empty_table, transitions
from diger_core.data.sequences import Sequences
from diger_core.data.splits import targets
from diger_core.evaluation.counts import Counts, Trend
from diger_core.evaluation.fusion import PARTS, Candidates, candidates, fused, ndcg_of, search_weights
from diger_core.evaluation.metrics import ndcg, ranks
from diger_core.evaluation.recipes import Fitted, Recipe, fit, ranked


def shop(users: int = 200, items: int = 40, seed: int = 0, repeats: float = 0.0) -> Sequences:
    """Users who walk i -> i + 1 with noise; half of the events are training, a quarter validates, a quarter tests."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        row = [int(random.integers(items))]
        while len(row) < 12:
            row.append(
                row[int(random.integers(len(row)))]
                if random.random() < repeats
                else int((row[-1] + 1) % items if random.random() < 0.7 else random.integers(items))
            )
        rows.append(row)
    offsets = np.arange(users + 1, dtype=np.int64) * 12
    return Sequences(np.array(rows, np.int32).ravel(), offsets, items, np.tile(np.arange(12, dtype=np.int64), users), boundaries=(5, 8))


def counted(seq: Sequences) -> Counts:
    return Counts.of(seq, transitions(seq, NeighboursConfig()), empty_table(seq.items))


def test_every_part_is_a_distribution_over_its_candidates():
    seq = shop()
    users, ends, _ = targets(seq, "validation")
    beams = (np.tile(np.array([3, 5, -1], np.int32), (len(users), 1)), np.tile(np.array([-1.0, -2.0, -np.inf], np.float32), (len(users), 1)))
    found = candidates(counted(seq), seq, users, ends, beams)
    assert found.parts == PARTS
    for part, values in zip(found.parts, found.value_KP, strict=True):
        sums = np.bincount(found.row_P, values, minlength=found.rows)
        assert np.allclose(sums, 0 if part == "text" else 1, atol=1e-5), part
    one = found.item_P[found.row_P == 0]
    assert (np.diff(one) > 0).all()
    assert found.value_KP[0][found.row_P == 0][np.isin(one, [3, 5])].tolist() == pytest.approx([np.e / (1 + np.e), 1 / (1 + np.e)], rel=1e-5)


def test_lists_are_ordered_by_the_mixture_and_then_by_item():
    found = Candidates(
        ("a", "b"), 2, np.array([0, 0, 0, 1]), np.array([2, 4, 9, 1], np.int32), np.array([[0.5, 0.5, 0, 1], [0, 0, 1, 0]], np.float32)
    )
    assert fused(found, {"a": 1.0}, 3)[0].tolist() == [[2, 4, -1], [1, -1, -1]]
    assert fused(found, {"a": 0.5, "b": 0.5}, 3)[0].tolist() == [[9, 2, 4], [1, -1, -1]]


def test_seen_items_and_items_that_are_not_allowed_are_no_candidates():
    seq = shop()
    users, ends, _ = targets(seq, "test")
    plain = candidates(counted(seq), seq, users, ends)
    unseen = candidates(counted(seq), seq, users, ends, remove_seen=True)
    history = set(seq.events_E[seq.offsets_U1[users[0]] : ends[0]].tolist())
    assert history & set(plain.item_P[plain.row_P == 0].tolist())
    assert not history & set(unseen.item_P[unseen.row_P == 0].tolist())
    allowed = np.arange(seq.items) < 7
    assert candidates(counted(seq), seq, users, ends, allowed_N=allowed).item_P.max() < 7


def test_gains_of_draws_are_the_ndcg_of_the_lists_that_they_make():
    seq = shop()
    users, ends, wanted = targets(seq, "validation")
    found = candidates(counted(seq), seq, users, ends)
    draws = np.random.default_rng(1).dirichlet(np.ones(len(found.parts)), 4)
    gains = ndcg_of(found, found.places(wanted, seq.items), draws, np.arange(found.rows))
    for draw, gain in zip(draws, gains, strict=True):
        items, _ = fused(found, dict(zip(found.parts, draw, strict=True)), 10)
        np.testing.assert_allclose(gain, ndcg(ranks(items, wanted), 10), atol=1e-6)


def test_the_search_finds_the_part_that_knows_and_gives_noise_no_weight():
    seq = shop(users=600)
    users, ends, wanted = targets(seq, "validation")
    random = np.random.default_rng(2)
    noise = random.integers(0, seq.items, (len(users), 20)).astype(np.int32)
    oracle = noise.copy()
    oracle[:, 0] = np.where(random.random(len(users)) < 0.8, wanted, noise[:, 0])
    score = np.tile(-np.arange(20, dtype=np.float32), (len(users), 1))
    knows = search_weights(candidates(counted(seq), seq, users, ends, (oracle, score)), wanted, seq.items)
    blind = search_weights(candidates(counted(seq), seq, users, ends, (noise, score)), wanted, seq.items)
    assert knows.weights["generative"] > blind.weights["generative"] + 0.1
    assert blind.weights["generative"] < 0.1
    assert knows.ndcg > blind.ndcg
    assert sum(knows.weights.values()) == pytest.approx(1, abs=1e-4)
    assert 0 <= knows.moved <= 1
    again = search_weights(candidates(counted(seq), seq, users, ends, (oracle, score)), wanted, seq.items)
    assert again == knows


def test_a_fit_chooses_on_validation_alone():
    """What comes after T2 changes nothing that was chosen."""
    seq = shop()
    changed = replace(seq, events_E=np.where(seq.timestamps_E > 8, (seq.events_E * 7 + 3) % seq.items, seq.events_E).astype(np.int32))
    assert fit(counted(seq), seq, None) == fit(counted(changed), changed, None)


def test_people_who_repeat_get_a_rule_of_repeats():
    seq = shop(repeats=0.6, seed=1)
    fitted = fit(counted(seq), seq, None)
    assert fitted.repeat_share > 0.3
    assert fitted.baselines["repeat"].ndcg >= fitted.baselines["item_item"].ndcg
    assert len(set(fitted.baselines["repeat"].tau.values())) == 1, "an age of its own gains no more here than chance does"
    assert fitted.lists.ndcg >= fitted.baselines[fitted.best].ndcg or fitted.fallback == fitted.best


def test_what_was_bought_long_ago_is_remembered_where_people_buy_it_again():
    """Each user buys three favourites thrice, then 60 other items, then a favourite again: more events back than the tables look at."""
    random, users, others = np.random.default_rng(0), 150, 400
    rows = []
    for _ in range(users):
        favourites = random.choice(others, 3, replace=False)
        rows.append([*favourites, *favourites, *favourites, *(others + random.permutation(600)[:60]), *favourites[:2]])
    times = np.tile(np.r_[np.arange(69), 100, 200].astype(np.int64), users)
    seq = Sequences(np.array(rows, np.int32).ravel(), np.arange(users + 1, dtype=np.int64) * 71, others + 600, times, boundaries=(99, 199))
    fitted = fit(counted(seq), seq, None)
    assert fitted.repeat_share == 1
    assert fitted.baselines["repeat"].tau["repeat"] >= 100 > fitted.baselines["item_item"].tau["repeat"]
    assert fitted.lists.tau["repeat"] == fitted.baselines["repeat"].tau["repeat"]
    rows_T, ends_T, target_T = targets(seq, "test")
    items_Tk = ranked(Recipe({"repeat": 1.0}, {"repeat": 1000.0}), counted(seq), seq, rows_T, ends_T, 10)[0]
    assert (items_Tk == target_T[:, None]).any(axis=1).all()


def test_where_no_mixture_wins_the_best_baseline_serves(monkeypatch):
    from diger_core.evaluation import recipes

    seq = shop()
    found = recipes.search_weights
    monkeypatch.setattr(recipes, "search_weights", lambda *a: replace(found(*a), ndcg=0.0))
    fitted = fit(counted(seq), seq, None)
    assert fitted.fallback == fitted.best
    assert fitted.lists == fitted.baselines[fitted.best]


def test_recipes_survive_their_document_and_chunks_change_no_list(monkeypatch):
    from diger_core.evaluation import recipes

    seq = shop()
    fitted = fit(counted(seq), seq, None)
    assert Fitted.from_document(fitted.document()) == fitted
    users, ends, _ = targets(seq, "test")
    whole = ranked(fitted.lists, counted(seq), seq, users, ends, 10)
    monkeypatch.setattr(recipes, "CHUNK", 7)
    parts = ranked(fitted.lists, counted(seq), seq, users, ends, 10)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_fewer_candidates_than_places_leave_places_empty():
    seq = shop()
    users, ends, _ = targets(seq, "test")
    items, scores = ranked(Recipe({"repeat": 1.0}, {"repeat": 5.0}), counted(seq), seq, users, ends, 20)
    assert (items[:, -1] == -1).all()
    assert (scores[items < 0] == 0).all()


def test_a_raw_mixture_keeps_how_much_each_part_knows_about_a_user():
    """In units of the mean: a baseline's raw sum is one of the mixtures, and its lists are the same."""
    seq = shop()
    users, ends, wanted = targets(seq, "validation")
    found = candidates(counted(seq), seq, users, ends, raw=True)
    scale = found.sums()
    sums = found.scaled(scale).value_KP.sum(axis=1) / found.rows
    said = np.array([part != "text" for part in found.parts])  # this shop has no texts
    np.testing.assert_allclose(sums, said, rtol=1e-5)
    plain = Recipe({"transitions": 1.0, "text": 0.7}, raw=True)
    mixed = Recipe({part: weight * scale[part] for part, weight in plain.weights.items()}, raw=True, scale=scale)
    assert mixed.applied == pytest.approx(plain.applied)
    assert np.array_equal(ranked(mixed, counted(seq), seq, users, ends, 10)[0], ranked(plain, counted(seq), seq, users, ends, 10)[0])
    assert mixed.mixes
    assert not plain.mixes


def test_the_form_that_validation_prefers_is_released(monkeypatch):
    from diger_core.evaluation import recipes

    seq, found, asked = shop(), recipes.search_weights, []
    monkeypatch.setattr(recipes, "search_weights", lambda *a: asked.append(a) or replace(found(*a), ndcg=float(len(asked))))
    assert fit(counted(seq), seq, None).lists.raw
    asked.clear()
    monkeypatch.setattr(recipes, "search_weights", lambda *a: asked.append(a) or replace(found(*a), ndcg=3.0 - len(asked)))
    assert not fit(counted(seq), seq, None).lists.raw


def fashionable(weight: float, seed: int = 0, users: int = 600, items: int = 300) -> Sequences:
    """Users of three groups of items. From the last training event to the end of validation a tenth of the items sells `weight` times as often."""
    random = np.random.default_rng(seed)
    usual_N = np.ones(items)
    fashion_N = random.permutation(np.r_[np.full(items // 10, weight), np.ones(items - items // 10)])
    rows = np.empty((users, 12), np.int32)
    for moment in range(12):
        share_N = fashion_N if 5 <= moment <= 7 else usual_N
        for group in range(3):
            own_N = share_N * (np.arange(items) % 3 == group)
            rows[group::3, moment] = random.choice(items, users // 3, p=own_N / own_N.sum())
    times = np.tile(np.arange(12, dtype=np.int64), users)
    return Sequences(rows.ravel(), np.arange(users + 1, dtype=np.int64) * 12, items, times, boundaries=(5, 7))


def test_lists_follow_what_sells_now_where_that_says_something():
    seq = fashionable(20.0)
    fitted = fit(counted(seq), seq, None)
    assert fitted.lists.trend.power > 0
    assert not any(recipe.trend.power for recipe in fitted.baselines.values())
    assert fitted.lists.ndcg > 1.1 * fitted.baselines[fitted.best].ndcg
    for seed in range(5):
        usual = fashionable(1.0, seed)
        assert fit(counted(usual), usual, None).lists.trend == Trend(), "chance is no trend"


def test_a_trend_multiplies_every_score_by_what_the_newest_events_say():
    seq = shop()
    counts, trend = counted(seq), Trend(0.03, 0.5)
    rows = targets(seq, "validation")[:2]
    plain, raised = candidates(counts, seq, *rows), candidates(counts, seq, *rows, trend=trend)
    order = np.argsort(np.where(np.tile(np.arange(12), 200) <= 5, seq.timestamps_E, -1), kind="stable")
    newest = seq.events_E[order[-round(0.03 * 200 * 6) :]]
    factor_N = (1 + np.bincount(newest, minlength=seq.items)) ** 0.5
    assert raised.value_KP == pytest.approx(plain.value_KP * factor_N[plain.item_P], rel=1e-5)
    with pytest.raises(ValueError, match=r"at most 0\.1"):
        counts.factor_N(Trend(0.5, 1.0))
