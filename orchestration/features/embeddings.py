"""Stage `embeddings`: one frozen vector x_v per item, from an encoder that was fitted once and from the cache where a text is unchanged.

The encoder's state is an artefact of its own (stage `encoder`), named by a create-once pointer. It is an input of this stage, so it is part
of the record's key: the runner asks `extra_inputs` for it before the key is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from diger_core.store.canonical import digest
from diger_core.store.record import Record
from orchestration.features import encoders
from orchestration.features.encoders import EmbeddingsConfig, Encoder, EncoderState, no_text
from orchestration.features.encoders.given import GivenVectors

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun
    from orchestration.params.sections import Params

# Texts that TF-IDF encodes in this process: one core takes a second for so many, workers take ten to start.
_HERE = 20_000
_LOOK_BACK = 8  # earlier artefacts, newest first, that are searched for unchanged texts


def embeddings(run: StageRun) -> None:
    """Writes vectors.safetensors (vectors float32 [N, D]) and texts.parquet (item_index, item_id, text_hash)."""
    config, items = run.params.embeddings, run.inputs["validated_items"]
    encoder_artefact = run.inputs["encoder"]
    table = items.table("items.parquet")
    state = read_state(encoder_artefact)
    if config.encoder == "vectors":
        vectors_ND, hashes = _given(encoders.load(config, state), items, table)
        encoded = 0
    else:
        texts = encoders.item_texts(table, config)
        hashes = encoders.text_hashes(texts)
        vectors_ND, encoded = _encode(run, config, state, texts, hashes)
    _write(run, table, vectors_ND, hashes)
    if state.document["encoder"] == no_text.KIND:
        run.progress.message(
            "embeddings: no item has text, so IDs come from behaviour alone (tokenizer.item_factors); add a title to tell items apart"
        )
    distinct = len(set(hashes))
    run.facts(items=len(vectors_ND), width=vectors_ND.shape[1], encoder=config.encoder, encoder_hash=encoder_artefact.hash, distinct_texts=distinct)
    run.note(encoded=encoded, cached=distinct - encoded)
    run.progress.message(
        f"embeddings: {len(vectors_ND):,} items, width {vectors_ND.shape[1]}; {encoded:,} texts encoded, {distinct - encoded:,} from the cache"
    )


def _write(run: StageRun, items: pa.Table, vectors_ND: np.ndarray, hashes: list[str]) -> None:
    import torch

    bad = ~np.isfinite(vectors_ND).all(axis=1)
    if bad.any():
        item = items.column("item_id")[int(np.argmax(bad))].as_py()
        raise DigerError(f"embeddings: the vector of item {item!r} is not finite ({int(bad.sum())} such items): correct its text or its vector")
    run.out.tensors("vectors.safetensors", {"vectors": torch.from_numpy(vectors_ND)})
    index_N = pa.array(np.arange(len(vectors_ND), dtype=np.int32))
    columns = {"item_index": index_N, "item_id": items.column("item_id"), "text_hash": pa.array(hashes, pa.string())}
    run.out.table("texts.parquet", pa.table(columns), sort_by=("item_index",))


def _given(encoder: Encoder, items: Artefact, table: pa.Table) -> tuple[np.ndarray, list[str]]:
    assert isinstance(encoder, GivenVectors)
    vectors_ND = encoder.align(_vectors(items), table.column("item_id"))
    return vectors_ND, [digest("vector", row.tobytes()) for row in vectors_ND]


def _vectors(items: Artefact) -> pa.Table:
    if "vectors.parquet" not in items.names:
        raise DigerError("embeddings.encoder=vectors, but the snapshot has no vectors.parquet (item_id, vector): add it, or use another encoder")
    return items.table("vectors.parquet")


# Encoding, each distinct text once


def _encode(run: StageRun, config: EmbeddingsConfig, state: EncoderState, texts: list[str], hashes: list[str]) -> tuple[np.ndarray, int]:
    """(float32 [N, D], how many texts were really encoded)."""
    from orchestration.on_ray.data import map_batches_to_numpy

    started, cluster = time.monotonic(), run.params.cluster
    known = cached_vectors(run.store, run.inputs["encoder"].hash, hashes, run.progress.message)
    missing = {h: t for h, t in zip(hashes, texts, strict=True) if h not in known}
    if config.encoder == "tfidf" and len(missing) <= _HERE:
        cluster = replace(cluster, workers=0, min_workers=None)
    if missing:
        width = len(next(iter(known.values()))) if known else encoders.load(config, state).width
        fresh_nD = map_batches_to_numpy(
            encoders.encode_function,
            (config, state),
            list(missing.values()),
            width,
            cluster,
            batch_size=config.batch_size,
            progress=run.progress,
            gpu=config.encoder == "transformers",
        )
        known |= dict(zip(missing, fresh_nD, strict=True))
    run.note(encoding_seconds=round(time.monotonic() - started, 3), workers=cluster.workers)
    return np.stack([known[h] for h in hashes]).astype(np.float32, copy=False), len(missing)


def cached_vectors(store: Store, encoder_hash: str, hashes: Sequence[str], warn: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Text hash -> vector [D], for those of `hashes` that an earlier `embeddings` artefact of the same encoder holds.

    A damaged artefact is passed over with a warning: its texts are encoded again.
    """
    wanted, known = set(hashes), dict[str, np.ndarray]()
    for hash_ in _earlier(store, encoder_hash)[:_LOOK_BACK]:
        if len(known) == len(wanted):
            break
        try:
            artefact = store.find("embeddings", hash_)
            if artefact is None:
                continue
            earlier = artefact.table("texts.parquet", columns=["text_hash"]).column("text_hash").to_pylist()
            vectors_ND = artefact.tensors("vectors.safetensors")["vectors"].numpy()
        except DigerError as error:
            warn(f"warning: embeddings are encoded again where they were cached in a damaged artefact: {error}")
            continue
        known |= {h: vectors_ND[row] for row, h in enumerate(earlier) if h in wanted and h not in known}
    return known


