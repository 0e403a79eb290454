"""What the gate measures: candidate, champion and anchor on the same users and targets, those of the candidate's snapshot.

What is compared are the lists that would be served (ranked.py). The targets are the split's test targets, which the candidate's training never saw.
`fresh` are the targets newer than every event that the champion was made from: there both models rank what neither has seen. `known_to_both` are
those that the champion knows, too: on the others it can hardly be right, and an overall gain may hide a loss on what both know.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from diger_core.config import EvaluationConfig
from diger_core.data.splits import targets
from diger_core.evaluation.metrics import ndcg, paired_bootstrap, recall
from diger_core.evaluation.ranking import EvaluationResult, baseline_results, evaluation, target_slices
from diger_core.item_ids import index_of
from orchestration.champion.bundle import reused_tuples
from orchestration.verdict.gate.document import NDCG, RECALL, Anchor, Churn, Comparison, Figures, Gain, Ids, K, NewItems, Slice
from orchestration.verdict.gate.ranked import Catalogue, baselines, candidate_lists, earlier_lists, rows, sample
from orchestration.verdict.gate.shown import SAMPLE, differing, shown_lists

if TYPE_CHECKING:
    from diger_core.evaluation.metrics import Float64
    from diger_core.progress import Progress
    from orchestration.champion.bundle import Bundle
    from orchestration.params.verdict import GateConfig

SMALLEST = 2  # users of a slice that has an interval
Results = dict[str, EvaluationResult]


def measures(
    candidate: Bundle,
    champion: Bundle | None,
    anchor: Bundle | None,
    catalogue: Catalogue,
    ranks_by: EvaluationConfig,
    config: GateConfig,
    progress: Progress,
) -> tuple[Figures, pa.Table | None]:
    """All figures that the rules read, as plain values; and the champion's lists for the users that the report shows, None without a champion."""
    seq = catalogue.seq
    ranking = replace(ranks_by, recall_at=(K,), ndcg_at=(K,), constrained=True, beams=max(ranks_by.beams, K), bootstrap=config.bootstrap)
    users_T = sample(seq, config.users)
    results = {"candidate": candidate_lists(candidate, catalogue, users_T, ranking, progress)}
    if champion is not None:
        results["champion"] = earlier_lists(champion, catalogue, users_T, ranking, progress, "champion")
    results["most_popular"] = baseline_results(seq, "test", ranking, users_T)["most_popular"]
    counted = baselines(candidate, catalogue, users_T, ranking)
    strongest = max(counted, key=lambda name: _ndcg(counted[name]).mean())
    metrics = evaluation({**results, "baseline": counted[strongest]}, seq, ranking)
    gain = metrics["differences"]["candidate - baseline"][NDCG]
    target_T, shown = results["candidate"].target_T, None
    parts = {"all": np.ones(len(target_T), dtype=bool), **target_slices(seq, target_T, ranking)}
    found: Figures = {
        "users": metrics["users"],
        "users_with_a_target": len(targets(seq, "test")[0]),
        "baseline": {
            "name": strongest,
            "mean": gain["mean"],
            "low": gain["low"],
            "high": gain["high"],
            "slices": {name: _gain(results["candidate"], counted[strongest], mask_T, config.bootstrap) for name, mask_T in parts.items()},
        },
        "models": {
            name: {RECALL: values[RECALL], NDCG: values[NDCG], "intervals": values["intervals"]} for name, values in metrics["models"].items()
        },
        "coverage": {name: _coverage(result, seq.items) for name, result in results.items()},
        "ids": _ids(candidate, champion),
        "alarm": candidate.judged.config.get("alarm"),
    }
    new_T = parts["new_items"]
    if "text" in counted and new_T.sum() >= SMALLEST:
        found["new_items"] = _new_items({**results, "text": counted["text"]}, new_T, config.bootstrap)
    if champion is not None:
        found["baseline"]["champion"] = metrics["differences"]["champion - baseline"][NDCG]
        found["champion_prefixes"] = _prefix_share(champion)
        found["settings"] = differing(champion.judged.config, candidate.judged.config)
        shown = shown_lists(results["champion"], sample(seq, SAMPLE))
        masks = _slices(results["candidate"], champion, catalogue, ranking)
        found["slices"] = {name: _pair(results, mask_T, config.bootstrap) for name, mask_T in masks.items() if mask_T is not None}
        found["fresh_targets"] = None if masks["fresh"] is None else int(masks["fresh"].sum())
        found["churn"] = churn(champion, candidate, catalogue)
        if anchor is not None:
            beside = earlier_lists(anchor, catalogue, users_T, ranking, progress, "anchor")
            found["anchor"] = _anchor(anchor, results, beside, catalogue, config.bootstrap)
    return found, shown


