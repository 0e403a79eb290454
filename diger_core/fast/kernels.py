"""The few fused operations of the fast step: on CUDA as Triton kernels, elsewhere in plain torch (without dropout), which is also their definition.

    drop_add_norm      x' = x + drop(y),  n = w x' / rms(x')   (n dropped, too, at the end of a stack); y may be a product a w
    linear_relu_drop   h = drop(relu(a w))
    attention          softmax(q k^T + bias) v, keys past a row's length masked
    AdamW.step         clipping, update and low-precision copy of one flat parameter
    noisy_softmax      a = l + sigma g,  c = argmax a,  y = softmax(a / tau)

`key` is an int64 tensor that changes with every step, `site` a constant of each use: together they name the dropout's draws.
Shapes: n tokens, d width, B rows, T positions, H heads, e head width; V items, M levels, K codes. Strides are free where a kernel takes (row, token)
ones: projections are used as they lie, nothing is transposed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diger_core.training.noise import gumbel_levels, seed_key

EPS = 1e-6
MASKED = -1e9
BETAS, ADAM_EPS = (0.9, 0.999), 1e-8
PRODUCT_WIDTH = 512  # columns of a product that drop_add_norm computes itself: it holds whole rows
ROWS_HELD = 1 << 15  # elements of the rows that one program of drop_add_norm holds
KEYS = 256  # tokens that attention holds at once, at most
HELD = 1 << 14  # elements of the keys of one head, at most: attention's backward holds keys, values and both gradients


def _rows(tokens: int, width: int) -> int:
    """Tokens that one program of drop_add_norm takes: few where there are few, so that all multiprocessors have work, and where they are wide, so
    that a program's rows fit its registers."""
    wanted = 16 if tokens <= 2560 else 32 if tokens <= 5120 else 64
    return max(1, min(wanted, ROWS_HELD // _power(width)))


def blocks(tokens: int, width: int) -> int:
    """Rows of the partial sums that `drop_add_norm_backward` leaves for the norm's weight."""
    return -(-tokens // _rows(tokens, width))


def _wide(*sizes: int) -> bool:
    """Whether an operand of so many elements needs offsets of 64 bits."""
    return max(sizes) >= 1 << 31


def obstacle(d_head: int, tokens: int) -> str | None:
    """Why the kernels do not take heads of this width over a history of so many tokens, or None. Every other size is tiled."""
    if d_head < 16 or d_head & (d_head - 1):
        return f"recommender.d_head {d_head} is not a power of two of at least 16"
    if tokens > KEYS:
        return f"a history of {tokens} tokens, more than {KEYS}"
    wide = _power(tokens) * d_head > HELD
    return f"heads of width {d_head} over {tokens} tokens do not fit a multiprocessor's memory" if wide else None


def _triton() -> Any:
    from diger_core.fast import triton_kernels

    return triton_kernels


def _power(size: int) -> int:
    return max(16, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Dropout:
    """Probability and the step's key; `fused`: Triton kernels."""

    p: float
    key: Tensor
    fused: bool


@dataclass(frozen=True)
class Product:
    """a [n, K] times w [K, columns] (any strides), not computed yet: the kernel that reads it does both."""

    a: Tensor
    w: Tensor

    def value(self) -> Tensor:
        return self.a @ self.w


def _dense(*operands: Tensor | Product | None) -> None:
    """The kernels index these operands as contiguous memory. Checked in the plain form, too: a wrong layout shows in every test, not on a
    device alone."""
    for operand in operands:
        tensor = operand.a if isinstance(operand, Product) else operand
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"a fused kernel got strides {tensor.stride()} for shape {tuple(tensor.shape)}: make the operand contiguous")


def _product_arguments(y: Tensor | Product) -> tuple[Tensor, Tensor, int, int, int, bool]:
    """(a, weight, K, the weight's strides by k and by column, is it a product)."""
    if isinstance(y, Tensor):
        return y, y, 16, 1, 1, False
    return y.a, y.w, y.w.shape[0], y.w.stride(0), y.w.stride(1), True


def _within(y: Tensor | Product, width: int) -> Tensor | Product:
    """A product as wide as the kernel can hold stays one; a wider one is computed before."""
    return y.value() if isinstance(y, Product) and width > PRODUCT_WIDTH else y


def _tiles(a: Tensor, tokens: int, width: int) -> dict[str, int]:
    """Deep pipelines where a program has few rows; where it has many, two programs must fit a multiprocessor's shared memory and registers."""
    rows = _rows(tokens, width)
    inner = 64 if a.element_size() == 2 else 32
    many = rows == 64 or rows * _power(width) >= ROWS_HELD
    return {"BLOCK": _power(width), "ROWS": rows, "BK": inner, "num_warps": 8 if many else 4, "num_stages": 3}


def drop_add_norm(y: Tensor | Product, x_nd: Tensor | None, w_d: Tensor, n_out: Tensor, site: int, drop: Dropout, last: bool = False) -> Tensor:
    """Writes n [n, d] to `n_out` and returns x' [n, d] float32. `x_nd` None: x' = drop(y). `last`: n is dropped, too."""
    _dense(y, x_nd, w_d, n_out)
    if not drop.fused:
        y_nd = y.value() if isinstance(y, Product) else y
        x = y_nd.float() if x_nd is None else x_nd + y_nd.float()
        n_out.copy_(x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPS) * w_d)
        return x
    tokens, width = n_out.shape
    a, weight, inner, swk, swc, product = _product_arguments(_within(y, width))
    x = torch.empty(tokens, width, dtype=torch.float32, device=a.device)
    _triton().drop_add_norm[(blocks(tokens, width),)](
        a, a, weight, inner, swk, swc, x_nd if x_nd is not None else x, w_d, x, n_out, drop.key, site, tokens, drop.p, EPS, width,
        HAS_X=x_nd is not None, DROP=drop.p > 0, OUT_DROP=last and drop.p > 0, PRODUCT=product, WIDE=_wide(a.numel(), n_out.numel()),
        **_tiles(a, tokens, width),
    )  # fmt: skip
    return x


def drop_add_norm_backward(
    dn: Tensor | Product,
    dx_nd: Tensor | None,
    x_nd: Tensor,
    w_d: Tensor,
    dy_out: Tensor,
    dw_out: Tensor,
    site: int,
    drop: Dropout,
    last: bool = False,
) -> Tensor:
    """From dn and the residual's gradient dx: returns the gradient of x (float32), writes that of y to `dy_out`, partial sums of w's to `dw_out`."""
    _dense(dn, dx_nd, x_nd, w_d, dy_out, dw_out)
    if not drop.fused:
        scale = torch.rsqrt(x_nd.square().mean(1, keepdim=True) + EPS)
        unit, g = x_nd * scale, (dn.value() if isinstance(dn, Product) else dn).float()
        dw_out.zero_()
        dw_out[0] = (g * unit).sum(0)
        g = g * w_d
        grad = scale * (g - unit * (g * unit).mean(1, keepdim=True))
        grad = grad if dx_nd is None else grad + dx_nd
        dy_out.copy_(grad)
        return grad
    tokens, width = x_nd.shape
    a, weight, inner, swk, swc, product = _product_arguments(_within(dn, width))
    grad = torch.empty_like(x_nd)
    _triton().drop_add_norm_backward[(blocks(tokens, width),)](
        a, a, weight, inner, swk, swc, dx_nd if dx_nd is not None else grad, x_nd, w_d, grad, dy_out, dw_out, drop.key, site, tokens, drop.p, EPS,
        width, HAS_DX=dx_nd is not None, DROP=drop.p > 0, OUT_DROP=last and drop.p > 0, PRODUCT=product, WIDE=_wide(a.numel(), x_nd.numel()),
        **_tiles(a, tokens, width),
    )  # fmt: skip
    return grad


def _linear_relu_drop(y: Product, hidden: Tensor, out: Tensor, site: int, drop: Dropout, backward: bool) -> None:
    tokens, width = out.shape
    a, weight, inner, swk, swc, _ = _product_arguments(y)
    block, rows = min(128, _power(width)), 16 if tokens <= 2048 else 64
    _triton().linear_relu_drop[(-(-tokens // rows), -(-width // block))](
        a, weight, hidden, out, drop.key, site, tokens, drop.p, inner, swk, swc, width,
        BLOCK=block, ROWS=rows, BK=128 if a.element_size() == 2 else 32, DROP=drop.p > 0, BACKWARD=backward, WIDE=_wide(a.numel(), out.numel()),
        num_warps=4 if rows == 16 else 8, num_stages=2,
    )  # fmt: skip


def linear_relu_drop(y: Product, out: Tensor, site: int, drop: Dropout) -> None:
    """out [n, f] = drop(relu(y))."""
    _dense(y, out)
    if not drop.fused:
        out.copy_(y.value().relu_())
        return
    _linear_relu_drop(y, out, out, site, drop, False)


def linear_relu_drop_backward(dh: Product, hidden: Tensor, out: Tensor, drop: Dropout) -> None:
    """The gradient before relu and dropout: what passed both is exactly what is positive in `hidden`."""
    _dense(dh, hidden, out)
    if not drop.fused:
        out.copy_(dh.value() * (hidden > 0))
        return
    _linear_relu_drop(dh, hidden, out, 0, drop, True)


@dataclass(frozen=True)
class AdamW:
    """One flat parameter with its moments; `table` [steps, 3]: rate's factor, 1 / (1 - beta_1^t), 1 / sqrt(1 - beta_2^t) of each step."""

    value: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor
    low: Tensor | None
    peak: float
    decay: float

    def step(self, table: Tensor, step: Tensor, norm: Tensor, clip: float, fused: bool) -> None:
        """Clips the gradient from `norm` to `clip` and updates; `low` gets the new value in its precision."""
        if fused:
            count = self.value.numel()
            low = self.value if self.low is None else self.low
            _triton().adamw[(-(-count // 2048),)](
                self.value, self.gradient, self.first, self.second, low, table, step, norm, self.peak, self.decay, clip, count,
                B1=BETAS[0], B2=BETAS[1], EPS=ADAM_EPS, BLOCK=2048, HAS_LOW=self.low is not None, num_warps=8,
            )  # fmt: skip
            return
        factor, first_scale, second_scale = table.index_select(0, step.view(1))[0].unbind()
        gradient, rate = self.gradient * (clip / (norm + 1e-6)).clamp(max=1), factor * self.peak
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        self.value.mul_(1 - rate * self.decay).sub_(rate * self.first * first_scale / (self.second.sqrt() * second_scale + ADAM_EPS))
        if self.low is not None:
            self.low.copy_(self.value)


@dataclass(frozen=True)
class Heads:
    """How attention reads its operands. q, k, v, out are views [n, >= H e] of projections; a row's strides are (batch, token), in elements."""

    heads: int
    width: int
    rows: int
    queries: int
    keys: int
    q_strides: tuple[int, int]
    k_strides: tuple[int, int]
    out_strides: tuple[int, int]

    def view(self, x: Tensor, strides: tuple[int, int], tokens: int) -> Tensor:
        """[B, H, T, e] of an operand."""
        return x.as_strided((self.rows, self.heads, tokens, self.width), (strides[0], self.width, strides[1], 1), x.storage_offset())

    @property
    def blocks(self) -> dict[str, int]:
        keys = _power(self.keys)
        queries = min(_power(self.queries), 32)  # more would need more registers than two programs of a multiprocessor have
        tile = queries * keys
        warps = 1 if tile <= 512 else 2 if tile <= 1024 else 4 if tile <= 2048 else 8
        return {"H": self.heads, "E": self.width, "BQ": queries, "BK": keys, "num_warps": warps}

    @property
    def sizes(self) -> tuple[int, ...]:
        return (*self.q_strides, *self.k_strides, *self.out_strides, self.queries, self.keys)


def _plain_weights(q: Tensor, k: Tensor, bias: Tensor | None, lengths: Tensor | None, shape: Heads) -> tuple[Tensor, Tensor]:
    q_BHQe, k_BHTe = shape.view(q, shape.q_strides, shape.queries), shape.view(k, shape.k_strides, shape.keys)
    s = (q_BHQe @ k_BHTe.transpose(-1, -2)).float()
    s = s if bias is None else s + bias
    if lengths is not None:
        s = s.masked_fill(torch.arange(shape.keys, device=s.device) >= lengths[:, None, None, None], MASKED)
    return s.softmax(-1), q_BHQe


def attention(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, bias_HQT: Tensor | None, lengths_B: Tensor | None, shape: Heads, site: int, drop: Dropout
) -> None:
    """Writes the mixed values to `out`. `lengths_B` int32: keys that count in each row (None: all)."""
    _dense(bias_HQT, lengths_B)
    if not drop.fused:
        weights, _ = _plain_weights(q, k, bias_HQT, lengths_B, shape)
        v_BHTe = shape.view(v, shape.k_strides, shape.keys)
        shape.view(out, shape.out_strides, shape.queries).copy_(weights.to(v.dtype) @ v_BHTe)
        return
    chosen = shape.blocks
    grid = (shape.rows, shape.heads, -(-shape.queries // chosen["BQ"]))
    _triton().attention[grid](
        q, k, v, out, q if bias_HQT is None else bias_HQT, drop.key if lengths_B is None else lengths_B, drop.key, site, drop.p, *shape.sizes,
        HAS_BIAS=bias_HQT is not None, HAS_LENGTHS=lengths_B is not None, DROP=drop.p > 0, **chosen,
    )  # fmt: skip


def attention_backward(
    q: Tensor, k: Tensor, v: Tensor, dout: Tensor, dq: Tensor, dk: Tensor, dv: Tensor, ds_out: Tensor | None, bias_HQT: Tensor | None,
    lengths_B: Tensor | None, shape: Heads, site: int, drop: Dropout,
) -> None:  # fmt: skip
    """Writes dq, dk, dv (strides of q, k, v) and, where there is a bias, the scores' gradient [B, H, Q, T]
    to `ds_out`. The weights are computed again."""
    _dense(ds_out, bias_HQT, lengths_B)
    if not drop.fused:
        weights, q_BHQe = _plain_weights(q, k, bias_HQT, lengths_B, shape)
        k_BHTe, v_BHTe = (shape.view(x, shape.k_strides, shape.keys) for x in (k, v))
        given = shape.view(dout, shape.out_strides, shape.queries)
        dweights = given @ v_BHTe.transpose(-1, -2)
        ds = (weights * (dweights - (weights * dweights).sum(-1, keepdim=True))).to(q.dtype)
        shape.view(dq, shape.q_strides, shape.queries).copy_(ds @ k_BHTe)
        shape.view(dk, shape.k_strides, shape.keys).copy_(ds.transpose(-1, -2) @ q_BHQe)
        shape.view(dv, shape.k_strides, shape.keys).copy_(weights.to(q.dtype).transpose(-1, -2) @ given)
        if ds_out is not None:
            ds_out.copy_(ds)
        return
    _triton().attention_backward[(shape.rows, shape.heads)](
        q, k, v, dout, dq, dk, dv, q if ds_out is None else ds_out, q if bias_HQT is None else bias_HQT, drop.key if lengths_B is None else lengths_B,
        drop.key, site, drop.p, *shape.sizes, HAS_BIAS=bias_HQT is not None, HAS_LENGTHS=lengths_B is not None, DROP=drop.p > 0, **shape.blocks,
    )  # fmt: skip


def beam_attention(qkv_n: Tensor, past_nP: Tensor, bias_HP: Tensor, out: Tensor, heads: int) -> None:
    """One new position of n beams over their P earlier ones and itself. qkv [n, 3 I]; past [n, P, 2 I]: keys and values; bias [H, P + 1]."""
    _dense(qkv_n, past_nP, bias_HP, out)
    rows, inner = out.shape
    places = past_nP.shape[1]
    if not out.is_cuda:
        each = inner // heads
        q, k, v = (x.view(rows, 1, heads, each) for x in qkv_n.split(inner, 1))
        keys, values = (torch.cat((x.view(rows, places, heads, each), y), 1) for x, y in zip(past_nP.split(inner, 2), (k, v), strict=True))
        weights = ((q * keys).sum(-1).float() + bias_HP.T).softmax(1).to(v.dtype)
        out.copy_((weights.unsqueeze(-1) * values).sum(1).flatten(1))
        return
    _triton().beam_attention[(-(-rows // 16), heads)](qkv_n, past_nP, bias_HP, out, rows, inner, E=inner // heads, P=places, ROWS=16, num_warps=2)


def noisy_softmax(
    logits_MVK: Tensor, sigma_VM: Tensor, items_V: Tensor, seed: int, step: Tensor, tau: Tensor, first: int = 0
) -> tuple[Tensor, Tensor]:
    """(y [M, V, K] float32, sampled [V, M] int64) of the levels from `first` on, with Gumbel noise of noise.py: the same draws, bit for bit up to
    the logarithms."""
    levels, items, codes = logits_MVK.shape
    _dense(logits_MVK, items_V)
    if not logits_MVK.is_cuda:
        noisy = logits_MVK + sigma_VM.T[:, :, None] * gumbel_levels(seed, step, first + levels, items_V, codes)[first:]
        return (noisy / tau).softmax(-1), noisy.argmax(-1).T.contiguous()
    y, sampled = torch.empty_like(logits_MVK), torch.empty(items, levels, dtype=torch.int64, device=items_V.device)
    _triton().noisy_softmax[(items, levels)](
        logits_MVK,
        sigma_VM.contiguous(),
        items_V,
        step,
        tau,
        y,
        sampled,
        items,
        first,
        seed_key(seed),
        codes,
        LEVELS=levels,
        BLOCK=_power(codes),
        num_warps=2,
    )
    return y, sampled
