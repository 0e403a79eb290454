"""The recommender's forward and backward, written out: the same function as `Recommender.forward` and its derivative.

Why not autograd: over a model this small a step is bound by the number of kernels. Here a layer is its matrix products and three fused kernels,
nothing is transposed or cast in between, and the gradients of one weight in all layers are one batched product at the end.

B rows, T = L(M+1) history tokens, Q = M+1 decoder positions, n tokens of a stack, d d_model, H heads, e head width, I = H e, M levels, K codes,
S suffixes.
Encoder tokens lie row by row [B, T, .], decoder tokens position by position [Q, B, .], so that the logits of a level are one product.
Residual streams and their gradients are float32; products take and give `low` (bf16, or float32 in the golden test) and weights' gradients float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diger_core.fast import kernels
from diger_core.fast.flat import FlatParameters
from diger_core.fast.kernels import Dropout, Heads, Product
from diger_core.recommender.model import Recommender, relative_buckets

_SITES = 8  # dropout sites a layer may use; each is two numbers of the key apart


@dataclass
class RowsInput:
    """One batch as the program reads it, indices into the concatenated token tables [M K + S, d].

    history_n int64 [B T] (any valid index on padding), or, where tokens are no look-ups, history_nd [B T, d]: embedded ones; lengths_B int32: tokens
    that count, target_QB int64: the target's codes and suffix, weight_B: the rows' weights (their sum over a whole batch is about 1)."""

    history_n: Tensor | None
    lengths_B: Tensor
    target_QB: Tensor
    weight_B: Tensor
    history_nd: Tensor | None = None

    @property
    def tokens(self) -> int:
        """T."""
        given = self.history_n if self.history_nd is None else self.history_nd
        assert given is not None
        return len(given) // len(self.weight_B)


@dataclass
class RowsOutput:
    """L_gen [], gradients of the embedded tokens (history [B T, d], decoder input [Q B, d]) and of soft labels (-log p / Q, weighted: [M, B, K])."""

    loss_gen: Tensor
    d_history: Tensor
    d_decoder: Tensor
    d_labels: Tensor | None


class Beside:
    """`with beside(): ...` puts work on a second stream behind what is queued; `join` makes the first stream wait for it. On a CPU: nothing.

    What the work reads must stay referenced until `join`: the allocator knows nothing of the second reader."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield

    def join(self) -> None:
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)


