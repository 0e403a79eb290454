"""The table of semantic IDs: (c_1, .., c_M, suffix) for every item (docs/method.md, section 5).

Codes are read off the codebooks by plain argmin (or whole-catalogue Sinkhorn, for comparison). The suffix tells apart items on one prefix
(c_1, .., c_M) and is a function of the previous table and the items alone:

- kept while the item's prefix is unchanged;
- otherwise the lowest suffix of the prefix that no kept item holds and no released table has used, items taken in the order of SHA-256(item id).

A table that follows a released one is held to it as `stability` says, and an item on its released prefix has its released suffix.

Shapes: N items, M levels, K codes, S suffix values, R tuples of released tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diger_core.config import TableConfig
from diger_core.errors import DigerError
from diger_core.ids.notation import checked
from diger_core.ids.stability import Hold, held_codes
from diger_core.item_ids import Ids
from diger_core.store.content_hash import table_hash
from diger_core.tokenizer.rqvae import Tokenizer

_SPAN = 1 << 31  # a prefix key and a suffix share one int64: both stay below this


@dataclass(frozen=True)
class IdTable:
    """codes_NM int32 [N, M] and suffix_N int32 [N], in the order of the catalogue's items."""

    codes_NM: Tensor
    suffix_N: Tensor

    @property
    def tuples(self) -> Tensor:
        """[N, M + 1] int32: codes and suffix side by side."""
        return torch.cat([self.codes_NM, self.suffix_N[:, None]], 1)

    def duplicates(self) -> int:
        """Items whose full tuple another item holds too, beyond the first of each: 0 in a sound table."""
        keys = _prefix_keys(self.codes_NM) * _SPAN + self.suffix_N.long()
        return len(keys) - len(torch.unique(keys))

    def to(self, device: torch.device | str) -> IdTable:
        return IdTable(self.codes_NM.to(device), self.suffix_N.to(device))


@torch.no_grad()
def argmin_codes(tok: Tokenizer, vectors_or_z: Tensor, chunk: int = 65_536, *, encoded: bool = False) -> Tensor:
    """Plain argmin codes, int32 [N, M] on the tokenizer's device. Takes vectors [N, D], or z [N, d_e] with `encoded=True`; `chunk` bounds memory."""
    return torch.cat([tok.quantise(_z(tok, rows, encoded)).to(torch.int32) for rows in vectors_or_z.split(chunk)])


def _z(tok: Tokenizer, rows: Tensor, encoded: bool) -> Tensor:
    wanted = tok.config.code_dim if encoded else tok.dim
    if rows.shape[1] != wanted:
        raise DigerError(
            f"{'encoded items' if encoded else 'vectors'}: width {rows.shape[1]}, the tokenizer was fitted to {wanted}: use its own encoder"
        )
    rows = rows.to(tok.alpha.device, torch.float32)
    return rows if encoded else tok.encode(rows)


def _all_z(tok: Tokenizer, vectors_or_z: Tensor, encoded: bool, chunk: int) -> Tensor:
    """z of the whole catalogue; without a copy where it is given."""
    return _z(tok, vectors_or_z, True) if encoded else torch.cat([_z(tok, rows, False) for rows in vectors_or_z.split(chunk)])


@torch.no_grad()
def sinkhorn_codes(
    tok: Tokenizer, vectors_or_z: Tensor, epsilon: float = 0.003, iterations: int = 50, chunk: int = 65_536, *, encoded: bool = False
) -> Tensor:
    """Codes int32 [N, M] with every level's usage balanced over the whole catalogue: argmax of the transport plan between items (weight 1/N) and
    codes (weight 1/K) for the squared distances, scaled per level to [-1, 1], at temperature epsilon.

    An item's code then depends on which other items exist, and the balance hides a collapse: monitor the argmin table in any case. In the log domain
    with dual potentials, so epsilon 0.003 neither overflows nor needs an [N, K] plan in memory."""
    residual = _all_z(tok, vectors_or_z, encoded, chunk)
    codes = []
    for level in range(tok.levels):
        codes.append(_sinkhorn_level(tok, level, residual, epsilon, iterations, chunk))
        residual = residual - tok.codebooks[level][codes[-1]]
    return torch.stack(codes, 1).to(torch.int32)


