"""Triton kernels of the fast step. Only imported where there is a CUDA device; `kernels.py` describes each operation and holds its plain version.

Dropout is counter-based: the number of an element follows from (key, site, place), so the backward draws it again and no mask is stored.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def _mixed(x):
    """SplitMix64's finaliser, as in noise.py."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def _stream(key_ptr, site):
    """64 bits that name one use of dropout in one step."""
    return _mixed((tl.load(key_ptr) + site).to(tl.uint64) * 0x9E3779B97F4A7C15)


@triton.jit
def _kept(stream, place, p):
    """True with probability 1 - p: a 32-bit hash of the place, some ten instructions where Philox takes a hundred."""
    x = place.to(tl.uint32) + (stream & 0xFFFFFFFF).to(tl.uint32)
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = x ^ (stream >> 32).to(tl.uint32)
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return (x ^ (x >> 16)) >= (p * 4294967296.0).to(tl.uint32)


@triton.jit
def _dropped(value, stream, place, p):
    return tl.where(_kept(stream, place, p), value / (1 - p), 0.0)


@triton.jit
def _first(ROWS: tl.constexpr, WIDE: tl.constexpr):
    """The first row of this program; in 64 bits where offsets of 32 would overflow."""
    first = tl.program_id(0) * ROWS
    if WIDE:
        first = tl.program_id(0).to(tl.int64) * ROWS
    return first


@triton.jit
def _matmul(a, w, row, col, rows, cols, K, swk, swc, ROWS: tl.constexpr, COLS: tl.constexpr, BK: tl.constexpr):
    """Rows of a [n, K] times columns of w, whose element (k, c) lies at k swk + c swc; float32."""
    total = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        left = tl.load(a + row[:, None] * K + k[None, :], mask=(row[:, None] < rows) & (k[None, :] < K), other=0.0)
        right = tl.load(w + k[:, None] * swk + col[None, :] * swc, mask=(k[:, None] < K) & (col[None, :] < cols), other=0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
    return total


@triton.jit(do_not_specialize=["site", "rows"])
def drop_add_norm(y, a, weight, K, swk, swc, x, w, x_out, n_out, key_ptr, site, rows, p, eps, D, BLOCK: tl.constexpr, ROWS: tl.constexpr,
                  BK: tl.constexpr, HAS_X: tl.constexpr, DROP: tl.constexpr, OUT_DROP: tl.constexpr, PRODUCT: tl.constexpr,
                  WIDE: tl.constexpr):  # fmt: skip
    row = _first(ROWS, WIDE) + tl.arange(0, ROWS)
    col = tl.arange(0, BLOCK)
    at = row[:, None] * D + col[None, :]
    ok = (row[:, None] < rows) & (col[None, :] < D)
    if PRODUCT:  # noqa: SIM108 (decided when the kernel is compiled)
        value = _matmul(a, weight, row, col, rows, D, K, swk, swc, ROWS, BLOCK, BK)
    else:
        value = tl.load(y + at, mask=ok, other=0.0).to(tl.float32)
    if DROP:
        value = _dropped(value, _stream(key_ptr, site), at, p)
    if HAS_X:
        value += tl.load(x + at, mask=ok, other=0.0)
    tl.store(x_out + at, value, mask=ok)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 1) / D + eps)
    normed = value * scale[:, None] * tl.load(w + col, mask=col < D, other=0.0)[None, :]
    if OUT_DROP:
        normed = _dropped(normed, _stream(key_ptr, site + 1), at, p)
    tl.store(n_out + at, normed.to(n_out.dtype.element_ty), mask=ok)


