"""Soft history input and one token an item: what the tokens are, their gradient, and that ranking reads what training trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diger_core.config import EvaluationConfig, PathsConfig, ScheduleConfig
from diger_core.data.batches import Batches
from diger_core.evaluation.metrics import ndcg
from diger_core.evaluation.ranking import rank_targets
from diger_core.recommender.history_input import input_weights, table_tokens
from diger_core.training.joint_step import joint_outcome
from diger_core.training.loop import Loop
from tests.support import small_setting as small

SOFT = replace(small.without_dropout(), history_input="soft", history_tau=0.7)
ONE = replace(small.without_dropout(), item_tokens="one")
HISTORY_ALONE = replace(small.JOINT, schedule=ScheduleConfig(name="none"), paths=PathsConfig(history=True, teacher=False, labels=False))


def _loop(recommender, joint=small.JOINT) -> Loop:  # type: ignore[no-untyped-def]
    return Loop(small.inputs(), small.ModelConfig(recommender, small.TRAINING, joint))


def test_weights_are_the_softmax_of_the_distances_along_the_tables_codes() -> None:
    tok = small.tokenizer()
    z_Ne = tok.encode(small.vectors())
    codes_NM = torch.randint(0, small.CODES, (small.ITEMS, small.LEVELS), generator=torch.Generator().manual_seed(1))
    found_NMK = input_weights(tok, z_Ne, codes_NM, tau=0.7)
    residual = z_Ne
    for level in range(small.LEVELS):
        distance_NK = (residual[:, None] - tok.codebooks[level]).square().sum(2)
        torch.testing.assert_close(found_NMK[:, level], (-tok.input_alpha_M[level] * distance_NK / 0.7).softmax(1), atol=1e-5, rtol=1e-4)
        residual = residual - tok.codebooks[level][codes_NM[:, level]]


def test_a_small_tau_gives_the_look_ups_of_the_nearest_codes() -> None:
    loop = _loop(replace(SOFT, history_tau=1e-4))
    tokens_NTd = loop.history_tokens()
    table = loop.state.table
    hard_NQd = loop.state.recommender.embed_codes(table.tuples.long())
    assert tokens_NTd is not None
    for place in (0, -1):  # this setting's second codebook holds equal codes, which share their weight
        torch.testing.assert_close(tokens_NTd[:, place], hard_NQd[:, place].detach(), atol=1e-4, rtol=1e-3)


def test_the_gradient_of_the_last_codebook_is_that_of_finite_differences() -> None:
    """Levels before the last also move the residuals of those after them, which the method does not differentiate."""
    loop = _loop(SOFT, HISTORY_ALONE)
    state, context = loop.state, loop.context
    with torch.no_grad():
        for table in state.recommender.token_tables:
            table.mul_(20)  # so that the loss depends on the histories
        state.tokenizer.alpha.fill_(3.0)
        state.tokenizer.input_alpha_M.fill_(3.0)
    batch = next(context.batches.epoch(0))
    books = state.tokenizer.codebooks

    def loss() -> torch.Tensor:
        outcome = joint_outcome(
            state.recommender, state.tokenizer, context.items, batch, replace(HISTORY_ALONE, weight_vq=0.0, weight_recon=0.0), context.schedule,
            state.schedule, seed=0,
        )  # fmt: skip
        return outcome.loss

    loss().backward()
    gradient_Ke = books.grad[-1].clone()
    assert float(gradient_Ke.abs().max()) > 1e-6
    step_Ke = gradient_Ke / gradient_Ke.norm() * 0.02
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            books[-1].add_(sign * step_Ke)
            values.append(float(loss()))
            books[-1].sub_(sign * step_Ke)
    assert (values[0] - values[1]) / 2 == pytest.approx(float((gradient_Ke * step_Ke).sum()), rel=0.03)


def test_a_closed_history_path_gives_the_codebooks_nothing() -> None:
    closed = replace(HISTORY_ALONE, paths=small.NO_PATHS, weight_vq=0.0, weight_recon=0.0)
    loop = _loop(SOFT, closed)
    state, context = loop.state, loop.context
    batch = next(context.batches.epoch(0))
    outcome = joint_outcome(state.recommender, state.tokenizer, context.items, batch, closed, context.schedule, state.schedule, seed=0)
    outcome.loss.backward()
    grad = state.tokenizer.codebooks.grad
    assert grad is None or not grad.any()


@pytest.mark.parametrize("name", ["soft", "one", "soft and one"])
@pytest.mark.parametrize("tokenizer", ["joint", "frozen"])
def test_ranking_by_what_a_run_returns_gives_the_figure_that_chose_its_state(name: str, tokenizer: str) -> None:
    recommender = {"soft": SOFT, "one": ONE, "soft and one": replace(SOFT, item_tokens="one")}[name]
    trained = small.run(replace(small.JOINT, tokenizer=tokenizer), recommender=recommender)
    tokens_NTd = table_tokens(trained.recommender, trained.table, trained.tokenizer, trained.z_Ne)
    assert (tokens_NTd is None) == (name == "one")
    config = EvaluationConfig(beams=10, recall_at=(10,), ndcg_at=(10,))
    found = rank_targets(
        trained.recommender, trained.table.codes_NM, trained.table.suffix_N, small.sequences(), "validation", config, tokens_NTd=tokens_NTd
    )
    assert float(ndcg(found.rank_T, 10).mean()) == pytest.approx(trained.best_ndcg, abs=1e-6)


def test_one_token_an_item_makes_histories_as_long_as_their_items() -> None:
    loop = _loop(ONE)
    recommender = loop.state.recommender
    assert len(recommender.encoder_bias.one_hot) == ONE.history
    tokens_VQd = recommender.embed_codes(loop.state.table.tuples.long())
    torch.testing.assert_close(recommender.merged(tokens_VQd)[:, 0], tokens_VQd.sum(1))
    seen = []
    encode = recommender.encode
    recommender.encode = lambda history_BTd, mask_BT: (seen.append(history_BTd.shape[1]), encode(history_BTd, mask_BT))[1]  # type: ignore[method-assign]
    batch = next(Batches(small.sequences(), 15, 6, seed=0).epoch(0))
    loop.step(batch)
    assert seen == [batch.history_BT.shape[1]]


def test_soft_input_without_the_items_tokens_is_refused() -> None:
    trained = small.run(recommender=SOFT, training=replace(small.TRAINING, epochs=1))
    with pytest.raises(ValueError, match="takes the items' tokens"):
        rank_targets(trained.recommender, trained.table.codes_NM, trained.table.suffix_N, small.sequences(), "test", EvaluationConfig())


def test_a_soft_run_resumes_to_the_bit() -> None:
    kept = []
    small.run(recommender=SOFT, on_checkpoint=kept.append, checkpoint_steps=3)
    middle = next(c for c in kept if c.state["batch"] > 0)
    assert small.equal(small.last_checkpoint(recommender=SOFT, resume=middle), kept[-1]) == []
    assert np.isfinite(kept[-1].state["best"]["ndcg"])
