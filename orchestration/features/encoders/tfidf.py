"""The default encoder: TF-IDF with truncated SVD (latent semantic analysis). No download, deterministic, small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diger_core.errors import DigerError
from orchestration.features.encoders.base import EmbeddingsConfig, EncoderState, text_hashes

_SMALL = 200  # texts; below, terms of a single text are kept, or hardly any vocabulary would be left


class TfidfEncoder:
    """`idf` [T], `projection` [T, D] and `vocabulary` (T terms); a text's vector is its unit-length TF-IDF row times the projection."""

    def __init__(self, vocabulary: list[str], idf_T: np.ndarray, projection_TD: np.ndarray, analyzer: str, ngrams: tuple[int, int]) -> None:
        self.vocabulary, self.idf_T, self.projection_TD = vocabulary, idf_T, projection_TD
        self.analyzer, self.ngrams = analyzer, ngrams
        self._vectorizer = _vectorizer(analyzer, ngrams, vocabulary=vocabulary)
        self._vectorizer.idf_ = idf_T

    @property
    def width(self) -> int:
        return int(self.projection_TD.shape[1])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """`texts` [n] -> float32 [n, D]. The sparse product runs row by row, so a vector does not depend on its batch."""
        tfidf_nT = self._vectorizer.transform(texts)
        return np.ascontiguousarray(tfidf_nT @ self.projection_TD, dtype=np.float32)

    def state(self) -> EncoderState:
        document = {"encoder": "tfidf", "analyzer": self.analyzer, "ngrams": list(self.ngrams), "vocabulary": self.vocabulary}
        return EncoderState(document, {"idf": self.idf_T, "projection": self.projection_TD})


def fit(config: EmbeddingsConfig, texts: Sequence[str]) -> TfidfEncoder:
    """Fit on the distinct `texts`, in the order of their hashes, so that neither row order nor repetition changes the encoder.

    Raises DigerError where the texts hold no word.
    """
    from sklearn.utils.extmath import randomized_svd, svd_flip
    from threadpoolctl import threadpool_limits

    by_hash = dict(zip(text_hashes(texts), texts, strict=True))
    sample = [by_hash[key] for key in sorted(by_hash)[: config.fit_texts]]
    min_df = config.min_df if len(sample) >= _SMALL else 1
    vectorizer = _vectorizer(config.analyzer, config.ngrams, min_df=min_df, max_features=config.max_features)
    try:
        tfidf_nT = vectorizer.fit_transform(sample)
    except ValueError as error:  # sklearn's "empty vocabulary", or no term in min_df texts
        raise DigerError(
            f"the {len(sample)} distinct item texts hold no term that {min_df} of them share: "
            "give items a text column (embeddings.columns), lower embeddings.min_df, or bring vectors (embeddings.encoder=vectors)"
        ) from error
    width = min(config.dimensions, *tfidf_nT.shape)
    with threadpool_limits(1):  # sums in one order, whatever the machine's number of cores
        u, _, components_DT = randomized_svd(tfidf_nT, n_components=width, n_iter=7, random_state=config.seed, flip_sign=False)
        _, components_DT = svd_flip(u, components_DT, u_based_decision=False)
        projection_TD = components_DT.T @ _rotation(width, config.seed)
    idf_T = np.asarray(vectorizer.idf_, dtype=np.float32)
    vocabulary = [str(term) for term in vectorizer.get_feature_names_out()]
    return TfidfEncoder(vocabulary, idf_T, np.ascontiguousarray(projection_TD, dtype=np.float32), config.analyzer, config.ngrams)


def load(state: EncoderState) -> TfidfEncoder:
    """The encoder that `state` describes."""
    document: dict[str, Any] = state.document
    low, high = document["ngrams"]
    return TfidfEncoder(document["vocabulary"], state.arrays["idf"], state.arrays["projection"], document["analyzer"], (low, high))


def _rotation(width: int, seed: int) -> np.ndarray:
    """A seeded orthogonal matrix [D, D].

    SVD sorts directions by variance; the tokenizer then standardises per dimension (docs/method.md, section 2), which would
    raise the weakest directions to the strength of the strongest. Rotated, every dimension carries the same mixture, and
    standardisation keeps the distances.
    """
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    return q * np.sign(np.diag(r))


def _vectorizer(analyzer: str, ngrams: tuple[int, int], **options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Single letters and digits count as words: sizes and model numbers tell products apart.
    return TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams, token_pattern=r"(?u)\b\w+\b", sublinear_tf=True, dtype=np.float32, **options)
