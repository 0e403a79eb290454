"""Stage `semantic_ids`: the table of the joint model, derived again from its tokenizer (held to the baseline's, where there is one) and found equal,
with its inverse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.ids.id_table import argmin_codes, sinkhorn_codes, to_arrow
from diger_core.ids.stability import held_codes
from orchestration.champion.baseline import BASELINE, extra_inputs, released_table
from orchestration.champion.bundle import load_bundle
from orchestration.champion.model_artefact import ASSIGNMENT, Model, load_model, with_assignment
from orchestration.training.tokenizer import check_items, input_vectors
from orchestration.training.warm_start import held

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun

__all__ = ["extra_inputs", "semantic_ids"]


def semantic_ids(run: StageRun) -> None:
    """Writes semantic_ids.parquet (item_id, code_1..code_M, suffix; by item) and items_by_code.parquet (by codes)."""
    artefact = run.inputs["joint_model"]
    check_items(run.inputs["sequences"], run.inputs["embeddings"])
    model = load_model(artefact)
    vectors_ND = input_vectors(run.inputs["embeddings"], run.inputs["tokenizer"])
    _check_codes(run, model, vectors_ND)
    _check_unique(model)
    hash_ = artefact.tensors_metadata("model.safetensors")[ASSIGNMENT]
    table = with_assignment(to_arrow(model.item_ids, model.table), hash_)
    keys = [name for name in table.column_names if name != "item_id"]
    run.out.table("semantic_ids.parquet", table, sort_by=("item_id",))
    run.out.table("items_by_code.parquet", table.select([*keys, "item_id"]), sort_by=keys)
    prefixes = len(torch.unique(model.table.codes_NM, dim=0))
    run.facts(items=table.num_rows, unique_prefixes=prefixes, largest_suffix=int(model.table.suffix_N.max()), assignment_hash=hash_)


def _check_codes(run: StageRun, model: Model, vectors_ND: torch.Tensor) -> None:
    config, baseline = run.params.semantic_ids, run.inputs.get(BASELINE)
    bundle = None if baseline is None else load_bundle(run.store, baseline.hash)
    if bundle is not None and run.params.retraining.start == "warm" and run.params.retraining.stability.mode != "free":
        hold = held(run.params.retraining, Sequences.from_tensors(run.inputs["sequences"].tensors("sequences.safetensors")))
        with torch.no_grad():
            z_Ne = torch.cat([model.tokenizer.encode(rows) for rows in vectors_ND.split(config.chunk)])
        codes_NM = held_codes(model.tokenizer, z_Ne, released_table(bundle, model.item_ids).codes_NM, hold, config.chunk)
    elif config.method == "sinkhorn":
        codes_NM = sinkhorn_codes(model.tokenizer, vectors_ND, config.sinkhorn_epsilon, config.sinkhorn_iterations, config.chunk)
    else:
        codes_NM = argmin_codes(model.tokenizer, vectors_ND, config.chunk)
    differ_N = (codes_NM != model.table.codes_NM).any(dim=1)
    if bool(differ_N.any()):
        item = model.item_ids[int(differ_N.nonzero()[0])].as_py()
        raise DigerError(
            f"semantic_ids: {int(differ_N.sum())} items, the first is {item!r}, get other codes from the joint model's tokenizer "
            "than its table holds: run joint_model again on this machine"
        )


def _check_unique(model: Model) -> None:
    if model.table.duplicates():
        tuples, count = torch.unique(model.table.tuples, dim=0, return_counts=True)
        worst = tuple(tuples[int(count.argmax())].tolist())
        raise DigerError(
            f"semantic_ids: {model.table.duplicates()} items share their full ID with another, {int(count.max())} of them {worst}: "
            "raise tokenizer.suffixes, or train a tokenizer that tells these items apart"
        )