def _earlier(store: Store, encoder_hash: str) -> list[str]:
    """Hashes of the `embeddings` artefacts made with this encoder, newest first."""
    records = [r for key in store.root.list("records", "embeddings") for r in store.records("embeddings", key)]
    made = [(str(r["started_at"]), str(r["artefact"])) for r in records if r["inputs"].get("encoder") == encoder_hash]
    return list(dict.fromkeys(hash_ for _, hash_ in sorted(made, reverse=True)))


# The encoder: fitted once


def extra_inputs(params: Params, store: Store, inputs: Mapping[str, Artefact], snapshot: Any, fit: bool) -> dict[str, Artefact] | None:
    """The encoder that this stage takes beside its inputs. None where it was never fitted and `fit` is off."""
    encoder = resolve_encoder(store, params.embeddings, inputs["validated_items"], fit)
    return None if encoder is None else {"encoder": encoder}


def resolve_encoder(store: Store, config: EmbeddingsConfig, items: Artefact, fit: bool) -> Artefact | None:
    """The first encoder that this store fitted with this configuration; with `refit`, the one fitted on these very items.

    Where there is none it is fitted on `items` and pointed to, or None is returned with `fit` off. Two processes that fit at the same time
    end with one encoder: the pointer is created once, and the loser takes the winner's.
    """
    textless = config.encoder != "vectors" and items.facts.get("items_without_text", 0) >= items.facts.get(
        "items", 1
    )  # the first with texts fits its own
    name = digest("encoder", config.identity_hash(), items.hash if config.refit else "first without text" if textless else "first")
    pointer = store.pointer("encoder", name)
    if pointer is None and not fit:
        return None
    if pointer is None:
        artefact = _fit(store, config, items)
        pointer = store.create_pointer("encoder", name, {"artefact": artefact.hash, "fitted_on": items.hash})
        return artefact if pointer["artefact"] == artefact.hash else store.artefact("encoder", pointer["artefact"])
    found = store.find("encoder", pointer["artefact"])
    if found is None and fit and pointer["fitted_on"] == items.hash:
        again = _fit(store, config, items)  # the artefact was lost, but what it was fitted on is here
        found = again if again.hash == pointer["artefact"] else None
    if found is None and fit:
        raise DigerError(
            f"{store.url}/artefacts/encoder/{pointer['artefact']}: the fitted encoder is missing from the store: restore it from a copy, "
            "or set embeddings.refit=true to fit a new one"
        )
    return found


def _fit(store: Store, config: EmbeddingsConfig, items: Artefact) -> Artefact:
    started, clock = datetime.now(UTC), time.monotonic()
    if config.encoder == "vectors":
        encoder = encoders.fit(config, (), _vectors(items))
    else:
        encoder = encoders.fit(config, encoders.item_texts(items.table("items.parquet"), config))
    with store.writer("encoder") as out:
        write_state(out, encoder.state())
        out.facts.update(encoder=config.encoder, width=encoder.width)
        artefact = store.publish(out)
    record: Record = {
        "artefact": artefact.hash,
        "manifest": artefact.manifest_hash,
        "inputs": {"validated_items": items.hash},
        "params": {"embeddings": config.identity()},
        "started_at": started.isoformat(),
        "seconds": round(time.monotonic() - clock, 3),
    }
    store.append_record("encoder", digest("encoder", config.identity_hash(), items.hash), record)
    return artefact


def write_state(out: Any, state: EncoderState) -> None:
    """encoder.json, and encoder.safetensors where the encoder has arrays."""
    import torch

    out.json("encoder.json", state.document)
    if state.arrays:
        out.tensors("encoder.safetensors", {name: torch.from_numpy(array) for name, array in state.arrays.items()})


def read_state(artefact: Artefact) -> EncoderState:
    """What `write_state` wrote."""
    tensors = artefact.tensors("encoder.safetensors") if "encoder.safetensors" in artefact.names else {}
    return EncoderState(artefact.json("encoder.json"), {name: tensor.numpy() for name, tensor in tensors.items()})