def _new_items(results: Results, mask_T: np.ndarray, bootstrap: int) -> NewItems:
    gain_Tx = {name: _ndcg(results[name])[mask_T] for name in ("candidate", "champion", "text") if name in results}
    mean, low, high = paired_bootstrap(gain_Tx["candidate"], gain_Tx["text"], bootstrap, seed=0)
    found: NewItems = {
        "users": int(mask_T.sum()),
        "candidate": float(gain_Tx["candidate"].mean()),
        "text": float(gain_Tx["text"].mean()),
        "difference": {"mean": mean, "low": low, "high": high},
    }
    if "champion" in gain_Tx:
        found["champion"] = float(gain_Tx["champion"].mean())
    return found


def _gain(ours: EvaluationResult, theirs: EvaluationResult, mask_T: np.ndarray, bootstrap: int) -> Gain:
    users = int(mask_T.sum())
    if users < SMALLEST:
        return {"users": users}
    mean, low, high = paired_bootstrap(_ndcg(ours)[mask_T], _ndcg(theirs)[mask_T], bootstrap, seed=0)
    return {"users": users, "difference": {"mean": mean, "low": low, "high": high}}


def _anchor(anchor: Bundle, results: Results, beside: EvaluationResult, catalogue: Catalogue, bootstrap: int) -> Anchor:
    known_N = index_of(catalogue.item_ids, anchor.item_ids) >= 0
    mask_T = known_N[beside.target_T]
    listed = float((index_of(anchor.item_ids, catalogue.item_ids) >= 0).mean())
    candidate, champion = (_pair({"candidate": results[name], "champion": beside}, mask_T, bootstrap) for name in ("candidate", "champion"))
    return {"bundle": anchor.hash, "common_items": listed, "candidate": candidate, "champion": champion}


def _ndcg(result: EvaluationResult) -> np.ndarray:
    return ndcg(result.rank_T, K)


def _slices(candidate: EvaluationResult, champion: Bundle, catalogue: Catalogue, ranking: EvaluationConfig) -> dict[str, np.ndarray | None]:
    """Masks over the users by their target; `fresh` is None where the events or the champion's have no times."""
    seq, newest = catalogue.seq, champion.document.get("last_event")
    _, end_T, _ = rows(seq, candidate.users_T)
    fresh = None if newest is None or seq.timestamps_E is None else seq.timestamps_E[end_T] > newest
    unknown_T = index_of(catalogue.item_ids, champion.item_ids)[candidate.target_T] < 0
    return {
        "all": np.ones(len(end_T), dtype=bool),
        **target_slices(seq, candidate.target_T, ranking),
        "known_to_both": ~unknown_T,
        "unknown_to_champion": unknown_T,
        "fresh": fresh,
    }


def _pair(results: Results, mask_T: np.ndarray, bootstrap: int) -> Slice:
    """Users of a slice, both models' means, and the paired difference with its 95% interval; relative: over the champion's mean."""
    found: Slice = {"users": int(mask_T.sum())}
    if found["users"] < SMALLEST:
        return found
    ours, theirs = (results[name].rank_T[mask_T] for name in ("candidate", "champion"))
    found[RECALL] = _compared(recall(ours, K), recall(theirs, K), bootstrap)
    found[NDCG] = _compared(ndcg(ours, K), ndcg(theirs, K), bootstrap)
    return found


def _compared(ours_T: Float64, theirs_T: Float64, bootstrap: int) -> Comparison:
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


def _prefix_share(bundle: Bundle) -> float:
    return len(np.unique(bundle.table.codes_NM.numpy(), axis=0)) / len(bundle.item_ids)


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