def _sinkhorn_level(tok: Tokenizer, level: int, residual_Ne: Tensor, epsilon: float, iterations: int, chunk: int) -> Tensor:
    def distances(rows: Tensor) -> Tensor:
        return rows.square().sum(1, keepdim=True) - tok.scores(level, rows)

    parts = residual_Ne.split(chunk)
    low = torch.stack([distances(rows).min() for rows in parts]).min()
    high = torch.stack([distances(rows).max() for rows in parts]).max()
    middle, half = (low + high) / 2, ((high - low) / 2).clamp(min=1e-12)

    def logits(rows: Tensor) -> Tensor:
        return (middle - distances(rows)) / (half * epsilon)

    v_K = torch.zeros(tok.codes, device=residual_Ne.device)
    for _ in range(iterations):
        sums = []  # per chunk: log of each code's mass after the items' marginals were met
        for rows in parts:
            s = logits(rows)
            sums.append(torch.logsumexp(s - torch.logsumexp(s + v_K, 1, keepdim=True), 0))
        v_K = -torch.logsumexp(torch.stack(sums), 0)  # the constant log(N / K) moves no argmax
    return torch.cat([(logits(rows) + v_K).argmax(1) for rows in parts])


def _id_bytes(item_ids: Ids | Sequence[int | str]) -> list[bytes]:
    """b"i:" + decimal for integers, b"s:" + UTF-8 for strings, so that 7 and "7" are two items."""
    array = item_ids if isinstance(item_ids, pa.Array | pa.ChunkedArray) else pa.array(list(item_ids))
    if pa.types.is_integer(array.type):
        return [b"i:%d" % v for v in array.to_pylist()]
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        return [b"s:" + v.encode() for v in array.to_pylist()]
    raise DigerError(f"item_id: type {array.type}, wanted integers or strings: convert the column")


def item_hash_order(item_ids: Ids | Sequence[int | str]) -> Tensor:
    """Row numbers in the order of SHA-256(item id), int64 [N]: an order that belongs to the items, not to their rows. About 1 s per million items:
    compute it once per catalogue."""
    sha256 = hashlib.sha256
    digests = np.frombuffer(b"".join([sha256(b).digest() for b in _id_bytes(item_ids)]), dtype=">u8").reshape(-1, 4)
    return torch.from_numpy(np.lexsort(digests.T[::-1]).astype(np.int64))


def _prefix_keys(*tables_NM: Tensor) -> Tensor:
    """One int64 below 2^31 per row of the tables one under the other; equal exactly for equal prefixes. Packed digits where they fit, else
    ranks level by level."""
    codes = torch.cat([t.long() for t in tables_NM])
    if codes.numel() == 0:
        return codes.new_zeros(len(codes))
    base = int(codes.max()) + 1
    key = codes[:, 0]
    for level in range(1, codes.shape[1]):
        if base ** (level + 1) >= _SPAN:
            key = torch.unique(key, return_inverse=True)[1]
        key = key * base + codes[:, level]
    return torch.unique(key, return_inverse=True)[1] if base ** codes.shape[1] >= _SPAN else key


def _first_of_each(keys: Tensor, rank: Tensor) -> Tensor:
    """Mask of the row with the lowest rank among those with an equal key."""
    order = torch.argsort(rank)
    order = order[torch.argsort(keys[order], stable=True)]
    first = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    first[order[1:]] = keys[order[1:]] != keys[order[:-1]]
    return first


def _position_in_run(sorted_keys: Tensor) -> Tensor:
    """0, 1, 2, ... within each run of equal keys."""
    index = torch.arange(len(sorted_keys), device=sorted_keys.device)
    starts = torch.searchsorted(sorted_keys, sorted_keys)  # left: where the row's run begins
    return index - starts


