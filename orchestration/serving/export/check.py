"""Checks an exported champion with numpy alone: `python check.py [DIR]`, or `diger export check DIR`.

It reads the files as any engine would, walks the trie, runs the model and compares the answers with those in golden.json. So it is also the shortest
description of what an engine has to do: `encode`, `step`, `beams`.

N items, M levels, Q = M + 1 positions, T tokens of a history, W beams, d width, H heads, e width of a head.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
DTYPES = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "|u1", "BOOL": "|b1"}
TOLERANCE = 1e-3  # of a log-probability: float32 sums in another order


class Wrong(Exception):
    """The export is not what its description says; the text names the file and what is wrong."""


def tensors(path: Path) -> dict[str, Array]:
    """A safetensors file: 8 bytes with the header's length, a JSON header, the arrays."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        found[name] = np.frombuffer(data[8 + size + start : 8 + size + end], dtype=DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


class Export:
    """An opened export."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.document: dict[str, Any] = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        self.model: dict[str, int] = self.document["model"]
        weights = tensors(folder / "model.safetensors")
        self.w = {name.removeprefix("recommender."): value for name, value in weights.items() if name.startswith("recommender.")}
        self.tokens_NTd = tensors(folder / "history_tokens.safetensors")["tokens"]
        self.table = tensors(folder / "id_table.safetensors")
        self.trie = tensors(folder / "trie.safetensors")
        self.item_ids = json.loads((folder / "item_ids.json").read_text(encoding="utf-8"))

    # The model: T5's shape, without biases in linear maps and without a scale of the attention scores

    def encode(self, rows: list[int]) -> Array:
        """Memory [T, d] of a history: rows of the ID table, oldest first, at most `history` of them."""
        x = self.tokens_NTd[rows[-self.model["history"] :]].reshape(-1, self.model["d_model"])
        bias_HTT = self._bias("encoder_bias.table", len(x), len(x), bidirectional=True)
        for layer in range(self.model["encoder_layers"]):
            name = f"encoder_layers.{layer}"
            q, k, v = self._heads(self._norm(x, f"{name}.norm_attention") @ self.w[f"{name}.attention.project.weight"].T)
            x = x + self._attend(q, k, v, bias_HTT) @ self.w[f"{name}.attention.out.weight"].T
            x = x + self._feed_forward(x, name)
        return self._norm(x, "encoder_norm")

    def step(self, memory_Td: Array, codes: list[tuple[int, ...]]) -> Array:
        """Log-probabilities [W, codes] of the next position, after each of the beams' codes so far."""
        position, d = len(codes[0]), self.model["d_model"]
        start = np.broadcast_to(self.w["start"], (len(codes), 1, d))
        given = [self.w[f"token_tables.{level}"][[code[level] for code in codes]][:, None] for level in range(position)]
        x = np.concatenate([start, *given], axis=1)
        bias = self._bias("decoder_bias.table", position + 1, position + 1, bidirectional=False) + np.triu(np.full((position + 1,) * 2, -1e9), 1)
        cross = (memory_Td @ self.w["cross_project.weight"].T).reshape(len(memory_Td), self.model["decoder_layers"], 2, self.model["heads"], -1)
        for layer in range(self.model["decoder_layers"]):
            name = f"decoder_layers.{layer}"
            q, k, v = self._heads(self._norm(x, f"{name}.norm_attention") @ self.w[f"{name}.attention.project.weight"].T)
            x = x + self._attend(q, k, v, bias) @ self.w[f"{name}.attention.out.weight"].T
            (q,) = self._heads(self._norm(x, f"{name}.norm_cross") @ self.w[f"{name}.cross.project.weight"].T)
            k, v = cross[:, layer].transpose(1, 2, 0, 3)
            x = x + self._attend(q, k, v, np.zeros(1)) @ self.w[f"{name}.cross.out.weight"].T
            x = x + self._feed_forward(x, name)
        logits = self._norm(x, "decoder_norm")[:, -1] @ self.w[f"token_tables.{position}"].T
        top = logits.max(axis=1, keepdims=True)
        out: Array = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
        return out

    def beams(self, rows: list[int], width: int) -> tuple[list[int], list[float]]:
        """(rows of the ID table, log-probabilities), best first. The trie only forbids: probabilities are over all codes, nothing is renormalised."""
        memory = self.encode(rows)
        found: list[tuple[float, int, tuple[int, ...]]] = [(0.0, 0, ())]  # score, node of this depth, codes
        for depth in range(self.model["levels"] + 1):
            scores = self.step(memory, [codes for _, _, codes in found])
            first, code_of = self.trie[f"first_{depth}"], self.trie[f"codes_{depth}"]
            longer = [
                (score + float(scores[beam, code_of[child]]), child, (*codes, int(code_of[child])))
                for beam, (score, node, codes) in enumerate(found)
                for child in range(first[node], first[node + 1])
            ]
            found = sorted(longer, key=lambda beam: -beam[0])[:width]
        return [int(self.trie["items"][leaf]) for _, leaf, _ in found], [score for score, _, _ in found]

    def _heads(self, x: Array) -> Array:
        """[..., P, n H e] -> [n, ..., H, P, e]"""
        split = x.reshape(*x.shape[:-1], -1, self.model["heads"], self.model["d_head"])
        return np.moveaxis(np.moveaxis(split, -3, 0), -2, -3)

    def _attend(self, q: Array, k: Array, v: Array, bias: Array) -> Array:
        scores = q @ np.swapaxes(k, -1, -2) + bias
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = np.moveaxis((weights / weights.sum(axis=-1, keepdims=True)) @ v, -3, -2)
        out: Array = mixed.reshape(*mixed.shape[:-2], -1)
        return out

    def _feed_forward(self, x: Array, name: str) -> Array:
        hidden = self._norm(x, f"{name}.norm_feed_forward") @ self.w[f"{name}.feed_forward.up.weight"].T
        out: Array = np.maximum(hidden, 0) @ self.w[f"{name}.feed_forward.down.weight"].T
        return out

    def _norm(self, x: Array, name: str) -> Array:
        out: Array = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * self.w[f"{name}.weight"]
        return out

    def _bias(self, table: str, queries: int, keys: int, bidirectional: bool) -> Array:
        """[H, queries, keys] by the distance key - query: exact for near tokens, logarithmic further away."""
        buckets, furthest = self.model["relative_buckets"], self.model["relative_max_distance"]
        distance = np.arange(keys)[None, :] - np.arange(queries)[:, None]
        offset = np.zeros_like(distance)
        if bidirectional:
            buckets //= 2
            offset, back = (distance > 0) * buckets, np.abs(distance)
        else:
            back = np.maximum(-distance, 0)
        exact = buckets // 2
        ratio = np.log(np.maximum(back, 1) / exact) / math.log(max(furthest, exact + 1) / exact)
        far = np.minimum(exact + (ratio * (buckets - exact)).astype(np.int64), buckets - 1)
        return np.moveaxis(self.w[table][offset + np.where(back < exact, back, far)], -1, 0)


