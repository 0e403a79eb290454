"""A cluster of two nodes: the second is lost in mid-training, and the tests of one machine pass on both nodes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.two_nodes import TwoNodes, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
_DRIVER = """
import sys
from dataclasses import replace
from pathlib import Path
from orchestration.on_ray.session import shutdown
from orchestration.params.cluster import ClusterConfig
from orchestration.training.joint_model import joint_model
from tests.support.training_world import Recorder, World, params

class Tells(Recorder):
    def update(self, what, done, total=None, **values):
        if what == "joint_model":
            print("STEP", done, flush=True)
    def message(self, text):
        print(text, flush=True)

if __name__ == "__main__":
    least = int(sys.argv[2]) or None
    chosen = ClusterConfig(workers=2, min_workers=least, checkpoint_steps=5, max_failures=4)
    joint = replace(params().joint_model, collapse_unique_prefixes=0.0, collapse_perplexity=0.0)  # so many epochs on a toy do collapse
    changed = params(training=replace(params().training, epochs=25, patience=25), joint_model=joint, cluster=chosen)
    artefact, notes = World(Path(sys.argv[1])).compute("joint_model", joint_model, changed, key=sys.argv[2] * 64, progress=Tells())
    print("ENDED", artefact.facts["epochs"], notes["starts"], flush=True)
    shutdown()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    with two_nodes() as started:
        yield started


def trained_with_a_loss(cluster: TwoNodes, folder: Path, least: int, again_after: float | None) -> tuple[list[str], list[float], float, float]:
    """Trains and takes the second node away after 60 steps: (what was said, when steps were told, when the node went, when another came)."""
    script = folder / "driver.py"
    script.write_text(_DRIVER)
    command = [sys.executable, str(script), str(folder), str(least)]
    driver = subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said, steps, lost, added = [], [], 0.0, 0.0

    def add() -> None:
        nonlocal added
        added = time.monotonic()
        cluster.say("add")

    assert driver.stdout is not None
    for line in driver.stdout:
        said.append(line.strip())
        if line.startswith("STEP"):
            steps.append(time.monotonic())
            if int(line.split()[1]) > 60 and not lost:
                cluster.say("lose")
                lost = time.monotonic()
                if again_after is not None:
                    threading.Timer(again_after, add).start()
    assert driver.wait(60) == 0, "\n".join(said[-60:])
    return said, steps, lost, added


def test_training_waits_for_a_lost_node_and_goes_on_when_another_comes(cluster: TwoNodes, tmp_path: Path) -> None:
    said, steps, lost, added = trained_with_a_loss(cluster, tmp_path, 0, again_after=8.0)
    assert "ENDED 25 2" in said, said[-20:]  # epochs, starts of the group
    assert any("resumed at" in line for line in said)
    assert [at for at in steps if lost + 3 < at < added] == [], "nobody trains while a worker is missing"


def test_training_goes_on_with_one_node_when_the_second_is_lost(cluster: TwoNodes, tmp_path: Path) -> None:
    said, _, lost, _ = trained_with_a_loss(cluster, tmp_path, 1, again_after=None)
    assert "ENDED 25 2" in said, said[-20:]
    assert lost
    assert any("resumed at" in line for line in said)
    cluster.say("add")


@pytest.mark.parametrize(
    ("file", "words", "passed"),
    [
        ("on_ray/test_ray_train.py", "two_workers_give or killed_worker", 2),
        ("on_ray/test_ray_blocks.py", "two_workers_give", 1),
        ("search/test_decay_search.py", "two_trials_at_a_time", 1),
    ],
)
def test_the_tests_of_one_machine_pass_on_two_nodes(cluster: TwoNodes, file: str, words: str, passed: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).resolve().parents[1] / file), "-k", words]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{passed} passed" in done.stdout