@triton.jit(do_not_specialize=["site", "rows"])
def drop_add_norm_backward(dn, a, weight, K, swk, swc, dx, x, w, dx_out, dy_out, dw_out, key_ptr, site, rows, p, eps, D, BLOCK: tl.constexpr,
                           ROWS: tl.constexpr, BK: tl.constexpr, HAS_DX: tl.constexpr, DROP: tl.constexpr, OUT_DROP: tl.constexpr,
                           PRODUCT: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    row = _first(ROWS, WIDE) + tl.arange(0, ROWS)
    col = tl.arange(0, BLOCK)
    at = row[:, None] * D + col[None, :]
    ok = (row[:, None] < rows) & (col[None, :] < D)
    if PRODUCT:  # noqa: SIM108 (decided when the kernel is compiled)
        g = _matmul(a, weight, row, col, rows, D, K, swk, swc, ROWS, BLOCK, BK)
    else:
        g = tl.load(dn + at, mask=ok, other=0.0).to(tl.float32)
    if OUT_DROP:
        g = _dropped(g, _stream(key_ptr, site + 1), at, p)
    value = tl.load(x + at, mask=ok, other=0.0)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 1) / D + eps)
    unit = value * scale[:, None]
    tl.store(dw_out + tl.program_id(0) * D + col, tl.sum(g * unit, 0), mask=col < D)
    g = g * tl.load(w + col, mask=col < D, other=0.0)[None, :]
    grad = scale[:, None] * (g - unit * (tl.sum(g * unit, 1) / D)[:, None])
    if HAS_DX:
        grad += tl.load(dx + at, mask=ok, other=0.0)
    tl.store(dx_out + at, grad, mask=ok)
    if DROP:
        grad = _dropped(grad, _stream(key_ptr, site), at, p)
    tl.store(dy_out + at, grad.to(dy_out.dtype.element_ty), mask=ok)


@triton.jit(do_not_specialize=["site", "rows"])
def linear_relu_drop(a, weight, hidden, out, key_ptr, site, rows, p, K, swk, swc, F, BLOCK: tl.constexpr, ROWS: tl.constexpr, BK: tl.constexpr,
                     DROP: tl.constexpr, BACKWARD: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    row = _first(ROWS, WIDE) + tl.arange(0, ROWS)
    col = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = row[:, None] * F + col[None, :]
    ok = (row[:, None] < rows) & (col[None, :] < F)
    value = _matmul(a, weight, row, col, rows, F, K, swk, swc, ROWS, BLOCK, BK)
    if BACKWARD:
        passed = tl.load(hidden + at, mask=ok, other=0.0).to(tl.float32) > 0
        value = tl.where(passed, value / (1 - p), 0.0)
    else:
        value = tl.maximum(value, 0.0)
        if DROP:
            value = _dropped(value, _stream(key_ptr, site), at, p)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=ok)


@triton.jit(do_not_specialize=["count"])
def adamw(p, g, m, v, low, table_ptr, step_ptr, norm_ptr, peak, decay, clip, count, B1: tl.constexpr, B2: tl.constexpr, EPS: tl.constexpr,
          BLOCK: tl.constexpr, HAS_LOW: tl.constexpr):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ok = at < count
    row = table_ptr + tl.load(step_ptr) * 3
    rate = peak * tl.load(row)
    grad = tl.load(g + at, mask=ok, other=0.0) * tl.minimum(clip / (tl.load(norm_ptr) + 1e-6), 1.0)
    first = B1 * tl.load(m + at, mask=ok, other=0.0) + (1 - B1) * grad
    second = B2 * tl.load(v + at, mask=ok, other=0.0) + (1 - B2) * grad * grad
    value = tl.load(p + at, mask=ok, other=0.0) * (1 - rate * decay)
    value -= rate * first * tl.load(row + 1) / (tl.sqrt(second) * tl.load(row + 2) + EPS)
    tl.store(p + at, value, mask=ok)
    tl.store(m + at, first, mask=ok)
    tl.store(v + at, second, mask=ok)
    if HAS_LOW:
        tl.store(low + at, value.to(low.dtype.element_ty), mask=ok)


@triton.jit
def _weights(q, keys, bias, length, place_q, place_k, h, TQ, TK, HAS_BIAS: tl.constexpr):
    """softmax(q k^T + bias) of a block of queries over all keys, float32."""
    s = tl.dot(q, tl.trans(keys), input_precision="ieee")
    if HAS_BIAS:
        inside = (place_q[:, None] < TQ) & (place_k[None, :] < TK)
        s += tl.load(bias + (h * TQ + place_q[:, None]) * TK + place_k[None, :], mask=inside, other=0.0)
    s = tl.where(place_k[None, :] < length, s, -1e9)
    s = tl.where(place_k[None, :] < TK, s, float("-inf"))
    s = tl.exp(s - tl.max(s, 1)[:, None])
    return s / tl.sum(s, 1)[:, None]


