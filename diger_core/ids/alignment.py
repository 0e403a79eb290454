"""Codes of one tokenizer named like another's: training again numbers its codes by chance, and that alone is no change.

For each level the new codes are matched to the old ones, one to one, so that as many common items as possible (by weight) keep their code; then the
new codebooks' rows are put in that order. The matching is exact: the Hungarian method with potentials, the search for each augmenting path vectorised
over the columns. 256 codes take well under a second or two on a CPU, so nothing beyond numpy is needed.

Shapes: N common items, M levels, K codes.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diger_core.errors import DigerError
from diger_core.tokenizer.rqvae import Tokenizer

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def maximum_matching(weight_KK: npt.ArrayLike) -> Int64:
    """For each row of a square matrix its column, int64 [K], each used once, such that the sum of the entries is the greatest possible."""
    cost = -np.asarray(weight_KK, dtype=np.float64)
    size = len(cost)
    if cost.shape != (size, size) or not np.isfinite(cost).all():
        raise ValueError(f"maximum_matching: {cost.shape}: needs a square matrix of finite numbers")
    row_of = np.full(size + 1, -1, dtype=np.int64)  # of each column; the last column stands for the row being placed
    potential_row, potential_column = np.zeros(size), np.zeros(size)
    for row in range(size):
        row_of[size] = row
        _augment(cost, row_of, potential_row, potential_column)
    column_of = np.empty(size, dtype=np.int64)
    column_of[row_of[:size]] = np.arange(size)
    return column_of


def _augment(cost: Float64, row_of: Int64, potential_row: Float64, potential_column: Float64) -> None:
    """Places one more row along a shortest augmenting path, keeping cost - potential_row - potential_column >= 0 and 0 on the matching."""
    size = len(cost)
    shortest = np.full(size, np.inf)
    parent = np.full(size, size, dtype=np.int64)
    done = np.zeros(size, dtype=bool)
    column = size
    while row_of[column] >= 0:
        row = row_of[column]
        through = cost[row] - potential_row[row] - potential_column
        better = ~done & (through < shortest)
        shortest[better] = through[better]
        parent[better] = column
        reach = np.where(done, np.inf, shortest)
        following = int(reach.argmin())
        step = reach[following]
        potential_row[row_of[:size][done]] += step
        potential_row[row_of[size]] += step
        potential_column[done] -= step
        shortest[~done] -= step
        done[following] = True
        column = following
    while column != size:
        row_of[column] = row_of[parent[column]]
        column = int(parent[column])


def align(old_NM: Tensor, new_NM: Tensor, codes: int, weight_N: Tensor | None = None) -> Int64:
    """Names for the new codes, int64 [M, K]: `names[level, new code]` = the old code that it should be called.

    old_NM, new_NM: both tables' codes of the same N items; weight_N: what each item counts (default 1). Codes that no common item uses fill the rest.
    """
    old, new = (np.asarray(table.cpu(), dtype=np.int64) for table in (old_NM, new_NM))
    if old.shape != new.shape:
        raise DigerError(f"alignment: {old.shape} old and {new.shape} new codes: both tables need the same items and levels")
    if old.size and max(old.max(), new.max()) >= codes:
        raise DigerError(f"alignment: a table holds code {max(old.max(), new.max())}, the tokenizer has {codes}: take tables of equal codebooks")
    weights = None if weight_N is None else np.asarray(weight_N.cpu(), dtype=np.float64)
    names = []
    for level in range(old.shape[1]):
        overlap = np.bincount(new[:, level] * codes + old[:, level], weights, minlength=codes * codes).reshape(codes, codes)
        names.append(maximum_matching(overlap))
    return np.stack(names)


def rename_codes(codes_NM: Tensor, names_MK: Int64) -> Tensor:
    """The same table with its codes called by their names; -1 (no item) stays."""
    names = torch.from_numpy(names_MK).to(codes_NM.device)
    renamed = torch.stack([names[level][codes_NM[:, level].long().clamp_min(0)] for level in range(len(names))], 1)
    return torch.where(codes_NM < 0, codes_NM.long(), renamed).to(codes_NM.dtype)


def rename_codebooks(tok: Tokenizer, names_MK: Int64) -> Tokenizer:
    """A copy whose code b of level j stands at row `names_MK[j, b]`: it gives the same IDs, called by their names. Whatever was trained on the old
    numbering (a recommender's token tables, a schedule's usage) does not fit it: rename before that training."""
    renamed = copy.deepcopy(tok)
    with torch.no_grad():
        for level, names in enumerate(names_MK):
            renamed.codebooks[level, torch.from_numpy(names).to(tok.codebooks.device)] = tok.codebooks[level]
    return renamed
