"""Stage `embeddings`: the encoder is fitted once, unchanged texts come from the cache, and neither changes a bit of the result."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from diger_core.errors import DigerError
from diger_core.progress import Silent
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from orchestration.features import embeddings as stage
from orchestration.features.encoders import EmbeddingsConfig
from orchestration.params.cluster import ClusterConfig


def _items(store: Store, titles: dict[str, str], vectors: dict[str, list[float]] | None = None) -> Artefact:
    with store.writer("validated_items") as out:
        ids = sorted(titles)
        out.table("items.parquet", pa.table({"item_id": ids, "title": [titles[i] for i in ids]}), sort_by=("item_id",))
        if vectors:
            out.table("vectors.parquet", pa.table({"item_id": list(vectors), "vector": list(vectors.values())}), sort_by=("item_id",))
        return store.publish(out)


def _run(store: Store, items: Artefact, config: EmbeddingsConfig, record: int = 1, workers: int = 0) -> tuple[Artefact, dict[str, Any]]:
    params: Any = SimpleNamespace(embeddings=config, cluster=ClusterConfig(workers=workers))
    extra = stage.extra_inputs(params, store, {"validated_items": items}, snapshot=None, fit=True)
    assert extra is not None
    notes: dict[str, Any] = {}
    with store.writer("embeddings") as out:
        run: Any = SimpleNamespace(
            params=params,
            inputs={"validated_items": items, **extra},
            out=out,
            store=store,
            progress=Silent(),
            facts=out.facts.update,
            note=notes.update,
        )
        run.facts = lambda **values: out.facts.update(values)
        run.note = lambda **values: notes.update(values)
        stage.embeddings(run)
        artefact = store.publish(out)
    inputs = {"validated_items": items.hash, "encoder": extra["encoder"].hash}
    store.append_record("embeddings", f"key-{record}", {"artefact": artefact.hash, "inputs": inputs, "started_at": f"2026-01-{record:02d}"})
    return artefact, notes


FIRST = {f"i{n:03d}": f"shoe number {n} brand {n % 5}" for n in range(60)}
SECOND = {**{k: v for k, v in FIRST.items() if k != "i007"}, "i010": "a renamed shoe of brand 2", "i900": "a new shoe number 3"}
CONFIG = EmbeddingsConfig(dimensions=8)


def test_later_snapshots_transform_with_the_first_encoder_unless_told_to_refit(tmp_path) -> None:
    store = Store(tmp_path)
    one, two = _items(store, FIRST), _items(store, SECOND)
    first = stage.resolve_encoder(store, CONFIG, one, fit=True)
    assert stage.resolve_encoder(store, CONFIG, two, fit=True).hash == first.hash
    refitted = stage.resolve_encoder(store, replace(CONFIG, refit=True), two, fit=True)
    assert refitted.hash != first.hash
    assert stage.resolve_encoder(store, replace(CONFIG, refit=True), two, fit=False).hash == refitted.hash
    assert stage.resolve_encoder(store, CONFIG, two, fit=False).hash == first.hash


def test_looking_up_an_encoder_that_was_never_fitted_fits_nothing(tmp_path) -> None:
    store = Store(tmp_path)
    items = _items(store, FIRST)
    params: Any = SimpleNamespace(embeddings=CONFIG)
    assert stage.extra_inputs(params, store, {"validated_items": items}, snapshot=None, fit=False) is None
    assert store.root.list("artefacts", "encoder") == []


def test_only_new_and_changed_texts_are_encoded_and_the_cache_changes_no_bit(tmp_path) -> None:
    store = Store(tmp_path / "a")
    first, notes = _run(store, _items(store, FIRST), CONFIG)
    assert (notes["encoded"], notes["cached"]) == (60, 0)
    second, notes = _run(store, _items(store, SECOND), CONFIG, record=2)
    assert (notes["encoded"], notes["cached"]) == (2, 58)
    ids = second.table("texts.parquet").column("item_id").to_pylist()
    assert ids == sorted(SECOND)
    kept = first.tensors("vectors.safetensors")["vectors"].numpy()[sorted(FIRST).index("i020")]
    np.testing.assert_array_equal(second.tensors("vectors.safetensors")["vectors"].numpy()[ids.index("i020")], kept)

    other = Store(tmp_path / "b")  # the same encoder, but nothing to take from a cache
    stage.resolve_encoder(other, CONFIG, _items(other, FIRST), fit=True)
    uncached, notes = _run(other, _items(other, SECOND), CONFIG)
    assert notes["cached"] == 0
    assert uncached.hash == second.hash


def test_vectors_of_another_encoder_are_not_taken_from_the_cache(tmp_path) -> None:
    store = Store(tmp_path)
    items = _items(store, FIRST)
    _run(store, items, CONFIG)
    _, notes = _run(store, items, replace(CONFIG, seed=1), record=2)
    assert notes["cached"] == 0


def test_a_damaged_cached_artefact_is_passed_over(tmp_path) -> None:
    store = Store(tmp_path)
    items = _items(store, FIRST)
    artefact, _ = _run(store, items, CONFIG)
    path = tmp_path / "artefacts" / "embeddings" / artefact.hash / "vectors.safetensors"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    again, notes = _run(Store(tmp_path), items, CONFIG, record=2)
    assert notes["encoded"] == 60
    assert again.hash == artefact.hash
    assert again.verify() == []


def test_items_with_equal_texts_are_encoded_once(tmp_path) -> None:
    store = Store(tmp_path)
    artefact, notes = _run(store, _items(store, {f"i{n:05d}": "one text for all" for n in range(10_000)}), CONFIG)
    assert notes["encoded"] == 1
    vectors = artefact.tensors("vectors.safetensors")["vectors"]
    assert vectors.shape[0] == 10_000
    assert bool((vectors == vectors[0]).all())


def test_a_lost_encoder_is_fitted_again_from_the_items_it_came_from_or_asked_for(tmp_path) -> None:
    import shutil

    store = Store(tmp_path)
    one, two = _items(store, FIRST), _items(store, SECOND)
    first = stage.resolve_encoder(store, CONFIG, one, fit=True)
    shutil.rmtree(tmp_path / "artefacts" / "encoder")
    with pytest.raises(DigerError, match="the fitted encoder is missing"):
        stage.resolve_encoder(store, CONFIG, two, fit=True)
    assert stage.resolve_encoder(store, CONFIG, one, fit=True).hash == first.hash


def test_brought_vectors_are_taken_as_they_are_and_their_absence_is_named(tmp_path) -> None:
    store, config = Store(tmp_path), EmbeddingsConfig(encoder="vectors")
    items = _items(store, {"b": "x", "a": "y"}, vectors={"b": [1.0, 2.0], "a": [3.0, 4.0]})
    artefact, _ = _run(store, items, config)
    np.testing.assert_array_equal(artefact.tensors("vectors.safetensors")["vectors"].numpy(), [[3, 4], [1, 2]])
    with pytest.raises(DigerError, match=r"no vectors\.parquet"):
        stage.resolve_encoder(Store(tmp_path / "other"), config, _items(Store(tmp_path / "other"), {"a": "y"}), fit=True)
    wider = _items(store, {"a": "y"}, vectors={"a": [1.0, 2.0, 3.0]})
    with pytest.raises(DigerError, match="width 3.*refit"):
        _run(store, wider, config, record=2)


def test_few_texts_are_encoded_in_this_process_many_by_workers(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration.on_ray import data

    asked, here = [], data.map_batches_to_numpy

    def asked_for(*arguments: Any, **options: Any) -> np.ndarray:
        asked.append(arguments[4].workers)
        return here(*arguments[:4], ClusterConfig(workers=0), **options)

    monkeypatch.setattr(data, "map_batches_to_numpy", asked_for)
    items = _items(Store(tmp_path / "few"), FIRST)
    few, notes = _run(Store(tmp_path / "few"), items, CONFIG, workers=2)
    monkeypatch.setattr(stage, "_HERE", len(FIRST) - 1)
    _items(Store(tmp_path / "many"), FIRST)
    many, told = _run(Store(tmp_path / "many"), items, CONFIG, workers=2)
    assert asked == [notes["workers"], told["workers"]] == [0, 2]
    assert few.hash == many.hash
