"""Semantic IDs for new items under a bundle's tokenizer, without training. No ID that the bundle has given out changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable, argmin_codes, assignment_hash, item_hash_order, stable_suffixes, to_arrow
from diger_core.item_ids import Ids, as_type, index_of, require_unique
from diger_core.training.table_refresh import suffix_values
from orchestration.champion.baseline import CLASH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from orchestration.champion.bundle import Bundle
    from orchestration.features.encoders import EmbeddingsConfig


_NO_LIMIT = 1 << 30


@dataclass(frozen=True)
class Child:
    """The bundle's whole table with the new items behind it. `item_ids` [N] are in canonical order, `new_N` marks the new ones; `z_Ne`: the encoded
    items, where the bundle's model reads them; `no_room`: new items that got no ID, because their prefix has no suffix left."""

    item_ids: pa.Array
    table: IdTable
    new_N: np.ndarray
    z_Ne: Tensor | None = None
    no_room: int = 0

    @property
    def assignment(self) -> str:
        return assignment_hash(self.item_ids, self.table)

    def arrow(self, *, new_only: bool = False) -> pa.Table:
        """item_id, code_1..code_M, suffix."""
        rows = to_arrow(self.item_ids, self.table)
        return rows.filter(pa.array(self.new_N)) if new_only else rows


def new_item_mask(bundle: Bundle, item_ids: Ids) -> np.ndarray:
    """bool [N]: the bundle's table lacks the item."""
    return index_of(item_ids, bundle.item_ids, clash=CLASH) < 0


def child_assignment(bundle: Bundle, item_ids: Ids, vectors_ND: np.ndarray) -> Child:
    """The child of the bundle's assignment: codes of the items that it lacks by plain argmin, each with the lowest suffix of its prefix that no
    item holds and no released table has used, in the order of SHA-256(item id). Nobody bought a new item yet: its factors are zeros. Items beyond
    the suffixes of their prefix (equal texts, or none at all) get no ID: they wait for a retraining, and the others do not wait for them.

    item_ids [n] may name known items; vectors_ND float32 [n, D] of the bundle's encoder.
    """
    import torch

    mask = new_item_mask(bundle, item_ids)
    new_ids = as_type(item_ids, bundle.item_ids.type, clash=CLASH).filter(pa.array(mask))
    require_unique(new_ids, what="cold start, new items", remedy="keep one row for each item")
    tok, factors = bundle.tokenizer, bundle.factors_NF.shape[1]
    if vectors_ND.shape[1] + factors != tok.dim:
        raise DigerError(
            f"cold start: vectors of width {vectors_ND.shape[1]}, bundle {bundle.hash[:12]} reads {tok.dim - factors}: use its own encoder"
        )
    inputs = torch.cat([torch.from_numpy(np.ascontiguousarray(vectors_ND[mask], dtype=np.float32)), torch.zeros((len(new_ids), factors))], dim=1)
    codes = argmin_codes(tok, inputs) if len(new_ids) else torch.empty((0, tok.levels), dtype=torch.int32)
    ids = pa.concat_arrays([bundle.item_ids.combine_chunks(), new_ids])
    rows = torch.from_numpy(pc.sort_indices(ids).to_numpy().astype(np.int64))
    known = torch.cat([bundle.table.suffix_N, torch.full((len(new_ids),), -1, dtype=torch.int32)])
    codes_NM = torch.cat([bundle.table.codes_NM, codes])
    reserved, order_N = torch.from_numpy(bundle.reserved_RQ.astype(np.int64)), item_hash_order(ids)
    suffix_N, _ = stable_suffixes(codes_NM, order_N, (codes_NM, known), reserved, suffixes=_NO_LIMIT)
    room_N = suffix_N < suffix_values(tok)
    rows = rows[room_N[rows]]  # in the order of hashes the last ones lack room: who has some is the same without them
    table = IdTable(codes_NM[rows], suffix_N[rows])
    new_N = (known[rows] < 0).numpy()
    child = Child(ids.take(pa.array(rows.numpy())), table, new_N, _encoded(bundle, inputs, rows), int((~room_N).sum()))
    known = known[rows]
    _assert_kept(bundle, child, known)
    return child


def _encoded(bundle: Bundle, inputs_nX: Tensor, rows_N: Tensor) -> Tensor | None:
    """z of the bundle's items and, behind them, of the new ones, in the order of `rows_N`; None where the model reads none."""
    import torch

    known = bundle.model.z_Ne
    if known is None:
        return None
    with torch.no_grad():
        return torch.cat([known, bundle.tokenizer.encode(inputs_nX)])[rows_N]


def _assert_kept(bundle: Bundle, child: Child, known_N) -> None:  # type: ignore[no-untyped-def]
    """No existing ID changed, and no full ID occurs twice."""
    old = known_N >= 0
    if not bool((child.table.suffix_N[old] == known_N[old]).all()) or int(old.sum()) != len(bundle.table.suffix_N):
        raise DigerError(f"cold start: an ID of bundle {bundle.hash[:12]} would change: its table repeats an ID; make the bundle again")
    if child.table.duplicates():
        raise DigerError(f"cold start: {child.table.duplicates()} items would share their ID with another: this is a fault of diger, report it")


def encode_new(bundle: Bundle, items: pa.Table, config: EmbeddingsConfig, vectors: pa.Table | None = None) -> tuple[pa.Array, np.ndarray]:
    """(ids, vectors float32 [n, D]) of the items that the bundle lacks, encoded in this process by the bundle's own encoder; `vectors` (item_id,
    vector) where that takes them from the snapshot."""
    from orchestration.features import encoders
    from orchestration.features.encoders.given import GivenVectors

    fresh = items.filter(pa.array(new_item_mask(bundle, items["item_id"])))
    ids = as_type(fresh["item_id"], bundle.item_ids.type, clash=CLASH)
    if not len(fresh):
        return ids, np.empty((0, bundle.tokenizer.dim - bundle.factors_NF.shape[1]), np.float32)
    encoder = encoders.load(config, bundle.encoder_state)
    if isinstance(encoder, GivenVectors):
        if vectors is None:
            raise DigerError(f"cold start: bundle {bundle.hash[:12]} takes vectors from the snapshot: give a snapshot with vectors.parquet")
        return ids, encoder.align(vectors, fresh["item_id"])
    texts: Sequence[str] = encoders.item_texts(fresh, config)
    return ids, encoder.encode(texts)
