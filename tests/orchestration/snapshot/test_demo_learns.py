"""On the embedded shop both models clearly beat most popular and the last-item Markov chain, on three seeds."""

import json
import shutil
from pathlib import Path

import pytest

from orchestration.cli import main
from orchestration.snapshot.demo_shop import write_demo_snapshots

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_frozen_model_and_joint_model_beat_the_baselines_on_three_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    shutil.copy(PROJECT / "params.yaml", tmp_path / "params.yaml")
    snapshot, _ = write_demo_snapshots(tmp_path / "snapshots")
    for seed in (0, 1, 2):
        main(["run", "--snapshot", str(snapshot), "--set", f"training.seed={seed}", "--until", "evaluation", "--json"])
        metrics = json.loads(capsys.readouterr().out)["metrics"]
        models = metrics["models"]
        for metric in ("recall@10", "ndcg@10"):
            best = max(models[name]["intervals"][metric][1] for name in ("most_popular", "markov"))
            for name in ("frozen_model", "joint_model"):
                # The intervals do not even touch.
                assert models[name]["intervals"][metric][0] > best, (seed, name, metric, models[name][metric], best)
