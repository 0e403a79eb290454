"""Every fused kernel against its plain definition, on the shapes of the presets (needs an accelerator)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diger_core.fast import kernels
from diger_core.fast.kernels import Dropout, Heads, Product

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
@pytest.mark.parametrize(("tokens", "width", "inner"), [(1000, 128, 0), (7, 128, 256), (3333, 48, 96), (9000, 128, 512),
                         *((tokens, width, inner) for tokens in (7, 3000, 9000) for width in (512, 768, 1024, 2048)
                           for inner in (0, 3072))])  # fmt: skip
def test_drop_add_norm_and_its_backward(tokens: int, width: int, inner: int, dtype: torch.dtype) -> None:
    x, w = torch.randn(tokens, width, device="cuda"), torch.rand(width, device="cuda")
    y, dn, dx = torch.randn(tokens, width, device="cuda", dtype=dtype), torch.randn(tokens, width, device="cuda", dtype=dtype), torch.randn_like(x)
    left = torch.randn(tokens, max(inner, 1), device="cuda", dtype=dtype)
    weight = torch.randn(width, max(inner, 1), device="cuda", dtype=dtype) * max(inner, 1) ** -0.5
    for before, given in ((x, dx), (None, None)):
        results = []
        for drop in both():
            n, dy, dw = poisoned(tokens, width, dtype=dtype), poisoned(tokens, width, dtype=dtype), poisoned(kernels.blocks(tokens, width), width)
            out = kernels.drop_add_norm(Product(left, weight.T) if inner else y, before, w, n, 3, drop, last=True)
            follows = Product(left, weight.T.contiguous()) if inner else dn
            grad = kernels.drop_add_norm_backward(follows, given, out, w, dy, dw, 3, drop, last=True)
            results.append((out, n, grad, dy, dw.sum(0)))
        for found, wanted in zip(*results, strict=True):
            assert far(found, wanted) < PRECISIONS[dtype]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("tokens", "inner", "width"), [(1000, 128, 512), (9000, 128, 512), (77, 48, 96), (3000, 1024, 4096),
                         (3000, 768, 3072)])  # fmt: skip
def test_linear_relu_drop_and_its_backward(tokens: int, inner: int, width: int, dtype: torch.dtype) -> None:
    a, dy = (torch.randn(tokens, inner, device="cuda", dtype=dtype) for _ in range(2))
    up, down = torch.randn(width, inner, device="cuda", dtype=dtype) * 0.1, torch.randn(inner, width, device="cuda", dtype=dtype) * 0.1
    results = []
    for drop in both():
        hidden, grad = poisoned(tokens, width, dtype=dtype), poisoned(tokens, width, dtype=dtype)
        kernels.linear_relu_drop(Product(a, up.T), hidden, 3, drop)
        kernels.linear_relu_drop_backward(Product(dy, down), hidden, grad, drop)
        results.append((hidden, grad))
    for found, wanted in zip(*results, strict=True):
        assert far(found, wanted) < PRECISIONS[dtype]


def test_adamw_is_torch_s_adamw_behind_a_clipped_gradient() -> None:
    value, gradient = torch.randn(10_000, device="cuda"), torch.randn(10_000, device="cuda")
    parameter = torch.nn.Parameter(value.clone())
    reference = torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.05)
    rows = [[1.0, 1 / (1 - 0.9**t), (1 - 0.999**t) ** -0.5] for t in range(1, 6)]
    table, low = torch.tensor(rows, device="cuda"), torch.empty(10_000, dtype=torch.bfloat16, device="cuda")
    ours = kernels.AdamW(value, gradient, torch.zeros_like(value), torch.zeros_like(value), low, 1e-3, 0.05)
    for step in range(5):
        gradient.copy_(torch.randn_like(gradient))
        parameter.grad = gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        reference.step()
        ours.step(table, torch.full((), step, device="cuda"), norm, 1.0, True)
    assert far(value, parameter.detach()) < 1e-6
    assert torch.equal(low, value.bfloat16())


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("queries", "keys", "bias", "lengths"), [(4, 4, True, False), (8, 8, True, True), (24, 24, True, True),
                         (80, 80, True, True), (200, 200, True, True), (256, 256, True, True), (4, 36, False, True),
                         (4, 200, False, True)])  # fmt: skip
@pytest.mark.parametrize("width", [16, 64, 128])
def test_attention_and_its_backward(width: int, queries: int, keys: int, bias: bool, lengths: bool, dtype: torch.dtype) -> None:
    rows, heads = 37, 4
    if kernels.obstacle(width, keys) is not None:
        pytest.skip("the kernels refuse this shape, and say so")
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
    drop, ones, hidden, grad = both(0.25)[0], torch.ones(4096, 64, device="cuda"), *(poisoned(4096, 64) for _ in range(2))
    unit = torch.eye(64, device="cuda")
    kernels.linear_relu_drop(Product(ones, unit), hidden, 9, drop)
    assert float(hidden.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(hidden.mean(0).std()) < 0.03
    assert hidden.unique().tolist() == pytest.approx([0.0, 4 / 3])
    kernels.linear_relu_drop_backward(Product(ones, unit), hidden, grad, drop)
    assert torch.equal(grad, hidden)
    other = poisoned(4096, 64)
    kernels.linear_relu_drop(Product(ones, unit), other, 10, drop)
    assert float((other == hidden).float().mean()) == pytest.approx(0.75**2 + 0.25**2, abs=0.01), "another site draws independently"
    y, w = torch.ones(4096, 128, device="cuda"), torch.ones(128, device="cuda")
    n, dy, dw = torch.empty_like(y), torch.empty_like(y), torch.empty(kernels.blocks(4096, 128), 128, device="cuda")
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


def test_offsets_beyond_32_bits_reach_the_last_rows() -> None:
    """2^20 tokens times 3,072 columns are more elements than an int32 counts."""
    tokens, inner, width = 1 << 20, 3072, 64
    left, weight = (
        torch.zeros(tokens, inner, device="cuda", dtype=torch.bfloat16),
        torch.randn(width, inner, device="cuda", dtype=torch.bfloat16) * 0.02,
    )
    left[-100:] = torch.randn(100, inner, device="cuda")
    drop, w = both()[0], torch.ones(width, device="cuda")
    wanted = (left[-100:].float() @ weight.float().T).double()
    n = poisoned(tokens, width, dtype=torch.bfloat16)
    assert far(kernels.drop_add_norm(Product(left, weight.T), None, w, n, 0, drop)[-100:], wanted) < 1e-2
    hidden = poisoned(tokens, width, dtype=torch.bfloat16)
    kernels.linear_relu_drop(Product(left, weight.T), hidden, 0, drop)
    assert far(hidden[-100:], wanted.relu()) < 1e-2
    wide = torch.randn(width, inner, device="cuda", dtype=torch.bfloat16) * 0.1
    kernels.linear_relu_drop(Product(hidden, wide), left, 0, drop)
    assert far(left[-100:], (hidden[-100:].float() @ wide.float()).relu()) < 1e-2
    dn, dy, dw = torch.randn(tokens, width, device="cuda"), poisoned(tokens, width), poisoned(kernels.blocks(tokens, width), width)
    kernels.drop_add_norm_backward(Product(left, weight.T), None, dn, w, dy, dw, 0, drop)
    plain = [poisoned(100, width), torch.empty(kernels.blocks(100, width), width, device="cuda")]
    kernels.drop_add_norm_backward(Product(left[-100:].contiguous(), weight.T), None, dn[-100:].contiguous(), w, *plain, 0, both()[1])
    assert far(dy[-100:], plain[0]) < 1e-2
