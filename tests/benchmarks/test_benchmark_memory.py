"""The memory bench: its shop has the events that it was asked for, and a part's peak is its own, not that of the process that started it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import memory


def test_a_shop_has_its_events_in_parts_and_few_items_are_most_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "WRITTEN", 4096)
    memory.shop(tmp_path, 10_000)
    parts = sorted((tmp_path / "interactions.parquet").iterdir())
    assert [pq.read_table(part).num_rows for part in parts] == [4096, 4096, 1808]
    events, items = pq.read_table(tmp_path / "interactions.parquet"), pq.read_table(tmp_path / "items.parquet")
    assert items.num_rows == 200
    assert set(events["item_id"].to_pylist()) <= set(items["item_id"].to_pylist())
    counts = np.sort(np.bincount(events["item_id"].to_numpy()))[::-1]
    assert counts[:20].sum() > 0.5 * 10_000


def test_a_part_s_peak_is_its_own() -> None:
    held = np.ones(1 << 25)  # 256 MiB here, which a child's high-water mark would begin with
    code = "from orchestration.engine.memory import PeakMemory; print(PeakMemory().mebibytes()['peak_memory_mb'])"
    assert 1 < float(memory.apart(code)) < held.nbytes / 2**20
    with pytest.raises(RuntimeError, match="no_such_module"):
        memory.apart("import no_such_module")