@triton.jit(do_not_specialize=["site", "TQ", "TK", "sqb", "sqt", "skb", "skt", "sob", "sot"])
def attention(q, k, v, out, bias, lengths, key_ptr, site, p, sqb, sqt, skb, skt, sob, sot, TQ, TK, H: tl.constexpr, E: tl.constexpr,
              BQ: tl.constexpr, BK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, DROP: tl.constexpr):  # fmt: skip
    b, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place_q, place_k, e = tl.program_id(2) * BQ + tl.arange(0, BQ), tl.arange(0, BK), h * E + tl.arange(0, E)
    at_k = b * skb + place_k[:, None] * skt + e[None, :]
    keys = tl.load(k + at_k, mask=place_k[:, None] < TK, other=0.0)
    values = tl.load(v + at_k, mask=place_k[:, None] < TK, other=0.0)
    queries = tl.load(q + b * sqb + place_q[:, None] * sqt + e[None, :], mask=place_q[:, None] < TQ, other=0.0)
    length = TK
    if HAS_LENGTHS:
        length = tl.load(lengths + b)
    weights = _weights(queries, keys, bias, length, place_q, place_k, h, TQ, TK, HAS_BIAS)
    if DROP:
        weights = _dropped(weights, _stream(key_ptr, site), ((b * H + h) * TQ + place_q[:, None]) * TK + place_k[None, :], p)
    mixed = tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    tl.store(out + b * sob + place_q[:, None] * sot + e[None, :], mixed.to(out.dtype.element_ty), mask=place_q[:, None] < TQ)


@triton.jit(do_not_specialize=["site", "TQ", "TK", "sqb", "sqt", "skb", "skt", "sob", "sot"])
def attention_backward(q, k, v, dout, dq, dk, dv, ds_out, bias, lengths, key_ptr, site, p, sqb, sqt, skb, skt, sob, sot, TQ, TK,
                       H: tl.constexpr, E: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, HAS_BIAS: tl.constexpr,
                       HAS_LENGTHS: tl.constexpr, DROP: tl.constexpr):  # fmt: skip
    b, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place_k, e = tl.arange(0, BK), h * E + tl.arange(0, E)
    at_k, ok_k = b * skb + place_k[:, None] * skt + e[None, :], place_k[:, None] < TK
    keys = tl.load(k + at_k, mask=ok_k, other=0.0)
    values = tl.load(v + at_k, mask=ok_k, other=0.0)
    length = TK
    if HAS_LENGTHS:
        length = tl.load(lengths + b)
    grad_k = tl.zeros((BK, E), tl.float32)
    grad_v = tl.zeros((BK, E), tl.float32)
    for start in range(0, TQ, BQ):
        place_q = start + tl.arange(0, BQ)
        ok_q = place_q[:, None] < TQ
        queries = tl.load(q + b * sqb + place_q[:, None] * sqt + e[None, :], mask=ok_q, other=0.0)
        given = tl.load(dout + b * sob + place_q[:, None] * sot + e[None, :], mask=ok_q, other=0.0)
        weights = _weights(queries, keys, bias, length, place_q, place_k, h, TQ, TK, HAS_BIAS)
        dweights = tl.dot(given, tl.trans(values), input_precision="ieee")
        used = weights
        place = ((b * H + h) * TQ + place_q[:, None]) * TK + place_k[None, :]
        if DROP:
            keep = _kept(_stream(key_ptr, site), place, p)
            used = tl.where(keep, weights / (1 - p), 0.0)
            dweights = tl.where(keep, dweights / (1 - p), 0.0)
        grad_v += tl.dot(tl.trans(used.to(values.dtype)), given, input_precision="ieee")
        ds = weights * (dweights - tl.sum(weights * dweights, 1)[:, None])
        ds_low = ds.to(values.dtype)
        if HAS_BIAS:
            tl.store(ds_out + place, ds_low, mask=ok_q & (place_k[None, :] < TK))
        grad_q = tl.dot(ds_low, keys, input_precision="ieee")
        tl.store(dq + b * sqb + place_q[:, None] * sqt + e[None, :], grad_q.to(dq.dtype.element_ty), mask=ok_q)
        grad_k += tl.dot(tl.trans(ds_low), queries, input_precision="ieee")
    tl.store(dk + at_k, grad_k.to(dk.dtype.element_ty), mask=ok_k)
    tl.store(dv + at_k, grad_v.to(dv.dtype.element_ty), mask=ok_k)


