"""What the gate measures: candidate and champion on the same users and targets, those of the candidate's snapshot.

What is compared are the lists that would be served: each bundle's model, as it was before its refit on all events, with its own table and from the
events of the items that it knows, mixed by its own recipe with what is counted in the snapshot's training events. Items that the snapshot no longer
lists do not enter.
The targets are the split's test targets, which the candidate's training never saw. `fresh` are the targets newer than every event that the
champion was made from: there both models rank what neither has seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from diger_core.config import EvaluationConfig
from diger_core.data.splits import targets
from diger_core.errors import DigerError
from diger_core.evaluation.metrics import ndcg, ranks
from diger_core.evaluation.ranking import EvaluationResult, recommended
from diger_core.evaluation.recipes import ranked
from diger_core.item_ids import index_of
from diger_core.recommender.trie import Trie
from orchestration.champion.bundle import reused_tuples
from orchestration.serving.lists import projected
from orchestration.verdict.gate.document import NDCG, RECALL, Churn, Comparison, Figures, Ids, K, Slice

if TYPE_CHECKING:
    from diger_core.data.sequences import Sequences
    from diger_core.evaluation.fusion import Counts
    from diger_core.evaluation.metrics import Float64
    from diger_core.evaluation.recipes import Beams, Recipe
    from diger_core.progress import Progress
    from orchestration.champion.bundle import Bundle
    from orchestration.params.verdict import GateConfig

SMALLEST = 2  # users of a slice that has an interval


@dataclass(frozen=True)
class Catalogue:
    """The candidate's snapshot: events, its items in the order of the indices, and what is counted of them."""

    seq: Sequences
    item_ids: pa.ChunkedArray
    counts: Counts  # of training events: both bundles' recipes count with them, as both would if they served


def measures(
    candidate: Bundle, champion: Bundle | None, catalogue: Catalogue, evaluation: EvaluationConfig, config: GateConfig, progress: Progress
) -> Figures:
    """All figures that the rules read, as plain values."""
    from diger_core.evaluation import ranking as core

    seq = catalogue.seq
    ranking = replace(evaluation, recall_at=(K,), ndcg_at=(K,), constrained=True, beams=max(evaluation.beams, K), bootstrap=config.bootstrap)
    users_T = _sample(seq, config.users)
    results = {"candidate": _ranked(candidate, catalogue, users_T, ranking, progress)}
    if champion is not None:
        results["champion"] = _champion(champion, catalogue, users_T, ranking, progress)
    results["most_popular"] = core.baseline_results(seq, "test", ranking, users_T)["most_popular"]
    baselines = _baselines(candidate, catalogue, users_T, ranking)
    strongest = max(baselines, key=lambda name: _ndcg(baselines[name]).mean())
    metrics = core.evaluation({**results, "baseline": baselines[strongest]}, seq, ranking)
    gain = metrics["differences"]["candidate - baseline"][NDCG]
    found: Figures = {
        "users": metrics["users"],
        "users_with_a_target": len(targets(seq, "test")[0]),
        "baseline": {"name": strongest, "mean": gain["mean"], "low": gain["low"], "high": gain["high"]},
        "models": {
            name: {RECALL: values[RECALL], NDCG: values[NDCG], "intervals": values["intervals"]} for name, values in metrics["models"].items()
        },
        "coverage": {name: _coverage(result, seq.items) for name, result in results.items()},
        "ids": _ids(candidate, champion),
        "alarm": candidate.judged.config.get("alarm"),
    }
    if champion is not None:
        masks = _slices(results["candidate"], champion, catalogue, ranking)
        found["slices"] = {name: _pair(results, mask_T, config.bootstrap) for name, mask_T in masks.items() if mask_T is not None}
        found["fresh_targets"] = None if masks["fresh"] is None else int(masks["fresh"].sum())
        found["churn"] = churn(champion, candidate, catalogue)
    return found


