"""The starting bundle: which bundle a snapshot's run starts from and is compared with. Its input and key are named `baseline`.

By default that is the champion of the moment when the first stage that needs it was materialised for this snapshot: a create-once pointer keeps it
(`pointers/baseline/<snapshot key>.json`), so that the same run, given again after its own release, finds the same keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from diger_core.errors import DigerError
from diger_core.item_ids import Ids, index_of
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store

if TYPE_CHECKING:
    from torch import Tensor

    from diger_core.ids.id_table import IdTable
    from orchestration.champion.bundle import Bundle
    from orchestration.engine.registry import Registered
    from orchestration.params.sections import Params

BASELINE = "baseline"  # the input's name, and the pointers' kind
CLASH = "item_id: the snapshot holds {0}, the starting bundle {1}: keep one type, or set retraining.baseline=none"


def extra_inputs(params: Params, store: Store, inputs: Mapping[str, Artefact], snapshot: Registered, fit: bool) -> dict[str, Artefact] | None:
    """{"baseline": bundle}, {} where there is none, or None where that was not decided yet and `fit` is off."""
    chosen = params.retraining.baseline
    if chosen == "none":
        return {}
    if chosen != "champion":
        return {BASELINE: find_bundle(store, chosen)}
    return champion_at_arrival(store, snapshot, fit)


def champion_input(params: Params, store: Store, inputs: Mapping[str, Artefact], snapshot: Registered, fit: bool) -> dict[str, Artefact] | None:
    """Of `cold_start`: {"champion": the bundle that the snapshot found}, {} where there was none."""
    found = champion_at_arrival(store, snapshot, fit)
    return None if found is None else {"champion": found[BASELINE]} if found else {}


def continues(params: Params, store: Store, snapshot: Registered) -> bool:
    """Whether a training on this snapshot starts warm, from a bundle that is there now."""
    if params.retraining.start != "warm":
        return False
    found = extra_inputs(params, store, {}, snapshot, fit=False)
    if found is not None:
        return bool(found)
    from orchestration.champion.log import current

    return current(store) is not None


def champion_at_arrival(store: Store, snapshot: Registered, fit: bool) -> dict[str, Artefact] | None:
    """The champion that the snapshot found: kept by its pointer, which is made here where `fit` is on."""
    pointer = store.pointer(BASELINE, snapshot.key)
    if pointer is None and fit:
        from orchestration.champion.log import current

        entry = current(store)
        pointer = store.create_pointer(BASELINE, snapshot.key, {"bundle": entry.bundle if entry else None})
    if pointer is None:
        return None
    if pointer["bundle"] is None:
        return {}
    found = store.find("bundle", pointer["bundle"])
    if found is None:
        raise DigerError(
            f"bundle {pointer['bundle'][:12]}, the starting bundle of snapshot {snapshot.key}, is not in the store: restore it (dvc pull), "
            "or set retraining.baseline to another bundle or to none"
        )
    return {BASELINE: found}


def find_bundle(store: Store, name: str) -> Artefact:
    """The bundle that `name`, a hash or the beginning of one, names."""
    found = [hash_ for hash_ in store.root.list("artefacts", "bundle") if hash_.startswith(name)]
    if len(found) != 1:
        why = "no bundle's hash begins" if not found else f"{len(found)} bundles' hashes begin"
        raise DigerError(f"{store.url}: {why} with {name!r}: give more of it (diger champion --history lists those that were released)")
    return store.artefact("bundle", found[0])


# What a retraining takes over


def released_table(bundle: Bundle, item_ids: Ids) -> IdTable:
    """The bundle's ID table in the order of `item_ids` [N], -1 in the rows of items that it lacks."""
    import torch

    from diger_core.ids.id_table import IdTable

    row_N, known_N = _rows(bundle, item_ids)
    codes = torch.where(known_N[:, None], bundle.table.codes_NM[row_N], -1)
    return IdTable(codes.to(torch.int32), torch.where(known_N, bundle.table.suffix_N[row_N], -1).to(torch.int32))


def kept_factors(bundle: Bundle, item_ids: Ids) -> Tensor:
    """float32 [N, F]: the bundle's item factors, zeros for items that it lacks."""
    import torch

    row_N, known_N = _rows(bundle, item_ids)
    return torch.where(known_N[:, None], bundle.factors_NF[row_N], torch.zeros(()))


def reserved_tuples(bundle: Bundle) -> Tensor:
    """int32 [R, M+1]: every tuple that the bundle's and earlier released tables gave out."""
    import torch

    return torch.from_numpy(np.unique(np.concatenate([bundle.reserved_RQ, bundle.table.tuples.numpy()]), axis=0).astype(np.int32))


def _rows(bundle: Bundle, item_ids: Ids) -> tuple[Tensor, Tensor]:
    import torch

    row_N = torch.from_numpy(index_of(item_ids, bundle.item_ids, clash=CLASH))
    return row_N.clamp_min(0), row_N >= 0
