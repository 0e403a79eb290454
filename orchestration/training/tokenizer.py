"""Stage `tokenizer`: the warm-up of the RQ-VAE on the items' vectors (docs/method.md, section 2).

Beside its text vector an item may have factors of who bought it with what (training events only): they stand behind the vector's columns. The
artefact keeps them, so that later stages see the very same inputs.

A warm start takes over the baseline's tokenizer, statistics and factors included: known items then have the inputs that their IDs follow from. From
scratch beside a baseline, the new codes are called by the names of the old ones that they resemble.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diger_core.data.item_factors import item_factors
from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.ids.alignment import align, rename_codebooks, rename_codes
from diger_core.ids.id_table import argmin_codes
from diger_core.store.artefact import Artefact
from diger_core.tokenizer.rqvae import Tokenizer, choose_codes, tokenizer_from_state, tokenizer_state
from diger_core.tokenizer.warm_up import tokenizer as warm_up
from diger_core.training.device import training_device
from diger_core.training.monitors import table_monitors
from diger_core.training.table_refresh import USUAL_SUFFIXES
from orchestration.champion.baseline import BASELINE, extra_inputs, released_table
from orchestration.champion.bundle import load_bundle
from orchestration.change.differences import refuse_remapped
from orchestration.training.warm_start import check_fits, factors

if TYPE_CHECKING:
    from diger_core.config import TokenizerConfig
    from diger_core.progress import Progress
    from orchestration.champion.bundle import Bundle
    from orchestration.engine.stage_run import StageRun

__all__ = ["check_items", "extra_inputs", "input_vectors", "load_tokenizer", "tokenizer"]

MOST_SUFFIXES = 1 << 14  # each is a token that the recommender learns


def tokenizer(run: StageRun) -> None:
    """Writes tokenizer.safetensors, config.json, curves.json, and inputs.safetensors (factors float32 [N, F])."""
    embeddings, baseline = run.inputs["embeddings"], run.inputs.get(BASELINE)
    check_items(run.inputs["sequences"], embeddings)
    vectors_ND = embeddings.tensors("vectors.safetensors")["vectors"]
    bundle = None if baseline is None else load_bundle(run.store, baseline.hash)
    if bundle is not None:
        refuse_remapped(run, bundle)
    if bundle is not None and run.params.retraining.start == "warm":
        _take_over(run, bundle, vectors_ND)
    else:
        _train(run, bundle, vectors_ND)


def _take_over(run: StageRun, bundle: Bundle, vectors_ND: Tensor) -> None:
    check_fits(bundle, run.params.tokenizer, vectors_ND, run.inputs["embeddings"])
    factors_NF = factors(bundle, run.inputs["sequences"].table("items.parquet")["item_id"])
    codes_NM = argmin_codes(bundle.tokenizer, torch.cat([vectors_ND, factors_NF], dim=1), run.params.semantic_ids.chunk)
    run.progress.message(f"tokenizer: taken over from bundle {bundle.hash[:12]}, no warm-up")
    _write(run, bundle.tokenizer, [], factors_NF, codes_NM, {"start": "warm", "taken_from": bundle.hash})


def _train(run: StageRun, bundle: Bundle | None, vectors_ND: Tensor) -> None:
    config = run.params.tokenizer
    if bundle is not None and config.codes is None and config.levels == bundle.tokenizer.levels:
        config = replace(config, codes=bundle.tokenizer.codes)  # chosen at the first training: IDs of two tables can be compared
    sequences = Sequences.from_tensors(run.inputs["sequences"].tensors("sequences.safetensors"))
    factors_NF = torch.from_numpy(item_factors(sequences, config.item_factors, config.seed))
    weight_D = torch.cat([torch.ones(vectors_ND.shape[1]), torch.full((factors_NF.shape[1],), config.item_factors_weight)])
    inputs_NX = torch.cat([vectors_ND, factors_NF], dim=1)
    if not bool(inputs_NX.any()):
        raise DigerError(
            "tokenizer: items have neither text nor factors, so nothing tells them apart: add a text column to items.parquet, or set "
            f"tokenizer.item_factors (now {config.item_factors}) and bring users with at least two training events"
        )
    config = replace(config, suffixes=_enough_suffixes(inputs_NX, config, run.progress))
    device = training_device(run.params.training)
    inputs_NX = inputs_NX.to(device)
    trained, curves = warm_up(inputs_NX, config, run.progress, device, weight_D)
    codes_NM, trained = argmin_codes(trained, inputs_NX, run.params.semantic_ids.chunk).cpu(), trained.cpu()
    facts: dict[str, Any] = {}
    if bundle is not None:
        trained, codes_NM, facts = _aligned(run, bundle, trained, codes_NM)
    _write(run, trained, curves, factors_NF, codes_NM, facts)


def _enough_suffixes(inputs_NX: Tensor, config: TokenizerConfig, progress: Progress) -> int | None:
    """The configured number. Where none is: None (the usual one) unless more items than that have equal inputs, such as items that have neither
    text nor training events: no tokenizer tells those apart, so there are suffixes for all of them and as many to come."""
    if config.suffixes is not None:
        return config.suffixes
    usual = max(choose_codes(len(inputs_NX), config), USUAL_SUFFIXES)
    largest = max(Counter(hashlib.blake2b(row, digest_size=16).digest() for row in inputs_NX.contiguous().numpy()).values())
    if 2 * largest <= usual:
        return None
    enough = min(MOST_SUFFIXES, 1 << (2 * largest - 1).bit_length())
    progress.message(f"tokenizer: {largest:,} items have equal text and factors, or none: {enough:,} suffixes instead of {usual:,} tell them apart")
    return enough


def _aligned(run: StageRun, bundle: Bundle, trained: Tokenizer, codes_NM: Tensor) -> tuple[Tokenizer, Tensor, dict[str, Any]]:
    """The tokenizer with its codes named like the baseline's, and the share of known items whose codes are then the old ones."""
    if (trained.levels, trained.codes) != (bundle.tokenizer.levels, bundle.tokenizer.codes):
        run.progress.message("tokenizer: other levels or codes than the starting bundle's: its codes cannot be named like those")
        return trained, codes_NM, {"start": "scratch", "aligned": False}
    old = released_table(bundle, run.inputs["sequences"].table("items.parquet")["item_id"])
    known_N = old.suffix_N >= 0
    names_MK = align(old.codes_NM[known_N], codes_NM[known_N], trained.codes)
    codes_NM = rename_codes(codes_NM, names_MK)
    same = float((codes_NM == old.codes_NM).all(1)[known_N].double().mean()) if bool(known_N.any()) else 0.0
    run.progress.message(f"tokenizer: codes named like the starting bundle's; {same:.1%} of the known items have their old codes")
    return rename_codebooks(trained, names_MK), codes_NM, {"start": "scratch", "aligned": True, "same_codes": same}


def _write(run: StageRun, tok: Tokenizer, curves: list[dict[str, Any]], factors_NF: Tensor, codes_NM: Tensor, facts: dict[str, Any]) -> None:
    tensors, document = tokenizer_state(tok)
    run.out.tensors("tokenizer.safetensors", tensors)
    run.out.json("config.json", document)
    run.out.json("curves.json", curves)
    run.out.tensors("inputs.safetensors", {"factors": factors_NF})
    prefixes = table_monitors(codes_NM, tok.codes)["unique_prefixes"]
    run.facts(
        items=len(codes_NM),
        width=tok.dim - factors_NF.shape[1],
        item_factors=factors_NF.shape[1],
        codes=tok.codes,
        levels=tok.levels,
        alpha=float(tok.alpha),
        unique_prefixes=prefixes,
        collisions=len(codes_NM) - prefixes,
        **facts,
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
