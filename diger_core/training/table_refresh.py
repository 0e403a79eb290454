"""Refreshes the ID table between two epochs, with its monitors and its alarm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diger_core.config import ModelConfig
from diger_core.errors import CollapseError
from diger_core.ids.id_table import IdTable, argmin_codes, item_hash_order, refresh
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.inputs import TrainingInputs
from diger_core.training.joint_step import ItemTensors
from diger_core.training.monitors import CollapseAlarm, table_monitors

USUAL_SUFFIXES = 256


def suffix_values(tokenizer: Tokenizer) -> int:
    """S: the configured number, else max(K, 256)."""
    return tokenizer.config.suffixes or max(tokenizer.codes, USUAL_SUFFIXES)


class TableRefresh:
    """The ID table of the whole catalogue by the present codebooks (docs/method.md, section 5), and what it says about their health.

    What earlier releases ask for is in the inputs: `previous`, `reserved`, `held`.
    """

    def __init__(self, inputs: TrainingInputs, config: ModelConfig, device: torch.device) -> None:
        self.vectors_ND, self.table, self.joint, self.device = inputs.vectors_ND, config.table, config.joint, device
        self.soft = config.recommender.history_input == "soft"
        self.previous, self.reserved, self.held = inputs.previous, inputs.reserved, inputs.held
        self.order_N = item_hash_order(inputs.item_ids)
        self.z_Ne: Tensor | None = None
        self.overflow = 0
        self.alarm: CollapseAlarm | None = None

    @torch.no_grad()
    def encoded(self, tokenizer: Tokenizer) -> Tensor:
        """z [N, d_e] of the catalogue on the device: once for a frozen encoder, again for a learning one."""
        if self.z_Ne is None or self.joint.train_encoder:
            items, size = len(self.vectors_ND), self.table.chunk
            z_Ne = torch.empty(items, tokenizer.config.code_dim, device=self.device)  # filled in place: chunks put together would hold it twice
            for start in range(0, items, size):
                z_Ne[start : start + size] = tokenizer.encode(self.vectors_ND[start : start + size].to(self.device, torch.float32))
            self.z_Ne = z_Ne
        return self.z_Ne

    def z(self, tokenizer: Tokenizer) -> Tensor | None:
        """What soft history input reads of the items; None where it is hard."""
        return self.encoded(tokenizer) if self.soft else None

    def __call__(self, tokenizer: Tokenizer, before: IdTable | None) -> IdTable:
        """The table by the present codebooks; suffixes follow the last released table, and where an item has left that, the epoch before."""
        table, self.overflow = refresh(
            tokenizer, self.encoded(tokenizer), self.order_N, suffixes=suffix_values(tokenizer), config=self.table, encoded=True,
            previous=None if before is None else (before.codes_NM, before.suffix_N), reserved=self.reserved, released=self.previous, held=self.held,
        )  # fmt: skip
        return table

    def monitors(self, tokenizer: Tokenizer, table: IdTable, before: IdTable | None) -> dict[str, Any]:
        """Figures of the argmin table, whatever the table's method: a balanced or held one would hide a collapse. `flipped` compares the tables."""
        argmin_NM = table.codes_NM
        if self.table.method != "argmin" or (self.held is not None and self.held.mode != "free"):
            argmin_NM = argmin_codes(tokenizer, self.encoded(tokenizer), self.table.chunk, encoded=True)
        figures = table_monitors(argmin_NM, tokenizer.codes)
        if before is not None:
            figures["flipped"] = float((before.codes_NM != table.codes_NM).any(1).double().mean())
        return figures

    def check(self, figures: dict[str, Any]) -> None:
        """Raises CollapseError where the table has collapsed against the first one given."""
        if self.alarm is None:
            self.alarm = CollapseAlarm(self.joint, figures)
        told = self.alarm.check({**figures, "overflow": self.overflow})
        if told:
            raise CollapseError(told)

    def item_tensors(self, tokenizer: Tokenizer, table: IdTable) -> ItemTensors:
        """What the step reads of the items: the table, and z, or the vectors where the encoder learns; the table alone where all is frozen and the
        history input hard."""
        codes_NM, suffix_N = self.on_device(table)
        if self.joint.tokenizer == "frozen":
            return ItemTensors(codes_NM, suffix_N, self.z(tokenizer))
        if self.joint.train_encoder:
            return ItemTensors(codes_NM, suffix_N, vectors_ND=self.vectors_ND.to(self.device, torch.float32))
        return ItemTensors(codes_NM, suffix_N, self.encoded(tokenizer))

    def on_device(self, table: IdTable) -> tuple[Tensor, Tensor]:
        """(codes [N, M], suffix [N]) as int64 on the device, as the step indexes with them."""
        return table.codes_NM.to(self.device, torch.int64), table.suffix_N.to(self.device, torch.int64)
