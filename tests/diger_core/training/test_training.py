from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diger_core.config import SCHEDULES, JointModelConfig, PathsConfig, RecommenderConfig, ScheduleConfig, TrainingConfig
from diger_core.data.batches import Batches
from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable, argmin_codes, assignment_hash
from diger_core.recommender.model import Recommender
from diger_core.training.checkpoint import Checkpoint, newest_valid
from diger_core.training.joint_step import ItemTensors, Outcome, SoftLookup, frozen_outcome, joint_outcome
from diger_core.training.loop import CHECK_EVERY, Loop, Trained
from diger_core.training.monitors import code_counts
from diger_core.training.optimisation import Optimisation, learning_rate_factor, warmup_steps
from diger_core.training.schedules import build_schedule
from tests.support import small_setting as small


class Setting:
    """One batch, one recommender, one tokenizer, as the loop puts them together."""

    def __init__(self, joint: JointModelConfig = small.JOINT, codes: int = small.CODES, dropout: float = 0.0) -> None:
        self.joint, self.tok = joint, small.tokenizer(codes).train()
        torch.manual_seed(0)
        config = replace(small.RECOMMENDER, dropout=dropout)
        self.recommender = Recommender(config, codes, small.LEVELS, 32).train()
        for name, parameter in self.tok.named_parameters():
            parameter.requires_grad_(name == "codebooks" or joint.train_encoder)
        codes_NM = argmin_codes(self.tok, small.vectors()).long()
        suffix_N = torch.arange(small.ITEMS) % 7
        items = {"vectors_ND": small.vectors()} if joint.train_encoder else {"z_Ne": self.tok.encode(small.vectors()).detach()}
        self.catalogue = ItemTensors(codes_NM, suffix_N, **items)
        self.schedule = build_schedule(joint.schedule, codes, 20)
        self.state = self.schedule.initial(small.LEVELS, codes, 20)
        self.batch = next(Batches(small.sequences(), 24, 6, seed=0).epoch(0))

    def outcome(self, joint: JointModelConfig | None = None) -> Outcome:
        return joint_outcome(self.recommender, self.tok, self.catalogue, self.batch, joint or self.joint, self.schedule, self.state, seed=0)

    def gradients(self, joint: JointModelConfig) -> dict[str, torch.Tensor | None]:
        for module in (self.recommender, self.tok):
            module.zero_grad(set_to_none=True)
        self.outcome(joint).loss.backward()
        named = [(f"{part}.{n}", p) for part, m in (("r", self.recommender), ("t", self.tok)) for n, p in m.named_parameters()]
        return {name: None if p.grad is None else p.grad.clone() for name, p in named}


def from_loss_gen(**paths: bool) -> JointModelConfig:
    """L_gen alone, over the given paths."""
    chosen = {name: paths.get(name, False) for name in ("history", "teacher", "labels")}
    return replace(small.JOINT, paths=PathsConfig(**chosen), weight_vq=0.0, weight_recon=0.0)


@pytest.mark.parametrize("forward", ["cached", "sampled"])
@pytest.mark.parametrize("path", ["history", "teacher", "labels"])
def test_each_path_alone_gives_every_codebook_a_gradient(path: str, forward: Any) -> None:
    gradient = Setting().gradients(replace(from_loss_gen(**{path: True}), forward=forward))["t.codebooks"]
    assert gradient is not None
    assert bool(gradient.isfinite().all())
    assert bool((gradient.flatten(1).abs().amax(1) > 1e-10).all())


def test_with_all_paths_off_loss_gen_reaches_no_tokenizer_parameter() -> None:
    setting = Setting(replace(small.JOINT, train_encoder=True, paths=small.NO_PATHS))
    for parameter in setting.tok.parameters():
        parameter.grad = None
    outcome = setting.outcome()
    tokens = [p for p in setting.tok.parameters() if p.requires_grad]
    loss_gen = outcome.loss - (outcome.loss_vq + outcome.loss_recon)  # the value; the graph follows below
    assert torch.allclose(loss_gen, outcome.loss_gen)
    found = torch.autograd.grad(_loss_gen_with_graph(setting), tokens, allow_unused=True)
    assert all(gradient is None for gradient in found)


def _loss_gen_with_graph(setting: Setting) -> torch.Tensor:
    """L_gen as the step differentiates it: the other two losses are replaced by constants."""
    import diger_core.training.joint_step as step

    original = step.assign

    def constants(*args: Any, **kwargs: Any) -> Any:
        return replace(original(*args, **kwargs), loss_vq=torch.zeros(()), loss_recon=torch.zeros(()))

    step.assign = constants  # type: ignore[assignment]
    try:
        return setting.outcome().loss
    finally:
        step.assign = original


