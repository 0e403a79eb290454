"""The uncertainty decays: each one's definition, purity, and what the checkpoint needs of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.config import ScheduleConfig
from diger_core.training.schedules import SCHEDULES, build_schedule
from diger_core.training.schedules.sdud import sigma_gradient, sigma_loss

LEVELS, CODES, STEPS = 3, 16, 200
ALL = sorted(SCHEDULES)


def made(name: str, codes: int = CODES, steps: int = STEPS, **options):
    schedule = build_schedule(ScheduleConfig(name=name, **options), codes, steps)
    return schedule, schedule.initial(LEVELS, codes, steps)


def det(items: int = 40, seed: int = 0, codes: int = CODES) -> torch.Tensor:
    return torch.randint(codes, (items, LEVELS), generator=torch.Generator().manual_seed(seed))


def following(schedule, state, loss_gen, det_VM, mask_V=None):
    return schedule.update(state, loss_gen, schedule.observe(det_VM, mask_V))


def sigmas(schedule, state, det_VM) -> torch.Tensor:
    return torch.stack([schedule.sigma_level(state, j, det_VM[:, : j + 1]) for j in range(LEVELS)], 1)


def test_a_wrong_name_is_an_error_that_lists_the_names():
    with pytest.raises(ValueError, match=r"name = 'frequd': must be one of none, .*sdud\+frqud"):
        ScheduleConfig(name="frequd")


@pytest.mark.parametrize("name", ALL)
def test_update_and_sigma_change_no_argument_and_give_the_same_answer_twice(name):
    schedule, state = made(name)
    for i in range(3):
        before = {k: v.clone() for k, v in state.items()}
        codes = det(seed=i)
        assert torch.equal(sigmas(schedule, state, codes), sigmas(schedule, state, codes))
        first, second = (following(schedule, state, torch.tensor(2.5), codes) for _ in range(2))
        assert state.keys() == before.keys() == first.keys()
        assert all(torch.equal(state[k], before[k]) and torch.equal(first[k], second[k]) for k in state)
        state = first
    assert int(state["step"]) == 3


@pytest.mark.parametrize("name", ALL)
def test_a_restored_state_continues_as_if_never_interrupted(name):
    schedule, state = made(name)
    for i in range(20):
        state = following(schedule, state, torch.tensor(3.0 - i / 10), det(seed=i))
        if i == 9:
            other, _ = made(name)
            restored = {k: v.clone() for k, v in state.items()}
            assert all(v.dtype in (torch.float32, torch.int64) for v in restored.values())
        elif i > 9:
            restored = following(other, restored, torch.tensor(3.0 - i / 10), det(seed=i))
    assert all(torch.equal(state[k], restored[k]) for k in state)
    assert torch.equal(sigmas(schedule, state, det()), sigmas(other, restored, det()))


@pytest.mark.parametrize("name", ALL)
def test_padding_rows_change_no_state(name):
    schedule, state = made(name)
    codes, padding = det(30), torch.zeros(10, LEVELS, dtype=torch.int64)
    mask = torch.cat([torch.ones(30), torch.zeros(10)])
    plain = following(schedule, state, torch.tensor(2.0), codes)
    padded = following(schedule, state, torch.tensor(2.0), torch.cat([codes, padding]), mask)
    assert all(torch.allclose(plain[k], padded[k], atol=1e-7) for k in plain)


def test_none_is_zero_and_draws_no_noise_while_gaussian_draws_gaussian():
    schedule, state = made("none")
    assert schedule.noise == "none"
    assert not sigmas(schedule, state, det()).any()
    assert made("gaussian")[0].noise == "gaussian"
    assert bool((sigmas(*made("gumbel", sigma_0=1.25), det()) == 1.25).all())


@pytest.mark.parametrize("name", ["linear", "cosine", "exponential"])
def test_annealed_sigma_falls_from_sigma_0_at_the_first_step_to_sigma_min_at_the_last(name):
    for sigma_min in (0.0, 0.25):
        schedule, state = made(name, steps=50, sigma_0=2.0, sigma_min=sigma_min)
        path = []
        for _ in range(50):
            path.append(float(sigmas(schedule, state, det(2))[0, 0]))
            state = following(schedule, state, torch.tensor(1.0), det(2))
        assert path[0] == pytest.approx(2.0)
        assert path[-1] == pytest.approx(sigma_min, abs=1e-6)
        assert all(a > b for a, b in zip(path, path[1:], strict=False))


def test_the_shapes_are_a_line_half_a_cosine_and_a_constant_factor():
    middle = {"linear": 1.25, "cosine": 1.25, "exponential": 1.0}
    quarter = {"linear": 1.625, "cosine": 0.5 + 1.5 * 0.5 * (1 + math.cos(math.pi / 4)), "exponential": 2**0.5}
    for name in middle:
        schedule, state = made(name, steps=101, sigma_0=2.0, sigma_min=0.5)
        for step, wanted in ((50, middle[name]), (25, quarter[name])):
            assert float(sigmas(schedule, {**state, "step": torch.tensor(step)}, det(1))[0, 0]) == pytest.approx(wanted, rel=1e-5)


def test_tau_is_constant_by_default_and_anneals_when_told():
    assert float(made("gumbel", tau=1.5)[0].tau(torch.tensor(77))) == 1.5
    schedule = made("gumbel", steps=101, tau=2.0, tau_end=0.5)[0]
    assert [float(schedule.tau(torch.tensor(s))) for s in (0, 50, 100, 500)] == pytest.approx([2.0, 1.25, 0.5, 0.5])


@settings(max_examples=60, deadline=None)
@given(loss=st.floats(0.01, 40), lambda_=st.floats(0.3, 3))
def test_the_minimum_of_the_sdud_loss_is_the_closed_form_on_a_grid(loss, lambda_):
    grid = torch.linspace(0, 8, 80_001, dtype=torch.float64)
    argmin = float(grid[sigma_loss(grid, lambda_, torch.tensor(loss, dtype=torch.float64)).argmin()])
    assert argmin == pytest.approx(max(0.0, math.sqrt(loss) - lambda_), abs=2e-3)


@settings(max_examples=30, deadline=None)
@given(sigma=st.floats(0, 4), loss=st.floats(0.01, 40), lambda_=st.floats(0.3, 3))
def test_the_closed_form_gradient_of_the_sdud_loss_is_autograd_s(sigma, loss, lambda_):
    s = torch.tensor(sigma, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(sigma_loss(s, lambda_, torch.tensor(loss, dtype=torch.float64)), s)
    assert float(sigma_gradient(s.detach(), lambda_, torch.tensor(loss, dtype=torch.float64))) == pytest.approx(float(wanted), rel=1e-6, abs=1e-9)


def test_the_sdud_step_is_adamw_without_weight_decay():
    schedule, state = made("sdud", sigma_0=1.0)
    sigma = torch.nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.AdamW([sigma], lr=schedule.learning_rate, weight_decay=0.0)
    for i in range(25):
        loss = torch.tensor(6.0 - 0.2 * i)
        optimizer.zero_grad()
        sigma_loss(sigma, schedule.lambda_, loss).backward()
        optimizer.step()
        with torch.no_grad():
            sigma.clamp_(min=0)
        state = following(schedule, state, loss, det(4))
        assert float(state["sigma"]) == pytest.approx(float(sigma.detach()), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(losses=st.lists(st.floats(0.0, 30), min_size=1, max_size=30), name=st.sampled_from(["sdud", "sdud+frqud"]))
def test_sdud_sigma_is_never_negative_nor_nan(losses, name):
    schedule, state = made(name, steps=3)
    for loss in losses:
        state = following(schedule, state, torch.tensor(loss), det(4))
        assert float(state["sigma"]) >= 0


def test_sdud_settles_at_its_minimum_and_switches_off_below_lambda_squared():
    for loss, wanted in ((6.25, 1.0), (1.0, 0.0)):
        schedule, state = made("sdud", codes=256, lambda_=1.5, sigma_0=2.0, sigma_learning_rate=5e-3)
        for _ in range(3000):
            state = following(schedule, state, torch.tensor(loss), det(1))
        assert float(state["sigma"]) == pytest.approx(wanted, abs=0.02)


def test_sdud_constants_scale_with_codes_and_steps():
    assert made("sdud", codes=256, lambda_=1.7)[0].lambda_ == pytest.approx(1.7)
    assert made("sdud", codes=16, lambda_=1.7)[0].lambda_ == pytest.approx(1.7 * math.sqrt(0.5))
    assert made("sdud", steps=100, sigma_0=2.0)[0].learning_rate == pytest.approx(0.08)
    assert made("sdud", steps=1_000_000)[0].learning_rate == pytest.approx(1e-3)
    assert made("sdud", sigma_learning_rate=0.5)[0].learning_rate == 0.5


def test_sdud_takes_no_gradient_from_the_loss():
    schedule, state = made("sdud")
    loss = torch.tensor(3.0, requires_grad=True)
    assert not following(schedule, state, loss * 2, det(4))["sigma"].requires_grad


def test_a_short_sdud_run_can_decay_to_zero():
    schedule, state = made("sdud", codes=256, steps=40, sigma_0=2.0)
    for _ in range(40):
        state = following(schedule, state, torch.tensor(0.5), det(4))
    assert float(state["sigma"]) < 0.2


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), r=st.floats(0.1, 4), items=st.integers(1, 60))
def test_frqud_gives_noise_exactly_to_items_on_hot_codes(seed, r, items):
    schedule, state = made("frqud", r=r)
    f = torch.rand(LEVELS, CODES, generator=torch.Generator().manual_seed(seed))
    state = {**state, "f": f / f.sum(1, keepdim=True)}
    codes = det(items, seed)
    sigma_VM = sigmas(schedule, state, codes)
    for j in range(LEVELS):
        for v in range(items):
            assert float(sigma_VM[v, j]) == float(state["f"][j, codes[v, j]] > r / CODES)


def test_frqud_is_strict_and_starts_at_one_over_k():
    schedule, state = made("frqud", r=1.0)
    assert torch.equal(state["f"], torch.full((LEVELS, CODES), 1 / CODES))
    assert not sigmas(schedule, state, det()).any()


def test_frqud_usage_is_the_moving_average_of_item_shares():
    schedule, state = made("frqud")
    codes = torch.zeros(4, LEVELS, dtype=torch.int64)
    codes[3, 0] = 5
    f = following(schedule, state, torch.tensor(1.0), codes)["f"]
    assert float(f[0, 0]) == pytest.approx(0.99 / CODES + 0.01 * 0.75)
    assert float(f[0, 5]) == pytest.approx(0.99 / CODES + 0.01 * 0.25)
    assert float(f[1, 0]) == pytest.approx(0.99 / CODES + 0.01)
    assert float(f[1, 5]) == pytest.approx(0.99 / CODES)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), steps=st.integers(1, 60))
def test_frqud_usage_sums_to_one(seed, steps):
    schedule, state = made("frqud")
    for i in range(steps):
        state = following(schedule, state, torch.tensor(1.0), det(17, seed + i))
    assert torch.allclose(state["f"].sum(1), torch.ones(LEVELS), atol=1e-5)


def test_frqud_usage_survives_a_batch_of_padding_only():
    schedule, state = made("frqud")
    assert torch.equal(following(schedule, state, torch.tensor(1.0), det(5), torch.zeros(5))["f"], state["f"])


@pytest.mark.parametrize(("r", "wanted"), [(0.0, 1.0), (math.inf, 0.0)])
def test_frqud_with_r_zero_is_gumbel_and_with_r_infinite_is_deterministic(r, wanted):
    schedule, state = made("frqud", r=r)
    state = {**state, "f": torch.zeros(LEVELS, CODES).index_fill_(1, torch.tensor([0]), 1.0)}
    assert bool((sigmas(schedule, state, det()) == wanted).all())


def test_frqud_level1_decides_once_for_all_levels():
    f = torch.full((LEVELS, CODES), 1 / CODES)
    f[0, 3] = 0.9
    f[1, 4] = 0.9
    codes = torch.tensor([[3, 0, 0], [0, 4, 0]])
    per_level = made("frqud", r=2.0)
    once = made("frqud", r=2.0, level1=True)
    assert sigmas(per_level[0], {**per_level[1], "f": f}, codes).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert sigmas(once[0], {**once[1], "f": f}, codes).tolist() == [[1, 1, 1], [0, 0, 0]]


def test_the_combined_schedule_is_the_product_of_its_parts_over_a_whole_path():
    both, state = made("sdud+frqud", sigma_0=2.0, r=1.2)
    sdud, state_s = made("sdud", sigma_0=2.0)
    frqud, state_f = made("frqud", r=1.2)
    skewed = (det(200, 3) // 3) * (det(200, 4) > 4)
    seen = set()
    for i in range(60):
        codes = skewed[torch.randperm(200, generator=torch.Generator().manual_seed(i))[:50]]
        product = sigmas(sdud, state_s, codes) * sigmas(frqud, state_f, codes)
        assert torch.equal(sigmas(both, state, codes), product)
        seen |= set((product > 0).flatten().tolist())
        loss = torch.tensor(5.0 - i / 20)
        state, state_s, state_f = following(both, state, loss, codes), following(sdud, state_s, loss, codes), following(frqud, state_f, loss, codes)
    assert seen == {True, False}


@pytest.mark.parametrize("name", ALL)
def test_summaries_are_plain_numbers(name):
    import json

    schedule, state = made(name)
    assert "sigma" in json.loads(json.dumps(schedule.summary(following(schedule, state, torch.tensor(2.0), det()))))
