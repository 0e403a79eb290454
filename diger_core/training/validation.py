"""What happens between two epochs: the ID table anew, its monitors and alarm, and the validation of the recommender on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diger_core.config import EvaluationConfig, JointModelConfig, TableConfig, TrainingConfig
from diger_core.data.sequences import Sequences, targets
from diger_core.errors import CollapseError, DigerError
from diger_core.evaluation.metrics import ndcg, recall
from diger_core.evaluation.ranking import rank_targets
from diger_core.ids.id_table import IdTable, argmin_codes, item_hash_order, refresh
from diger_core.ids.stability import Hold
from diger_core.recommender.model import Recommender
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.distributed import Distributed
from diger_core.training.monitors import CollapseAlarm, table_monitors


def suffix_values(tokenizer: Tokenizer) -> int:
    """S: the configured number, else max(K, 256)."""
    return tokenizer.config.suffixes or max(tokenizer.codes, 256)


def search_batch(beams: int, device: torch.device) -> int:
    """Users whose beams are searched at once. An accelerator is four times faster on large batches; memory grows with users times beams, and 80
    beams of 4,096 users took 65 GiB."""
    return max(256, 4096 * 20 // max(beams, 20)) if device.type == "cuda" else 512


class TableRefresh:
    """The ID table of the whole catalogue by the present codebooks (docs/method.md, section 5), and what it says about their health.

    `previous`: the last released table in the order of these items, -1 in the rows of new ones; `reserved` [R, M+1]: tuples of released tables;
    `held`: how far items may move from `previous` (default: freely).
    """

    def __init__(
        self,
        vectors_ND: Tensor,
        item_ids: pa.Array,
        table: TableConfig,
        joint: JointModelConfig,
        previous: IdTable | None,
        reserved: Tensor | None,
        device: torch.device,
        held: Hold | None = None,
    ) -> None:
        if len(vectors_ND) != len(item_ids):
            raise DigerError(f"vectors: {len(vectors_ND)} rows for {len(item_ids)} items; give one vector for each item")
        self.vectors_ND, self.table, self.joint, self.reserved, self.device = vectors_ND, table, joint, reserved, device
        if previous is not None and len(previous.suffix_N) != len(item_ids):
            raise DigerError(
                f"released ID table: {len(previous.suffix_N)} rows for {len(item_ids)} items; give one row for each item, -1 for new ones"
            )
        self.previous, self.held, self.order_N = previous, held, item_hash_order(item_ids)
        self.z_Ne: Tensor | None = None
        self.overflow = 0
        self.alarm: CollapseAlarm | None = None

    @torch.no_grad()
    def encoded(self, tokenizer: Tokenizer) -> Tensor:
        """z [N, d_e] of the catalogue on the device: once for a frozen encoder, anew for a learning one."""
        if self.z_Ne is None or self.joint.train_encoder:
            items, size = len(self.vectors_ND), self.table.chunk
            z_Ne = torch.empty(items, tokenizer.config.code_dim, device=self.device)  # filled in place: chunks put together would hold it twice
            for start in range(0, items, size):
                z_Ne[start : start + size] = tokenizer.encode(self.vectors_ND[start : start + size].to(self.device, torch.float32))
            self.z_Ne = z_Ne
        return self.z_Ne

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

    def step_inputs(self, tokenizer: Tokenizer) -> dict[str, Tensor]:
        """What the step needs of the items beside the table: z, or the vectors where the encoder learns; nothing where all is frozen."""
        if self.joint.tokenizer == "frozen":
            return {}
        if self.joint.train_encoder:
            return {"vectors_ND": self.vectors_ND.to(self.device, torch.float32)}
        return {"z_Ne": self.encoded(tokenizer)}

    def on_device(self, table: IdTable) -> tuple[Tensor, Tensor]:
        """(codes [N, M], suffix [N]) as int64 on the device, as the step indexes with them."""
        return table.codes_NM.to(self.device, torch.int64), table.suffix_N.to(self.device, torch.int64)


class Validation:
    """Recall@10 and NDCG@10 of the second-last event of every user (or of a fixed sample of them), full ranking, split among the ranks."""

    def __init__(self, sequences: Sequences, config: TrainingConfig, ranks: Distributed, device: torch.device) -> None:
        self.sequences, self.config, self.ranks, self.device = sequences, config, ranks, device
        batch = search_batch(config.beams, device)
        self.ranking = EvaluationConfig(beams=max(10, config.beams), recall_at=(10,), ndcg_at=(10,), batch_size=batch)
        self.users_T, _, self.target_T = targets(sequences, "validation")
        if config.evaluation_users is not None and config.evaluation_users < len(self.users_T):
            random = np.random.Generator(np.random.Philox(key=config.seed))
            rows = np.sort(random.choice(len(self.users_T), config.evaluation_users, replace=False))
            self.users_T, self.target_T = self.users_T[rows], self.target_T[rows]

    def __call__(self, recommender: Recommender, table: IdTable) -> dict[str, float]:
        """The figures, equal on every rank and for every number of ranks: what travels are the users' ranks, and the means are taken of them all."""
        bf16 = self.config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            found = rank_targets(
                recommender, table.codes_NM, table.suffix_N, self.sequences, "validation", self.ranking, self.device,
                users=self.users_T[self.ranks.share(len(self.users_T))], fused=True,
            )  # fmt: skip
        rank_T = self.ranks.gather_rows(found.rank_T, len(self.users_T), self.device)
        return {"validation_recall_10": float(recall(rank_T, 10).mean()), "validation_ndcg_10": float(ndcg(rank_T, 10).mean())}