def test_the_detached_control_moves_the_codebooks_by_their_own_losses_alone() -> None:
    setting = Setting()
    detached = setting.gradients(replace(small.JOINT, paths=small.NO_PATHS))["t.codebooks"]
    open_paths = setting.gradients(small.JOINT)["t.codebooks"]
    outcome = setting.outcome()
    setting.tok.zero_grad(set_to_none=True)
    (outcome.loss - _loss_gen_with_graph(setting)).backward()
    assert detached is not None
    assert open_paths is not None
    assert torch.allclose(detached, setting.tok.codebooks.grad, atol=1e-7)  # type: ignore[arg-type]
    assert not torch.allclose(detached, open_paths, atol=1e-7)


def test_paths_change_gradients_but_not_the_value_of_the_loss() -> None:
    setting = Setting()
    values = [
        float(setting.outcome(from_loss_gen(history=h, teacher=t, labels=y)).loss_gen)
        for h in (0, 1)
        for t in (0, 1)
        for y in (0, 1)  # type: ignore[arg-type]
    ]
    assert max(values) - min(values) < 1e-5


def test_the_encoder_has_no_gradient_when_frozen_and_one_when_it_learns() -> None:
    frozen = Setting().gradients(small.JOINT)
    learning = Setting(replace(small.JOINT, train_encoder=True))
    found = learning.gradients(learning.joint)
    encoder = [name for name in frozen if name.startswith("t.encoder")]
    assert encoder
    assert all(frozen[name] is None for name in encoder)
    assert all(found[name] is not None and float(found[name].abs().max()) > 0 for name in encoder)  # type: ignore[union-attr]


def test_a_step_leaves_a_frozen_encoder_without_a_gradient() -> None:
    loop = small.loop()
    loop.step(next(loop.context.batches.epoch(0)))
    assert loop.state.tokenizer.codebooks.grad is not None
    assert not any(p.requires_grad for p in loop.state.tokenizer.encoder.parameters())
    assert all(p.grad is None for p in loop.state.tokenizer.encoder.parameters())


@pytest.mark.parametrize("name", ["frqud", "sdud", "sdud+frqud"])
def test_the_end_of_an_epoch_leaves_the_schedule_as_it_is(name: Any) -> None:
    """Table, monitors and validation run in eval mode: neither f nor sigma nor the step count may move."""
    loop = small.loop(replace(small.JOINT, schedule=ScheduleConfig(name=name, r=1.0)))
    start = {key: value.clone() for key, value in loop.state.schedule.items()}
    for _ in loop.epoch_steps():
        pass
    before = {key: value.clone() for key, value in loop.state.schedule.items()}
    loop.end_of_epoch()
    assert all(torch.equal(loop.state.schedule[key], value) for key, value in before.items())
    assert all(not torch.equal(start[key], value) for key, value in before.items()), "every part of the state has moved in training"


def test_soft_lookup_equals_the_product_with_a_one_hot_and_its_gradients() -> None:
    torch.manual_seed(0)
    y, table, codes = torch.randn(9, 5).softmax(1).requires_grad_(), torch.randn(5, 4, requires_grad=True), torch.randint(0, 5, (9,))
    p = torch.nn.functional.one_hot(codes, 5) + (y - y.detach())
    weights = torch.randn(9, 4)
    wanted = torch.autograd.grad(((p @ table) * weights).sum(), (y, table))
    found = torch.autograd.grad((SoftLookup.apply(p, table, codes) * weights).sum(), (y, table))
    assert torch.equal(SoftLookup.apply(p, table, codes), p @ table)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(wanted, found, strict=True))


def test_loss_gen_starts_near_the_logarithm_of_k() -> None:
    seq = small.sequences()
    tok = small.tokenizer(codes=32)
    recommender = Recommender(RecommenderConfig(history=6, history_input="hard", item_tokens="all"), 32, small.LEVELS, 32).train()
    catalogue = ItemTensors(argmin_codes(tok, small.vectors()).long(), torch.arange(small.ITEMS) % 7, tok.encode(small.vectors()).detach())
    schedule = build_schedule(small.JOINT.schedule, 32, 20)
    for batch in Batches(seq, 64, 6, seed=0).epoch(0):
        outcome = joint_outcome(recommender, tok.train(), catalogue, batch, small.JOINT, schedule, schedule.initial(small.LEVELS, 32, 20), seed=0)
        assert float(outcome.loss_gen) == pytest.approx(math.log(32), abs=0.1)
        assert float(frozen_outcome(recommender, tok, catalogue, batch).loss_gen) == pytest.approx(math.log(32), abs=0.1)


