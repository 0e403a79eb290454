"""Vectors that the user brings: nothing is fitted but their width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from diger_core.errors import DigerError
from diger_core.item_ids import require_all
from orchestration.features.encoders.base import EncoderState


class GivenVectors:
    """Knows the width that the first snapshot's vectors had, and holds later ones to it."""

    def __init__(self, width: int) -> None:
        self._width = width

    @property
    def width(self) -> int:
        return self._width

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        raise DigerError("embeddings.encoder=vectors takes its vectors from vectors.parquet and cannot encode texts")

    def state(self) -> EncoderState:
        return EncoderState({"encoder": "vectors", "width": self._width})

    def align(self, vectors: pa.Table, item_ids: pa.ChunkedArray) -> np.ndarray:
        """`vectors` (item_id, vector) in the order of `item_ids` -> float32 [N, D]. Raises DigerError where one is missing or of another width."""
        remedy = "add its vector, or use another embeddings.encoder"
        row_N = require_all(item_ids, vectors.column("item_id"), what="items", table="vectors.parquet", remedy=remedy)
        matrix_ND = as_matrix(vectors)
        if matrix_ND.shape[1] != self._width:
            raise DigerError(
                f"vectors.parquet: column vector has width {matrix_ND.shape[1]}, but the encoder was fitted with width {self._width}: "
                "bring vectors of that width, or set embeddings.refit=true"
            )
        given_ND: np.ndarray = matrix_ND[row_N]
        return given_ND


def fit(vectors: pa.Table) -> GivenVectors:
    """Take the width from `vectors` (item_id, vector)."""
    return GivenVectors(as_matrix(vectors).shape[1])


def load(state: EncoderState) -> GivenVectors:
    return GivenVectors(int(state.document["width"]))


def as_matrix(vectors: pa.Table) -> np.ndarray:
    """Column `vector` (list or fixed-size list of numbers) -> float32 [rows, D]. Raises DigerError where the widths differ."""
    import pyarrow.compute as pc

    column = vectors.column("vector").combine_chunks()
    lengths = pc.list_value_length(column)
    low_high = pc.min_max(lengths).as_py()
    if len(column) == 0 or not low_high["max"]:
        raise DigerError("vectors.parquet holds no vectors: bring one for each item, or use another embeddings.encoder")
    width = int(low_high["max"])
    if low_high["min"] != width or column.null_count:
        row = int(pc.index(pc.fill_null(pc.equal(lengths, width), False), False).as_py())
        item = vectors.column("item_id")[row].as_py()
        raise DigerError(
            f"vectors.parquet, row {row}, item {item!r}: the vector has not the width {width} of the others: make all of them equally wide"
        )
    flat = pc.list_flatten(column)
    if flat.null_count:
        raise DigerError("vectors.parquet: a vector holds a null: fill it, or drop the item")
    matrix_ND: np.ndarray = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), width)
    return matrix_ND
