"""Every fused kernel against its plain definition, on the shapes of the presets (needs an accelerator)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diger_core.fast import kernels
from diger_core.fast.kernels import Dropout, Heads

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

PRECISIONS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def both(p: float = 0.0) -> tuple[Dropout, Dropout]:
    key = torch.full((), 12345, dtype=torch.int64, device="cuda")
    return Dropout(p, key, True), Dropout(p, key, False)


def far(found: Tensor, wanted: Tensor) -> float:
    assert bool(found.isfinite().all())
    return float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-12))


def poisoned(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, float("nan"), dtype=dtype, device="cuda")


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("tokens", "width"), [(1000, 128), (7, 128), (333, 48)])
def test_drop_add_norm_and_its_backward(tokens: int, width: int, dtype: torch.dtype) -> None:
    y, x, w = torch.randn(tokens, width, device="cuda", dtype=dtype), torch.randn(tokens, width, device="cuda"), torch.rand(width, device="cuda")
    dn, dx = torch.randn(tokens, width, device="cuda", dtype=dtype), torch.randn(tokens, width, device="cuda")
    for before, given in ((x, dx), (None, None)):
        results = []
        for drop in both():
            n, dy, dw = poisoned(tokens, width, dtype=dtype), poisoned(tokens, width, dtype=dtype), poisoned(kernels.blocks(tokens), width)
            out = kernels.drop_add_norm(y, before, w, n, 3, drop, last=True)
            grad = kernels.drop_add_norm_backward(dn, given, out, w, dy, dw, 3, drop, last=True)
            results.append((out, n, grad, dy, dw.sum(0)))
        for found, wanted in zip(*results, strict=True):
            assert far(found, wanted) < PRECISIONS[dtype]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("queries", "keys", "bias", "lengths"), [(4, 4, True, False), (8, 8, True, True), (24, 24, True, True),
                         (80, 80, True, True), (200, 200, True, True), (4, 36, False, True), (4, 200, False, True)])  # fmt: skip
def test_attention_and_its_backward(queries: int, keys: int, bias: bool, lengths: bool, dtype: torch.dtype) -> None:
    rows, heads, width = 37, 4, 64
    inner = heads * width
    q, k, v, dout = (torch.randn(rows * n, inner, device="cuda", dtype=dtype) * 0.4 for n in (queries, keys, keys, queries))
    shape = Heads(heads, width, rows, queries, keys, (queries * inner, inner), (keys * inner, inner), (queries * inner, inner))
    bias_HQT = torch.randn(heads, queries, keys, device="cuda") if bias else None
    lengths_B = torch.randint(1, keys + 1, (rows,), device="cuda", dtype=torch.int32) if lengths else None
    results = []
    for drop in both():
        out, dq, dk, dv = (poisoned(*t.shape, dtype=dtype) for t in (q, q, k, v))
        ds = poisoned(rows, heads, queries, keys, dtype=dtype) if bias else None
        kernels.attention(q, k, v, out, bias_HQT, lengths_B, shape, 5, drop)
        kernels.attention_backward(q, k, v, dout, dq, dk, dv, ds, bias_HQT, lengths_B, shape, 5, drop)
        results.append([t for t in (out, dq, dk, dv, ds) if t is not None])
    for found, wanted in zip(*results, strict=True):
        assert far(found, wanted) < PRECISIONS[dtype]


def test_the_attention_s_backward_draws_the_forward_s_dropout() -> None:
    """Along a random direction of v, k and q the loss changes as the gradient says; wrong or new draws would not."""
    rows, heads, width, size = 5, 2, 32, 24
    inner = heads * width
    q, k, v, dout, dirs = (torch.randn(rows * size, inner, device="cuda") * 0.4 for _ in range(5))
    shape = Heads(heads, width, rows, size, size, (size * inner, inner), (size * inner, inner), (size * inner, inner))
    drop, bias = both(0.3)[0], torch.randn(heads, size, size, device="cuda")

    def value(*operands: Tensor) -> float:
        out = torch.empty_like(q)
        kernels.attention(*operands, out, bias, None, shape, 5, drop)
        return float((out.double() * dout.double()).sum())

    grads = [torch.empty_like(q) for _ in range(3)]
    ds = torch.empty(rows, heads, size, size, device="cuda")
    kernels.attention_backward(q, k, v, dout, *grads, ds, bias, None, shape, 5, drop)
    for place, grad in enumerate(grads):
        moved = [[t + sign * 1e-2 * dirs if i == place else t for i, t in enumerate((q, k, v))] for sign in (1, -1)]
        assert (value(*moved[0]) - value(*moved[1])) / 2e-2 == pytest.approx(float((grad * dirs).double().sum()), rel=1e-2)


def test_dropout_keeps_the_mean_and_the_backward_the_forward_s_draws() -> None:
    drop, dropped = both(0.25)[0], torch.ones(100_000, device="cuda")
    kernels.relu_drop_(dropped, 9, drop)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    dh = torch.ones_like(dropped)
    kernels.relu_drop_backward_(dh, dropped, drop)
    assert torch.equal(dh, dropped)
    y, w = torch.ones(4096, 128, device="cuda"), torch.ones(128, device="cuda")
    n, dy, dw = torch.empty_like(y), torch.empty_like(y), torch.empty(kernels.blocks(4096), 128, device="cuda")
    x = kernels.drop_add_norm(y, None, w, n, 4, drop)
    kernels.drop_add_norm_backward(torch.zeros_like(y), torch.ones_like(y), x, w, dy, dw, 4, drop)
    assert torch.equal(dy, x)
    assert float(x.mean()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("codes", [256, 100])
def test_noisy_softmax_draws_the_noise_of_the_reference(codes: int) -> None:
    levels, items = 3, 500
    logits, sigma = torch.randn(levels, items, codes, device="cuda"), torch.rand(items, levels, device="cuda")
    item_V, step, tau = torch.randint(0, 10**6, (items,), device="cuda"), torch.full((), 77, device="cuda"), torch.full((), 1.7, device="cuda")
    y, sampled = kernels.noisy_softmax(logits, sigma, item_V, 5, step, tau)
    wanted_y, wanted = kernels.noisy_softmax(logits.cpu(), sigma.cpu(), item_V.cpu(), 5, step.cpu(), tau.cpu())
    assert far(y, wanted_y.cuda()) < 1e-4
    assert float((sampled.cpu() == wanted).float().mean()) > 0.999
