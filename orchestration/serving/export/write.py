"""Writes a bundle as flat files that another engine can read, with golden requests that say whether it reads them right.

The export is the model with its ID table. What the lists mix in beside it (fusion.json has the weights) is counted in events, which stay here.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.evaluation.ranking import recommended
from diger_core.recommender.trie import Trie
from diger_core.store.canonical import bytes_sha256
from orchestration.champion.bundle import ENCODER_FILES, FUSION, Bundle
from orchestration.champion.model_artefact import Model
from orchestration.serving.export import check, on_onnx

DOCUMENT = "export.json"
GOLDEN, GOLDEN_BEAMS = 8, 10
WHAT = {
    "model.safetensors": "weights: recommender.*, tokenizer.*; items.z with soft history input. Header metadata: the assignment hash",
    "config.json": "sizes and settings that the model was trained with",
    "history_tokens.safetensors": "tokens [N, t, d]: each item as a history holds it, t tokens of width d; the encoder's input",
    "id_table.safetensors": "codes [N, M], suffix [N]: the semantic IDs, in the order of item_ids.json",
    "item_ids.json": "the catalogue's ids, one for each row",
    "trie.safetensors": "first_j, codes_j: children of node i of depth j are first_j[i] .. first_j[i + 1] - 1, codes ascending; items: leaf -> row",
    "encoder.json": "how texts become vectors",
    "encoder.safetensors": "arrays of the text encoder",
    "fusion.json": "weights of the lists' mixture",
    "golden.json": "histories and the model's answers: item ids and log-probabilities",
    on_onnx.ENCODER: "ONNX, fp32: history [B, T, d], mask [B, T] -> memory [B, T, d]; a row's padding stands at its end, where mask is false",
    on_onnx.DECODER: "ONNX, fp32, one position: token [B, W] (0: start, then 1 + level * codes + code), memory, mask, "
    "past [layers, 2, B, W, p, H, e] -> log_probabilities [B, W, C], present, which is the next call's past",
    "check.py": "verifies this folder with numpy alone",
}


class GoldenRequest(TypedDict):
    """A history of made-up events, and what the model answers to it."""

    history: list[int | str]
    beams: int
    items: list[int | str]
    log_probabilities: list[float]


def write_export(bundle: Bundle, out: Path, onnx: bool = False) -> dict[str, Any]:
    """Writes the folder, in its place only when complete; returns export.json. DigerError where something lies there already.

    `onnx`: with the model as ONNX graphs; DigerError where they answer a golden request otherwise than the model."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DigerError(f"--out {out}: is not empty: name a new directory")
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        document = _fill(bundle, beside, onnx)
        if out.is_dir():
            out.rmdir()
        beside.chmod(0o755)
        os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return document


def _fill(bundle: Bundle, folder: Path, onnx: bool) -> dict[str, Any]:
    model = bundle.model
    for name in ("model.safetensors", "config.json", FUSION, *ENCODER_FILES):
        if name in bundle.artefact.names:
            shutil.copyfile(bundle.artefact.path(name), folder / name)
    shutil.copyfile(check.__file__, folder / "check.py")
    _tensors(folder / "history_tokens.safetensors", {"tokens": _tokens(model)})
    _tensors(folder / "id_table.safetensors", {"codes": model.table.codes_NM, "suffix": model.table.suffix_N})
    trie = Trie.from_table(model.table.codes_NM, model.table.suffix_N, model.recommender.codes, model.recommender.suffixes)
    _tensors(folder / "trie.safetensors", flat(trie))
    _json(folder / "item_ids.json", model.item_ids.to_pylist())
    _json(folder / "golden.json", golden(model, trie))
    if onnx:
        on_onnx.write_onnx(model.recommender.eval(), folder)
    config = asdict(model.recommender.config)
    sizes = {name: value for name, value in config.items() if isinstance(value, int)}
    shape = {"levels": model.recommender.levels, "codes": model.recommender.codes, "suffixes": model.recommender.suffixes}
    document = {
        "format": 1,
        "bundle": bundle.hash,
        "assignment_hash": bundle.assignment_hash,
        "items": len(model.item_ids),
        "model": {**sizes, **shape},
        "files": {
            path.name: {"what": WHAT[path.name], "bytes": path.stat().st_size, "sha256": bytes_sha256(path)} for path in sorted(folder.iterdir())
        },
    }
    _json(folder / DOCUMENT, document)
    if onnx:
        try:
            on_onnx.compared(folder)
        except check.Wrong as error:
            raise DigerError(f"--onnx: the graphs do not answer as the model ({error}): export without --onnx") from error
    return document


def flat(trie: Trie) -> dict[str, Tensor]:
    """The trie without its sentinels: first_j [n_j + 1] and codes_j [n_(j+1)] of each depth, items [N]."""
    arrays: dict[str, Tensor] = {"items": trie.items_of_leaves[:-1]}
    for depth, (first, keys) in enumerate(zip(trie.first, trie.keys, strict=True)):
        arrays[f"first_{depth}"] = first[:-1]
        arrays[f"codes_{depth}"] = keys[:-1] % trie.sizes[depth]
    return arrays


def golden(model: Model, trie: Trie) -> list[GoldenRequest]:
    """Histories drawn from the catalogue, of 1 to L items and longer: nobody's events."""
    random, ids = np.random.default_rng(0), model.item_ids.to_pylist()
    longest = model.recommender.config.history + 2  # longer than the model looks back
    lengths = np.unique(np.linspace(1, longest, GOLDEN).astype(np.int64))
    events_E = random.integers(0, len(ids), int(lengths.sum())).astype(np.int32)
    seq = Sequences(events_E, np.r_[0, np.cumsum(lengths)], len(ids))
    recommender = model.recommender.to("cpu")
    rows_TW, scores_TW = recommended(
        recommender, model.table.codes_NM, model.table.suffix_N, seq, np.arange(seq.users), seq.offsets_U1[1:], GOLDEN_BEAMS, beams=GOLDEN_BEAMS,
        trie=trie, tokens_NTd=model.history_tokens(),
    )  # fmt: skip
    made: list[GoldenRequest] = []
    for user, (rows_W, scores_W) in enumerate(zip(rows_TW, scores_TW, strict=True)):
        history = [ids[row] for row in events_E[seq.offsets_U1[user] : seq.offsets_U1[user + 1]]]
        there = rows_W >= 0
        listed = [ids[row] for row in rows_W[there]]
        made.append({"history": history, "beams": GOLDEN_BEAMS, "items": listed, "log_probabilities": scores_W[there].tolist()})
    return made


@torch.no_grad()
def _tokens(model: Model) -> Tensor:
    """[N, t, d]: of soft input its mixtures, of hard input the look-ups."""
    soft = model.history_tokens()
    return model.recommender.merged(model.recommender.embed_codes(model.table.tuples.long())) if soft is None else soft


def _tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
