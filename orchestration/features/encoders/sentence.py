"""Any sentence encoder of the transformers library: last hidden states averaged over the attention mask, scaled to unit length."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diger_core.errors import DigerError
from orchestration.features.encoders.base import EmbeddingsConfig, EncoderState

# Texts are cut into blocks of one shape each (a fixed number of rows, a length from this ladder): a matrix product of one shape adds in one
# order, so that a text gets the same vector whatever stands beside it, in whichever worker.
_ROWS = 16
_LADDER = 16  # tokens


class SentenceEncoder:
    """A frozen transformer. The state names its weights by SHA-256; the weights themselves stay where they are."""

    def __init__(self, model: Any, tokenizer: Any, max_length: int, document: dict[str, Any]) -> None:
        self._model, self._tokenizer, self._max_length, self._document = model, tokenizer, max_length, document
        self._low = document["precision"] == "bf16"

    @property
    def width(self) -> int:
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """`texts` [n] -> float32 [n, D]."""
        import torch

        out_nD = np.empty((len(texts), self.width), dtype=np.float32)
        if not texts:
            return out_nD
        ids = self._tokenizer(list(texts), truncation=True, max_length=self._max_length)["input_ids"]
        length_n = np.array([len(row) for row in ids])
        padded_n = np.minimum(-(-length_n // _LADDER) * _LADDER, self._max_length)
        device = next(self._model.parameters()).device
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self._low):
            for length in np.unique(padded_n):
                rows = np.flatnonzero(padded_n == length)
                for start in range(0, len(rows), _ROWS):
                    block = rows[start : start + _ROWS]
                    token_RL, mask_RL = self._pad([ids[i] for i in block], int(length))
                    mean_RD = _mean_pooling(self._model, token_RL.to(device), mask_RL.to(device))
                    out_nD[block] = mean_RD[: len(block)].float().cpu().numpy()
        return out_nD

    def _pad(self, ids: list[list[int]], length: int) -> tuple[Any, Any]:
        import torch

        token_RL = torch.full((_ROWS, length), int(self._tokenizer.pad_token_id or 0), dtype=torch.long)
        mask_RL = torch.zeros(_ROWS, length, dtype=torch.long)
        mask_RL[:, 0] = 1  # rows that only fill the block up would otherwise divide by zero
        for row, tokens in enumerate(ids):
            token_RL[row, : len(tokens)] = torch.tensor(tokens)
            mask_RL[row, : len(tokens)] = 1
        return token_RL, mask_RL

    def state(self) -> EncoderState:
        return EncoderState(dict(self._document))


def _mean_pooling(model: Any, token_RL: Any, mask_RL: Any) -> Any:
    import torch

    hidden_RLD = model(input_ids=token_RL, attention_mask=mask_RL).last_hidden_state
    hidden_RLD = hidden_RLD.float()
    weight_RL1 = mask_RL.unsqueeze(-1).to(hidden_RLD.dtype)
    return torch.nn.functional.normalize((hidden_RLD * weight_RL1).sum(1) / weight_RL1.sum(1), dim=-1)


def fit(config: EmbeddingsConfig) -> SentenceEncoder:
    """Nothing is learned: the weights are found and their hash recorded. Raises DigerError where they cannot be loaded offline."""
    return _open(config, None)


def load(config: EmbeddingsConfig, state: EncoderState) -> SentenceEncoder:
    """The encoder of `state`. Raises DigerError where the weights found now are not those of the state."""
    return _open(config, state)


def model_directory(name: str) -> str:
    """A local directory for `package:NAME`, otherwise `name` as it is. In a package, the first folder with a config.json counts."""
    if not name.startswith("package:"):
        return name
    from importlib.resources import files
    from importlib.util import find_spec

    package = name.removeprefix("package:")
    if not package.isidentifier() or find_spec(package) is None:
        raise DigerError(f"embeddings.model: the Python package {package!r} is not installed: install it, or name a model directory")
    root = Path(str(files(package)))
    found = sorted(path.parent for path in root.rglob("config.json"))
    if not found:
        raise DigerError(f"embeddings.model: the Python package {package!r} holds no model (no config.json)")
    return str(found[0])


def _open(config: EmbeddingsConfig, state: EncoderState | None) -> SentenceEncoder:
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging
        from transformers.utils.hub import cached_file
    except ImportError as error:
        raise DigerError("embeddings.encoder=transformers needs the transformers package: pip install 'diger[transformers]'") from error
    import torch

    transformers_logging.disable_progress_bar()
    where = model_directory(str(config.model))
    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    offline = os.environ.get("HF_HUB_OFFLINE") == "1" or os.path.isdir(where)
    try:
        weights = cached_file(where, "model.safetensors", local_files_only=offline, **options)
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, local_files_only=offline, **options)
        model = AutoModel.from_pretrained(
            where, trust_remote_code=False, use_safetensors=True, local_files_only=offline, dtype=torch.float32, **options
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DigerError(
            f"embeddings.model {config.model!r} cannot be loaded (a transformers model with model.safetensors is needed): {reason}"
        ) from error
    sha256 = _file_sha256(str(weights))
    if state is not None and state.document["weights_sha256"] != sha256:
        raise DigerError(
            f"embeddings.model {config.model!r}: its weights (SHA-256 {sha256[:12]}…) are not those the encoder was fitted with "
            f"({state.document['weights_sha256'][:12]}…): restore them, or set embeddings.refit=true"
        )
    limit = min(config.max_length, int(getattr(model.config, "max_position_embeddings", config.max_length)))
    document = {
        "encoder": "transformers",
        "weights_sha256": sha256,
        "revision": config.revision,
        "max_length": limit,
        "precision": config.precision,
        "width": int(model.config.hidden_size),
    }
    if not os.path.isdir(where) or str(config.model).startswith("package:"):
        document["model"] = config.model  # the path of a local directory would tell about the machine, not about the model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return SentenceEncoder(model.eval().to(device), tokenizer, limit, document)


def _file_sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
