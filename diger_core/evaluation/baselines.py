"""What every model must beat: the most popular items, and what most often follows the user's last item.

Both learn from training events only and rank all N items. T users, k places; -1 where the catalogue has fewer than k items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diger_core.data.sequences import Int64, Sequences
from diger_core.data.splits import training_counts, training_mask

Items = npt.NDArray[np.int32]
CHUNK = 8192  # users ranked at once


def popularity_order(seq: Sequences) -> Items:
    """[N]: all items by falling number of training events, then by index."""
    return np.argsort(-training_counts(seq), kind="stable").astype(np.int32)


def most_popular(seq: Sequences, users_T: Int64, end_T: Int64, k: int) -> Items:
    """[T, k] int32: the same k most popular items for everybody."""
    return np.tile(_padded(popularity_order(seq), k), (len(users_T), 1))


def markov(seq: Sequences, users_T: Int64, end_T: Int64, k: int) -> Items:
    """[T, k] int32: items by how often they directly followed the history's last item in training events, then by popularity.

    Ties and all items that never followed it are ordered by popularity (the back-off), then by index.
    """
    first_N1, next_P, keys_P = _transitions(seq)
    popular_k = _padded(popularity_order(seq), k)
    ranked_Tk = np.empty((len(end_T), k), dtype=np.int32)
    for start in range(0, len(end_T), CHUNK):
        last_t = seq.events_E[end_T[start : start + CHUNK] - 1]
        place_tk = first_N1[last_t][:, None] + np.arange(k)
        known_tk = place_tk < first_N1[last_t + 1][:, None]
        followers_tk = np.where(known_tk, next_P[np.where(known_tk, place_tk, 0)], -1)
        # A popular item that is some follower, too: it has its place already, or followers alone fill all k places.
        key_tk = last_t[:, None].astype(np.int64) * seq.items + popular_k
        repeated_tk = keys_P[np.searchsorted(keys_P, key_tk)] == key_tk
        both_t2k = np.concatenate((followers_tk, np.where(repeated_tk, -1, popular_k)), axis=1)
        ranked_Tk[start : start + CHUNK] = compacted(both_t2k, k)
    return ranked_Tk


def compacted(items_Tx: Items, k: int) -> Items:
    """[T, k]: the first k entries of each row that are not -1, in their order, then -1."""
    order_Tx = np.argsort(items_Tx < 0, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(items_Tx, order_Tx, axis=1)


def _transitions(seq: Sequences) -> tuple[Int64, Items, Int64]:
    """(first [N + 1], next [P + 1], keys [P + 1]): the items that followed item i, most frequent first, are next[first[i]:first[i + 1]].

    keys: i * N + j of every transition i, j, sorted. Both lists end with one entry that stands for nothing.
    """
    user_E = np.repeat(np.arange(seq.users, dtype=np.int32), np.diff(seq.offsets_U1))
    mask_E = training_mask(seq)
    pair_e = mask_E[1:] & mask_E[:-1] & (user_E[1:] == user_E[:-1])
    keys_P, counts_P = np.unique(seq.events_E[:-1][pair_e].astype(np.int64) * seq.items + seq.events_E[1:][pair_e], return_counts=True)
    source_P, next_P = keys_P // seq.items, keys_P % seq.items
    place_N = np.empty(seq.items, dtype=np.int64)
    place_N[popularity_order(seq)] = np.arange(seq.items)
    order_P = np.lexsort((place_N[next_P], -counts_P, source_P))
    first_N1 = np.searchsorted(source_P[order_P], np.arange(seq.items + 1))
    return first_N1, np.append(next_P[order_P], -1).astype(np.int32), np.append(keys_P, np.iinfo(np.int64).max)


def _padded(items_n: Items, k: int) -> Items:
    return np.concatenate((items_n[:k], np.full(max(k - len(items_n), 0), -1, dtype=np.int32)))