class Program:
    """Runs one batch: loss, gradients into `flat.gradient`, and what the tokenizer's gradient needs. Holds no state of its own."""

    def __init__(self, recommender: Recommender, flat: FlatParameters, key: Tensor, fused: bool) -> None:
        config = recommender.config
        self.beside = Beside(recommender.start.device)
        self.config, self.flat = config, flat
        self.levels, self.codes, self.suffixes = recommender.levels, recommender.codes, recommender.suffixes
        self.inner, self.low = config.heads * config.d_head, flat.low.dtype
        self.drop = Dropout(config.dropout, key, fused)
        self.future = recommender.future
        self.encoder_one_hot, self.decoder_one_hot = recommender.encoder_bias.one_hot, recommender.decoder_bias.one_hot
        device, positions = recommender.start.device, config.history * recommender.tokens_per_item
        sizes = (config.relative_buckets, config.relative_max_distance)
        self.encoder_buckets = relative_buckets(positions, positions, True, *sizes).to(device)
        self.decoder_buckets = relative_buckets(self.levels + 1, self.levels + 1, False, *sizes).to(device)

    def run(self, rows: RowsInput, soft_labels: bool) -> RowsOutput:
        encoder, decoder = _Stack(self, "encoder", rows), _Stack(self, "decoder", rows)
        memory = encoder.forward(self._history(rows))
        kv = memory @ self.flat.weights["cross_kv"][0].T
        state = decoder.forward(self._decoder_input(rows), kv)
        loss, d_state, d_labels = self._loss(state, rows, soft_labels)
        d_decoder, d_kv = decoder.backward(d_state)
        with self.beside():  # the decoder's weights need nothing of the encoder's backward
            decoder.weight_gradients()
            _product(d_kv.T, memory, self.flat.gradients["cross_kv"][0])
        d_history = encoder.backward(Product(d_kv, self.flat.weights["cross_kv"][0]))[0]
        encoder.weight_gradients()
        self.beside.join()
        self._embedding_gradients(rows, d_history, d_decoder)
        return RowsOutput(loss, d_history, d_decoder, d_labels)

    def _history(self, rows: RowsInput) -> Tensor:
        """[B T, d] float32."""
        if rows.history_nd is not None:
            return rows.history_nd
        assert rows.history_n is not None
        return F.embedding(rows.history_n, self.flat.masters["tables"])

    def _decoder_input(self, rows: RowsInput) -> Tensor:
        """[Q B, d] float32: start, then all tokens of the target but the last."""
        batch, width = len(rows.weight_B), self.config.d_model
        codes = F.embedding(rows.target_QB[:-1].flatten(), self.flat.masters["tables"])
        return torch.cat((self.flat.masters["start"].expand(batch, width), codes))

    def _groups(self) -> list[tuple[int, int, int]]:
        """(first level, levels, width) of consecutive positions with tables of one size: one where S = K."""
        if self.suffixes == self.codes:
            return [(0, self.levels + 1, self.codes)]
        return [(0, self.levels, self.codes), (self.levels, 1, self.suffixes)]

    def _loss(self, state: Tensor, rows: RowsInput, soft_labels: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """(L_gen, gradient of the decoder's state [Q B, d], weighted -log p / Q of the levels). Writes the gradient of the token tables."""
        batch, positions = len(rows.weight_B), self.levels + 1
        state_QBd, scale_B = state.view(positions, batch, -1), rows.weight_B / positions
        d_state = torch.empty_like(state_QBd)
        losses, labels = [], None
        for first, count, width in self._groups():
            part = slice(first * self.codes, first * self.codes + count * width)
            table = self.flat.weights["tables"][part].view(count, width, -1)
            state_gBd = state_QBd[first : first + count]
            logp_gBK = torch.log_softmax(state_gBd @ table.transpose(1, 2), dim=-1, dtype=torch.float32)
            offset_g = torch.arange(first, first + count, device=state.device) * self.codes
            target_gB1 = (rows.target_QB[first : first + count] - offset_g[:, None]).unsqueeze(2)
            losses.append((logp_gBK.gather(2, target_gB1).squeeze(2) * scale_B).sum())
            if soft_labels and first == 0:
                labels = logp_gBK[: self.levels] * -scale_B[:, None]
            d_logits = logp_gBK.exp_().scatter_add_(2, target_gB1, torch.full_like(target_gB1, -1, dtype=torch.float32)) * scale_B[:, None]
            d_logits = d_logits.to(self.low)
            torch.bmm(d_logits, table, out=d_state[first : first + count])
            _product(d_logits.transpose(1, 2), state_gBd, self.flat.gradients["tables"][part].view(count, width, -1))
        return -torch.stack(losses).sum(), d_state.view_as(state), labels

    def _embedding_gradients(self, rows: RowsInput, d_history: Tensor, d_decoder: Tensor) -> None:
        """Adds the look-ups' gradients to the token tables' (which hold the logits' already), and writes that of the start token."""
        batch, tables = len(rows.weight_B), self.flat.gradients["tables"]
        if rows.history_n is not None:  # otherwise `history.ItemTokens` does it
            tables.index_add_(0, rows.history_n, d_history)
        tables.index_add_(0, rows.target_QB[:-1].flatten(), d_decoder[batch:])
        torch.sum(d_decoder[:batch], 0, keepdim=True, out=self.flat.gradients["start"])


class _Stack:
    """The encoder or the decoder on one batch: forward, then backward, which writes the gradients of the stack's weights."""

    def __init__(self, program: Program, name: str, rows: RowsInput) -> None:
        config = program.config
        self.program, self.name, self.decoder, self.flat, self.drop = program, name, name == "decoder", program.flat, program.drop
        self.w, self.g, self.lengths = self.flat.weights, self.flat.gradients, rows.lengths_B
        self.layers = config.decoder_layers if self.decoder else config.encoder_layers
        self.parts = 3 if self.decoder else 2  # sub-layers, each followed by one drop_add_norm
        self.batch, self.inner = len(rows.weight_B), program.inner
        self.history = rows.tokens
        self.positions = program.levels + 1 if self.decoder else self.history
        self.tokens, self.device = self.batch * self.positions, rows.weight_B.device
        self.norms = self.flat.masters[f"{name}_norms"]
        self.heads = self._heads(3 * self.inner)
        kv = config.decoder_layers * 2 * self.inner
        self.cross = Heads(config.heads, config.d_head, self.batch, self.positions, self.history,
                           (self.inner, self.batch * self.inner), (self.history * kv, kv), (self.inner, self.batch * self.inner))  # fmt: skip

    def _heads(self, width: int) -> Heads:
        config, inner = self.program.config, self.inner
        if self.decoder:  # position by position
            wide, narrow = (width, self.batch * width), (inner, self.batch * inner)
        else:
            wide, narrow = (self.positions * width, width), (self.positions * inner, inner)
        return Heads(config.heads, config.d_head, self.batch, self.positions, self.positions, wide, wide, narrow)

    def _site(self, place: int) -> int:
        """A number of its own for each use of dropout in the model."""
        return 2 * (place + (1000 if self.decoder else 0))

    def _buffer(self, width: int, dtype: torch.dtype | None = None) -> Tensor:
        """[layers, n, width]: one kind of activation of all layers, so that weights' gradients are batched products."""
        return torch.empty(self.layers, self.tokens, width, dtype=dtype or self.program.low, device=self.device)

    def _bias(self) -> Tensor:
        """[H, Q, Q] float32: by relative distance; in the decoder later positions are masked."""
        buckets = self.program.decoder_buckets if self.decoder else self.program.encoder_buckets
        size = self.positions
        bias = F.embedding(buckets[:size, :size], self.flat.masters[f"{self.name}_bias"][0]).permute(2, 0, 1)
        return (bias + self.program.future[:size, :size] if self.decoder else bias).contiguous()

    def forward(self, tokens_nd: Tensor, kv: Tensor | None = None) -> Tensor:
        """Embedded tokens [n, d] float32 (and, in the decoder, the memory's keys and values [B T, layers 2 I]) -> normed, dropped states [n, d]."""
        config, name, inner = self.program.config, self.name, self.inner
        self.kv, self.bias = kv, self._bias()
        self.normed = [self._buffer(config.d_model) for _ in range(self.parts)]
        self.qkv, self.mixed, self.hidden = self._buffer(3 * inner), self._buffer(inner), self._buffer(config.d_ff)
        self.query = self._buffer(inner) if self.decoder else None
        self.cross_mixed = self._buffer(inner) if self.decoder else None
        final = torch.empty(self.tokens, config.d_model, dtype=self.program.low, device=self.device)
        self.x = [kernels.drop_add_norm(tokens_nd, None, self.norms[0], self.normed[0][0], self._site(0), self.drop)]
        for layer in range(self.layers):
            q, k, v = self._qkv(self.qkv, layer)
            torch.mm(self.normed[0][layer], self.w[f"{name}_qkv"][layer].T, out=self.qkv[layer])
            lengths = None if self.decoder else self.lengths
            kernels.attention(q, k, v, self.mixed[layer], self.bias, lengths, self.heads, self._site(500 + 2 * layer), self.drop)
            self._joint(Product(self.mixed[layer], self.w[f"{name}_out"][layer].T), self.normed[1][layer])
            if self.query is not None and self.cross_mixed is not None:
                torch.mm(self.normed[1][layer], self.w["cross_q"][layer].T, out=self.query[layer])
                k, v = self._memory(self.kv, layer)
                kernels.attention(
                    self.query[layer], k, v, self.cross_mixed[layer], None, self.lengths, self.cross, self._site(501 + 2 * layer), self.drop
                )
                self._joint(Product(self.cross_mixed[layer], self.w["cross_out"][layer].T), self.normed[2][layer])
            up = Product(self.normed[-1][layer], self.w[f"{name}_up"][layer].T)
            kernels.linear_relu_drop(up, self.hidden[layer], self._site(700 + layer), self.drop)
            following = final if layer + 1 == self.layers else self.normed[0][layer + 1]
            self._joint(Product(self.hidden[layer], self.w[f"{name}_down"][layer].T), following)
        return final

    def _qkv(self, buffer: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = buffer[layer].split(self.inner, dim=1)
        return q, k, v

    def _memory(self, kv: Tensor | None, layer: int) -> tuple[Tensor, Tensor]:
        if kv is None:
            raise ValueError("the decoder needs the memory's keys and values")
        k, v = kv[:, 2 * layer * self.inner : 2 * (layer + 1) * self.inner].split(self.inner, dim=1)
        return k, v

    def _joint(self, y: Product, n_out: Tensor) -> None:
        """The end of a sub-layer: dropout, residual, next norm."""
        place = len(self.x)
        last = place == self.parts * self.layers
        self.x.append(kernels.drop_add_norm(y, self.x[-1], self.norms[place], n_out, self._site(place), self.drop, last))

    def backward(self, d_final: Tensor | Product) -> tuple[Tensor, Tensor]:
        """Gradient of the states [n, d] -> (of the embedded tokens [n, d] float32, of the memory's keys and values or of nothing)."""
        config, inner, name = self.program.config, self.inner, self.name
        d_out, d_cross, d_down = self._buffer(config.d_model), self._buffer(config.d_model), self._buffer(config.d_model)
        d_qkv, d_up, d_query = self._buffer(3 * inner), self._buffer(config.d_ff), self._buffer(inner) if self.decoder else None
        d_tokens = torch.empty(self.tokens, config.d_model, device=self.device)
        d_kv = torch.empty_like(self.kv) if self.kv is not None else d_tokens
        shape = (self.layers, self.batch, config.heads, self.positions, self.positions)
        ds = torch.empty(shape, dtype=self.program.low, device=self.device)
        self.d_norms = torch.empty(len(self.x), kernels.blocks(self.tokens, config.d_model), config.d_model, device=self.device)
        dx = self._joint_backward(d_final, None, d_down[-1])
        for layer in reversed(range(self.layers)):
            down = Product(d_down[layer], self.w[f"{name}_down"][layer])
            kernels.linear_relu_drop_backward(down, self.hidden[layer], d_up[layer], self.drop)
            dx = self._joint_backward(Product(d_up[layer], self.w[f"{name}_up"][layer]), dx, d_cross[layer] if self.decoder else d_out[layer])
            if self.query is not None and d_query is not None:
                (k, v), (dk, dv) = self._memory(self.kv, layer), self._memory(d_kv, layer)
                kernels.attention_backward(
                    self.query[layer], k, v, d_cross[layer] @ self.w["cross_out"][layer], d_query[layer], dk, dv, None, None, self.lengths,
                    self.cross, self._site(501 + 2 * layer), self.drop,
                )  # fmt: skip
                dx = self._joint_backward(Product(d_query[layer], self.w["cross_q"][layer]), dx, d_out[layer])
            (q, k, v), (dq, dk, dv) = self._qkv(self.qkv, layer), self._qkv(d_qkv, layer)
            lengths = None if self.decoder else self.lengths
            given = d_out[layer] @ self.w[f"{name}_out"][layer]
            kernels.attention_backward(
                q, k, v, given, dq, dk, dv, ds[layer], self.bias, lengths, self.heads, self._site(500 + 2 * layer), self.drop
            )  # fmt: skip
            dx = self._joint_backward(Product(d_qkv[layer], self.w[f"{name}_qkv"][layer]), dx, d_down[layer - 1] if layer else d_tokens)
        self.d_out, self.d_cross, self.d_down, self.d_qkv, self.d_up, self.d_query, self.ds = d_out, d_cross, d_down, d_qkv, d_up, d_query, ds
        return d_tokens, d_kv

    def _joint_backward(self, dn: Tensor | Product, dx: Tensor | None, dy_out: Tensor) -> Tensor:
        x = self.x.pop()
        place = len(self.x)
        last = place == self.parts * self.layers
        return kernels.drop_add_norm_backward(
            dn, dx, x, self.norms[place], dy_out, self.d_norms[place], self._site(place), self.drop, last
        )  # fmt: skip

    def weight_gradients(self) -> None:
        """After `backward`: the gradients of one weight in all layers at once."""
        name, g = self.name, self.g
        _product(self.d_qkv.transpose(1, 2), self.normed[0], g[f"{name}_qkv"])
        _product(self.d_out.transpose(1, 2), self.mixed, g[f"{name}_out"])
        _product(self.d_up.transpose(1, 2), self.normed[-1], g[f"{name}_up"])
        _product(self.d_down.transpose(1, 2), self.hidden, g[f"{name}_down"])
        if self.cross_mixed is not None and self.d_query is not None:
            _product(self.d_query.transpose(1, 2), self.normed[1], g["cross_q"])
            _product(self.d_cross.transpose(1, 2), self.cross_mixed, g["cross_out"])
        torch.sum(self.d_norms, 1, out=g[f"{name}_norms"])
        d_bias_HX = torch.sum(self.ds.flatten(0, 1), 0, dtype=torch.float32).flatten(1)
        one_hot = self.program.decoder_one_hot if self.decoder else self.program.encoder_one_hot
        one_hot_XR = one_hot[: self.positions, : self.positions].flatten(0, 1)
        torch.mm(one_hot_XR.T, d_bias_HX.T, out=g[f"{name}_bias"][0])


def _product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """left @ right in float32 into `out`, batched or not, from operands of any precision; products of bf16 are summed in float32."""
    if left.dtype == out.dtype:
        torch.matmul(left, right, out=out)
    elif left.dim() == 3:
        torch.ops.aten.bmm.dtype_out(left, right, out.dtype, out=out)
    else:
        torch.ops.aten.mm.dtype_out(left, right, out.dtype, out=out)
