"""The lists that a bundle would serve on the candidate's snapshot, and those of counting: what the gate compares.

Each bundle ranks with its model as it was before its refit, its own table, from the events of the items that it knows, mixed by its own recipe with
what is counted in the snapshot up to the test. Items that the snapshot no longer lists do not enter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from diger_core.config import EvaluationConfig
from diger_core.data.splits import targets, up_to_test
from diger_core.errors import DigerError
from diger_core.evaluation.metrics import ranks
from diger_core.evaluation.ranking import EvaluationResult, baseline_results, recommended
from diger_core.evaluation.recipes import ranked
from diger_core.item_ids import index_of
from diger_core.recommender.trie import Trie
from orchestration.serving.ranker import projected
from orchestration.verdict.gate.document import K

if TYPE_CHECKING:
    from diger_core.data.sequences import Sequences
    from diger_core.evaluation.counts import Counts
    from diger_core.evaluation.recipes import Beams, Recipe
    from diger_core.progress import Progress
    from orchestration.champion.bundle import Bundle


@dataclass(frozen=True)
class Catalogue:
    """The candidate's snapshot: events, its items in the order of the indices, and what is counted of them."""

    seq: Sequences
    item_ids: pa.ChunkedArray
    counts: Counts  # up to the test: all bundles' recipes count with them, as they would if they served


def sample(seq: Sequences, users: int | None) -> np.ndarray:
    """User indices with a test target: all, or so many of them drawn by a fixed seed, in order."""
    known = targets(seq, "test")[0]
    if not len(known):
        raise DigerError("gate: no user has a test target: give a snapshot with longer histories")
    if users is None or users >= len(known):
        return known
    return np.sort(np.random.Generator(np.random.Philox(key=0)).permutation(known)[:users])


def rows(seq: Sequences, users_T: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(users, ends of their histories, targets) of these users."""
    all_T, end_T, target_T = targets(seq, "test")
    chosen_T = np.isin(all_T, users_T)
    return all_T[chosen_T], end_T[chosen_T], target_T[chosen_T]


def listed(recipe: Recipe, beams: Beams | None, catalogue: Catalogue, users_T: np.ndarray, ranking: EvaluationConfig) -> EvaluationResult:
    """The lists that the recipe makes of the beams and the snapshot's counts."""
    users_T, end_T, target_T = rows(catalogue.seq, users_T)
    items_Tk, _ = ranked(recipe, catalogue.counts, catalogue.seq, users_T, end_T, K, beams, remove_seen=ranking.remove_seen)
    return EvaluationResult(users_T, target_T, ranks(items_Tk, target_T), items_Tk)


def candidate_lists(bundle: Bundle, catalogue: Catalogue, users_T: np.ndarray, ranking: EvaluationConfig, progress: Progress) -> EvaluationResult:
    """The lists of the bundle that was made from this snapshot."""
    table, device, seq = bundle.table, _device(), catalogue.seq
    users_T, end_T, _ = rows(seq, users_T)
    beams = recommended(
        bundle.judged.recommender.to(device), table.codes_NM, table.suffix_N, seq, users_T, end_T, ranking.beams, beams=ranking.beams,
        remove_seen=ranking.remove_seen, batch_size=ranking.batch_size, device=device, progress=progress, what="ranking (candidate)",
        precision=bundle.judged.precision, tokens_NTd=bundle.judged.history_tokens(),
    )  # fmt: skip
    return listed(bundle.fitted.lists, beams, catalogue, users_T, ranking)


def earlier_lists(
    bundle: Bundle, catalogue: Catalogue, users_T: np.ndarray, ranking: EvaluationConfig, progress: Progress, who: str
) -> EvaluationResult:
    """The lists of a bundle of another snapshot (`who`: champion or anchor), in the candidate's item indices."""
    seq, device = catalogue.seq, _device()
    own_N, listed_C = index_of(catalogue.item_ids, bundle.item_ids), index_of(bundle.item_ids, catalogue.item_ids)
    users_T, end_T, _ = rows(seq, users_T)
    own, before_E1 = projected(seq, own_N, len(listed_C))
    can_T = before_E1[end_T] > own.offsets_U1[users_T]
    items_TW = np.full((len(users_T), ranking.beams), -1, dtype=np.int32)
    scores_TW = np.full((len(users_T), ranking.beams), -np.inf, dtype=np.float32)
    if can_T.any() and (listed_C >= 0).any():
        model, table = bundle.judged.recommender.to(device), bundle.table
        trie = Trie.from_table(table.codes_NM, table.suffix_N, model.codes, model.suffixes, device, items=torch.from_numpy(listed_C >= 0))
        items_tW, scores_TW[can_T] = recommended(
            model, table.codes_NM, table.suffix_N, own, users_T[can_T], before_E1[end_T[can_T]], ranking.beams, beams=ranking.beams, device=device,
            trie=trie, remove_seen=ranking.remove_seen, batch_size=ranking.batch_size, progress=progress, what=f"ranking ({who})",
            precision=bundle.judged.precision, tokens_NTd=bundle.judged.history_tokens(),
        )  # fmt: skip
        items_TW[can_T] = np.where(items_tW >= 0, listed_C[items_tW], -1)
    return listed(bundle.fitted.lists, (items_TW, scores_TW), catalogue, users_T, ranking)


def baselines(candidate: Bundle, catalogue: Catalogue, users_T: np.ndarray, ranking: EvaluationConfig) -> dict[str, EvaluationResult]:
    """Every counting baseline that the evaluation ranks: those that the candidate's recipe was chosen against, and last-item Markov."""
    found = {name: listed(recipe, None, catalogue, users_T, ranking) for name, recipe in candidate.fitted.baselines.items()}
    return {**found, "markov": baseline_results(up_to_test(catalogue.seq), "test", ranking, users_T)["markov"]}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
