"""What a training run is given, and the fingerprint of it: a checkpoint may be resumed only with the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
from torch import Tensor

from diger_core.config import ModelConfig
from diger_core.data.distillation import DistillationTargets
from diger_core.data.sequences import Sequences
from diger_core.data.teacher import SyntheticHistories
from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable
from diger_core.ids.stability import Hold
from diger_core.store.canonical import canonical_json, digest
from diger_core.tokenizer.rqvae import Tokenizer


@dataclass(frozen=True, eq=False)
class TrainingInputs:
    """The data of a run, and what it takes over from an earlier one. Shapes: N items, D vector width, M levels, R released tuples.

    `tokenizer`: warmed up; training learns on a copy of it (joint) or keeps its codes (frozen). The rest is for a retraining: `previous`, the last
    released ID table in the order of `item_ids`, -1 in the rows of new items; `reserved`, tuples of released tables, whose suffixes no other item
    gets; `held`, how far items may move from `previous` (None: freely); `start`, a trained recommender's tensors to continue from; `table`, the
    ID table to train on as it is, with a frozen tokenizer (None: the tokenizer's own). `distillation`
    draws some of the rows' targets, `synthetic` adds rows of its own.
    """

    vectors_ND: Tensor  # float, in the order of `item_ids`
    sequences: Sequences
    item_ids: pa.Array
    tokenizer: Tokenizer
    previous: IdTable | None = None
    reserved: Tensor | None = None  # [R, M+1]
    held: Hold | None = None
    start: Mapping[str, Tensor] | None = None
    table: IdTable | None = None
    distillation: DistillationTargets | None = None
    synthetic: SyntheticHistories | None = None

    def __post_init__(self) -> None:
        items = len(self.item_ids)
        if len(self.vectors_ND) != items:
            raise DigerError(f"vectors: {len(self.vectors_ND)} rows for {items} items; give one vector for each item")
        if self.previous is not None and len(self.previous.suffix_N) != items:
            raise DigerError(f"released ID table: {len(self.previous.suffix_N)} rows for {items} items; give one row for each item, -1 for new ones")


def fingerprint(inputs: TrainingInputs, config: ModelConfig) -> str:
    """SHA-256 of all that decides the result. Device and saving habits do not count."""
    same = replace(config.training, device="auto", checkpoint_every=1, checkpoints_kept=1)
    configs = [asdict(part) for part in (config.recommender, same, config.joint, config.table)]
    sequences, drawn = inputs.sequences, inputs.distillation
    arrays = [np.ascontiguousarray(sequences.events_E).tobytes(), np.ascontiguousarray(sequences.offsets_U1).tobytes()]
    arrays += [] if sequences.weights_E is None else [np.ascontiguousarray(sequences.weights_E).tobytes()]
    arrays += [] if drawn is None else [drawn.items_Rk.tobytes(), drawn.cumulative_Rk.tobytes(), str(drawn.share).encode()]
    arrays += [] if inputs.synthetic is None else _synthetic_parts(inputs.synthetic)
    weights = [_bytes(value) for _, value in sorted(inputs.tokenizer.state_dict().items())]
    return digest(canonical_json(configs), *arrays, *weights, str(len(inputs.item_ids)), *_warm_parts(inputs))


def _synthetic_parts(synthetic: SyntheticHistories) -> list[bytes]:
    tables = (synthetic.tables.transitions, synthetic.tables.text)
    return [canonical_json([asdict(synthetic.config), synthetic.rows]), *(t.items_P.tobytes() + t.weights_P.tobytes() for t in tables)]


def _warm_parts(inputs: TrainingInputs) -> list[bytes]:
    """What a retraining depends on besides; nothing for a first training."""
    previous, held, start, table = inputs.previous, inputs.held, inputs.start, inputs.table
    tensors = [previous.tuples if previous is not None else None, inputs.reserved, held.weight_N if held is not None else None]
    tensors += [table.tuples] if table is not None else []
    tensors += [value for _, value in sorted(start.items())] if start is not None else []
    if held is None and all(tensor is None for tensor in tensors):
        return []
    named = canonical_json({"held": None if held is None else [held.mode, held.anchor], "start": sorted(start) if start is not None else None})
    return [named, *(b"" if tensor is None else _bytes(tensor) for tensor in tensors)]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()
