"""How good the champion's lists are on events that came after it was made, and what they lost since its release. Nothing is trained.

Judged is what serves: the bundle's model after its refit, mixed by its recipe with what was counted up to its newest event. A target is what a user
came back for: the first event of the user's newest moment, where that is fresh, after all that the user had before. The first of a moment, since the
rest of a basket is easier to guess, and the test targets of a temporal split are firsts as well. An item that the champion lacks is a miss.

T targets, E events, U users.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from diger_core.data.sequences import Int64, Sequences, gathered
from diger_core.evaluation.metrics import ndcg, ranks
from diger_core.evaluation.period import Z
from diger_core.evaluation.recipes import ranked
from diger_core.item_ids import Ids, index_of
from orchestration.change.drift_figures import UNJUDGED, Lists
from orchestration.serving.ranker import Ranker, projected
from orchestration.serving.rules import Rules
from orchestration.verdict.gate.document import NDCG, K, ModelFigures

if TYPE_CHECKING:
    from diger_core.config import EvaluationConfig
    from diger_core.store.artefact import Artefact
    from orchestration.champion.bundle import Bundle
    from orchestration.verdict.gate.document import GateVerdict


def fresh_targets(seq: Sequences, newest: int, users: int) -> tuple[Int64, Int64]:
    """(users_T, end_T): whose newest event is later than `newest` and is not their first; the target is the event at `end_T`, the history all before.
    At most so many users, drawn by a fixed seed. The events must have times."""
    if seq.timestamps_E is None:
        raise ValueError("fresh_targets: the events have no times")
    starts_E = np.r_[True, seq.timestamps_E[1:] != seq.timestamps_E[:-1]]
    moment_E = np.maximum.accumulate(np.where(starts_E, np.arange(len(starts_E)), 0))
    end_U = moment_E[seq.offsets_U1[1:] - 1]
    had_U = end_U > seq.offsets_U1[:-1]  # false, too, where the moment reaches back into the user before
    users_T = np.flatnonzero(had_U & (seq.timestamps_E[end_U] > newest))
    if len(users_T) > users:
        users_T = np.sort(np.random.Generator(np.random.Philox(key=0)).permutation(users_T)[:users])
    return users_T, end_U[users_T]


def fresh_lists(
    bundle: Bundle,
    own: Mapping[str, Artefact],
    seq: Sequences,
    item_ids: Ids,
    verdict: GateVerdict | None,
    ranking: EvaluationConfig,
    users: int,
) -> Lists:
    """own: sequences, neighbours and validated_items that the bundle was made from; seq, item_ids: the snapshot's. verdict: that of the bundle's
    release, None where it has none. ranking: beams, batch size and whether seen items leave the lists, as the gate judges."""
    newest = bundle.document.get("last_event")
    if newest is None or seq.timestamps_E is None or not users:
        return UNJUDGED
    users_T, end_T = fresh_targets(seq, newest, users)
    if not len(users_T):
        return UNJUDGED
    ranker = Ranker(bundle, None, own, Rules(), None, ranking.batch_size)
    own_N = index_of(item_ids, ranker.item_ids)
    events_e, offsets_T1 = gathered(seq, seq.offsets_U1[users_T], end_T)
    histories, _ = projected(Sequences(events_e, offsets_T1, seq.items), own_N, len(ranker.item_ids))
    target_T = own_N[seq.events_E[end_T]]
    items_Tk, _ = ranker.lists(histories, K, max(ranking.beams, K), ranking.remove_seen)
    gain_T = ndcg(ranks(items_Tk, target_T), K)
    counted_T = np.zeros(len(users_T))
    rows = np.flatnonzero(np.diff(histories.offsets_U1) > 0)
    recipe = bundle.fitted.baselines[bundle.fitted.best]
    items_tk, _ = ranked(recipe, ranker.counting, histories, rows, histories.offsets_U1[rows + 1], K, remove_seen=ranking.remove_seen)
    counted_T[rows] = ndcg(ranks(items_tk, target_T[rows]), K)
    models = None if verdict is None else verdict["metrics"]["models"]
    lost, low, high = (None, None, None) if models is None else decay(gain_T, models["candidate"])
    return {
        "list_users": len(users_T),
        "list_ndcg_10": float(gain_T.mean()),
        "list_ndcg_10_at_release": None if models is None else models["candidate"][NDCG],
        "list_decay": lost,
        "list_decay_low": low,
        "list_decay_high": high,
        "counted_ndcg_10": float(counted_T.mean()),
        "counted_ndcg_10_at_release": None if models is None else models["baseline"][NDCG],
    }


def decay(gain_T: np.ndarray, released: ModelFigures) -> tuple[float | None, float | None, float | None]:
    """1 - mean of the gains over NDCG@10 at the release, with its 95% interval: both sides vary, and hold other users, so their variances add up
    (delta method). None without an interval where there is one gain alone; nothing where the release found nothing."""
    then, now = released[NDCG], float(gain_T.mean())
    if then <= 0:
        return None, None, None
    lost = 1 - now / then
    if len(gain_T) < 2:
        return lost, None, None
    low, high = released["intervals"][NDCG]
    half = (gain_T.var(ddof=1) / len(gain_T) * Z**2 + (now / then * (high - low) / 2) ** 2) ** 0.5 / then
    return lost, lost - half, lost + half