def test_sduds_update_changes_no_gradient_but_sigmas() -> None:
    joint = replace(small.JOINT, schedule=ScheduleConfig(name="sdud", sigma_0=1.0))
    setting = Setting(joint)
    before = setting.gradients(joint)
    outcome = setting.outcome()
    assert outcome.det_VM is not None
    moved = setting.schedule.update(setting.state, outcome.loss_gen, setting.schedule.observe(outcome.det_VM))
    after = setting.gradients(joint)
    assert float(moved["sigma"]) != float(setting.state["sigma"])
    assert not moved["sigma"].requires_grad
    for name, gradient in before.items():
        assert (gradient is None and after[name] is None) or torch.equal(gradient, after[name])  # type: ignore[arg-type]


class NoHostReads(TorchDispatchMode):
    """Fails on what would make a device wait for the host or the other way round."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2"), f"host read: {name}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["frozen", *SCHEDULES])
def test_a_step_never_reads_from_the_device(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Loop.step

    def watched(self: Loop, batch: Any) -> None:
        with NoHostReads():
            original(self, batch)

    monkeypatch.setattr(Loop, "step", watched)
    joint = replace(
        small.JOINT, schedule=ScheduleConfig(name="none" if name == "frozen" else name), tokenizer="frozen" if name == "frozen" else "joint"
    )
    trained = small.run(joint, replace(small.TRAINING, epochs=1))
    assert trained.alarm is None
    assert len(trained.curves) == 1


def test_both_modes_learn_and_return_the_best_state_with_its_own_table() -> None:
    training = replace(small.TRAINING, epochs=8, learning_rate=1e-2, batch_size=32)
    for mode in ("frozen", "joint"):
        trained = small.run(replace(small.JOINT, tokenizer=mode), training, small.without_dropout(), sequences=small.sequences(users=120))  # type: ignore[arg-type]
        first, last = trained.curves[0], trained.curves[-1]
        assert last["loss_gen"] < first["loss_gen"] - 0.5
        scores = [row["validation_ndcg_10"] for row in trained.curves]
        assert scores[trained.best_epoch - 1] == max(scores)
        assert max(row["validation_recall_10"] for row in trained.curves) > 1.4 * 10 / small.ITEMS, "clearly above chance"
        assert torch.equal(trained.table.codes_NM, argmin_codes(trained.tokenizer, small.vectors()))
        assert trained.table.duplicates() == 0
        assert not trained.recommender.training


def test_curves_have_the_documented_names_and_no_times() -> None:
    row = small.run(training=replace(small.TRAINING, epochs=2, evaluate_every=2)).curves[0]
    scalars = {"epoch", "step", "loss", "loss_gen", "loss_vq", "loss_recon", "sigma", "noisy_share", "validation_recall_10", "validation_ndcg_10"}
    scalars |= {"unique_prefixes", "largest_group", "flipped", "agreement"}
    by_level = {"sigma_by_level", "noisy_share_by_level", "agreement_by_level"}
    assert row.keys() == scalars | by_level | {"entropy", "perplexity", "dead_codes"}
    assert row["validation_ndcg_10"] is None, "not an evaluated epoch"
    assert len(row["perplexity"]) == small.LEVELS
    assert 0 < row["noisy_share"] < 1
    for name in by_level:
        assert len(row[name]) == small.LEVELS
        assert sum(row[name]) / small.LEVELS == pytest.approx(row[name.removesuffix("_by_level")])
    assert len(set(row["noisy_share_by_level"])) > 1, "levels have usages, and so noise, of their own"


def test_usage_counts_the_items_on_every_code_before_training_and_after_each_epoch() -> None:
    trained = small.run(training=replace(small.TRAINING, epochs=2))
    usage_EMK = trained.usage_EMK
    assert usage_EMK is not None
    assert usage_EMK.shape == (3, small.LEVELS, small.tokenizer().codes)
    assert bool((usage_EMK.sum(2) == small.ITEMS).all())
    assert torch.equal(usage_EMK[0], code_counts(argmin_codes(small.tokenizer(), small.vectors()), small.tokenizer().codes))
    assert torch.equal(usage_EMK[trained.best_epoch], code_counts(trained.table.codes_NM, small.tokenizer().codes))
    assert [int((level_K == 0).sum()) for level_K in usage_EMK[-1]] == trained.curves[-1]["dead_codes"]
    assert small.run(replace(small.JOINT, tokenizer="frozen"), replace(small.TRAINING, epochs=1)).usage_EMK is None


def test_joint_training_moves_the_codebooks_and_frozen_does_not() -> None:
    before = small.tokenizer().codebooks.detach()
    joint = small.last_checkpoint().tensors["tokenizer"]["codebooks"]
    frozen = small.last_checkpoint(replace(small.JOINT, tokenizer="frozen")).tensors["tokenizer"]["codebooks"]
    assert torch.equal(frozen, before)
    assert float((joint - before).abs().max()) > 1e-4


def test_joint_training_with_still_codebooks_and_no_noise_is_frozen_training() -> None:
    still = replace(small.JOINT, codebook_learning_rate=0.0, schedule=ScheduleConfig(name="none"), paths=small.NO_PATHS)
    joint, frozen = (small.last_checkpoint(j, recommender=small.without_dropout()) for j in (still, replace(still, tokenizer="frozen")))
    for name, value in frozen.tensors["recommender"].items():
        assert torch.allclose(value, joint.tensors["recommender"][name], atol=1e-5), name


def test_repeated_runs_are_bit_equal_and_seeds_differ() -> None:
    one, again, other = small.last_checkpoint(), small.last_checkpoint(), small.last_checkpoint(training=replace(small.TRAINING, seed=1))
    assert small.equal(one, again) == []
    assert "recommender: start" in small.equal(one, other)


def test_training_leaves_the_process_as_it_was() -> None:
    torch.manual_seed(5)
    before, tok = torch.get_rng_state(), small.tokenizer()
    state = {name: value.clone() for name, value in tok.state_dict().items()}
    small.run(training=replace(small.TRAINING, epochs=1), tokenizer=tok)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(state[name], value) for name, value in tok.state_dict().items())


class Killed(BaseException):
    """Stands for the process's end: nothing in the loop may catch it."""


