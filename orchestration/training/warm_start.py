"""What a training takes over from its baseline bundle: released IDs and their hold in any case, weights where `retraining.start` is warm."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diger_core.config import TokenizerConfig, TrainingConfig
from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.ids.stability import Hold, hold
from diger_core.training.inputs import TrainingInputs
from diger_core.training.table_refresh import suffix_values
from orchestration.champion.baseline import kept_factors, released_table, reserved_tuples
from orchestration.params.training import RetrainingConfig

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from diger_core.store.artefact import Artefact
    from orchestration.champion.bundle import Bundle

_SCRATCH = "or set retraining.start=scratch"


def budget(training: TrainingConfig, retraining: RetrainingConfig, baseline: bool) -> TrainingConfig:
    """The optimisation of this run: a warm start may have epochs and a rate of its own."""
    if not baseline or retraining.start != "warm":
        return training
    epochs, rate = retraining.epochs or training.epochs, retraining.learning_rate or training.learning_rate
    return replace(training, epochs=epochs, learning_rate=rate)


def from_baseline(inputs: TrainingInputs, bundle: Bundle, retraining: RetrainingConfig) -> TrainingInputs:
    """The inputs with what the baseline gives. From scratch, released tuples stay reserved and suffixes stable; where the new tokenizer has other
    levels no old tuple can come again, and nothing is taken over."""
    if bundle.tokenizer.levels != inputs.tokenizer.levels:
        return inputs
    inputs = replace(inputs, previous=released_table(bundle, inputs.item_ids), reserved=reserved_tuples(bundle))
    if retraining.start != "warm":
        return inputs
    return replace(inputs, held=held(retraining, inputs.sequences), start=bundle.judged.recommender.state_dict())


def held(retraining: RetrainingConfig, seq: Sequences) -> Hold:
    """How far this run's table may move from the released one."""
    return hold(retraining.stability, seq) if retraining.start == "warm" else Hold()


def check_fits(bundle: Bundle, config: TokenizerConfig, vectors_ND: Tensor, embeddings: Artefact) -> None:
    """DigerError where the baseline's tokenizer cannot read this snapshot's vectors, or these params ask for another tokenizer."""
    encoder, own = str(embeddings.facts["encoder_hash"]), bundle.components["encoder"]
    if encoder != own:
        raise DigerError(
            f"embeddings were made with encoder {encoder[:12]}, the starting bundle's tokenizer was trained on those of {own[:12]}: "
            f"set embeddings.refit=false and the embeddings section as it was, {_SCRATCH}"
        )
    tok, theirs = bundle.tokenizer, bundle.tokenizer.config
    width = vectors_ND.shape[1] + bundle.factors_NF.shape[1]
    wanted: dict[str, tuple[Any, Any]] = {
        "tokenizer.levels": (config.levels, tok.levels),
        "tokenizer.codes": (config.codes or tok.codes, tok.codes),
        "tokenizer.suffixes": (config.suffixes or suffix_values(tok), suffix_values(tok)),
        "tokenizer.code_dim": (config.code_dim, theirs.code_dim),
        "tokenizer.hidden": (tuple(config.hidden), tuple(theirs.hidden)),
        "tokenizer.item_factors": (config.item_factors, bundle.factors_NF.shape[1]),
        "the vectors' width": (width, tok.dim),
    }
    for name, (asked, has) in wanted.items():
        if asked != has:
            raise DigerError(f"warm start: {name} is {asked} here and {has} in the starting bundle {bundle.hash[:12]}: give that value, {_SCRATCH}")


def factors(bundle: Bundle, item_ids: pa.Array) -> Tensor:
    """float32 [N, F]: known items keep their factors (they are part of what their ID follows from), new ones have none."""
    return kept_factors(bundle, item_ids)
