"""`training.compile`: the whole step in CUDA graphs, one for each length of history (the fast path of `Loop.step`).

A captured step reads its batch from the epoch's order on the device, computes losses and gradients with `diger_core.fast`, clips, runs AdamW,
advances the schedule and the sums, and moves its cursor on: the host only says which graph comes next. It computes what `Loop.step` computes; only
dropout draws other numbers (keyed by seed, step and place, so that nothing has to be saved or restored).

Of several ranks each takes its rows of the batch and the assignment of their items alone. What they exchange is one all-reduce of one flat buffer
inside the graph: the gradients, the codebooks', the losses and what the schedule observes.

Where it cannot be used (a learning encoder, no CUDA device, ranks without NCCL), `obstacle` gives the reason and training stays eager.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from diger_core.data.batches import padded_length
from diger_core.fast import kernels
from diger_core.fast.codes import Codes, FastAssignment
from diger_core.fast.flat import FlatParameters
from diger_core.fast.history import ItemTokens
from diger_core.fast.kernels import BETAS, AdamW
from diger_core.fast.program import Beside, Program, RowsInput, RowsOutput
from diger_core.fast.rows import DeviceRows, RowsOnDevice, UniqueItems, unique_items
from diger_core.recommender.history_input import input_weights
from diger_core.training.distributed import Distributed
from diger_core.training.joint_step import LOSSES, PER_LEVEL, frozen_figures
from diger_core.training.optimisation import Optimisation, learning_rate_factor
from diger_core.training.state import StepContext, TrainingState

_KEYS = 1 << 14  # dropout sites of one step


def obstacle(state: TrainingState, context: StepContext, ranks: Distributed) -> str | None:
    """Why this run's steps cannot be captured, or None."""
    if state.device.type != "cuda":
        return "there is no CUDA device"
    if not ranks.capturable:
        return "the ranks do not use NCCL"
    if context.config.learns and context.config.joint.train_encoder:
        return "the encoder learns"
    config = context.config.recommender
    return kernels.obstacle(config.d_head, config.history * state.recommender.tokens_per_item)


