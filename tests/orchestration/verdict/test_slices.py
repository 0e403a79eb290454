"""Which users the gate looks at apart: by their target's own time and item."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from diger_core.config import EvaluationConfig
from diger_core.data.sequences import Sequences
from orchestration.verdict.gate.measures import _slices


def test_fresh_is_the_targets_own_time_after_the_champions_newest() -> None:
    """Newest event of the champion: 100. Targets at 100 (it may have seen that one), 101 after an event at 100, 90, and 101 after one at 99."""
    times = [[1, 2, 99, 100], [1, 2, 100, 101], [1, 2, 3, 90], [1, 2, 99, 101]]
    seq = Sequences(np.tile(np.arange(4), 4).astype(np.int32), np.arange(0, 17, 4), 5, timestamps_E=np.array(times).ravel())
    catalogue = SimpleNamespace(seq=seq, item_ids=pa.chunked_array([[10, 11, 12, 13, 14]]))
    candidate = SimpleNamespace(users_T=np.arange(4), target_T=np.array([3, 3, 3, 3]))
    champion = SimpleNamespace(document={"last_event": 100}, item_ids=pa.chunked_array([[10, 11, 12]]))
    masks = _slices(candidate, champion, catalogue, EvaluationConfig())
    assert masks["fresh"].tolist() == [False, True, False, True]
    assert masks["unknown_to_champion"].tolist() == [True] * 4
    assert masks["known_to_both"].tolist() == [False] * 4
