"""Ranks of one training run: who computes which rows, and how their sums become one.

Every rank knows the whole batch and the whole state; only the rows of the recommender's forward pass are split. So the one thing that
travels in a step is a flat vector of gradients and losses, summed over the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Distributed:
    """Rank `rank` of `world`. With a world of 1 every operation is the identity and torch.distributed is not touched."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Distributed:
        """The ranks of the process group of this process (gloo or NCCL), or a single rank where none was initialised."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def main(self) -> bool:
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """The contiguous rows of this rank; the first `rows % world` ranks hold one more. Empty where there are fewer rows than ranks."""
        size, more = divmod(rows, self.world)
        start = self.rank * size + min(self.rank, more)
        return slice(start, start + size + (self.rank < more))

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Sums every tensor over the ranks, in place, by one all-reduce of one flat buffer. All of one dtype and device.

        A sum and not a mean: each rank's loss is already divided by the whole batch's rows, so uneven shares weigh what they should.
        """
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        self.sum_flat_(flat)
        pieces = flat.split([t.numel() for t in tensors])
        torch._foreach_copy_(list(tensors), [p.view_as(t) for p, t in zip(pieces, tensors, strict=True)])

    def sum_flat_(self, flat: Tensor) -> None:
        """Sums one contiguous tensor over the ranks, in place, by one all-reduce."""
        if self.world > 1:
            dist.all_reduce(flat)

    @property
    def capturable(self) -> bool:
        """Whether the sum can be part of a CUDA graph: NCCL's can."""
        return self.world == 1 or dist.get_backend() == "nccl"

    def gather_rows(self, rows: np.ndarray, total: int, device: torch.device) -> np.ndarray:
        """int64 rows of each rank's `share(total)`, put together in order on every rank: [total]."""
        if self.world == 1:
            return rows
        whole = torch.zeros(total, dtype=torch.int64, device=device)
        whole[self.share(total)] = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64)).to(device)
        dist.all_reduce(whole)
        return whole.cpu().numpy()

    def gather_bytes(self, data: Tensor, device: torch.device) -> list[Tensor]:
        """One uint8 tensor [n] of each rank, n the same on all, on the CPU in the order of the ranks (generator states)."""
        if self.world == 1:
            return [data]
        local = data.to(device)
        pieces = [torch.empty_like(local) for _ in range(self.world)]
        dist.all_gather(pieces, local)
        return [p.cpu() for p in pieces]
