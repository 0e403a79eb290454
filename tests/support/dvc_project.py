"""A git and DVC repository with this project's own configuration, a tiny snapshot and tiny parameters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from orchestration.params.load import load_params
from tests.support.snapshot_material import interactions, items, write

PROJECT = Path(__file__).resolve().parents[2]
TINY = """snapshot: data/snapshots/tiny
validated_items: {}
validated_interactions: {}
sequences: {use_weights: false}
embeddings: {}
tokenizer: {epochs: 5, codes: 8, levels: 2, suffixes: 64, code_dim: 8, hidden: [16], item_factors: 4}
recommender: {encoder_layers: 1, decoder_layers: 1, d_model: 16, d_ff: 32, heads: 2, d_head: 8, dropout: 0.0, history: 5}
training: {epochs: 2, batch_size: 32, beams: 5}
frozen_model: {enabled: true}
joint_model: {schedule: {name: sdud+frqud}}
semantic_ids: {}
neighbours: {}
fusion: {}
refit: {epochs: 0}
retraining: {}
catalogue_diff: {}
evaluation: {beams: 20, bootstrap: 100}
gate:
  {beat_most_popular: false, beat_baseline: false, min_coverage: 0, min_unique_prefixes: 0, max_churn: 1, min_relative_ndcg: 0, min_relative_slice: 0,
   min_relative_anchor: 0, min_new_items: 0}
report: {examples: 2}
release: {}
recommendations: {}
rules: {}
training_comparison: {}
decay_search: {trials: 2, finalists: 1, seeds: 0}
tuned_model: {}
cluster: {workers: 0}
"""


class Project:
    """Runs `git`, `dvc` and `diger` inside a repository, as a user would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DIGER_", "DAGSTER_", "GIT_", "DVC_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "test"), ("EMAIL", "test@example.org"))},
        }

    def run(self, *command: str, ok: bool = True) -> str:
        """The command's standard output and error together; asserts that it succeeds, or, with ok=False, that it fails."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=280
        )
        assert (done.returncode == 0) is ok, f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def set(self, old: str, new: str) -> None:
        """Edits params.yaml."""
        text = (self.root / "params.yaml").read_text()
        assert old in text
        (self.root / "params.yaml").write_text(text.replace(old, new))

    def clone(self, target: Path, *, bring: bool = True) -> Project:
        """`git clone`, with the remote's place said; `bring`: then `dvc pull`."""
        self.run("git", "clone", "-q", str(self.root), str(target))
        other = Project(target)
        other.run("dvc", "remote", "modify", "--local", "local", "url", str(self.root / "dvc-remote"))
        if bring:
            other.run("dvc", "pull", "--allow-missing")
        return other

    def hashes(self) -> dict[str, str]:
        """Stage -> the artefact's hash that lies below pipeline/."""
        import json

        found = sorted((self.root / "pipeline").glob("*/manifest.json"))
        return {path.parent.name: json.loads(path.read_text())["hash"] for path in found}


def project(root: Path) -> Project:
    """A fresh repository with a tracked snapshot, committed."""
    for name in ("dvc.yaml", "on_demand/dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / name, root / name)
    (root / "params.yaml").write_text(TINY)
    load_params(root / "params.yaml")
    write(root / "data" / "snapshots" / "tiny", interactions(), items())
    made = Project(root)
    made.run("git", "init", "-q")
    made.run("dvc", "add", "--quiet", "data/snapshots/tiny")
    made.commit("a project")
    return made