def _sample(seq: Sequences, users: int | None) -> np.ndarray:
    """User indices with a test target: all, or so many of them drawn by a fixed seed, in order."""
    known = targets(seq, "test")[0]
    if not len(known):
        raise DigerError("gate: no user has a test target: give a snapshot with longer histories")
    if users is None or users >= len(known):
        return known
    return np.sort(np.random.Generator(np.random.Philox(key=0)).permutation(known)[:users])


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _rows(seq: Sequences, users_T: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(users, ends of their histories, targets) of these users."""
    all_T, end_T, target_T = targets(seq, "test")
    chosen_T = np.isin(all_T, users_T)
    return all_T[chosen_T], end_T[chosen_T], target_T[chosen_T]


def _listed(recipe: Recipe, beams: Beams | None, catalogue: Catalogue, users_T: np.ndarray, ranking: EvaluationConfig) -> EvaluationResult:
    """The lists that the recipe makes of the beams and the snapshot's counts."""
    users_T, end_T, target_T = _rows(catalogue.seq, users_T)
    items_Tk, _ = ranked(recipe, catalogue.counts, catalogue.seq, users_T, end_T, K, beams, remove_seen=ranking.remove_seen)
    return EvaluationResult(users_T, target_T, ranks(items_Tk, target_T), items_Tk)


def _ranked(bundle: Bundle, catalogue: Catalogue, users_T: np.ndarray, ranking: EvaluationConfig, progress: Progress) -> EvaluationResult:
    table, device, seq = bundle.table, _device(), catalogue.seq
    users_T, end_T, _ = _rows(seq, users_T)
    beams = recommended(
        bundle.judged.recommender.to(device), table.codes_NM, table.suffix_N, seq, users_T, end_T, ranking.beams, beams=ranking.beams,
        remove_seen=ranking.remove_seen, batch_size=ranking.batch_size, device=device, progress=progress, what="ranking (candidate)",
        tokens_NTd=bundle.judged.history_tokens(),
    )  # fmt: skip
    return _listed(bundle.fitted.lists, beams, catalogue, users_T, ranking)


def _champion(bundle: Bundle, catalogue: Catalogue, users_T: np.ndarray, ranking: EvaluationConfig, progress: Progress) -> EvaluationResult:
    """The champion's lists in the candidate's item indices."""
    seq, device = catalogue.seq, _device()
    own_N, listed_C = index_of(catalogue.item_ids, bundle.item_ids), index_of(bundle.item_ids, catalogue.item_ids)
    users_T, end_T, _ = _rows(seq, users_T)
    own, before_E1 = projected(seq, own_N, len(listed_C))
    can_T = before_E1[end_T] > own.offsets_U1[users_T]
    items_TW = np.full((len(users_T), ranking.beams), -1, dtype=np.int32)
    scores_TW = np.full((len(users_T), ranking.beams), -np.inf, dtype=np.float32)
    if can_T.any() and (listed_C >= 0).any():
        model, table = bundle.judged.recommender.to(device), bundle.table
        trie = Trie.from_table(table.codes_NM, table.suffix_N, model.codes, model.suffixes, device, items=torch.from_numpy(listed_C >= 0))
        items_tW, scores_TW[can_T] = recommended(
            model, table.codes_NM, table.suffix_N, own, users_T[can_T], before_E1[end_T[can_T]], ranking.beams, beams=ranking.beams, device=device,
            trie=trie, remove_seen=ranking.remove_seen, batch_size=ranking.batch_size, progress=progress, what="ranking (champion)",
            tokens_NTd=bundle.judged.history_tokens(),
        )  # fmt: skip
        items_TW[can_T] = np.where(items_tW >= 0, listed_C[items_tW], -1)
    return _listed(bundle.fitted.lists, (items_TW, scores_TW), catalogue, users_T, ranking)


def _baselines(candidate: Bundle, catalogue: Catalogue, users_T: np.ndarray, ranking: EvaluationConfig) -> dict[str, EvaluationResult]:
    """Every counting baseline that the evaluation ranks: those that the candidate's recipe was chosen against, and last-item Markov."""
    from diger_core.evaluation.ranking import baseline_results

    found = {name: _listed(recipe, None, catalogue, users_T, ranking) for name, recipe in candidate.fitted.baselines.items()}
    return {**found, "markov": baseline_results(catalogue.seq, "test", ranking, users_T)["markov"]}


def _ndcg(result: EvaluationResult) -> np.ndarray:
    return ndcg(result.rank_T, K)


def _slices(candidate: EvaluationResult, champion: Bundle, catalogue: Catalogue, ranking: EvaluationConfig) -> dict[str, np.ndarray | None]:
    """Masks over the users by their target; `fresh` is None where the events or the champion's have no times."""
    from diger_core.evaluation.ranking import target_slices

    seq, newest = catalogue.seq, champion.document.get("last_event")
    _, end_T, _ = _rows(seq, candidate.users_T)
    fresh = None if newest is None or seq.timestamps_E is None else seq.timestamps_E[end_T] > newest
    unknown_N = index_of(catalogue.item_ids, champion.item_ids) < 0
    return {
        "all": np.ones(len(end_T), dtype=bool),
        **target_slices(seq, candidate.target_T, ranking),
        "unknown_to_champion": unknown_N[candidate.target_T],
        "fresh": fresh,
    }


def _pair(results: dict[str, EvaluationResult], mask_T: np.ndarray, bootstrap: int) -> Slice:
    """Users of a slice, both models' means, and the paired difference with its 95% interval; relative: over the champion's mean."""
    from diger_core.evaluation.metrics import ndcg, recall

    found: Slice = {"users": int(mask_T.sum())}
    if found["users"] < SMALLEST:
        return found
    ours, theirs = (results[name].rank_T[mask_T] for name in ("candidate", "champion"))
    found[RECALL] = _compared(recall(ours, K), recall(theirs, K), bootstrap)
    found[NDCG] = _compared(ndcg(ours, K), ndcg(theirs, K), bootstrap)
    return found


def _compared(ours_T: Float64, theirs_T: Float64, bootstrap: int) -> Comparison:
    from diger_core.evaluation.metrics import paired_bootstrap

    mean, low, high = paired_bootstrap(ours_T, theirs_T, bootstrap, seed=0)
    base = float(theirs_T.mean())
    return {
        "candidate": float(ours_T.mean()),
        "champion": base,
        "difference": {"mean": mean, "low": low, "high": high},
        "relative": {"mean": 1 + mean / base, "low": 1 + low / base, "high": 1 + high / base} if base > 0 else None,
    }


def _coverage(result: EvaluationResult, items: int) -> float:
    """Share of the catalogue that stands in at least one user's list."""
    return len(np.unique(result.items_Tk[result.items_Tk >= 0])) / items


def _ids(bundle: Bundle, champion: Bundle | None) -> Ids:
    from diger_core.training.monitors import table_monitors

    figures = table_monitors(bundle.table.codes_NM, int(bundle.model.config["codes"]))
    items = len(bundle.item_ids)
    return {
        "unique_prefixes": figures["unique_prefixes"],
        "largest_group": figures["largest_group"],
        "perplexity": figures["perplexity"],
        "dead_codes": figures["dead_codes"],
        "items": items,
        "unique_prefix_share": figures["unique_prefixes"] / items,
        "duplicates": bundle.table.duplicates(),
        "reused_tuples": _reused(bundle, champion),
    }


def _reused(bundle: Bundle, champion: Bundle | None) -> int:
    """Against the released bundle that the candidate continued from and, where another was released meanwhile, against that one too. A candidate
    that continued from none has an ID space of its own."""
    counted = int(bundle.document.get("reused_tuples", 0))
    if champion is None or bundle.document.get("parent") in (None, champion.hash):
        return counted
    return max(counted, reused_tuples(bundle.model, champion))


def churn(old: Bundle, new: Bundle, catalogue: Catalogue) -> Churn:
    """What of the old bundle's IDs the new one changes, by item and by the snapshot's events."""
    from diger_core.ids.id_diff import id_diff, migration

    lost = (index_of(old.item_ids, new.item_ids) < 0).sum()
    shared = 1 - float(lost) / len(old.item_ids)
    if not shared:
        return {"common_items": 0.0, "items": 0.0, "events": 0.0}
    events = pa.table({"item_id": catalogue.item_ids, "weight": np.bincount(catalogue.seq.events_E, minlength=catalogue.seq.items)})
    diff = id_diff(migration(old.artefact.table("id_table.parquet"), new.artefact.table("id_table.parquet")), events)
    changed = {name: diff[name]["suffix"] + diff[name]["moved"] for name in ("shares", "weighted")}
    return {"common_items": shared, "items": changed["shares"], "events": changed["weighted"], "counts": diff["counts"]}
