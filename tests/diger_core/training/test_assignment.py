"""The differentiable step: sampling, the straight-through forward, residuals, losses and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from diger_core.config import ScheduleConfig, TokenizerConfig
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training import assignment
from diger_core.training.assignment import assign
from diger_core.training.schedules import build_schedule
from diger_core.training.schedules.sdud import sigma_loss

LEVELS, CODES, WIDTH, ITEMS, D_MODEL = 3, 8, 6, 40, 5


def made(levels: int = LEVELS, codes: int = CODES, alpha: float = 1.0) -> Tokenizer:
    torch.manual_seed(0)
    tok = Tokenizer(10, codes, TokenizerConfig(levels=levels, code_dim=WIDTH, hidden=(7,)))
    tok.alpha.fill_(alpha)
    return tok.train()


def z_of(items: int = ITEMS, seed: int = 1) -> torch.Tensor:
    return torch.randn(items, WIDTH, generator=torch.Generator().manual_seed(seed))


def run(tok, z, sigma=1.0, **options):
    items = options.pop("items", torch.arange(len(z)))
    if isinstance(sigma, float):
        sigma = torch.full((len(z), tok.levels), sigma)
    table = options.pop("table", tok.quantise(z))
    return assign(tok, z, items, sigma, table, **{"tau": 2.0, "forward": "cached", "seed": 0, "step": 0, **options})


def brute_force_codes(tok: Tokenizer, z: torch.Tensor) -> torch.Tensor:
    r, books, codes = z.double(), tok.codebooks.detach().double(), []
    for j in range(tok.levels):
        codes.append((r[:, None] - books[j][None]).square().sum(2).argmin(1))
        r = r - books[j][codes[-1]]
    return torch.stack(codes, 1)


@pytest.mark.parametrize("forward", ["cached", "sampled"])
@pytest.mark.parametrize("seed", [0, 1, 99])
def test_sigma_zero_and_eval_mode_give_argmin_whatever_the_seed(forward, seed):
    tok, z = made(), z_of()
    wanted = brute_force_codes(tok, z)
    silent = run(tok, z, 0.0, forward=forward, seed=seed, step=seed)
    evaluated = run(tok.eval(), z, 3.0, forward=forward, seed=seed, step=seed)
    for a in (silent, evaluated):
        assert torch.equal(a.sampled_VM, wanted)
        assert torch.equal(a.det_VM, wanted)
        assert torch.equal(a.codes_VM, wanted)
    assert not evaluated.sigma_VM.any()


def test_noise_changes_codes_in_training_mode():
    tok, z = made(), z_of()
    assert not torch.equal(run(tok, z, 1.0).sampled_VM, run(tok, z, 1.0, step=1).sampled_VM)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.5, 1.0), (1.0, 2.0), (1.0, 0.5)])
def test_code_frequencies_match_the_softmax_of_logits_over_sigma_whatever_tau(alpha, sigma):
    tok, draws = made(alpha=alpha), 20_000
    z = z_of(1).expand(draws, -1)
    first = run(tok, z, sigma, tau=1.0, forward="sampled").sampled_VM
    assert torch.equal(first, run(tok, z, sigma, tau=0.1, forward="sampled").sampled_VM)
    logits = -alpha * (z[:1] - tok.codebooks[0].detach()).square().sum(1)
    share = torch.bincount(first[:, 0], minlength=CODES) / draws
    wanted = torch.softmax(logits / sigma, 0)
    # 5 standard deviations of a share
    assert bool(((share - wanted).abs() < 5 * (wanted * (1 - wanted) / draws).sqrt() + 1e-4).all())


@pytest.mark.parametrize("forward", ["cached", "sampled"])
def test_the_forward_assignment_is_the_one_hot_exactly_in_fp32_and_bf16(forward):
    tok, z = made(alpha=3.0), z_of()
    table = torch.randint(CODES, (ITEMS, LEVELS), generator=torch.Generator().manual_seed(3))
    a = run(tok, z, forward=forward, table=table)
    one_hot = torch.nn.functional.one_hot(table if forward == "cached" else a.sampled_VM, CODES)
    assert torch.equal(a.P_VMK, one_hot.float())
    assert torch.equal(a.P_VMK.bfloat16(), one_hot.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = run(tok, z, forward=forward, table=table)
    assert under.P_VMK.dtype == torch.float32
    assert torch.equal(under.P_VMK, a.P_VMK)
    assert torch.equal(under.sampled_VM, a.sampled_VM)


@pytest.mark.parametrize("forward", ["cached", "sampled"])
def test_the_residual_follows_the_code_that_is_fed_forward(forward):
    tok, z = made(), z_of()
    table = torch.randint(CODES, (ITEMS, LEVELS), generator=torch.Generator().manual_seed(3))
    a = run(tok, z, 2.0, forward=forward, table=table)
    assert torch.equal(a.codes_VM, table if forward == "cached" else a.sampled_VM)
    books = tok.codebooks.detach()
    assert torch.allclose(z - sum(books[j][a.codes_VM[:, j]] for j in range(LEVELS)), a.residual_Ve, atol=1e-5)
    r = z - books[0][a.codes_VM[:, 0]]
    assert torch.equal(a.det_VM[:, 1], (r[:, None] - books[1][None]).square().sum(2).argmin(1))


def test_an_item_s_assignment_does_not_depend_on_the_batch_around_it():
    tok, z = made(), z_of()
    whole = run(tok, z, forward="sampled")
    part = torch.tensor([31, 4, 17])
    few = run(tok, z[part], forward="sampled", items=part)
    assert torch.equal(whole.sampled_VM[part], few.sampled_VM)


def test_the_losses_are_those_of_the_method():
    tok, z = made(), z_of().requires_grad_()
    a = run(tok, z, 1.5)
    books, beta, terms = tok.codebooks, tok.config.beta, []
    r = z
    for j in range(LEVELS):
        q = books[j][a.sampled_VM[:, j]]
        terms.append((q - r.detach()).square().mean() + beta * (r - q.detach()).square().mean())
        r = r - books[j][a.codes_VM[:, j]].detach()
    vq = torch.stack(terms).mean()
    recon = (sum(books[j][a.codes_VM[:, j]] for j in range(LEVELS)) - z).square().mean()
    assert float(a.loss_vq.detach()) == pytest.approx(float(vq.detach()), rel=1e-6)
    assert float(a.loss_recon.detach()) == pytest.approx(float(recon.detach()), rel=1e-6)
    for got, wanted in ((a.loss_vq, vq), (a.loss_recon, recon)):
        for x, y in zip(*(torch.autograd.grad(loss, (books, z), retain_graph=True) for loss in (got, wanted)), strict=True):
            assert torch.allclose(x, y, atol=1e-7)


def recommender_loss(P_VMK: torch.Tensor, seed: int = 5) -> torch.Tensor:
    """A small stand-in for L_gen: history path (P T into a nonlinearity) and labels path (P against log-probabilities)."""
    g = torch.Generator().manual_seed(seed)
    tables = torch.randn(P_VMK.shape[1], P_VMK.shape[2], D_MODEL, generator=g).to(P_VMK.dtype)
    targets = torch.randn(P_VMK.shape, generator=g).to(P_VMK.dtype)
    hidden = torch.tanh(torch.einsum("vmk,mkd->vd", P_VMK, tables))
    return hidden.square().mean() - (P_VMK * targets.log_softmax(-1)).sum(-1).mean()


@pytest.mark.parametrize("forward", ["cached", "sampled"])
def test_every_codebook_gets_a_finite_gradient_from_the_recommendation_loss(forward):
    tok, z = made(), z_of()
    recommender_loss(run(tok, z, forward=forward).P_VMK).backward()
    assert bool(torch.isfinite(tok.codebooks.grad).all())
    assert bool((tok.codebooks.grad.abs().amax((1, 2)) > 1e-10).all())
    assert all(p.grad is None for p in tok.encoder.parameters())


def test_a_trained_encoder_gets_a_gradient_through_the_assignment():
    tok = made()
    recommender_loss(run(tok, tok.encode(torch.randn(ITEMS, 10)), table=torch.zeros(ITEMS, LEVELS, dtype=torch.int64)).P_VMK).backward()
    assert all(float(p.grad.abs().max()) > 1e-10 for p in tok.encoder.parameters())


def test_a_detached_assignment_gives_the_tokenizer_no_gradient():
    tok, z = made(), z_of()
    loss = recommender_loss(run(tok, z).P_VMK.detach().requires_grad_())
    loss.backward()
    assert all(p.grad is None for p in tok.parameters())


def soft_loss(tok: Tokenizer, z: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    # float64 end to end: assign() works in float32, which finite differences do not survive
    sigma = torch.full((len(z), tok.levels), 0.7, dtype=torch.float64)
    a = assignment._assign(tok, z, torch.arange(len(z)), sigma, table, 1.3, "cached", "gumbel", 0, 0, True)
    return recommender_loss(a.P_VMK) + a.loss_recon


def finite_difference(f, x: torch.Tensor, index: int, eps: float = 1e-6) -> float:
    flat = x.detach().view(-1)
    kept, values = float(flat[index]), []
    for sign in (1, -1):
        flat[index] = kept + sign * eps
        values.append(float(f().detach()))
    flat[index] = kept
    return (values[0] - values[1]) / (2 * eps)


@pytest.mark.parametrize("levels", [1, 3])
def test_finite_differences_agree_with_autograd_on_a_soft_forward_model(levels):
    """For z and the last codebook: an earlier codebook also moves later residuals, which the method's stop-gradient hides by design."""
    tok = made(levels=levels, codes=4, alpha=0.6).double()
    z = z_of(7).double().requires_grad_()
    table = tok.quantise(z)
    loss = soft_loss(tok, z, table)
    grad_books, grad_z = torch.autograd.grad(loss, (tok.codebooks, z))
    for index in range(0, z.numel(), 5):
        assert finite_difference(lambda: soft_loss(tok, z, table), z, index) == pytest.approx(float(grad_z.view(-1)[index]), rel=1e-5, abs=1e-9)
    start = (levels - 1) * 4 * WIDTH
    for index in range(start, start + 4 * WIDTH, 3):
        wanted = float(grad_books.view(-1)[index])
        # recon's own look-up of the code is smooth, the residual's is not: it carries no gradient and the last level has none after it
        assert finite_difference(lambda: soft_loss(tok, z, table), tok.codebooks, index) == pytest.approx(wanted, rel=1e-5, abs=1e-9)


