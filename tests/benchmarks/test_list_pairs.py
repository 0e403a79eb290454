"""Runs of `benchmarks.lists` compared over seeds by the ranks that they left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks import list_pairs
from diger_core.evaluation.metrics import ndcg


def test_a_pair_is_compared_on_the_seeds_that_both_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ranks").mkdir()
    ranks = {("better", seed): np.array([1, 2 + seed, 5, 3, 60], np.int32) for seed in (0, 1, 2)}
    ranks |= {("worse", seed): np.array([9, 8, 7 - seed, 6, 60], np.int32) for seed in (0, 1, 2, 3)}
    for (name, seed), ranks_T in ranks.items():
        save_file({"model": ranks_T, "lists": ranks_T[::-1].copy()}, tmp_path / "ranks" / f"shop--{name}--{seed}.safetensors")
    arguments = ["list_pairs", "--ranks", str(tmp_path / "ranks"), "--data", "shop", "--out", str(tmp_path), "--pairs", "better - worse"]
    monkeypatch.setattr("sys.argv", [*arguments, "worse - better:lists"])
    list_pairs.main()
    first, second = (json.loads(line) for line in (tmp_path / "list_pairs.jsonl").read_text(encoding="utf-8").splitlines())
    wanted = np.mean([ndcg(ranks["better", seed], 10).mean() - ndcg(ranks["worse", seed], 10).mean() for seed in (0, 1, 2)])
    assert (first["seeds"], first["users"], first["mean"]) == ([0, 1, 2], 5, pytest.approx(wanted, abs=1e-5))
    assert first["low"] < first["mean"] < first["high"]
    assert second["second"] == "better:lists"
    monkeypatch.setattr("sys.argv", [*arguments, "better - absent"])
    with pytest.raises(ValueError, match="holds no ranks of run 'absent' on shop"):
        list_pairs.main()
