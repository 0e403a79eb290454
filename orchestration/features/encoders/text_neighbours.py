"""Neighbours by text: cosine of TF-IDF rows (sublinear), the nearest of each item. Sparse throughout: time grows with the pairs that share a term."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diger_core.config import NeighboursConfig
from diger_core.data.neighbours import ItemTable, empty_table, strongest

COMMONEST = 2_500  # items; a term that more of them have costs much and tells little
ROWS = 2_048  # items whose neighbours are found at once


def text_neighbours(texts: Sequence[str], config: NeighboursConfig) -> ItemTable:
    """The `text_keep` nearest items of each of the `texts` [N]; an item without a term that others share has none."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    most = max(2, min(COMMONEST, round(config.text_max_df * len(texts))))
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32, min_df=2, max_df=most)
    if config.text_keep == 0:
        return empty_table(len(texts))
    try:
        rows_NT = vectorizer.fit_transform(texts).tocsr()
    except ValueError:  # sklearn's "no terms remain": nothing is shared
        return empty_table(len(texts))
    terms_TN = rows_NT.T.tocsr()
    parts = []
    for start in range(0, len(texts), ROWS):
        product = rows_NT[start : start + ROWS] @ terms_TN
        product.sort_indices()
        near = product.tocoo()
        other = near.col != near.row + start
        parts.append(strongest(near.row[other].astype(np.int64), near.col[other].astype(np.int32), near.data[other], near.shape[0], config.text_keep))
    counts_N, items_P, weights_P = (np.concatenate(part) for part in zip(*parts, strict=True))
    return ItemTable(np.r_[0, np.cumsum(counts_N)].astype(np.int64), items_P, weights_P)