class FastStep:
    """One training step in fixed shapes on the device, uncaptured: `run(length)`. Works on any device; the graphs of `CapturedStep` replay it."""

    def __init__(self, state: TrainingState, context: StepContext, ranks: Distributed | None = None) -> None:
        self.state, self.context, device = state, context, state.device
        self.ranks = ranks or Distributed()
        training, recommender, items, learns = context.config.training, state.recommender, context.items, context.config.learns
        books = state.tokenizer.codebooks
        learned = books.numel() if learns else 0
        self.figures = len(LOSSES) + len(PER_LEVEL) * recommender.levels
        observed = context.schedule.observe(torch.zeros(1, recommender.levels, dtype=torch.int64)).numel() if learns else 0
        low = torch.bfloat16 if training.precision == "bf16" else torch.float32
        self.flat = FlatParameters(recommender, low, learned + self.figures + observed)
        self.key = torch.zeros((), dtype=torch.int64, device=device)
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.program = Program(recommender, self.flat, self.key, fused=device.type == "cuda")
        self.history = ItemTokens(recommender, self.flat)
        self.rows = RowsOnDevice(context.batches, device, self.ranks)
        self.beside = Beside(device)
        self.table = _step_table(state.optimisation).to(device)
        sizes = [recommender.codes] * recommender.levels + [recommender.suffixes]
        self.offset_Q = torch.arange(len(sizes), device=device) * recommender.codes
        # frozen: the table never changes, so its tokens are made once
        self.token_NQ = torch.empty(0) if learns else torch.cat((items.codes_NM, items.suffix_N[:, None]), 1) + self.offset_Q
        self.zero, self.frozen_3M = torch.zeros((), device=device), frozen_figures(items.codes_NM) / self.ranks.world
        input_tau = recommender.config.history_tau if self.history.soft else None
        self.codes = Codes(state.tokenizer, items, context.config.joint, context.schedule, training.seed, input_tau) if learns else None
        if learns:
            books.grad = self.flat.beside[:learned].view_as(books)
        self.told = self.flat.beside[learned:]
        self.adamw = self._flat_adamw()
        # each rank draws dropout of its own
        self.seed_key = (training.seed * 0x9E3779B97F4A7C15 + self.ranks.rank * 0xD1B54A32D192ED03) % (1 << 48)

    @torch.no_grad()
    def run(self, length: int) -> None:
        """The batch at the cursor, its histories padded to `length` items."""
        torch.add(self.step * _KEYS, self.seed_key, out=self.key)
        rows = self.rows.gather(length)
        if self.codes is None:
            out = self._frozen(rows)
            told = [torch.stack((out.loss_gen, out.loss_gen, self.zero, self.zero)), self.frozen_3M.flatten()]
        else:
            told = self._joint(rows, self.codes)
        torch.cat(told, out=self.told)
        self.ranks.sum_flat_(self.flat.exchange)
        if self.codes is not None:
            self._advance_schedule()
        norm = self._optimise()
        self.state.sums += torch.cat((self.told[: self.figures], norm[None]))
        self.step += 1
        self.rows.cursor += 1

    def _frozen(self, rows: DeviceRows) -> RowsOutput:
        """Look-ups in the whole table where that is all; otherwise the tokens of the batch's unique items."""
        if self.history.plain:
            return self._recommend(rows, self.token_NQ, rows.item_BL, rows.target_B, False)
        items, tok, tau = self.context.items, self.state.tokenizer, self.state.recommender.config.history_tau
        unique, p_MVK = unique_items(rows, len(items.codes_NM)), None  # nothing is counted here: its own rows' items are enough
        if self.history.soft and items.z_Ne is not None:
            p_MVK = input_weights(tok, items.z_Ne[unique.items_V], items.codes_NM[unique.items_V], tau).transpose(0, 1).contiguous()
        token_VQ = self.token_NQ[unique.items_V]
        out = self._recommend(rows, token_VQ, unique.history_BL, unique.target_B, False, p_MVK)
        self.history.backward(out.d_history, token_VQ, p_MVK, unique.history_BL)
        return out

    def _recommend(
        self, rows: DeviceRows, token_VQ: Tensor, history_BL: Tensor, target_B: Tensor, soft_labels: bool, p_MVK: Tensor | None = None
    ) -> RowsOutput:
        plain = self.history.plain
        given = RowsInput(
            token_VQ[history_BL].flatten() if plain else None,
            (rows.length_B * self.history.tokens).int(),
            token_VQ[target_B].T.contiguous(),
            rows.weight_B,
            None if plain else self.history.gather(token_VQ, p_MVK, history_BL),
        )
        return self.program.run(given, soft_labels)

    def _joint(self, rows: DeviceRows, codes: Codes) -> list[Tensor]:
        """Assignment, recommender, the codebooks' gradient; this rank's part of LOSSES, of PER_LEVEL [3 M] and of what the schedule observes."""
        state, items, joint = self.state, self.context.items, self.context.config.joint
        unique = unique_items(rows, len(items.codes_NM))
        with self.beside():
            self.rows.count(unique, rows.item_BL.shape[1], len(items.codes_NM))
            given = codes.forward(unique.items_V, unique.share_V, state.schedule)
            figures_3M = self._figures(given, unique)
        if (
            joint.forward == "cached" and not self.history.soft
        ):  # the table says what is fed forward: the recommender need not wait for the assignment
            codes_VM = items.codes_NM[unique.items_V]
        else:
            self.beside.join()
            codes_VM = given.codes_VM  # with `forward: cached` the table's
        token_VQ = torch.cat((codes_VM, items.suffix_N[unique.items_V][:, None]), 1) + self.offset_Q
        out = self._recommend(rows, token_VQ, unique.history_BL, unique.target_B, joint.paths.labels, given.p_MVK)
        self.beside.join()
        state.tokenizer.codebooks.grad.copy_(self._codebook_gradient(codes, given, out, unique, token_VQ))  # type: ignore[union-attr]
        loss = out.loss_gen + joint.weight_vq * given.loss_vq + joint.weight_recon * given.loss_recon
        losses = torch.stack((loss, out.loss_gen, given.loss_vq, given.loss_recon))
        return [losses, figures_3M.flatten(), self.context.schedule.observe(given.det_VM, unique.counted_V)]

    def _advance_schedule(self) -> None:
        """By the whole batch's L_gen and items."""
        state = self.state.schedule
        following = self.context.schedule.update(state, self.told[LOSSES.index("loss_gen")], self.told[self.figures :])
        torch._foreach_copy_([state[name] for name in following], list(following.values()))

    def _codebook_gradient(self, codes: Codes, given: FastAssignment, out: RowsOutput, unique: UniqueItems, token_VQ: Tensor) -> Tensor:
        paths, history, dp = self.context.config.joint.paths, self.history, None
        d_tokens_VQd = None if history.plain else history.backward(out.d_history, token_VQ, given.p_MVK, unique.history_BL)
        if not (paths.history or paths.teacher or paths.labels):
            return given.d_codebooks
        recommender = self.state.recommender
        levels = recommender.levels
        tables_MKd = self.flat.masters["tables"][: levels * recommender.codes].view(levels, recommender.codes, -1)
        if paths.history and d_tokens_VQd is None:
            d_tokens_VQd = history.gathered(out.d_history, unique.history_BL, token_VQ)
        if history.soft and paths.history and d_tokens_VQd is not None:
            dp = history.weights_gradient(d_tokens_VQd)
        dP = codes.soft_gradient(
            d_tokens_VQd if paths.history and not history.soft else None,
            out.d_decoder if paths.teacher else None, out.d_labels if paths.labels else None, unique.target_B, tables_MKd, len(unique.items_V),
        )  # fmt: skip
        return codes.backward(given, dP, self.state.schedule, dp)

    def _figures(self, given: FastAssignment, unique: UniqueItems) -> Tensor:
        """This rank's part of PER_LEVEL [3, M]."""
        table_VM = self.context.items.codes_NM[unique.items_V]
        figures_3VM = torch.stack((given.sigma_VM, (given.sigma_VM > 0).float(), (given.sampled_VM == table_VM).float()))
        return (figures_3VM * unique.share_V[:, None]).sum(1)

    def _flat_adamw(self) -> list[AdamW]:
        """The optimizer's state in flat buffers, of which its own tensors become views: checkpoints find them where they look for them."""
        adamw = self.state.optimisation.adamw
        groups = [(self.flat.master, self.flat.gradient, self.flat.low)]
        if self.codes is not None:
            books = self.state.tokenizer.codebooks
            groups.append((books.data, books.grad, books.data))  # type: ignore[arg-type]
        made = []
        parameters = self.state.optimisation.parameters
        self.counts = torch.zeros(len(parameters), device=self.state.device)
        for (value, gradient, low), group, peak in zip(groups, adamw.param_groups, self.state.optimisation.peaks, strict=True):
            first, second = torch.zeros_like(value), torch.zeros_like(value)
            for p in group["params"]:
                known = dict(adamw.state[p])
                place = (p.data_ptr() - value.data_ptr()) // p.element_size()
                for name, moment in (("exp_avg", first), ("exp_avg_sq", second)):
                    view = moment.view(-1)[place : place + p.numel()].view_as(p)
                    if name in known:
                        view.copy_(known[name])
                    adamw.state[p][name] = view
                index = next(i for i, other in enumerate(parameters) if other is p)
                if "step" in known:
                    self.counts[index] = known["step"]
                adamw.state[p]["step"] = self.counts[index]
            made.append(AdamW(value, gradient, first, second, None if low is value else low, peak, group["weight_decay"]))
        return made

    def _optimise(self) -> Tensor:
        """Clipping, AdamW and fresh low-precision weights. The sum of the norms before clipping."""
        norms: list[Tensor] = [torch.linalg.vector_norm(adamw.gradient) for adamw in self.adamw]
        for adamw, norm in zip(self.adamw, norms, strict=True):
            adamw.step(self.table, self.step, norm, self.state.optimisation.clip, self.state.device.type == "cuda")
        self.counts += 1
        return norms[0] if len(norms) == 1 else norms[0] + norms[1]

    def start(self, epoch: int, first: int, step: int) -> list[tuple[int, int]]:
        """Before batch `first` of an epoch: (rows, padded history length) of all its batches."""
        self.step.fill_(step)
        self.flat.update_low()
        history = self.context.batches.history
        return [(count, padded_length(longest, history)) for count, longest in self.rows.start(epoch, first)]

    def changed(self) -> list[Tensor]:
        """Every tensor that a step changes, for undoing the steps that warm up a capture."""
        tensors = [self.step, self.rows.cursor, self.counts, self.state.sums, *self.state.schedule.values()]
        return tensors + [tensor for adamw in self.adamw for tensor in (adamw.value, adamw.first, adamw.second)]


