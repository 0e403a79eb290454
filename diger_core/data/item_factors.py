"""Collaborative item factors: truncated SVD of the PPMI matrix of training events, to stand beside the text vectors.

Two items co-occur where they lie at most `window` training events apart in one user's sequence; a co-occurrence at distance t weighs 1/t.
With c_ij the symmetric weights, r_i their row sums and c their total:  PPMI_ij = max(0, log(c_ij c / (r_i r_j)))  (Levy and Goldberg, 2014).
Factors are U sqrt(S) of its rank-`width` SVD, each row scaled to length 1. Validation and test events are never looked at.
Memory grows with the distinct pairs and N x width, never with N x N.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diger_core.data.sequences import Float32, Sequences
from diger_core.data.splits import training_mask

OVERSAMPLING = 16  # extra directions of the randomised SVD
POWER_ITERATIONS = 4


def item_factors(seq: Sequences, width: int, seed: int, window: int = 5) -> Float32:
    """[N, width] float32: rows of length 1; items without co-occurrences get zeros, and so do directions that a small catalogue lacks.

    The same sequences and seed give the same factors; each direction's largest entry is positive.
    """
    factors_Nw = np.zeros((seq.items, width), dtype=np.float32)
    ppmi = _ppmi(*co_occurrences(seq, window), seq.items)
    if ppmi is None or width == 0:
        return factors_Nw
    found_Nk = _truncated_svd(ppmi, min(width, seq.items), seed)
    length_N1 = np.linalg.norm(found_Nk, axis=1, keepdims=True)
    factors_Nw[:, : found_Nk.shape[1]] = found_Nk / np.where(length_N1 > 1e-9, length_N1, np.inf)
    return factors_Nw


def co_occurrences(seq: Sequences, window: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(keys i * N + j, sorted; their weights): of two training events of one user i is the smaller item.

    Repetitions of an item are none. One pass for each distance, so memory stays near that of the events.
    """
    training_E = training_mask(seq)
    user_e = np.repeat(np.arange(seq.users, dtype=np.int32), np.diff(seq.offsets_U1))[training_E]
    events_e = seq.events_E[training_E].astype(np.int64)
    keys: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
    weights: npt.NDArray[np.float64] = np.empty(0)
    for distance in range(1, window + 1):
        first, second = events_e[:-distance], events_e[distance:]
        pair = (user_e[:-distance] == user_e[distance:]) & (first != second)
        first, second = np.minimum(first[pair], second[pair]), np.maximum(first[pair], second[pair])
        keys, inverse = np.unique(np.concatenate((keys, first * seq.items + second)), return_inverse=True)
        weights = np.bincount(inverse, np.concatenate((weights, np.full(len(first), 1.0 / distance))), minlength=len(keys)).astype(np.float64)
    return keys, weights


def _ppmi(keys_P: npt.NDArray[np.int64], weights_P: npt.NDArray[np.float64], items: int) -> Tensor | None:
    """The symmetric sparse CSR matrix [N, N] in float64, or None where it has no positive entry."""
    row_2P = np.concatenate((keys_P // items, keys_P % items))
    column_2P = np.concatenate((keys_P % items, keys_P // items))
    weight_2P = np.concatenate((weights_P, weights_P))
    sums_N = np.bincount(row_2P, weight_2P, minlength=items)
    value_2P = np.log(weight_2P * sums_N.sum() / (sums_N[row_2P] * sums_N[column_2P]))
    positive = value_2P > 0
    if not positive.any():
        return None
    row_p, column_p, value_p = row_2P[positive], column_2P[positive], value_2P[positive]
    order_p = np.lexsort((column_p, row_p))
    first_N1 = np.searchsorted(row_p[order_p], np.arange(items + 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(first_N1),
            torch.from_numpy(column_p[order_p]),
            torch.from_numpy(value_p[order_p]),
            size=(items, items),
            check_invariants=True,
        )


def _truncated_svd(matrix: Tensor, width: int, seed: int) -> npt.NDArray[np.float64]:
    """U sqrt(S) [N, width] of a symmetric sparse matrix, by subspace iteration from a seeded start (Halko, Martinsson and Tropp, 2011)."""
    items = matrix.shape[0]
    start = np.random.default_rng(seed).standard_normal((items, min(items, width + OVERSAMPLING)))
    basis = torch.linalg.qr(matrix @ torch.from_numpy(start)).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix @ basis).Q
    small, strength, _ = torch.linalg.svd((matrix @ basis).T, full_matrices=False)
    left = (basis @ small)[:, :width]
    largest = left.abs().argmax(dim=0)
    sign = torch.where(left[largest, torch.arange(left.shape[1])] < 0, -1.0, 1.0)
    factors_NF: npt.NDArray[np.float64] = (left * sign * strength[:width].sqrt()).numpy()
    return factors_NF
