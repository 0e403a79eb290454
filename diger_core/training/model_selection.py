"""The validation of the recommender between two epochs, by which the best state is chosen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diger_core.config import EvaluationConfig, TrainingConfig
from diger_core.data.sequences import Sequences
from diger_core.data.splits import targets
from diger_core.evaluation.metrics import ndcg, recall
from diger_core.evaluation.ranking import rank_targets
from diger_core.ids.id_table import IdTable
from diger_core.recommender.model import Recommender
from diger_core.training.distributed import Distributed


class ModelSelection:
    """Recall@10 and NDCG@10 of the second-last event of every user (or of a fixed sample of them), full ranking, split among the ranks: training
    keeps the state with the best NDCG@10."""

    def __init__(self, sequences: Sequences, config: TrainingConfig, ranks: Distributed, device: torch.device) -> None:
        self.sequences, self.config, self.ranks, self.device = sequences, config, ranks, device
        self.ranking = EvaluationConfig(beams=max(10, config.beams), recall_at=(10,), ndcg_at=(10,))
        self.users_T, _, self.target_T = targets(sequences, "validation")
        if config.evaluation_users is not None and config.evaluation_users < len(self.users_T):
            random = np.random.Generator(np.random.Philox(key=config.seed))
            rows = np.sort(random.choice(len(self.users_T), config.evaluation_users, replace=False))
            self.users_T, self.target_T = self.users_T[rows], self.target_T[rows]

    def __call__(self, recommender: Recommender, table: IdTable, tokens_NTd: Tensor | None = None) -> dict[str, float]:
        """The figures, equal on every rank and for every number of ranks: what travels are the users' ranks, and the means are taken of them all."""
        found = rank_targets(
            recommender, table.codes_NM, table.suffix_N, self.sequences, "validation", self.ranking, self.device,
            users=self.users_T[self.ranks.share(len(self.users_T))], precision=self.config.precision, tokens_NTd=tokens_NTd,
        )  # fmt: skip
        rank_T = self.ranks.gather_rows(found.rank_T, len(self.users_T), self.device)
        return {"validation_recall_10": float(recall(rank_T, 10).mean()), "validation_ndcg_10": float(ndcg(rank_T, 10).mean())}