def test_the_gradient_is_that_of_plain_distances_although_a_row_s_constant_is_dropped():
    tok, z = made(alpha=0.8), z_of().requires_grad_()
    got = torch.autograd.grad(recommender_loss(run(tok, z, 0.0).P_VMK), (tok.codebooks, z))
    table, r, assignments = tok.quantise(z), z, []
    for j in range(LEVELS):
        y = (-0.8 * (r[:, None] - tok.codebooks[j][None]).square().sum(2) / 2.0).softmax(1)
        assignments.append(torch.nn.functional.one_hot(table[:, j], CODES) + y - y.detach())
        r = r - tok.codebooks[j][table[:, j]].detach()
    wanted = torch.autograd.grad(recommender_loss(torch.stack(assignments, 1)), (tok.codebooks, z))
    for x, y in zip(got, wanted, strict=True):
        assert torch.allclose(x, y, atol=1e-6)


def test_sigma_carries_no_gradient_and_adding_its_loss_changes_no_other():
    tok, z = made(), z_of()
    grads = []
    for with_sigma_loss in (False, True):
        sigma = torch.tensor(1.2, requires_grad=True)
        a = run(tok, z, sigma.expand(ITEMS, LEVELS), forward="sampled")
        loss = recommender_loss(a.P_VMK)
        total = loss + a.loss_vq + a.loss_recon + (sigma_loss(sigma, 1.7, loss) if with_sigma_loss else 0.0)
        grads.append(torch.autograd.grad(total, (tok.codebooks, sigma), allow_unused=True))
    assert torch.equal(grads[0][0], grads[1][0])
    assert grads[0][1] is None
    assert grads[1][1] is not None


