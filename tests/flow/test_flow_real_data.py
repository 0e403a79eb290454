"""The flow on public data sets, with the project's own params.yaml: only the budget is made short."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from tests.support.snapshot_material import interactions, items, write

PROJECT = Path(__file__).resolve().parents[2]
LIMIT = 6 * 2**30  # bytes of memory that a run may take


def run(folder: Path, snapshot: Path, *overrides: str, timeout: int = 280) -> tuple[dict[str, Any], str, int]:
    """`diger run` with params.yaml as it is, and `overrides`: (its JSON summary, its log, the peak memory of its processes in bytes)."""
    command = [sys.executable, "-c", "from orchestration.cli import main; main()", "run", "--snapshot", str(snapshot), "--json"]
    command += ["--params", str(PROJECT / "params.yaml"), *(part for override in overrides for part in ("--set", override))]
    environment = {**os.environ, "DAGSTER_HOME": str(folder / "dagster"), "PYTHONPATH": str(PROJECT)}
    environment.pop("DIGER_STORE", None)
    with open(folder / "log", "w+") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        with _Peak(process.pid) as peak:
            output, _ = process.communicate(timeout=timeout)
        log.seek(0)
        text = log.read()
    # 3: so short a training may well be refused by the gate, and the flow has run all the same
    assert process.returncode in (0, 3), text[-3000:]
    return json.loads(output), text, peak.bytes


class _Peak:
    """The most memory that a process and its descendants held at once: proportional set size, so that shared pages count once."""

    def __init__(self, pid: int) -> None:
        self.bytes, self._root, self._stop = 0, psutil.Process(pid), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.bytes = max(self.bytes, sum(self._sizes()))

    def _sizes(self) -> Iterator[int]:
        try:
            tree = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in tree:
            try:
                yield process.memory_full_info().pss
            except psutil.Error:
                continue  # it has just ended

    def __enter__(self) -> _Peak:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the watch, and whatever a run that took too long has left."""
        self._stop.set()
        self._thread.join()
        if self._root.is_running():
            for process in [*self._root.children(recursive=True), self._root]:
                process.kill()


def assert_sound(summary: dict[str, Any], peak: int) -> None:
    """Metrics of the lists, both models and the baselines, finite and in range; a report; memory within the limit."""
    models = summary["metrics"]["models"]
    assert set(models) >= {"lists", "joint_model", "frozen_model", "item_item", "text", "item_item_text", "markov", "most_popular"}
    for values in models.values():
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        assert {"recall@10", "ndcg@10"} <= set(numbers)
        assert all(math.isfinite(value) and 0 <= value <= 1 for value in numbers.values())
    assert summary["metrics"]["users"] > 0
    assert 0 < peak < LIMIT, f"{peak / 2**30:.2f} GiB"


def test_amazon_scientific_small_with_one_epoch(shared_data, tmp_path):
    budget = ("training.epochs=1", "training.evaluation_users=100", "tokenizer.epochs=5", "cluster.workers=0")
    summary, _, peak = run(tmp_path, shared_data("amazon_scientific_small"), *budget)
    assert_sound(summary, peak)


@pytest.mark.slow
def test_fewer_items_than_codes_get_fitting_codebooks_and_a_word_about_it(tmp_path):
    snapshot = write(tmp_path / "snap", interactions(users=60, each=8, n_items=150), items(150))
    budget = ("tokenizer.codes=null", "training.epochs=1", "tokenizer.epochs=5", "cluster.workers=0", "frozen_model.enabled=false")
    summary, log, _ = run(tmp_path, snapshot, *budget)
    assert summary["metrics"]["users"] == 60
    said = [line for line in log.splitlines() if "150 items" in line and "codes" in line]
    assert said, log
    folder = tmp_path / "store" / "artefacts" / "semantic_ids" / summary["artefacts"]["semantic_ids"]
    codes = pq.read_table(folder / "semantic_ids.parquet")
    assert codes.num_rows == 150
    assert max(codes[name].to_numpy().max() for name in codes.column_names if name.startswith("code_")) < 150


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("name", "epochs"), [("amazon_scientific_small", 2), ("ml_100k", 2), ("amazon_beauty", 1)])
def test_public_data_with_the_defaults(shared_data, tmp_path, name, epochs, capsys):
    summary, _, peak = run(tmp_path, shared_data(name), f"training.epochs={epochs}", timeout=1400)
    assert_sound(summary, peak)
    assert summary["metrics"]["models"]["joint_model"]["recall@10"] > 0
    with capsys.disabled():
        print(f"\n{name}: {summary['seconds']:.0f} s, peak {peak / 2**30:.2f} GiB")
        for model, values in summary["metrics"]["models"].items():
            print(f"  {model:14s} " + "  ".join(f"{metric} {values[metric]:.4f}" for metric in ("recall@5", "recall@10", "ndcg@5", "ndcg@10")))
