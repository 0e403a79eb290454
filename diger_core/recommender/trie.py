"""A prefix trie over the ID table as sorted arrays on the device: what makes every beam a real item (docs/method.md, section 6).

Nodes of one depth are numbered in the order of their prefixes. Depth j (0: the root) stores, for each of its n_j nodes, where its children
start (`first[j]`, [n_j + 2]), and for each child the key parent * width + code (`keys[j]`, sorted, [n_{j+1} + 1]): listing a beam's children
is slicing, finding one child is a binary search. Nothing of size N x K exists. Children of the last depth are the items.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diger_core.errors import DigerError

END = torch.iinfo(torch.int64).max  # one key behind the last, so that looking behind the end needs no test


@dataclass(frozen=True)
class Trie:
    """`sizes`: width of each depth (K for each level, then S). `fan_out`: the most children that one node of a depth has (at least 1)."""

    sizes: tuple[int, ...]
    first: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]
    items_of_leaves: Tensor
    fan_out: tuple[int, ...]

    @classmethod
    def from_table(
        cls, codes_NM: Tensor, suffix_N: Tensor, codes: int, suffixes: int, device: torch.device | str = "cpu", items: Tensor | None = None
    ) -> Trie:
        """The trie of all items, or of `items` alone (indices or a mask [N]: what is in stock, sold in a region, new).

        codes_NM in [0, codes), suffix_N in [0, suffixes). Raises DigerError where a value is out of range or two items share one tuple.
        """
        table_NQ = torch.cat((torch.as_tensor(codes_NM).long(), torch.as_tensor(suffix_N).long()[:, None]), dim=1).to(device)
        sizes = (codes,) * (table_NQ.shape[1] - 1) + (suffixes,)
        outside_N = ((table_NQ < 0) | (table_NQ >= torch.tensor(sizes, device=device))).any(dim=1)
        if outside_N.any():
            item = int(outside_N.nonzero()[0])
            raise DigerError(f"ID table: item {item} has {tuple(table_NQ[item].tolist())}, outside {sizes}; refresh the table with this tokenizer")
        chosen_n = torch.arange(len(table_NQ), device=device) if items is None else _indices(items, len(table_NQ), device)
        table_nQ = table_NQ[chosen_n]
        order_n = torch.arange(len(table_nQ), device=device)
        for column in reversed(range(len(sizes))):  # least significant first: stable sorts make the order lexicographic
            order_n = order_n[torch.argsort(table_nQ[order_n, column], stable=True)]
        table_nQ, chosen_n = table_nQ[order_n], chosen_n[order_n]
        same_n = (table_nQ[1:] == table_nQ[:-1]).all(dim=1)
        if same_n.any():
            row = int(same_n.nonzero()[0])
            raise DigerError(
                f"ID table: items {int(chosen_n[row])} and {int(chosen_n[row + 1])} share {tuple(table_nQ[row].tolist())}; give them suffixes"
            )
        return cls(sizes, *_levels(table_nQ, sizes, chosen_n))

    @property
    def depth(self) -> int:
        return len(self.sizes)

    def root(self, *shape: int) -> Tensor:
        """Nodes of depth 0 for that many beams."""
        return torch.zeros(shape, dtype=torch.int64, device=self.items_of_leaves.device)

    def children(self, depth: int, node_X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(codes, children, valid), each [..., fan_out[depth]], of the nodes [...] of `depth`; -1 is a dead beam and has none.

        Where not valid, code and child are 0. The children of the last depth index `items_of_leaves`.
        """
        alive_X = node_X >= 0
        parent_X = node_X.clamp_min(0)
        start_X, end_X = self.first[depth][parent_X], self.first[depth][parent_X + 1]
        child_XC = start_X[..., None] + torch.arange(self.fan_out[depth], device=node_X.device)
        valid_XC = (child_XC < end_X[..., None]) & alive_X[..., None]
        child_XC = child_XC.where(valid_XC, 0)
        code_XC = self.keys[depth][child_XC] - (parent_X * self.sizes[depth])[..., None]
        return code_XC.where(valid_XC, 0), child_XC, valid_XC

    def allowed(self, depth: int, node_X: Tensor) -> Tensor:
        """[..., width of the depth] bool: which codes may follow."""
        code_XC, _, valid_XC = self.children(depth, node_X)
        mask = torch.zeros((*node_X.shape, self.sizes[depth]), dtype=torch.int32, device=node_X.device)
        return mask.scatter_add(-1, code_XC, valid_XC.int()) > 0

    def child(self, depth: int, node_X: Tensor, code_X: Tensor) -> Tensor:
        """The child [...] of `node_X` by `code_X`, -1 where there is none."""
        key_X = node_X.clamp_min(0) * self.sizes[depth] + code_X
        place_X = torch.searchsorted(self.keys[depth], key_X.contiguous())
        found_X = (self.keys[depth][place_X] == key_X) & (node_X >= 0) & (code_X >= 0) & (code_X < self.sizes[depth])
        return place_X.where(found_X, -1)

    def items(self, leaf_X: Tensor) -> Tensor:
        """Item indices of leaves; -1 stays -1."""
        return self.items_of_leaves[leaf_X.clamp_min(0)].where(leaf_X >= 0, -1)

    def lookup(self, codes_XQ: Tensor) -> Tensor:
        """Item index [...] of full tuples [..., M+1], -1 where no item has the tuple."""
        node_X = self.root(*codes_XQ.shape[:-1])
        for depth in range(self.depth):
            node_X = self.child(depth, node_X, codes_XQ[..., depth])
        return self.items(node_X)


def _indices(items: Tensor, count: int, device: torch.device | str) -> Tensor:
    items = torch.as_tensor(items).to(device)
    if items.dtype == torch.bool:
        if len(items) != count:
            raise DigerError(f"items: the mask has {len(items)} entries, the ID table {count} items; give one entry for each item")
        return items.nonzero()[:, 0]
    items = items.long().unique()
    if len(items) and (items[0] < 0 or items[-1] >= count):
        raise DigerError(f"items: {int(items[0] if items[0] < 0 else items[-1])} is not an item index (0..{count - 1})")
    return items


def _levels(table_nQ: Tensor, sizes: tuple[int, ...], items_n: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor, tuple[int, ...]]:
    """(first, keys, items of leaves, fan-out) of the sorted, unique tuples."""
    device = table_nQ.device
    one = torch.ones(min(1, len(table_nQ)), dtype=torch.bool, device=device)
    new_n = torch.cat((one, torch.zeros(max(len(table_nQ) - 1, 0), dtype=torch.bool, device=device)))
    parent_n = torch.zeros(len(table_nQ), dtype=torch.int64, device=device)
    first, keys, fan_out, nodes = [], [], [], 1
    end = torch.tensor([END], device=device)
    for depth, size in enumerate(sizes):
        new_n = new_n | torch.cat((one, table_nQ[1:, depth] != table_nQ[:-1, depth]))
        counts = torch.bincount(parent_n[new_n], minlength=nodes)
        starts = torch.zeros(nodes + 2, dtype=torch.int64, device=device)
        starts[1:-1] = counts.cumsum(0)
        starts[-1] = starts[-2]
        first.append(starts)
        keys.append(torch.cat((parent_n[new_n] * size + table_nQ[new_n, depth], end)))
        fan_out.append(max(1, int(counts.max()) if nodes else 1))
        parent_n = new_n.cumsum(0) - 1
        nodes = int(new_n.sum())
    return tuple(first), tuple(keys), torch.cat((items_n, torch.full((1,), -1, device=device))), tuple(fan_out)
