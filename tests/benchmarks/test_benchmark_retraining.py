"""The retraining benchmark: cuts by date, and that runs continue from each other and can be taken up again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks.common import Data
from benchmarks.gpu import retraining
from diger_core.data.sequences import Sequences

ITEMS, USERS, EACH = 60, 50, 9


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    time = np.sort(rng.integers(0, 1000, (USERS, EACH)), axis=1).ravel()
    kind = np.repeat(rng.integers(0, 6, USERS), EACH)
    known = 30 + time * (ITEMS - 30) // 1000  # the catalogue grows with time
    events = (kind + 6 * rng.integers(0, known // 6)).astype(np.int32)
    vectors = np.eye(6)[np.arange(ITEMS) % 6].repeat(2, axis=1) + 0.2 * rng.normal(size=(ITEMS, 12))
    seq = Sequences(events, np.arange(USERS + 1, dtype=np.int64) * EACH, ITEMS, time.astype(np.int64))
    return Data("tiny", seq, pa.array(np.arange(ITEMS) + 100), torch.tensor(vectors, dtype=torch.float32), True)


def test_a_cut_holds_the_events_up_to_its_date_and_the_items_that_occur_in_them(data):
    made = retraining.cuts(data)
    sizes = [len(cut.data.sequences.events_E) for cut in made]
    assert sizes == sorted(sizes)
    assert sizes[-1] == USERS * EACH
    for cut, share in zip(made, retraining.SHARES, strict=True):
        seq = cut.data.sequences
        newest = np.quantile(data.sequences.timestamps_E, share, method="lower")
        assert seq.timestamps_E.max() == newest
        before = data.sequences.timestamps_E <= newest
        assert np.array_equal(cut.data.item_ids.to_numpy()[seq.events_E], data.item_ids.to_numpy()[data.sequences.events_E[before]])
        assert len(np.unique(seq.events_E)) == seq.items == len(cut.data.vectors_ND)
    for earlier, later in zip(made, made[1:], strict=False):
        assert set(later.rows_N[later.new_N]) == set(later.rows_N) - set(earlier.rows_N)


@pytest.mark.slow
def test_warm_runs_keep_ids_and_a_second_command_only_tells_what_is_known(data, tmp_path: Path):
    given = argparse.Namespace(
        preset="small", history=6, seconds=300.0, label="", joint="frqud", anchor=1.0, warm_epochs=1, warm_rate=None, state=tmp_path / "state",
        out=tmp_path / "out", cuts=[0, 1], methods=["scratch", "cold", "anchored", "pinned"], seeds=[0],
        set=["training.epochs=2", "training.batch_size=64", "tokenizer.epochs=6", "tokenizer.item_factors=0", "training.beams=10"],
    )  # fmt: skip
    retraining.run(data, given)
    first = [json.loads(line) for line in (tmp_path / "out" / "retraining.jsonl").read_text().splitlines()]
    found = {(row["cut"], row["method"]): row for row in first}
    assert set(found) == {(0, "scratch"), (1, "scratch"), (1, "cold"), (1, "anchored"), (1, "pinned")}
    assert found[1, "pinned"]["kept_weighted"] == found[1, "cold"]["kept_weighted"] == 1
    assert found[1, "scratch"]["kept"] < 0.9
    assert found[1, "anchored"]["ndcg_low"] <= found[1, "anchored"]["ndcg_difference"] <= found[1, "anchored"]["ndcg_high"]
    retraining.run(data, given)
    again = [json.loads(line) for line in (tmp_path / "out" / "retraining.jsonl").read_text().splitlines()][len(first) :]
    assert [(row["ndcg@10"], row["seconds"]) for row in again] == [(row["ndcg@10"], row["seconds"]) for row in first]
