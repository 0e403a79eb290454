"""Ranking of held-out targets, and the metrics table."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from diger_core.config import EvaluationConfig
from diger_core.data.sequences import Sequences
from diger_core.data.splits import targets
from diger_core.evaluation.ranking import EvaluationResult, baseline_results, evaluation, rank_targets, target_slices, time_slices
from diger_core.recommender.beam import beam_search
from diger_core.recommender.model import Recommender
from diger_core.recommender.trie import Trie
from tests.diger_core.evaluation.test_baselines import of_histories
from tests.diger_core.recommender.test_recommender import tiny

K, M, S, N = 6, 2, 4, 40
CONFIG = EvaluationConfig(beams=N, recall_at=(1, 5), ndcg_at=(5,), batch_size=7, bootstrap=200)


@pytest.fixture(scope="module")
def setting() -> tuple[Recommender, torch.Tensor, torch.Tensor, Sequences]:
    everything = torch.cartesian_prod(torch.arange(K), torch.arange(K), torch.arange(S))
    table = everything[torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))[:N]]
    generator = np.random.default_rng(0)
    histories = [generator.integers(0, N, size=size).tolist() for size in generator.integers(1, 14, size=25)]
    return tiny(codes=K, levels=M, suffixes=S), table[:, :M], table[:, M], of_histories(histories, N)


def test_ranks_are_those_of_one_search_for_each_user(setting):
    recommender, codes, suffix, seq = setting
    result = rank_targets(recommender, codes, suffix, seq, "test", CONFIG)
    assert recommender.training, "the mode must be left as it was"
    recommender.eval()
    table, trie = torch.cat((codes, suffix[:, None]), dim=1), Trie.from_table(codes, suffix, K, S)
    users, ends, target = targets(seq, "test")
    for row, (user, end) in enumerate(zip(users, ends, strict=True)):
        history = seq.events_E[max(seq.offsets_U1[user], end - 6) : end]  # the last L = 6 items
        mask = torch.ones(1, len(history) * 3, dtype=torch.bool)
        with torch.no_grad():
            memory = recommender.encode(recommender.embed_codes(table[torch.from_numpy(history).long()])[None].flatten(1, 2), mask)
        items, _ = beam_search(recommender, memory, mask, trie, N, 5)
        assert result.items_Tk[row].tolist() == items[0].tolist()
        place = items[0].tolist().index(target[row]) + 1 if target[row] in items[0] else 0
        assert result.rank_T[row] == place
    recommender.train()


def test_batches_and_subsets_of_users_change_nothing(setting):
    recommender, codes, suffix, seq = setting
    whole = rank_targets(recommender, codes, suffix, seq, "validation", CONFIG)
    one = rank_targets(recommender, codes, suffix, seq, "validation", EvaluationConfig(beams=N, recall_at=(1, 5), ndcg_at=(5,), batch_size=1000))
    assert whole.items_Tk.tolist() == one.items_Tk.tolist()
    some = whole.users_T[::3]
    part = rank_targets(recommender, codes, suffix, seq, "validation", CONFIG, users=some)
    assert part.users_T.tolist() == some.tolist()
    assert part.rank_T.tolist() == whole.rank_T[::3].tolist()
    none = rank_targets(recommender, codes, suffix, seq, "validation", CONFIG, users=np.array([], dtype=np.int64))
    assert none.items_Tk.shape == (0, 5)


def test_the_item_beside_the_target_with_the_same_codes_is_no_hit(setting):
    recommender, _, _, seq = setting
    codes = torch.zeros(N, M, dtype=torch.long)
    codes[:, 0], codes[:, 1] = torch.arange(N) // 4 % K, torch.arange(N) // 24
    result = rank_targets(recommender, codes, torch.arange(N) % 4, seq, "test", CONFIG)
    for row, rank in enumerate(result.rank_T):
        assert (rank > 0) == (result.target_T[row] in result.items_Tk[row])


def test_seen_items_leave_the_list_only_when_told(setting):
    recommender, codes, suffix, seq = setting
    plain = rank_targets(recommender, codes, suffix, seq, "test", CONFIG)
    config = EvaluationConfig(beams=N, recall_at=(1, 5), ndcg_at=(5,), batch_size=7, remove_seen=True)
    removed = rank_targets(recommender, codes, suffix, seq, "test", config)
    everything = EvaluationConfig(beams=N, recall_at=(N,), ndcg_at=(5,), batch_size=7)
    full = rank_targets(recommender, codes, suffix, seq, "test", everything).items_Tk
    users, ends, _ = targets(seq, "test")
    repeated = 0
    for row, (user, end) in enumerate(zip(users, ends, strict=True)):
        seen = set(seq.events_E[seq.offsets_U1[user] : end].tolist())
        repeated += bool(seen & set(plain.items_Tk[row].tolist()))
        assert removed.items_Tk[row].tolist() == [item for item in full[row].tolist() if item not in seen][:5]
    assert repeated
    for name, result in baseline_results(seq, "test", config).items():
        for row, (user, end) in enumerate(zip(users, ends, strict=True)):
            seen = set(seq.events_E[seq.offsets_U1[user] : end].tolist())
            assert not seen & set(result.items_Tk[row].tolist()), name
            assert (result.items_Tk[row] >= 0).all()


def test_unconstrained_search_reports_its_invalid_tuples(setting):
    recommender, codes, suffix, seq = setting
    config = EvaluationConfig(beams=N, recall_at=(1, 5), ndcg_at=(5,), constrained=False)
    result = rank_targets(recommender, codes, suffix, seq, "test", config)
    assert result.invalid_rate == pytest.approx((result.items_Tk == -1).mean())
    assert 0 < result.invalid_rate < 1
    assert rank_targets(recommender, codes, suffix, seq, "test", CONFIG).invalid_rate == 0


def test_slices_follow_training_counts_only():
    histories = [[0, 0, 0, 1, 4], [0, 1, 1, 2, 3], [0, 2, 4, 4]]
    seq = of_histories(histories, 5)  # training counts 5, 2, 1, 0, 0
    found = target_slices(seq, targets(seq, "test")[2], EvaluationConfig(head_share=0.4))
    assert {name: mask.tolist() for name, mask in found.items()} == {"head": [False] * 3, "tail": [True] * 3, "new_items": [True] * 3}
    found = target_slices(seq, targets(seq, "validation")[2], EvaluationConfig(head_share=0.4, new_item_events=1))
    assert {name: mask.tolist() for name, mask in found.items()} == {
        "head": [True, False, False],
        "tail": [False, True, True],
        "new_items": [False, True, True],
    }


def test_the_metrics_table_has_all_models_slices_and_paired_differences(setting):
    _, _, _, seq = setting
    base = baseline_results(seq, "test", CONFIG)
    first = base["most_popular"]
    perfect = EvaluationResult(first.users_T, first.target_T, np.ones_like(first.rank_T), first.items_Tk)
    table = json.loads(json.dumps(evaluation({"joint_model": perfect, **base}, seq, CONFIG, seed=3)))
    assert list(table["models"]) == ["joint_model", "most_popular", "markov"]
    joint, popular = table["models"]["joint_model"], table["models"]["most_popular"]
    assert joint["recall@1"] == joint["ndcg@5"] == 1
    assert joint["intervals"]["recall@1"] == [1, 1]
    assert popular["recall@5"] == pytest.approx(((first.rank_T > 0) & (first.rank_T <= 5)).mean())
    assert popular["intervals"]["recall@5"][0] <= popular["recall@5"] <= popular["intervals"]["recall@5"][1]
    assert list(table["differences"]) == ["joint_model - most_popular", "joint_model - markov", "most_popular - markov"]
    difference = table["differences"]["joint_model - most_popular"]["recall@5"]
    assert difference["mean"] == pytest.approx(1 - popular["recall@5"])
    assert difference["low"] == pytest.approx(1 - popular["intervals"]["recall@5"][1])
    assert table["users"] == len(first.users_T)
    for name, mask in target_slices(seq, first.target_T, CONFIG).items():
        assert table["slice_users"][name] == mask.sum()
        if mask.any():
            assert table["slices"][name]["most_popular"]["recall@5"] == pytest.approx((first.rank_T[mask] > 0).mean())
    assert evaluation({"joint_model": perfect, **base}, seq, CONFIG, seed=3) == evaluation({"joint_model": perfect, **base}, seq, CONFIG, seed=3)


def test_where_there_are_times_targets_at_the_time_of_the_event_before_are_a_slice(setting):
    seq = of_histories([[0, 1, 2], [1, 2, 3], [0, 1, 3], [1, 2]], 5)
    assert time_slices(seq, targets(seq, "test")[0]) == {}
    timed = replace(seq, timestamps_E=np.array([1, 2, 2, 1, 2, 3, 7, 7, 7, 1, 1]))
    found = time_slices(timed, targets(timed, "test")[0])
    assert {name: mask.tolist() for name, mask in found.items()} == {"same_time": [True, False, True], "other_time": [False, True, False]}
    assert time_slices(timed, np.array([1, 2]))["same_time"].tolist() == [False, True], "a sample of the users"
    base = baseline_results(timed, "test", CONFIG)
    table = evaluation(base, timed, CONFIG)
    assert (table["slice_users"]["same_time"], table["slice_users"]["other_time"]) == (2, 1)
    ranks = base["most_popular"].rank_T
    assert table["slices"]["same_time"]["most_popular"]["recall@5"] == pytest.approx((ranks[[0, 2]] > 0).mean())


def test_models_ranked_on_other_users_are_refused(setting):
    _, _, _, seq = setting
    base = baseline_results(seq, "test", CONFIG)
    other = baseline_results(seq, "test", CONFIG, users=np.arange(5))
    with pytest.raises(ValueError, match="other users"):
        evaluation({"a": base["markov"], "b": other["markov"]}, seq, CONFIG)
