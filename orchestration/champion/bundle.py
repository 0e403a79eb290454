"""A bundle: everything that serving needs, in one artefact, and a loader that refuses any mix of parts.

A model reads only the IDs that it was trained with, and an item's ID follows only from its own tokenizer, factors and encoder. So the parts name each
other: the table's assignment hash stands in the model file's header and in bundle.json, the hashes of encoder, factors and recipe in bundle.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import pyarrow as pa

from diger_core.errors import DigerError
from diger_core.evaluation.recipes import Fitted
from diger_core.ids.id_table import IdTable, assignment_hash, from_arrow
from diger_core.item_ids import index_of
from diger_core.store.artefact import Artefact, artefact_hash
from diger_core.store.artefacts import Store
from diger_core.store.content_hash import table_hash
from orchestration.champion.model_artefact import ASSIGNMENT, Model, load_model

if TYPE_CHECKING:
    from torch import Tensor

    from diger_core.recommender.model import Recommender
    from diger_core.tokenizer.rqvae import Tokenizer
    from orchestration.features.encoders import EncoderState

DOCUMENT, RESERVED, FACTORS = "bundle.json", "reserved.parquet", "factors.safetensors"
JUDGED = {"model.safetensors": "judged.safetensors", "config.json": "judged.json"}  # the joint model before its refit, which the gate judges
FUSION = "fusion.json"  # what the lists listen to
ENCODER_FILES = ("encoder.json", "encoder.safetensors")


class Reserved(TypedDict):
    """The table of tuples that released tables have given out and nobody holds: its file, canonical hash and number of rows."""

    file: str
    hash: str
    tuples: int


class Events(TypedDict):
    """How many events the bundle was made from, and the newest one's time in Unix seconds; null where they have none."""

    events: int
    last_event: int | None


class BundleDocument(Events):
    """bundle.json. `components`: stage -> hash of the artefact that the bundle's parts come from; `parent`: the bundle that training continued."""

    format: int
    assignment_hash: str
    parent: str | None
    parent_assignment: str | None
    components: dict[str, str]
    encoder_facts: dict[str, Any]
    factors: str
    fusion: str
    judged: str
    reserved: Reserved
    reused_tuples: int


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Rows of `table` and `factors_NF` are in the order of `item_ids` [N]."""

    artefact: Artefact
    document: BundleDocument
    model: Model
    reserved: pa.Table  # code_1..code_M, suffix: tuples of released tables that no item of this table holds

    @property
    def hash(self) -> str:
        return self.artefact.hash

    @property
    def recommender(self) -> Recommender:
        return self.model.recommender

    @property
    def tokenizer(self) -> Tokenizer:
        return self.model.tokenizer

    @property
    def table(self) -> IdTable:
        return self.model.table

    @property
    def item_ids(self) -> pa.ChunkedArray:
        return self.model.item_ids

    @property
    def assignment_hash(self) -> str:
        return self.document["assignment_hash"]

    @property
    def components(self) -> Mapping[str, str]:
        return self.document["components"]

    @cached_property
    def factors_NF(self) -> Tensor:
        """float32 [N, F]: the items' factors, which stand behind their vectors before the tokenizer."""
        return self.artefact.tensors(FACTORS)["factors"]

    @cached_property
    def judged(self) -> Model:
        """The model that verdicts are about: before it was trained on over all events."""
        return load_model(self.artefact, *(JUDGED[name] for name in ("model.safetensors", "config.json")))

    @cached_property
    def fitted(self) -> Fitted:
        """The recipe of the lists, and of the baselines that it was judged by."""
        return Fitted.from_document(self.artefact.json(FUSION))

    @cached_property
    def encoder_state(self) -> EncoderState:
        from orchestration.features.embeddings import read_state

        return read_state(self.artefact)

    @cached_property
    def reserved_RQ(self) -> np.ndarray:
        """int32 [R, M + 1]."""
        return tuples(self.reserved)


