"""Stage `tokenizer`: the warm-up of the RQ-VAE on the items' vectors (the specification, section 2).

Beside its text vector an item may have factors of who bought it with what (training events only): they stand behind the vector's columns. The
artefact keeps them, so that later stages see the very same inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diger_core.errors import DigerError
from diger_core.item_factors import item_factors
from diger_core.sequences import Sequences
from diger_core.store import Artefact
from diger_core.tokenizer import Tokenizer, tokenizer_from_state, tokenizer_state
from diger_core.tokenizer import tokenizer as warm_up

if TYPE_CHECKING:
    from orchestration.runner import StageRun


def tokenizer(run: StageRun) -> None:
    """Writes tokenizer.safetensors, config.json, curves.json, and inputs.safetensors (factors float32 [N, F])."""
    config, embeddings = run.params.tokenizer, run.inputs["embeddings"]
    check_items(run.inputs["sequences"], embeddings)
    vectors_ND = embeddings.tensors("vectors.safetensors")["vectors"]
    sequences = Sequences.from_tensors(run.inputs["sequences"].tensors("sequences.safetensors"))
    factors_NF = torch.from_numpy(item_factors(sequences, config.item_factors, config.seed))
    weight_D = torch.cat([torch.ones(vectors_ND.shape[1]), torch.full((factors_NF.shape[1],), config.item_factors_weight)])
    trained, curves = warm_up(torch.cat([vectors_ND, factors_NF], dim=1), config, run.progress, weight_D=weight_D)

    tensors, document = tokenizer_state(trained)
    run.out.tensors("tokenizer.safetensors", tensors)
    run.out.json("config.json", document)
    run.out.json("curves.json", curves)
    run.out.tensors("inputs.safetensors", {"factors": factors_NF})
    kept = min((row for row in curves if "collisions" in row), key=lambda row: (row["collisions"], row["loss"]))
    run.facts(
        items=len(vectors_ND),
        width=vectors_ND.shape[1],
        item_factors=factors_NF.shape[1],
        codes=trained.codes,
        levels=trained.levels,
        alpha=float(trained.alpha),
        unique_prefixes=kept["unique_prefixes"],
        collisions=kept["collisions"],
    )


def check_items(sequences: Artefact, embeddings: Artefact) -> None:
    """Item indices must mean the same items in both artefacts."""
    known = sequences.table("items.parquet").column("item_id")
    encoded = embeddings.table("texts.parquet").column("item_id")
    if not known.cast(encoded.type).equals(encoded):
        raise DigerError(f"embeddings {embeddings.hash[:12]} and sequences {sequences.hash[:12]} number different items: run both on one snapshot")


def load_tokenizer(artefact: Artefact) -> Tokenizer:
    """The tokenizer after its warm-up."""
    return tokenizer_from_state(artefact.tensors("tokenizer.safetensors"), artefact.json("config.json"))


def input_vectors(embeddings: Artefact, tokenizer: Artefact) -> Tensor:
    """What the tokenizer was fitted on, float32 [N, D + F]: the items' vectors and, behind them, their factors."""
    vectors_ND = embeddings.tensors("vectors.safetensors")["vectors"]
    return torch.cat([vectors_ND, tokenizer.tensors("inputs.safetensors")["factors"]], dim=1)
