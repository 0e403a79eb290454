"""The encoder and beams over the fused kernels against the module's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diger_core.config import EvaluationConfig, RecommenderConfig
from diger_core.evaluation.ranking import rank_targets
from diger_core.fast.inference import FastRecommender, obstacle
from diger_core.progress import Silent
from diger_core.recommender.beam import beam_search
from diger_core.recommender.model import Recommender
from diger_core.recommender.trie import Trie
from tests.support import small_setting as small

CONFIG = RecommenderConfig(
    encoder_layers=2, decoder_layers=2, d_model=32, d_ff=64, heads=2, d_head=16, dropout=0.1, history=5, history_input="hard", item_tokens="all"
)
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")])]


def _setting(device: str) -> tuple[Recommender, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    recommender = Recommender(CONFIG, 8, 2, 16).to(device).eval()
    with torch.no_grad():
        for table in recommender.token_tables:
            table.mul_(20)  # logits that tell states apart
    codes_NM = torch.randint(0, 8, (60, 2), device=device)
    order = (codes_NM[:, 0] * 8 + codes_NM[:, 1]).argsort(stable=True)
    key = (codes_NM[order, 0] * 8 + codes_NM[order, 1]).contiguous()
    suffix_N = torch.empty(60, dtype=torch.int64, device=device)
    suffix_N[order] = torch.arange(60, device=device) - torch.searchsorted(key, key)
    return recommender, codes_NM, suffix_N


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_beams_over_the_fused_kernels_are_the_module_s(device: str, constrained: bool) -> None:
    recommender, codes_NM, suffix_N = _setting(device)
    trie = Trie.from_table(codes_NM, suffix_N, 8, 16, device)
    items_BL, lengths_B = torch.randint(0, 60, (7, 5), device=device), torch.tensor([1, 5, 3, 2, 4, 5, 1], device=device)
    history = recommender.embed_codes(torch.cat((codes_NM, suffix_N[:, None]), 1)[items_BL]).flatten(1, 2)
    mask_BT = (torch.arange(5, device=device) < lengths_B[:, None]).repeat_interleave(3, 1)
    fast = FastRecommender(recommender, torch.float32)
    with torch.no_grad():
        memory, found_memory = recommender.encode(history, mask_BT), fast.encode(history, mask_BT)
        assert torch.allclose(memory[mask_BT], found_memory[mask_BT], atol=1e-4)
        wanted = beam_search(recommender, memory, mask_BT, trie, 12, constrained=constrained)
        found = beam_search(fast, found_memory, mask_BT, trie, 12, constrained=constrained)
    assert torch.allclose(wanted[1], found[1], atol=1e-3)
    assert float((wanted[0] == found[0]).float().mean()) > 0.97, "equal but for scores that tie within rounding"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"d_head": 24}, "recommender.d_head 24 is not a power of two of at least 16"),
        ({"history": 200}, "a history of 600 tokens, more than 256"),
        ({"history": 80, "d_head": 256}, "heads of width 256 over 240 tokens do not fit a multiprocessor's memory"),
        ({"d_model": 1024, "d_ff": 4096}, None),
    ],
)
def test_shapes_that_the_kernels_do_not_take_are_named(change: dict[str, int], reason: str | None) -> None:
    with torch.device("meta"):
        assert obstacle(Recommender(replace(CONFIG, **change), 8, 2, 16)) == reason


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bf16_evaluation_on_a_device_ranks_as_fp32_evaluation_does(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    recommender = Recommender(CONFIG, 8, 2, 32).cuda().eval()
    with torch.no_grad():
        for table in recommender.token_tables:
            table.mul_(20)
    codes_NM, suffix_N = torch.arange(small.ITEMS)[:, None].repeat(1, 2) % 8, torch.arange(small.ITEMS) // 8
    seq, config = small.sequences(users=300), EvaluationConfig(beams=20)
    exact = rank_targets(recommender, codes_NM, suffix_N, seq, "test", config, "cuda")
    encoded: list[int] = []
    encode = FastRecommender.encode
    monkeypatch.setattr(FastRecommender, "encode", lambda self, x, mask: encoded.append(len(x)) or encode(self, x, mask))
    low = rank_targets(recommender, codes_NM, suffix_N, seq, "test", config, "cuda", precision="bf16")
    assert sum(encoded) == len(low.rank_T), "every row went through the kernels"
    assert float((abs(exact.rank_T - low.rank_T) <= 2).mean()) > 0.9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_shape_that_the_kernels_do_not_take_is_ranked_by_the_module_with_one_line_about_it() -> None:
    torch.manual_seed(0)
    recommender = Recommender(replace(CONFIG, d_head=24), 8, 2, 32).cuda().eval()
    codes_NM, suffix_N = torch.arange(small.ITEMS)[:, None].repeat(1, 2) % 8, torch.arange(small.ITEMS) // 8
    told: list[str] = []
    progress = Silent()
    progress.message = told.append  # type: ignore[method-assign]
    seq, config = small.sequences(users=300), EvaluationConfig(beams=20, batch_size=100)
    found = rank_targets(recommender, codes_NM, suffix_N, seq, "test", config, "cuda", precision="bf16", progress=progress)
    assert found.rank_T.any()
    assert told == ["ranking (test): the torch module ranks, not the fused kernels: recommender.d_head 24 is not a power of two of at least 16"]