@triton.jit(do_not_specialize=["rows"])
def beam_attention(qkv, past, bias, out, rows, WIDTH, E: tl.constexpr, P: tl.constexpr, ROWS: tl.constexpr):
    """One new position of every beam over its P earlier ones and itself; past [rows, P, 2 I]."""
    row, h = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64), tl.program_id(1)
    e = h * E + tl.arange(0, E)
    ok = row[:, None] < rows
    at = row[:, None] * 3 * WIDTH + e[None, :]
    q = tl.load(qkv + at, mask=ok, other=0.0).to(tl.float32)
    key = tl.load(qkv + WIDTH + at, mask=ok, other=0.0).to(tl.float32)
    mixed = tl.load(qkv + 2 * WIDTH + at, mask=ok, other=0.0).to(tl.float32)
    top = tl.sum(q * key, 1) + tl.load(bias + h * (P + 1) + P)
    total = tl.full((ROWS,), 1.0, tl.float32)
    for j in tl.static_range(P):
        at_j = (row[:, None] * P + j) * 2 * WIDTH + e[None, :]
        key = tl.load(past + at_j, mask=ok, other=0.0).to(tl.float32)
        value = tl.load(past + WIDTH + at_j, mask=ok, other=0.0).to(tl.float32)
        score = tl.sum(q * key, 1) + tl.load(bias + h * (P + 1) + j)
        higher = tl.maximum(top, score)
        old, new = tl.exp(top - higher), tl.exp(score - higher)
        total = total * old + new
        mixed = mixed * old[:, None] + value * new[:, None]
        top = higher
    tl.store(out + row[:, None] * WIDTH + e[None, :], (mixed / total[:, None]).to(out.dtype.element_ty), mask=ok)


@triton.jit(do_not_specialize=["items", "first", "start"])
def noisy_softmax(logits, sigma, item_ptr, step_ptr, tau_ptr, y_out, sampled_out, items, first, start, K, LEVELS: tl.constexpr, BLOCK: tl.constexpr):
    """One item at one level: Gumbel noise of noise.py, argmax and softmax of the noisy logits. `start`: the seed's part of the key."""
    row, level = tl.program_id(0).to(tl.int64), tl.program_id(1)
    code = tl.arange(0, BLOCK)
    golden = tl.full((), 0x9E3779B97F4A7C15, tl.uint64)
    key = _mixed(tl.load(step_ptr).to(tl.uint64) * golden + start.to(tl.uint64))
    key = _mixed(key + (first + level + 1).to(tl.uint64) * golden)
    key = _mixed(key + (tl.load(item_ptr + row) + 1).to(tl.uint64) * golden)
    word = _mixed(key + (code // 2 + 1).to(tl.uint64) * golden)
    bits = tl.where(code % 2 == 0, word, word >> 32) & 0x7FFFFFFF
    u = tl.minimum((bits.to(tl.uint32).to(tl.float32) + 0.5) * 4.656612873077393e-10, 0.999999940395355)
    noise = -libdevice.log(-libdevice.log1p(-u))
    at = (level * items + row) * K + code
    noisy = tl.load(logits + at, mask=code < K, other=float("-inf")) + tl.load(sigma + row * LEVELS + level) * noise
    top = tl.max(noisy, 0)
    tl.store(sampled_out + row * LEVELS + level, tl.argmax(noisy, 0).to(tl.int64))
    y = tl.exp((noisy - top) / tl.load(tau_ptr))
    tl.store(y_out + at, y / tl.sum(y, 0), mask=code < K)