SDUD_FRQUD = replace(small.JOINT, schedule=ScheduleConfig(name="sdud+frqud", r=1.0))


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Checkpoint]:
    configs = {"joint": SDUD_FRQUD, "frozen": replace(small.JOINT, tokenizer="frozen"), "encoder": replace(small.JOINT, train_encoder=True)}
    return {name: small.last_checkpoint(config) for name, config in configs.items()}  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "killed_at"), [("joint", 1), ("joint", 7), ("joint", 17), ("joint", 21), ("frozen", 11), ("encoder", 13)])
def test_killed_and_resumed_equals_uninterrupted(mode: str, killed_at: int, uninterrupted: dict[str, Checkpoint], tmp_path: Path) -> None:
    joint = {"joint": SDUD_FRQUD, "frozen": replace(small.JOINT, tokenizer="frozen"), "encoder": replace(small.JOINT, train_encoder=True)}[mode]

    def dies(checkpoint: Checkpoint) -> None:
        checkpoint.save(tmp_path)
        if checkpoint.step >= killed_at:
            raise Killed

    with pytest.raises(Killed):
        small.run(joint, on_checkpoint=dies, checkpoint_steps=3)  # type: ignore[arg-type]
    torch.manual_seed(999)  # a new process has other generators
    resumed = small.last_checkpoint(joint, resume=newest_valid(tmp_path))
    assert small.equal(resumed, uninterrupted[mode]) == []


def test_a_finished_run_resumes_into_the_same_result(tmp_path: Path) -> None:
    kept: list[Checkpoint] = []
    first = small.run(on_checkpoint=kept.append)
    again = small.run(resume=kept[-1])
    assert again.best_epoch == first.best_epoch
    assert again.curves == first.curves
    assert assignment_hash(small.item_ids(), again.table) == assignment_hash(small.item_ids(), first.table)
    assert all(torch.equal(a, b) for a, b in zip(first.recommender.state_dict().values(), again.recommender.state_dict().values(), strict=True))


def test_a_checkpoint_of_other_data_or_configuration_is_refused() -> None:
    checkpoint = small.last_checkpoint(training=replace(small.TRAINING, epochs=1))
    with pytest.raises(DigerError, match="another configuration"):
        small.run(resume=checkpoint)
    with pytest.raises(DigerError, match="another configuration"):
        small.run(training=replace(small.TRAINING, epochs=1), sequences=small.sequences(seed=9), resume=checkpoint)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_a_finite_state() -> None:
    trained = small.run(training=replace(small.TRAINING, learning_rate=1e30, weight_decay=0.0))
    assert trained.alarm is not None
    assert "not finite" in trained.alarm
    assert all(bool(value.isfinite().all()) for value in trained.recommender.state_dict().values())


