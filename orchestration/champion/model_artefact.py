"""The files of a trained model's artefact (docs/architecture.md): written by both model stages, read by whatever comes after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from torch import Tensor

from diger_core.config import Precision, RecommenderConfig
from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable, assignment_hash, from_arrow, to_arrow
from diger_core.recommender.history_input import table_tokens
from diger_core.recommender.model import Recommender
from diger_core.store.artefact import Artefact
from diger_core.store.artefact_writer import ArtefactWriter
from diger_core.tokenizer.rqvae import Tokenizer, tokenizer_from_state

MODEL_FILES: dict[str, tuple[str, ...]] = {"model.safetensors": (), "config.json": (), "id_table.parquet": ("item_id",)}  # name -> sorted by
ASSIGNMENT = "diger.assignment_hash"  # metadata key: counts in the canonical hash


@dataclass(frozen=True)
class Model:
    """A trained model with the ID table it was trained with, rows in the order of `item_ids` [N]. `z_Ne`: the encoded items, float32, where the
    history input is soft and reads them."""

    recommender: Recommender
    tokenizer: Tokenizer
    table: IdTable
    item_ids: pa.ChunkedArray
    config: Mapping[str, Any]
    z_Ne: Tensor | None = None

    @property
    def precision(self) -> Precision:
        """What the model was trained and validated with on an accelerator, and ranks with there."""
        found: Precision = self.config["training"]["precision"]
        return found

    def history_tokens(self) -> Tensor | None:
        """Every item's tokens in a history, on the recommender's device; None where they are look-ups (`evaluation.ranking.recommended`)."""
        return table_tokens(self.recommender, self.table, self.tokenizer, self.z_Ne)


def write_model(
    out: ArtefactWriter,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    item_ids: pa.ChunkedArray,
    table: IdTable,
    curves: list[dict[str, Any]],
    usage_EMK: Tensor | None = None,
) -> str:
    """model.safetensors (recommender.*, tokenizer.*, items.z with soft history input), config.json, id_table.parquet, curves.json and, where
    codes were learned, code_usage.parquet. Returns the assignment hash that model and table carry."""
    hash_ = assignment_hash(item_ids, table)
    out.tensors("model.safetensors", tensors, {ASSIGNMENT: hash_})
    out.json("config.json", config)
    out.table("id_table.parquet", with_assignment(to_arrow(item_ids, table), hash_), sort_by=("item_id",))
    out.json("curves.json", curves)
    if usage_EMK is not None:
        out.table("code_usage.parquet", _usage_table(usage_EMK), sort_by=("epoch", "level"))
    return hash_


def _usage_table(usage_EMK: Tensor) -> pa.Table:
    """epoch (0: before training), level (from 1), items (of each code): one row for each epoch and level."""
    epochs, levels, _ = usage_EMK.shape
    return pa.table(
        {
            "epoch": pa.array([epoch for epoch in range(epochs) for _ in range(levels)], pa.int32()),
            "level": pa.array([level + 1 for _ in range(epochs) for level in range(levels)], pa.int32()),
            "items": pa.array(usage_EMK.flatten(0, 1).tolist(), pa.list_(pa.int32())),
        }
    )


def with_assignment(table: pa.Table, hash_: str) -> pa.Table:
    """The same rows, with the assignment hash in the schema's metadata."""
    return table.replace_schema_metadata({ASSIGNMENT: hash_})


def load_model(artefact: Artefact, weights: str = "model.safetensors", config_file: str = "config.json") -> Model:
    """Opens what `write_model` wrote. Raises DigerError where the table and the model do not belong together, or the control was switched off."""
    config = artefact.json(config_file)
    if not config.get("enabled", True):
        raise DigerError(f"{artefact.stage} was switched off in this run: set {artefact.stage}.enabled=true and run it again")
    item_ids, table = from_arrow(artefact.table("id_table.parquet"))
    wanted = artefact.tensors_metadata(weights).get(ASSIGNMENT)
    if assignment_hash(item_ids, table) != wanted:
        raise DigerError(f"{artefact.directory}: id_table.parquet is not the table that {weights} was trained with: run {artefact.stage} again")
    tensors = artefact.tensors(weights)
    part = {name: _part(tensors, name) for name in ("recommender", "tokenizer")}
    recommender = Recommender(RecommenderConfig(**config["recommender"]), config["codes"], config["levels"], config["suffixes"])
    recommender.load_state_dict(part["recommender"], strict=True)
    z_Ne = tensors.get("items.z")
    if recommender.config.history_input == "soft" and (z_Ne is None or len(z_Ne) != len(item_ids)):
        raise DigerError(f"{artefact.directory}: {weights} lacks items.z of its {len(item_ids)} items: run {artefact.stage} again")
    return Model(recommender.eval(), tokenizer_from_state(part["tokenizer"], config["tokenizer"]), table, item_ids, config, z_Ne)


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
