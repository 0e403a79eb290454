"""Counting under the published protocol, beside a temporal split: each user's last event, all events before it counted.

Published figures are made so, and so they are higher: it trains on events later than its targets. Only what needs no training stands here: the
baselines, with the recipes that the temporal validation chose, counted again. A model's row needs a second training: sequences.split=leave_one_out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from diger_core.data.sequences import Sequences
    from diger_core.evaluation.metrics import Metrics
    from orchestration.engine.stage_run import StageRun

FILE: Final = "leave_one_out.json"


def leave_one_out(run: StageRun, seq: Sequences) -> Metrics | None:
    """Metrics of every counting baseline on each user's last event; None where nobody has the three events that it needs."""
    from diger_core.data.neighbours import transitions
    from diger_core.data.splits import targets, up_to_test
    from diger_core.evaluation.counts import Counts
    from diger_core.evaluation.metrics import ranks
    from diger_core.evaluation.ranking import EvaluationResult, baseline_results, cut_off, evaluation
    from diger_core.evaluation.recipes import Fitted, ranked
    from orchestration.champion.bundle import FUSION
    from orchestration.features.neighbours import read_table

    published, config = replace(seq, boundaries=None), run.params.evaluation
    users_T, end_T, target_T = targets(published, "test")
    if not len(users_T):
        return None
    eve = up_to_test(published)
    counts = Counts.of(eve, transitions(eve, run.params.neighbours, run.progress), read_table(run.inputs["neighbours"], "text"))
    results = {}
    for name, recipe in Fitted.from_document(run.inputs["fusion"].json(FUSION)).baselines.items():
        items_Tk, _ = ranked(recipe, counts, published, users_T, end_T, cut_off(config), remove_seen=config.remove_seen)
        results[name] = EvaluationResult(users_T, target_T, ranks(items_Tk, target_T), items_Tk)
    return evaluation({**results, **baseline_results(eve, "test", config)}, published, config)
