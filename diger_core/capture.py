"""`training.compile`: the whole step in CUDA graphs, one for each length of history (the fast path of `training.Loop.step`).

A captured step reads its batch from the epoch's order on the device, computes losses and gradients with `diger_core.fast`, clips, runs AdamW,
advances the schedule and the sums, and moves its cursor on: the host only says which graph comes next. It computes what `Loop.step` computes; only
dropout draws other numbers (keyed by seed, step and place, so that nothing has to be saved or restored).

Where it cannot be used (several ranks, a learning encoder, no CUDA device), `captured_step` gives the reason and training stays eager.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diger_core.batches import padded_length
from diger_core.fast.codes import Codes, FastAssignment
from diger_core.fast.flat import FlatParameters
from diger_core.fast.program import Program, RowsInput, RowsOutput
from diger_core.fast.rows import DeviceRows, EpochRows, UniqueItems, unique_items
from diger_core.optimisation import learning_rate_factor

if TYPE_CHECKING:
    from diger_core.training import Loop

_KEYS = 1 << 14  # dropout sites of one step


def obstacle(loop: Loop) -> str | None:
    """Why this run's steps cannot be captured, or None."""
    if loop.device.type != "cuda":
        return "there is no CUDA device"
    if loop.ranks.world > 1:
        return "several ranks share the batch"
    if loop.learns and loop.joint.train_encoder:
        return "the encoder learns"
    head = loop.recommender.config.d_head
    if head < 16 or head & (head - 1):
        return "recommender.d_head is not a power of two of at least 16"
    if loop.recommender.config.history * (loop.recommender.levels + 1) > 256:
        return "a history of more than 256 tokens"
    return None


