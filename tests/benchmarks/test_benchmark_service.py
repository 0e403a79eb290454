"""The service's benches: what stands beside the champion ranks rightly, and every side is measured at every load."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
import torch

from benchmarks import serve
from benchmarks.common import Data
from benchmarks.gpu import peer, service
from diger_core.config import RecommenderConfig, TokenizerConfig
from diger_core.data.sequences import Sequences
from diger_core.evaluation.recipes import ranked
from diger_core.ids.id_table import item_hash_order, refresh
from diger_core.tokenizer.warm_up import tokenizer
from diger_core.training.table_refresh import suffix_values
from orchestration.serving.online.query import Query
from tests.support.serving_world import ServingWorld, histories

pytest.importorskip("transformers")
ITEMS, USERS, EACH = 30, 12, 6
CONFIG = RecommenderConfig(
    encoder_layers=1, decoder_layers=1, d_model=16, d_ff=32, heads=2, d_head=8, history=4, history_input="hard", item_tokens="all"
)


@pytest.fixture(scope="module")
def made():
    """(data, tokenizer, ID table) of a shop of made-up events."""
    vectors_ND = torch.randn(ITEMS, 8, generator=torch.Generator().manual_seed(0))
    tok, _ = tokenizer(vectors_ND, TokenizerConfig(levels=2, codes=8, code_dim=4, hidden=(8,), epochs=1))
    with torch.no_grad():
        table, _ = refresh(tok, vectors_ND, item_hash_order(list(range(ITEMS))), suffixes=suffix_values(tok))
    events_E = np.random.default_rng(0).integers(0, ITEMS, USERS * EACH).astype(np.int32)
    seq = Sequences(events_E, np.arange(USERS + 1, dtype=np.int64) * EACH, ITEMS)
    return Data("shop", seq, list(range(ITEMS)), vectors_ND, False), tok, table


def test_generate_finds_the_items_of_the_highest_probability(made):
    data, tok, table = made
    token_NQ = peer.tokens(table.codes_NM, table.suffix_N, tok.codes)
    generated = peer.Generated(CONFIG, token_NQ, peer.SHIFT + tok.levels * tok.codes + suffix_values(tok), 2 * ITEMS, 10, bf16=False)
    begin_B, end_B = data.sequences.offsets_U1[:3], data.sequences.offsets_U1[1:4] - np.array([0, 2, 4])
    items_Bk, scores_Bk = generated(data.sequences, begin_B, end_B)
    given = peer.Histories(data.sequences, token_NQ, CONFIG.history)(begin_B, end_B)
    for row in range(3):
        one = {name: tensor[row : row + 1].expand(ITEMS, -1) for name, tensor in given.items()}
        with torch.no_grad():
            log_NQV = generated.net(**one, labels=token_NQ).logits.log_softmax(-1)
        exact_N = log_NQV.gather(2, token_NQ[:, :, None]).sum((1, 2)).numpy()
        assert items_Bk[row].tolist() == np.argsort(-exact_N)[:10].tolist()
        assert np.allclose(scores_Bk[row], np.sort(exact_N)[::-1][:10], atol=1e-4)


def test_every_side_answers_with_its_own_lists(made):
    data, tok, table = made
    for side in ("kernels", "generate", "item_item"):
        one = service.answering(side, data.sequences, tok, table, CONFIG, 10)
        users = [3, 0, 7]
        found = [[item["item_id"] for item in answer.items] for answer in one.answers([Query(user=user) for user in users])]
        begin_T, end_T = data.sequences.offsets_U1[users], data.sequences.offsets_U1[np.array(users) + 1]
        if side == "item_item":
            wanted = ranked(service.ITEM_ITEM, one.lists.counts, data.sequences, np.array(users), end_T, 10)[0]
        elif side == "generate":
            wanted = one.lists.generated(data.sequences, begin_T, end_T)[0]
        else:
            wanted = one.lists(service.taken(data.sequences, np.array(users)))
            alone = np.concatenate([one.lists(service.taken(data.sequences, np.array([user]))) for user in users])
            assert np.array_equal(wanted, alone)
        assert found == [[item for item in listed if item >= 0] for listed in wanted.tolist()]
        assert all(found)
        assert len({tuple(listed) for listed in found}) == 3


def test_each_load_counts_what_was_answered_after_a_round(made):
    class Slow:
        fused = False

        def __init__(self) -> None:
            self.sizes: list[int] = []

        def __call__(self, asked: Sequences) -> np.ndarray:
            self.sizes.append(asked.users)
            asyncio.run(asyncio.sleep(0.02))
            return np.zeros((asked.users, 1), dtype=np.int32)

    slow = Slow()
    found = asyncio.run(service.loaded(service.Answering(made[0].sequences, slow), 6, 2, 0.3))
    assert found["mean_batch"] == 2.0
    assert max(slow.sizes) == 2
    assert 60 <= found["p50_ms"] <= 200, "three passes of 20 ms stand before each request"
    assert found["requests_per_second"] == pytest.approx(6 / (found["p50_ms"] / 1000), rel=0.3)


def test_a_run_measures_every_side_at_every_load(made, tmp_path):
    data, tok, table = made
    sizes = service.Sizes((2, 4), 0.05, 10, (("kernels", 4), ("item_item", 4), ("generate", 2)))
    service.run(data, tok, table, CONFIG, sizes, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "service.jsonl").read_text().splitlines()]
    assert [(line["side"], line["clients"]) for line in lines] == [(side, c) for side, _ in sizes.max_batch for c in (2, 4)]
    assert all(line["answers"] >= line["clients"] and line["p50_ms"] <= line["p99_ms"] and line["quick"] for line in lines)


@pytest.mark.parametrize("replaced", [serve.by_generate, serve.by_counts])
def test_what_stands_in_for_the_champion_ranks_alone(tmp_path, replaced):
    world = ServingWorld(tmp_path)
    live = world.open(world.promote(world.candidate(seed=1)))
    given = [Query(history=tuple(history)) for history in histories(live.ranker)[:4]]
    before = [[item["item_id"] for item in answer.items] for answer in live.answers(given)]
    replaced(live)
    after = [[item["item_id"] for item in answer.items] for answer in live.answers(given)]
    assert all(len(listed) == 10 for listed in after)
    assert after != before
    scores = [[item["score"] for item in answer.items if item["score"] is not None] for answer in live.answers(given)]
    assert all(listed == sorted(listed, reverse=True) and listed for listed in scores)
