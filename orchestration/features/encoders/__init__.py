"""Encoders: an item's text (or the vectors the user brings) to x_v in R^D. `fit` once, `load` ever after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from diger_core.errors import DigerError
from orchestration.features.encoders.base import EmbeddingsConfig, Encoder, EncoderState, item_texts, text_hashes

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["EmbeddingsConfig", "Encoder", "EncoderState", "encode_function", "fit", "item_texts", "load", "text_hashes"]


def fit(config: EmbeddingsConfig, texts: Sequence[str], vectors: pa.Table | None = None) -> Encoder:
    """Fit the configured encoder on `texts` [N]; `vectors` (item_id, vector) where the user brings them. Without any text there is nothing to fit."""
    from orchestration.features.encoders import given, no_text, sentence, tfidf

    if config.encoder != "vectors" and len(texts) and not any(texts):
        return no_text.NoText()
    if config.encoder == "tfidf":
        return tfidf.fit(config, texts)
    if config.encoder == "transformers":
        return sentence.fit(config)
    if vectors is None:
        raise DigerError("embeddings.encoder=vectors, but the snapshot has no vectors.parquet (item_id, vector): add it, or use another encoder")
    return given.fit(vectors)


def load(config: EmbeddingsConfig, state: EncoderState) -> Encoder:
    """The encoder that was fitted into `state`: gives the same vectors as when it was fitted."""
    from orchestration.features.encoders import given, no_text, sentence, tfidf

    kind = state.document["encoder"]
    if kind == no_text.KIND:
        return no_text.NoText()
    if kind != config.encoder:
        raise DigerError(f"this encoder's state is of kind {kind!r}, but embeddings.encoder is {config.encoder!r}")
    if kind == "tfidf":
        return tfidf.load(state)
    if kind == "transformers":
        return sentence.load(config, state)
    return given.load(state)


def encode_function(config: EmbeddingsConfig, state: EncoderState) -> Callable[[Sequence[str]], np.ndarray]:
    """What each worker builds once: the encoder's `encode`. Lives here because importing this package is cheap for a worker."""
    return load(config, state).encode