class FastStep:
    """One training step in fixed shapes on the device, uncaptured: `run(length)`. Works on any device; the graphs of `CapturedStep` replay it."""

    def __init__(self, loop: Loop) -> None:
        self.loop, device = loop, loop.device
        self.flat = FlatParameters(loop.recommender, torch.bfloat16 if loop.training.precision == "bf16" else torch.float32)
        self.key = torch.zeros((), dtype=torch.int64, device=device)
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.program = Program(loop.recommender, self.flat, self.key, fused=device.type == "cuda")
        self.rows = EpochRows(loop.batches, device)
        factors = [learning_rate_factor(step, loop.optimisation.warmup, loop.total_steps) for step in range(loop.total_steps)]
        self.factors = torch.tensor([*factors, 0.0], dtype=torch.float32, device=device)
        recommender = loop.recommender
        sizes = [recommender.codes] * recommender.levels + [recommender.suffixes]
        self.offset_Q = torch.arange(len(sizes), device=device) * recommender.codes
        self.codes = Codes(loop.tokenizer, loop.catalogue, loop.joint, loop.schedule, loop.training.seed) if loop.learns else None
        if loop.learns:
            loop.tokenizer.codebooks.grad = torch.zeros_like(loop.tokenizer.codebooks)
        for group in loop.optimisation.adamw.param_groups:
            group["capturable"] = device.type == "cuda"
        self.seed_key = (loop.training.seed * 0x9E3779B97F4A7C15) % (1 << 48)

    @torch.no_grad()
    def run(self, length: int) -> None:
        """The batch at the cursor, its histories padded to `length` items."""
        loop = self.loop
        torch.add(self.step * _KEYS, self.seed_key, out=self.key)
        rows = self.rows.gather(length)
        if self.codes is None:
            token_NQ = torch.cat((loop.catalogue.codes_NM, loop.catalogue.suffix_N[:, None]), 1) + self.offset_Q
            out = self._recommend(rows, token_NQ, rows.item_BL, rows.target_B, False)
            zero = torch.zeros_like(out.loss_gen)
            figures = [out.loss_gen, out.loss_gen, zero, zero, zero, zero, zero + 1]
        else:
            figures = self._joint(rows, self.codes)
        norm = self._optimise()
        loop.sums += torch.stack((*figures, norm))
        self.step += 1
        self.rows.cursor += 1

    def _recommend(self, rows: DeviceRows, token_VQ: Tensor, history_BL: Tensor, target_B: Tensor, soft_labels: bool) -> RowsOutput:
        tokens = token_VQ.shape[1]
        given = RowsInput(
            token_VQ[history_BL].flatten(), (rows.length_B * tokens).int(), token_VQ[target_B].T.contiguous(), rows.weight_B
        )  # fmt: skip
        return self.program.run(given, soft_labels)

    def _joint(self, rows: DeviceRows, codes: Codes) -> list[Tensor]:
        """Assignment, recommender, the codebooks' gradient, the schedule's next state; the step's statistics."""
        loop, paths = self.loop, self.loop.joint.paths
        unique = unique_items(rows, len(loop.catalogue.codes_NM))
        given = codes.forward(unique.items_V, unique.mask_V, loop.state)
        suffix_V = loop.catalogue.suffix_N[unique.items_V]
        token_VQ = torch.cat((given.codes_VM, suffix_V[:, None]), 1) + self.offset_Q
        out = self._recommend(rows, token_VQ, unique.history_BL, unique.target_B, paths.labels)
        loop.tokenizer.codebooks.grad.copy_(self._codebook_gradient(codes, given, out, unique))  # type: ignore[union-attr]
        figures = self._figures(given, unique, out)
        following = loop.schedule.update(loop.state, out.loss_gen, given.det_VM, unique.mask_V)
        torch._foreach_copy_([loop.state[name] for name in following], list(following.values()))
        return figures

    def _codebook_gradient(self, codes: Codes, given: FastAssignment, out: RowsOutput, unique: UniqueItems) -> Tensor:
        paths = self.loop.joint.paths
        if not (paths.history or paths.teacher or paths.labels):
            return given.d_codebooks
        recommender = self.loop.recommender
        levels = recommender.levels
        tables_MKd = self.flat.masters["tables"][: levels * recommender.codes].view(levels, recommender.codes, -1)
        dP = codes.soft_gradient(
            out.d_history if paths.history else None, out.d_decoder if paths.teacher else None, out.d_labels if paths.labels else None,
            unique.history_BL, unique.target_B, tables_MKd, len(unique.items_V),
        )  # fmt: skip
        return codes.backward(given, dP, self.loop.state)

    def _figures(self, given: FastAssignment, unique: UniqueItems, out: RowsOutput) -> list[Tensor]:
        """In the order of joint_step.STATISTICS."""
        joint = self.loop.joint
        table_VM = self.loop.catalogue.codes_NM[unique.items_V]
        figures_3VM = torch.stack((given.sigma_VM, (given.sigma_VM > 0).float(), (given.sampled_VM == table_VM).float()))
        share_V = unique.mask_V / unique.mask_V.sum()
        figures = (figures_3VM.mean(2) * share_V).sum(1)
        loss = out.loss_gen + joint.weight_vq * given.loss_vq + joint.weight_recon * given.loss_recon
        return [loss, out.loss_gen, given.loss_vq, given.loss_recon, *figures.unbind()]

    def _optimise(self) -> Tensor:
        """Learning rates of this step, clipping, AdamW, fresh low-precision weights. The sum of the norms before clipping."""
        optimisation = self.loop.optimisation
        factor = self.factors.index_select(0, self.step.view(1))[0]  # indexing by a 0-d tensor would read it on the host
        for rate, peak in zip(optimisation.rates, optimisation.peaks, strict=True):
            torch.mul(factor, peak, out=rate)
        norms = []
        learned = [self.flat.gradient] + ([self.loop.tokenizer.codebooks.grad] if self.codes is not None else [])
        for gradient in learned:
            norms.append(torch.linalg.vector_norm(gradient))
            gradient.mul_((optimisation.clip / (norms[-1] + 1e-6)).clamp(max=1))
        optimisation.adamw.step()
        self.flat.update_low()
        return norms[0] if len(norms) == 1 else norms[0] + norms[1]

    def start(self, epoch: int, first: int, step: int) -> list[tuple[int, int]]:
        """Before batch `first` of an epoch: (rows, padded history length) of all its batches."""
        self.step.fill_(step)
        self.flat.update_low()
        history = self.loop.batches.history
        return [(count, padded_length(longest, history)) for count, longest in self.rows.start(epoch, first)]

    def state(self) -> list[Tensor]:
        """Every tensor that a step changes, for undoing the steps that warm up a capture."""
        loop = self.loop
        tensors = [self.flat.master, self.step, self.rows.cursor, loop.sums, *loop.state.values(), *loop.optimisation.rates]
        tensors += [loop.tokenizer.codebooks.data] if self.codes is not None else []
        return tensors + [value for state in loop.optimisation.adamw.state.values() for value in state.values()]


class CapturedStep:
    """`epoch(...)` replays one graph a batch; graphs are captured when their length first occurs."""

    def __init__(self, loop: Loop) -> None:
        self.step, self.graphs = FastStep(loop), dict[int, torch.cuda.CUDAGraph]()
        self.pool = torch.cuda.graph_pool_handle()

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
        """Two real steps warm up kernels, libraries and the optimizer's state; they are undone, and the third one is recorded."""
        known = len(self.step.loop.optimisation.adamw.state) > 0
        before = [tensor.clone() for tensor in self.step.state()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step.run(length)
        torch.cuda.current_stream().wait_stream(stream)
        after = self.step.state()
        if not known:  # the optimizer's state did not exist yet: it starts from zero
            before += [torch.zeros_like(tensor) for tensor in after[len(before) :]]
        torch._foreach_copy_(after, before)
        self.step.flat.update_low()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            self.step.run(length)
        return graph