def _step_table(optimisation: Optimisation) -> Tensor:
    """float32 [steps of the run + 1, 3] as `AdamW.step` reads it, 0 before its first step; in double precision on the host, where 1 - 0.999^t keeps
    its digits."""
    warmup, steps = optimisation.warmup, optimisation.total_steps
    rows = [(0.0, 0.0, 0.0)] * optimisation.first_step
    rows += [
        (learning_rate_factor(step, warmup, steps), 1 / (1 - BETAS[0] ** (step + 1)), 1 / math.sqrt(1 - BETAS[1] ** (step + 1)))
        for step in range(steps + 1)
    ]
    return torch.tensor(rows, dtype=torch.float32)


class CapturedStep:
    """`epoch(...)` replays one graph a batch; graphs are captured when their length first occurs.

    Graphs of several runs in one process must not be replayed at the same time on several streams: six runs on six streams hung an H200 until an
    illegal instruction ended the process. For runs side by side take a device for each.
    """

    def __init__(self, state: TrainingState, context: StepContext, ranks: Distributed | None = None) -> None:
        self.step, self.graphs = FastStep(state, context, ranks), dict[int, torch.cuda.CUDAGraph]()
        self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def epoch(self, epoch: int, first: int, step: int) -> Iterator[tuple[int, int]]:
        """Runs the batches from `first` on; yields (index, rows) after each."""
        batches = self.step.start(epoch, first, step)
        for length in sorted({length for _, length in batches[first:]} - self.graphs.keys(), reverse=True):
            self.graphs[length] = self._captured(length)
        for index in range(first, len(batches)):
            rows, length = batches[index]
            self.graphs[length].replay()
            yield index, rows

    def _captured(self, length: int) -> torch.cuda.CUDAGraph:
        """A real step warms up kernels and libraries; it is undone, and the second one is recorded."""
        before = [tensor.clone() for tensor in self.step.changed()]
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step.run(length)
        torch.cuda.current_stream().wait_stream(self.stream)
        torch._foreach_copy_(self.step.changed(), before)
        self.step.flat.update_low()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            self.step.run(length)
        return graph