def stable_suffixes(
    codes_NM: Tensor,
    order_N: Tensor,
    previous: tuple[Tensor, Tensor] | None = None,
    reserved: Tensor | None = None,
    *,
    suffixes: int,
    on_overflow: Literal["alarm", "error"] = "alarm",
) -> tuple[Tensor, int]:
    """(suffix int32 [N], number of items that found no free suffix below S).

    previous: (codes [N, M], suffix [N]) of the same items, -1 where an item is new. reserved: [R, M + 1] tuples of released tables, in any order,
    repetitions allowed. Items beyond S get their suffix modulo S: deterministic, but no longer unique, which the second value reports;
    `on_overflow="error"` raises DigerError instead, naming the prefix and the count.
    """
    device, items = codes_NM.device, len(codes_NM)
    released = torch.empty((0, codes_NM.shape[1] + 1), dtype=torch.int64, device=device) if reserved is None else reserved.to(device).long()
    keys = _prefix_keys(codes_NM, released[:, :-1])
    key_N, key_R = keys[:items], keys[items:]
    rank_N = torch.empty(items, dtype=torch.int64, device=device)
    rank_N[order_N.to(device)] = torch.arange(items, device=device)

    suffix = torch.zeros(items, dtype=torch.int64, device=device)
    kept = torch.zeros(items, dtype=torch.bool, device=device)
    if previous is not None:
        previous_codes, previous_suffix = previous[0].to(device), previous[1].to(device).long()
        rows = ((previous_codes == codes_NM).all(1) & (previous_suffix >= 0) & (previous_suffix < suffixes)).nonzero()[:, 0]
        # an overflown table repeats tuples: the first in the order of hashes keeps its own, the others look for another
        rows = rows[_first_of_each(key_N[rows] * _SPAN + previous_suffix[rows], rank_N[rows])]
        kept[rows] = True
        suffix[rows] = previous_suffix[rows]

    taken = torch.unique(torch.cat([key_N[kept] * _SPAN + suffix[kept], key_R * _SPAN + released[:, -1]]))
    movers = order_N.to(device)[~kept[order_N.to(device)]]
    movers = movers[torch.argsort(key_N[movers], stable=True)]
    suffix[movers] = _lowest_free(taken, key_N[movers])
    over = suffix >= suffixes
    overflow = int(over.sum())
    if overflow and on_overflow == "error":
        _raise_overflow(codes_NM, key_N, key_R, released[:, -1], over, suffixes)
    return (suffix % suffixes).to(torch.int32), overflow


def _lowest_free(taken: Tensor, key_sorted: Tensor) -> Tensor:
    """For the r-th row of each key its r-th free suffix. `taken`: sorted, distinct key * 2^31 + suffix; key_sorted: sorted.

    With t_0 < t_1 < .. taken of one key, t_i - i free values lie below t_i; so the r-th free value is r + #{i: t_i - i <= r}."""
    r = _position_in_run(key_sorted)
    taken_key = taken // _SPAN
    free_below = taken % _SPAN - _position_in_run(taken_key)
    before = torch.searchsorted(taken_key, key_sorted)
    through = torch.searchsorted(taken_key * _SPAN + free_below, key_sorted * _SPAN + r, right=True)
    return r + through - before


def _raise_overflow(codes_NM: Tensor, key_N: Tensor, key_R: Tensor, suffix_R: Tensor, over: Tensor, suffixes: int) -> None:
    key = key_N[over].mode().values
    prefix = tuple(codes_NM[(key_N == key).nonzero()[0, 0]].tolist())
    count, released = int((key_N == key).sum()), len(torch.unique(suffix_R[key_R == key]))
    raise DigerError(
        f"ID table: {count} items share the prefix {prefix}, released tables reserve {released} tuples of it, and there are only "
        f"{suffixes} suffixes: raise tokenizer.suffixes, or train a tokenizer that tells these items apart"
    )


