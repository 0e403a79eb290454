"""On the embedded shop the released lists beat every way of counting, on three seeds."""

import json
import shutil
from pathlib import Path

import pytest

from orchestration.cli import main
from orchestration.snapshot.demo_shop import write_demo_snapshots
from orchestration.verdict.models import BASELINES

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_lists_beat_every_baseline_on_three_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    shutil.copy(PROJECT / "params.yaml", tmp_path / "params.yaml")
    snapshot, _ = write_demo_snapshots(tmp_path / "snapshots")
    for seed in (0, 1, 2):
        main(["run", "--snapshot", str(snapshot), "--set", f"training.seed={seed}", "--until", "evaluation", "--json"])
        models = json.loads(capsys.readouterr().out)["metrics"]["models"]
        for name in set(models) & set(BASELINES):
            assert models["lists"]["ndcg@10"] > models[name]["ndcg@10"], (seed, name, models["lists"], models[name])
        popular = models["most_popular"]["intervals"]["ndcg@10"][1]
        for name in ("frozen_model", "joint_model"):  # the models alone have learned something: the intervals do not even touch
            assert models[name]["intervals"]["ndcg@10"][0] > popular, (seed, name)