@pytest.mark.parametrize("forward", ["cached", "sampled"])
def test_frqud_noise_reaches_only_items_on_hot_codes(forward):
    tok, z = made(), z_of(200)
    schedule = build_schedule(ScheduleConfig(name="frqud", r=1.5), CODES, 10)
    state = schedule.initial(LEVELS, CODES, 10)
    f = torch.full((LEVELS, CODES), 0.5 / CODES)
    f[:, 2] = 0.5
    state = {**state, "f": f}
    a = run(tok, z, schedule.bind(state), forward=forward)
    hot = a.det_VM == 2
    assert bool(hot.any())
    assert torch.equal(a.sigma_VM, hot.float())
    assert torch.equal(a.sampled_VM[~hot], a.det_VM[~hot])
    assert not torch.equal(a.sampled_VM[hot], a.det_VM[hot])


def test_frqud_with_r_zero_equals_gumbel_and_with_r_infinite_equals_none():
    tok, z = made(), z_of()
    results = {}
    for name, r in (("frqud", 0.0), ("frqud", math.inf), ("gumbel", 1.5), ("none", 1.5)):
        schedule = build_schedule(ScheduleConfig(name=name, r=r), CODES, 10)
        state = schedule.initial(LEVELS, CODES, 10)
        results[name, r] = run(tok, z, schedule.bind(state), noise=schedule.noise, forward="sampled").sampled_VM
    assert torch.equal(results["frqud", 0.0], results["gumbel", 1.5])
    assert torch.equal(results["frqud", math.inf], results["none", 1.5])


def test_gaussian_noise_differs_from_gumbel():
    tok, z = made(), z_of()
    assert not torch.equal(run(tok, z, noise="gaussian").sampled_VM, run(tok, z).sampled_VM)


def test_step_and_tau_may_be_tensors():
    tok, z = made(), z_of()
    a, b = run(tok, z, step=3, tau=1.5), run(tok, z, step=torch.tensor(3), tau=torch.tensor(1.5))
    assert torch.equal(a.sampled_VM, b.sampled_VM)
    assert torch.equal(*(torch.autograd.grad(recommender_loss(x.P_VMK), tok.codebooks)[0] for x in (a, b)))


def test_cached_forward_without_a_table_is_refused():
    with pytest.raises(ValueError, match="table"):
        assign(made(), z_of(), torch.arange(ITEMS), torch.zeros(ITEMS, LEVELS), None, tau=1.0, forward="cached", seed=0, step=0)