def refresh(
    tok: Tokenizer,
    vectors_or_z: Tensor,
    order_N: Tensor,
    *,
    suffixes: int,
    previous: tuple[Tensor, Tensor] | None = None,
    reserved: Tensor | None = None,
    config: TableConfig | None = None,
    on_overflow: Literal["alarm", "error"] = "alarm",
    encoded: bool = False,
    released: IdTable | None = None,
    held: Hold | None = None,
) -> tuple[IdTable, int]:
    """The catalogue's table by the present codebooks, noise-free, and the number of items without a suffix of their own (0 in a sound table).

    previous: (codes, suffix) of the epoch before. released: the last released table of these items, -1 in the rows of new ones: codes are `held` to
    it, an item on its released prefix has its released suffix, whatever it had in between, and no other item gets any of its tuples.
    """
    codes_NM = _codes(tok, vectors_or_z, config or TableConfig(), encoded, released, held)
    if released is not None:
        previous, reserved = _with_released(codes_NM, released, previous, reserved)
    suffix_N, overflow = stable_suffixes(codes_NM, order_N, previous, reserved, suffixes=suffixes, on_overflow=on_overflow)
    table = IdTable(codes_NM, suffix_N)
    if not overflow and (shared := table.duplicates()):
        raise DigerError(f"ID table: {shared} items share their whole ID with another after the table was made: this is a fault of diger, report it")
    return table, overflow


def _codes(tok: Tokenizer, vectors_or_z: Tensor, config: TableConfig, encoded: bool, released: IdTable | None, held: Hold | None) -> Tensor:
    if released is not None and held is not None and held.mode != "free":
        if config.method == "sinkhorn":
            raise DigerError("semantic_ids.method=sinkhorn cannot hold IDs: set it to argmin, or retraining.stability.mode=free")
        z_Ne = _all_z(tok, vectors_or_z, encoded, config.chunk)
        return held_codes(tok, z_Ne, released.codes_NM, held, config.chunk)
    if config.method == "sinkhorn":
        return sinkhorn_codes(tok, vectors_or_z, config.sinkhorn_epsilon, config.sinkhorn_iterations, config.chunk, encoded=encoded)
    return argmin_codes(tok, vectors_or_z, config.chunk, encoded=encoded)


def _with_released(
    codes_NM: Tensor, released: IdTable, previous: tuple[Tensor, Tensor] | None, reserved: Tensor | None
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """(previous, reserved) for `stable_suffixes`: an item on its released prefix has its released tuple, any other that of the epoch before."""
    released = released.to(codes_NM.device)
    tuples_RQ = released.tuples[(released.suffix_N >= 0) & (released.codes_NM >= 0).all(1)].long()
    reserved = tuples_RQ if reserved is None else torch.cat([reserved.to(codes_NM.device).long(), tuples_RQ])
    if previous is None:
        return (released.codes_NM, released.suffix_N), reserved
    back_N = (released.codes_NM == codes_NM).all(1)
    suffix_N = torch.where(back_N, released.suffix_N, previous[1].to(codes_NM.device))
    return (torch.where(back_N[:, None], released.codes_NM, previous[0].to(codes_NM.device)), suffix_N), reserved


def to_arrow(item_ids: Ids | Sequence[int | str], table: IdTable) -> pa.Table:
    """item_id, code_1 .. code_M (int32), suffix (int32), in the order given."""
    ids = item_ids if isinstance(item_ids, pa.Array | pa.ChunkedArray) else pa.array(list(item_ids))
    codes, suffix = table.codes_NM.to("cpu", torch.int32).numpy(), table.suffix_N.to("cpu", torch.int32).numpy()
    if len(ids) != len(codes):
        raise DigerError(f"ID table: {len(codes)} rows for {len(ids)} item ids: take both from one run")
    columns = {f"code_{j + 1}": pa.array(np.ascontiguousarray(codes[:, j])) for j in range(codes.shape[1])}
    return pa.table({"item_id": ids, **columns, "suffix": pa.array(suffix)})


def from_arrow(table: pa.Table) -> tuple[pa.ChunkedArray, IdTable]:
    """(item ids, table) of what `to_arrow` wrote, rows in the file's order. Verified here, once: DigerError where a column is
    missing or holds a null, and for an item that stands in it twice."""
    item_ids, codes_NM, suffix_N = checked(table)
    return item_ids, IdTable(torch.from_numpy(codes_NM), torch.from_numpy(suffix_N))


def assignment_hash(item_ids: Ids | Sequence[int | str], table: IdTable) -> str:
    """SHA-256 of the table's canonical content: equal for equal assignments, whatever the order of the rows or the device."""
    return table_hash(to_arrow(item_ids, table), sort_by=("item_id",))