def load_bundle(store: Store, hash_: str) -> Bundle:
    """Opens the bundle, every file verified against the manifest; DigerError where one is missing or belongs to another bundle, naming both."""
    artefact = store.artefact("bundle", hash_)
    document: BundleDocument = artefact.json(DOCUMENT)
    item_ids, table = from_arrow(artefact.table("id_table.parquet"))
    found, trained = assignment_hash(item_ids, table), str(artefact.tensors_metadata("model.safetensors").get(ASSIGNMENT))
    if found != trained:
        raise _mixed(artefact, "id_table.parquet", found, "model.safetensors was trained with", trained, "one is older than the other")
    _same(artefact, "id_table.parquet", found, document["assignment_hash"])
    _same(artefact, JUDGED["model.safetensors"], _canonical(artefact, JUDGED["model.safetensors"]), document["judged"])
    _same(artefact, "factors.safetensors", _canonical(artefact, FACTORS), document["factors"])
    _same(artefact, FUSION, _canonical(artefact, FUSION), document["fusion"])
    _same(artefact, "encoder.json", encoder_hash(artefact, document["encoder_facts"]), document["components"]["encoder"])
    reserved = artefact.table(RESERVED)
    _same(artefact, RESERVED, table_hash(reserved, list(reserved.column_names)), document["reserved"]["hash"])
    bundle = Bundle(artefact, document, load_model(artefact), reserved)
    if len(bundle.factors_NF) != len(item_ids):
        raise DigerError(f"{artefact.directory}: factors of {len(bundle.factors_NF)} items, the table has {len(item_ids)}: run bundle again")
    return bundle


def encoder_hash(artefact: Artefact, facts: Mapping[str, Any]) -> str:
    """The hash that the encoder's own artefact has, from the copies of its files in the bundle."""
    files = [{"name": name, "canonical": _canonical(artefact, name)} for name in ENCODER_FILES if name in artefact.names]
    return artefact_hash("encoder", files, facts)


def _canonical(artefact: Artefact, name: str) -> str:
    """The canonical hash of a file whose bytes verify."""
    artefact.path(name)
    return str(artefact.files[name]["canonical"])


def _same(artefact: Artefact, name: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise _mixed(artefact, name, found, "bundle.json names", wanted, "a part of another bundle")


def _mixed(artefact: Artefact, name: str, found: str, who: str, wanted: str, what: str) -> DigerError:
    return DigerError(
        f"{artefact.directory}: mixed parts: {name} is {found[:12]}, but {who} {wanted[:12]} ({what}): "
        "roll back to a sound bundle, or remove this one and run bundle again"
    )


# Items and tuples of released tables


def tuples(table: pa.Table) -> np.ndarray:
    """int32 [R, M + 1] of the columns code_1 .. code_M, suffix."""
    names = tuple_columns(sum(name.startswith("code_") for name in table.column_names))
    return np.stack([table.column(name).to_numpy() for name in names], axis=1).astype(np.int32)


def tuple_columns(levels: int) -> list[str]:
    return [*(f"code_{level + 1}" for level in range(levels)), "suffix"]


def reserved_table(released_RQ: np.ndarray, held_NQ: np.ndarray) -> pa.Table:
    """The distinct tuples of `released_RQ` that no row of `held_NQ` holds, in ascending order."""
    both, place = np.unique(np.concatenate([held_NQ, released_RQ]).astype(np.int32), axis=0, return_inverse=True)
    free = np.ones(len(both), dtype=bool)
    free[place.reshape(-1)[: len(held_NQ)]] = False
    return pa.table({name: pa.array(both[free, column]) for column, name in enumerate(tuple_columns(held_NQ.shape[1] - 1))})


def reused_tuples(model: Model, released: Bundle) -> int:
    """Items of the model's table on a tuple that the released bundle, or an ancestor of it, gave to another item. 0 where the levels differ."""
    held_NQ, old_NQ = model.table.tuples.numpy(), released.table.tuples.numpy()
    if old_NQ.shape[1] != held_NQ.shape[1]:
        return 0
    released_RQ = np.concatenate([released.reserved_RQ, old_NQ])
    own_N = index_of(model.item_ids, released.item_ids)
    kept_N = (own_N >= 0) & (old_NQ[own_N] == held_NQ).all(axis=1)
    _, place = np.unique(np.concatenate([released_RQ, held_NQ]), axis=0, return_inverse=True)
    return int((np.isin(place.reshape(-1)[len(released_RQ) :], place.reshape(-1)[: len(released_RQ)]) & ~kept_N).sum())
