"""Stage `bundle`: what serving needs, gathered into one artefact whose parts name each other (orchestration/champion/bundle.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from diger_core.errors import DigerError
from diger_core.store.content_hash import table_hash
from orchestration.champion.baseline import extra_inputs
from orchestration.champion.bundle import (
    DOCUMENT,
    ENCODER_FILES,
    FACTORS,
    FUSION,
    JUDGED,
    RESERVED,
    BundleDocument,
    Events,
    load_bundle,
    reserved_table,
    reused_tuples,
    tuple_columns,
)
from orchestration.champion.model_artefact import ASSIGNMENT, MODEL_FILES, Model, load_model
from orchestration.training.tokenizer import check_items

if TYPE_CHECKING:
    from diger_core.store.artefact import Artefact
    from orchestration.engine.stage_run import StageRun

__all__ = ["bundle", "extra_inputs"]

_COMPONENTS = (
    "validated_items",
    "validated_interactions",
    "sequences",
    "embeddings",
    "tokenizer",
    "joint_model",
    "refit",
    "semantic_ids",
    "neighbours",
    "fusion",
)


def bundle(run: StageRun) -> None:
    """Writes model.safetensors, config.json and id_table.parquet (what serves), judged.safetensors and judged.json (the same model before its refit),
    factors.safetensors, encoder.json (.safetensors), fusion.json, reserved.parquet and bundle.json."""
    model_artefact, judged, semantic = run.inputs["refit"], run.inputs["joint_model"], run.inputs["semantic_ids"]
    check_items(run.inputs["sequences"], run.inputs["embeddings"])
    model = load_model(model_artefact)
    assignment = model_artefact.tensors_metadata("model.safetensors")[ASSIGNMENT]
    for trained in (model_artefact, judged):
        own = trained.tensors_metadata("model.safetensors")[ASSIGNMENT]
        if semantic.facts["assignment_hash"] != own:
            raise DigerError(
                f"bundle: semantic_ids holds assignment {semantic.facts['assignment_hash'][:12]}, {trained.stage} was trained with {own[:12]}: "
                f"run {'semantic_ids' if trained is judged else 'refit'} again"
            )
    item_ids = run.inputs["sequences"].table("items.parquet")["item_id"]
    if not item_ids.cast(model.item_ids.type).equals(model.item_ids):
        raise DigerError("bundle: joint_model's ID table and sequences number different items: run joint_model again on this snapshot")
    encoder = run.store.artefact("encoder", run.inputs["embeddings"].facts["encoder_hash"])
    _link(run, model_artefact, MODEL_FILES)
    for name, copied in JUDGED.items():
        run.out.file(copied, judged.path(name))
    _link(run, encoder, {name: () for name in ENCODER_FILES if name in encoder.names})
    run.out.file(FUSION, run.inputs["fusion"].path(FUSION))
    run.out.file(FACTORS, run.inputs["tokenizer"].path("inputs.safetensors"))
    parent = run.inputs.get("baseline")
    reserved, reused = _reserved(run, parent, model)
    columns = tuple_columns(model.table.codes_NM.shape[1])
    run.out.table(RESERVED, reserved, sort_by=columns)
    document: BundleDocument = {
        "format": 1,
        "assignment_hash": assignment,
        "parent": None if parent is None else parent.hash,
        "parent_assignment": None if parent is None else parent.json(DOCUMENT)["assignment_hash"],
        "components": {**{name: run.inputs[name].hash for name in _COMPONENTS}, "encoder": encoder.hash},
        "encoder_facts": dict(encoder.facts),
        "factors": run.inputs["tokenizer"].files["inputs.safetensors"]["canonical"],
        "fusion": run.inputs["fusion"].files[FUSION]["canonical"],
        "judged": judged.files["model.safetensors"]["canonical"],
        "reserved": {"file": RESERVED, "hash": table_hash(reserved, reserved.column_names), "tuples": reserved.num_rows},
        "reused_tuples": reused,
        **_events(run.inputs["sequences"]),
    }
    run.out.json(DOCUMENT, document)
    run.facts(items=len(item_ids), assignment_hash=assignment, reserved=reserved.num_rows, parent=document["parent"] or "none",
              refit_epochs=int(model_artefact.facts.get("refit_epochs", 0)))  # fmt: skip


def _link(run: StageRun, source: Artefact, files: dict[str, tuple[str, ...]]) -> None:
    for name, keys in files.items():
        run.out.file(name, source.path(name), sort_by=keys)


def _reserved(run: StageRun, parent: Artefact | None, model: Model) -> tuple[pa.Table, int]:
    """(tuples that released ancestors have given out and that no item holds now, items that hold one which was another item's).

    Nobody else may ever get a released tuple; the gate refuses a table in which somebody did.
    """
    held_NQ = model.table.tuples.numpy()
    none_RQ = np.empty((0, held_NQ.shape[1]), dtype=np.int32)
    if parent is None:
        return reserved_table(none_RQ, held_NQ), 0
    before = load_bundle(run.store, parent.hash)
    old_NQ = before.table.tuples.numpy()
    if old_NQ.shape[1] != held_NQ.shape[1]:
        return reserved_table(none_RQ, held_NQ), 0  # other levels: no tuple can be the same
    return reserved_table(np.concatenate([before.reserved_RQ, old_NQ]), held_NQ), reused_tuples(model, before)


def _events(sequences: Artefact) -> Events:
    """How many events the bundle was made from, and the newest one's time: what a later gate calls new."""
    tensors = sequences.tensors("sequences.safetensors")
    times = tensors.get("timestamps")
    newest = int(times.max()) if isinstance(times, torch.Tensor) and len(times) else None
    return {"events": len(tensors["events"]), "last_event": newest}