def check(folder: Path) -> dict[str, int]:
    """{"files", "items", "golden"}: how many of each were found right. Raises Wrong."""
    document = _description(folder)
    for name, entry in document["files"].items():
        if hashlib.sha256(_there(folder, name).read_bytes()).hexdigest() != entry["sha256"]:
            raise Wrong(f"{folder / name}: its bytes are not those that were exported (SHA-256 differs): export again")
    export = Export(folder)
    _walk(export)
    requests = golden(folder)
    for place, request in enumerate(requests):
        compare(export, place, request)
    return {"files": len(document["files"]), "items": len(export.item_ids), "golden": len(requests)}


def golden(folder: Path) -> list[dict[str, Any]]:
    """The golden requests with their answers."""
    found: list[dict[str, Any]] = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    return found


def _description(folder: Path) -> dict[str, Any]:
    """export.json, which says what else there is."""
    path = _there(folder, "export.json")
    try:
        document = json.loads(path.read_bytes())
        whole = all(isinstance(entry["sha256"], str) for entry in document["files"].values()) and isinstance(document["model"], dict)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise Wrong(f"{path}: damaged, it does not describe an export: export again")
    found: dict[str, Any] = document
    return found


def _there(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise Wrong(f"{folder / name}: missing: export again")
    return folder / name


def _walk(export: Export) -> None:
    """Every item's codes lead through the trie to that item, and the trie has no other leaves."""
    table_NQ = np.concatenate([export.table["codes"], export.table["suffix"][:, None]], axis=1)
    if len(table_NQ) != len(export.item_ids) or len(export.trie["items"]) != len(table_NQ) or len(export.tokens_NTd) != len(table_NQ):
        raise Wrong(f"{export.folder}: item_ids.json, id_table, history_tokens and trie have different numbers of items: export again")
    for row, tuple_Q in enumerate(table_NQ):
        node = 0
        for depth, code in enumerate(tuple_Q):
            begin, end = export.trie[f"first_{depth}"][node : node + 2]
            place = begin + np.searchsorted(export.trie[f"codes_{depth}"][begin:end], code)
            if place >= end or export.trie[f"codes_{depth}"][place] != code:
                raise Wrong(f"{export.folder}: item {export.item_ids[row]!r}, {tuple_Q.tolist()}, is not in trie.safetensors: export again")
            node = int(place)
        if export.trie["items"][node] != row:
            raise Wrong(f"{export.folder}: the trie leads item {export.item_ids[row]!r} to another item: export again")


def compare(export: Export, place: int, request: dict[str, Any]) -> float:
    """The largest difference of a log-probability. Wrong where it is above `TOLERANCE`, or an item is another one that is not as probable."""
    row_of = {item: row for row, item in enumerate(export.item_ids)}
    rows, scores = export.beams([row_of[item] for item in request["history"]], request["beams"])
    wanted = [row_of[item] for item in request["items"]]
    if len(rows) != len(wanted) or not np.allclose(scores, request["log_probabilities"], rtol=0, atol=TOLERANCE):
        raise Wrong(f"{export.folder}: golden request {place}: the model's log-probabilities are others than golden.json's: export again")
    for rank, (found, item) in enumerate(zip(rows, wanted, strict=True)):
        if found != item and abs(scores[rank] - scores[rows.index(item)] if item in rows else 1.0) > TOLERANCE:
            raise Wrong(f"{export.folder}: golden request {place}, rank {rank + 1}: item {export.item_ids[found]!r}, not {export.item_ids[item]!r}")
    return float(np.abs(np.subtract(scores, request["log_probabilities"])).max(initial=0.0))


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    try:
        found = check(folder)
    except Wrong as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{found['files']} files, {found['items']:,} items in the trie, {found['golden']} golden requests: all as exported")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