def test_no_checkpoint_holds_a_state_that_is_not_finite() -> None:
    kept: list[Checkpoint] = []
    small.run(training=replace(small.TRAINING, learning_rate=1e30, weight_decay=0.0), on_checkpoint=kept.append, checkpoint_steps=1)
    assert all(bool(v.isfinite().all()) for c in kept for v in c.tensors["recommender"].values())


def test_an_exploding_gradient_stops_the_run_within_fifty_steps_while_the_loss_is_finite() -> None:
    steps: list[int] = []
    step = Optimisation.step

    def grows(self: Optimisation) -> torch.Tensor:
        steps.append(len(steps))
        return step(self) * (1e5 if len(steps) > 20 else 1.0)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Optimisation, "step", grows)
        trained = small.run(training=replace(small.TRAINING, epochs=30))
    assert trained.alarm is not None
    assert "the gradient exploded" in trained.alarm
    assert 20 < len(steps) <= 20 + CHECK_EVERY
    assert all(bool(value.isfinite().all()) for value in trained.recommender.state_dict().values())
    assert small.run(training=replace(small.TRAINING, epochs=8, learning_rate=3e-2)).alarm is None, "a bold run is no explosion"


@pytest.mark.parametrize("killed_at", sorted(np.random.default_rng(20261123).choice(np.arange(1, 24), 10, replace=False).tolist()))
def test_killed_at_ten_random_steps_and_resumed_ends_with_the_same_table_and_metrics(killed_at: int, tmp_path: Path) -> None:
    whole = _kept_whole()

    def dies(checkpoint: Checkpoint) -> None:
        checkpoint.save(tmp_path)
        if checkpoint.step >= killed_at:
            raise Killed

    with pytest.raises(Killed):
        small.run(SDUD_FRQUD, on_checkpoint=dies, checkpoint_steps=1)
    torch.manual_seed(999)
    resumed = small.run(SDUD_FRQUD, resume=newest_valid(tmp_path))
    assert assignment_hash(small.item_ids(), resumed.table) == assignment_hash(small.item_ids(), whole.table)
    assert resumed.curves == whole.curves
    assert all(torch.equal(a, b) for a, b in zip(whole.recommender.state_dict().values(), resumed.recommender.state_dict().values(), strict=True))


@lru_cache(maxsize=1)
def _kept_whole() -> Trained:
    return small.run(SDUD_FRQUD)


def test_a_collapse_stops_the_run_with_the_last_good_state() -> None:
    wild = replace(small.JOINT, codebook_learning_rate=3.0, weight_vq=0.0, weight_recon=0.0, collapse_unique_prefixes=0.9)
    trained = small.run(wild, replace(small.TRAINING, warmup_steps=0))
    assert trained.alarm is not None
    assert "collapsed" in trained.alarm
    assert len(trained.curves) < small.TRAINING.epochs or trained.curves[-1]["epoch"] != trained.best_epoch
    assert torch.equal(trained.table.codes_NM, argmin_codes(trained.tokenizer, small.vectors()))


def test_training_stops_early_when_validation_no_longer_improves() -> None:
    training = replace(small.TRAINING, epochs=30, patience=2, learning_rate=1e-9)
    trained = small.run(replace(small.JOINT, tokenizer="frozen"), training)
    scores = [row["validation_ndcg_10"] for row in trained.curves]
    assert len(scores) < 30
    assert len(scores) == trained.best_epoch + 2
    assert trained.alarm is None


def test_a_released_tables_suffixes_are_kept() -> None:
    first = small.run(replace(small.JOINT, tokenizer="frozen"), replace(small.TRAINING, epochs=1)).table
    moved = IdTable(first.codes_NM, first.suffix_N + 5)
    again = small.run(replace(small.JOINT, tokenizer="frozen"), replace(small.TRAINING, epochs=1), previous=moved)
    assert torch.equal(again.table.suffix_N, moved.suffix_N)


def test_warm_up_is_at_most_a_twentieth_and_the_cosine_ends_at_zero() -> None:
    assert warmup_steps(TrainingConfig(warmup_steps=500), 100_000) == 500
    assert warmup_steps(TrainingConfig(warmup_steps=500), 1000) == 50
    factors = [learning_rate_factor(step, 50, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 50)
    assert max(factors) == 1.0 == factors[50]
    assert all(a >= b for a, b in zip(factors[50:], factors[51:], strict=False))
    assert factors[-1] < 1e-5
    assert learning_rate_factor(525, 50, 1000) == pytest.approx(0.5)


def test_vectors_and_items_of_different_number_are_a_clear_error() -> None:
    with pytest.raises(DigerError, match="vectors: 47 rows for 48 items"):
        small.inputs(vectors_ND=small.vectors()[:-1])
