"""What an encoder is: text in, one float32 vector per text out; its fitted state is plain arrays and JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from diger_core.config import STRICT, check
from diger_core.errors import DigerError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa  # who only reads parameters must not wait for it

# What changes how texts are encoded in practice, never what they are encoded to: not part of the encoder's identity.
_NOT_IDENTITY = ("refit", "batch_size")
_FIELDS_OF = {
    "tfidf": ("columns", "labels", "max_characters", "dimensions", "analyzer", "ngrams", "min_df", "max_features", "fit_texts", "seed"),
    "transformers": ("columns", "labels", "max_characters", "model", "revision", "max_length", "precision"),
    "vectors": (),
}


@dataclass(frozen=True)
class EmbeddingsConfig:
    """Stage `embeddings`: which encoder turns an item's text into x_v in R^D."""

    __pydantic_config__: ClassVar = STRICT
    # tfidf: words, fitted on the catalogue; transformers: a language model; vectors: those that the snapshot brings
    encoder: Literal["tfidf", "transformers", "vectors"] = "tfidf"
    columns: tuple[str, ...] | None = None  # text columns, in this order; None: all of them, in the table's order
    labels: bool = False  # write "column: value" rather than the value alone
    max_characters: int = 10_000  # of a text; what follows is not read
    refit: bool = False  # fit a new encoder for this snapshot; otherwise the first fitted one transforms every later snapshot
    batch_size: int = 512  # texts handed to a worker at once
    # tfidf
    dimensions: int = 128  # D, or fewer where the catalogue is small
    analyzer: Literal["word", "char_wb"] = "word"  # what a term is: words, or runs of characters within words
    ngrams: tuple[int, int] = (1, 2)  # lengths of terms, from and to
    min_df: int = 2  # texts a term must occur in; 1 in catalogues of fewer than 200 texts
    max_features: int = 50_000  # most frequent terms that are kept
    fit_texts: int = 200_000  # fitted on at most so many texts, drawn by hash
    seed: int = 0  # of the projection to `dimensions`
    # transformers
    model: str | None = None  # a name on the hub, a local directory, or package:NAME for a model shipped as a Python package
    revision: str | None = None  # the model's commit on the hub; null: what is newest there
    max_length: int = 128  # tokens
    # of the matrix products; bf16: about twice as fast where the processor multiplies in it (avx512_bf16, amx_bf16), vectors equal to three digits
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        check(self.columns is None or len(self.columns) >= 1, "columns", self.columns, "null, or a list of at least one column")
        for key in ("max_characters", "batch_size", "dimensions", "min_df", "max_features", "fit_texts"):
            check(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        check(1 <= self.ngrams[0] <= self.ngrams[1] <= 8, "ngrams", self.ngrams, "a range within 1 to 8")
        check(8 <= self.max_length <= 8192, "max_length", self.max_length, "between 8 and 8192")
        check(self.encoder != "transformers" or bool(self.model), "model", self.model, "given where encoder is transformers")

    def identity(self) -> dict[str, Any]:
        """What decides the vectors: the parameters that this kind of encoder reads."""
        return {"encoder": self.encoder, **{key: value for key, value in asdict(self).items() if key in _FIELDS_OF[self.encoder]}}

    def identity_hash(self) -> str:
        """SHA-256 of `identity`: the name of the pointer to the first encoder fitted with it."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class EncoderState:
    """All that an encoder needs to transform: `arrays` go to safetensors, `document` to JSON."""

    document: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Encoder(Protocol):
    """A fitted encoder."""

    @property
    def width(self) -> int:
        """D, the width of the vectors."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """`texts` [n] -> float32 [n, D]. A text's vector does not depend on the texts beside it."""

    def state(self) -> EncoderState:
        """The fitted state; `orchestration.features.encoders.load` turns it back into an encoder that gives the same vectors."""


def item_texts(items: pa.Table, config: EmbeddingsConfig) -> list[str]:
    """The text of every item [N]: its text columns joined by a space (or as "column: value" lines). Missing values are left out.

    Without any text column all texts are empty. Raises DigerError where a configured column is missing or is not text.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    available = [f.name for f in items.schema if f.name != "item_id" and _is_text(f.type)]
    for name in config.columns or ():
        if name not in available:
            known = ", ".join(available) or "none"
            raise DigerError(f"items.parquet has no text column {name!r} (embeddings.columns); its text columns: {known}")
    names = list(config.columns or available)
    if not names:
        return [""] * items.num_rows
    values = []
    for name in names:
        column = items.column(name).combine_chunks()
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = pc.binary_join(column, " ")
        column = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.large_string()), column)
        if config.labels:
            column = pc.binary_join_element_wise(pa.scalar(name, pa.large_string()), column, pa.scalar(": ", pa.large_string()))
        values.append(column)
    separator = pa.scalar("\n" if config.labels else " ", pa.large_string())
    first = (
        pa.array([""]).cast(pa.large_string()).take(pa.array(np.zeros(len(items), np.int64)))
    )  # never null: where all are, the kernel drops the row
    joined = pc.utf8_ltrim_whitespace(pc.binary_join_element_wise(first, *values, separator, null_handling="skip"))
    texts: list[str] = pc.utf8_slice_codeunits(joined, 0, config.max_characters).to_pylist()
    return texts


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    text: bool = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return text


def text_hashes(texts: Sequence[str]) -> list[str]:
    """SHA-256 of every text, in hex. Lone surrogates cannot occur: Arrow strings are valid UTF-8."""
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]
