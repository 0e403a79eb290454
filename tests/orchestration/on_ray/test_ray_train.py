"""Training stages: in this process, on Ray with two workers, killed and resumed; and what their artefacts promise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from diger_core.errors import DigerError
from diger_core.training import checkpoint as checkpoints
from orchestration.champion.model_artefact import ASSIGNMENT, load_model
from orchestration.engine.checkpoints import remove as remove_checkpoints
from orchestration.ids.semantic_ids import semantic_ids
from orchestration.on_ray import train as ray_train
from orchestration.params.cluster import ClusterConfig
from orchestration.training import job as training_job
from orchestration.training.frozen_model import frozen_model
from orchestration.training.joint_model import joint_model
from tests.support.ray_processes import marked, train_workers
from tests.support.training_world import ITEMS, Recorder, World, params


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny tensors: a second thread only costs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_joint_model_artefact_loads_as_one_model_with_its_own_table(world: World) -> None:
    artefact, notes = world.compute("joint_model", joint_model, params(), key="a" * 64)
    model = load_model(artefact)
    assert len(model.item_ids) == ITEMS == len(model.table.codes_NM)
    assert artefact.facts["assignment_hash"] == artefact.tensors_metadata("model.safetensors")[ASSIGNMENT]
    assert len(artefact.json("curves.json")) == 2
    assert notes["workers"] == 0
    assert notes["rows_per_second"] > 0
    assert notes["peak_memory_mb"] > 50
    usage = artefact.table("code_usage.parquet")
    assert usage["epoch"].to_pylist() == sorted(usage["epoch"].to_pylist())
    assert usage["epoch"].to_pylist()[-1] == 2
    assert {sum(items) for items in usage["items"].to_pylist()} == {ITEMS}


def test_a_table_from_another_model_is_refused(world: World, tmp_path) -> None:
    one, _ = world.compute("joint_model", joint_model, params(), key="a" * 64)
    with world.store.writer("joint_model") as out:
        for name in one.names:
            if name != "id_table.parquet":
                out.file(name, one.path(name))
        table = one.table("id_table.parquet")
        out.table("id_table.parquet", table.set_column(1, "code_1", table.column("code_1").take(list(range(ITEMS))[::-1])), sort_by=("item_id",))
        mixed = world.store.publish(out)
    with pytest.raises(DigerError, match="is not the table"):
        load_model(mixed)


def test_semantic_ids_are_those_of_the_model_and_their_inverse(world: World) -> None:
    artefact, _ = world.compute("joint_model", joint_model, params(), key="a" * 64)
    world.inputs["joint_model"] = artefact
    ids, _ = world.compute("semantic_ids", semantic_ids, params())
    table, inverse = ids.table("semantic_ids.parquet"), ids.table("items_by_code.parquet")
    assert table.schema.metadata[ASSIGNMENT.encode()].decode() == artefact.facts["assignment_hash"]
    columns = ["code_1", "code_2", "suffix"]
    assert table.column("item_id").to_pylist() == list(range(ITEMS))
    assert len({tuple(row[c] for c in columns) for row in table.to_pylist()}) == ITEMS
    assert inverse.sort_by("item_id").select(table.column_names).equals(table)
    keys = [tuple(row[c] for c in columns) for row in inverse.to_pylist()]
    assert keys == sorted(keys)


def test_codes_that_the_tokenizer_does_not_give_are_refused(world: World) -> None:
    artefact, _ = world.compute("joint_model", joint_model, params(), key="a" * 64)
    other = World(world.folder / "other")
    with other.store.writer("embeddings") as out:
        vectors = other.inputs["embeddings"].tensors("vectors.safetensors")["vectors"]
        out.tensors("vectors.safetensors", {"vectors": vectors.flip(0)})
        out.table("texts.parquet", other.inputs["embeddings"].table("texts.parquet"), sort_by=("item_index",))
        other.inputs["embeddings"] = other.store.publish(out)
    other.inputs["joint_model"] = artefact
    with pytest.raises(DigerError, match="get other codes from the joint model's tokenizer"):
        other.compute("semantic_ids", semantic_ids, params())


def test_frozen_model_leaves_the_tokenizer_as_it_was(world: World) -> None:
    artefact, _ = world.compute("frozen_model", frozen_model, params(), key="f" * 64)
    warm = world.inputs["tokenizer"].tensors("tokenizer.safetensors")
    for name, value in load_model(artefact).tokenizer.state_dict().items():
        assert torch.equal(value, warm[name]), name
    joint, _ = world.compute("joint_model", joint_model, params(), key="a" * 64)
    assert not torch.equal(load_model(joint).tokenizer.codebooks, warm["codebooks"])


def test_a_control_that_is_switched_off_says_so(world: World) -> None:
    artefact, _ = world.compute("frozen_model", frozen_model, params(frozen_model=SimpleNamespace(enabled=False)))
    assert artefact.json("config.json") == {"enabled": False}
    with pytest.raises(DigerError, match=r"frozen_model\.enabled=true"):
        load_model(artefact)


def test_a_run_that_stopped_resumes_from_its_newest_valid_checkpoint_and_ends_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = replace(params().cluster, checkpoint_steps=3)
    unbroken, _ = world.compute("joint_model", joint_model, params(cluster=steps), key="1" * 64)
    saved: list[int] = []
    save = checkpoints.Checkpoint.save

    def interrupted(self: checkpoints.Checkpoint, directory: str) -> str:
        place = save(self, directory)
        saved.append(self.step)
        if len(saved) == 3:
            raise KeyboardInterrupt
        return place

    monkeypatch.setattr(checkpoints.Checkpoint, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.compute("joint_model", joint_model, params(cluster=steps), key="2" * 64)
    monkeypatch.undo()
    newest = world.store.root.at("checkpoints", "2" * 64, f"{saved[-1]:08d}", "recommender.safetensors")
    with open(newest, "r+b") as file:
        file.truncate(100)  # the newest is damaged: the one before has to do
    recorder = Recorder()
    resumed, _ = world.compute("joint_model", joint_model, params(cluster=steps), key="2" * 64, progress=recorder)
    assert any("falling back" in text for text in recorder.messages)
    assert any("resumed at" in text and f"step {saved[-2]} " in text for text in recorder.messages)
    assert resumed.hash == unbroken.hash


def test_a_finished_result_is_not_computed_again_and_is_cleared_once_published(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = world.compute("joint_model", joint_model, params(), key="3" * 64)
    monkeypatch.setattr(ray_train, "train_job", lambda *_: pytest.fail("trained again"))
    second, _ = world.compute("joint_model", joint_model, params(), key="3" * 64)
    assert second.hash == first.hash
    remove_checkpoints(world.store, "3" * 64)
    assert not world.store.root.exists("checkpoints", "3" * 64)


def test_a_checkpoint_that_cannot_be_stored_costs_a_warning_not_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_job, "_SAVE_AGAIN_AFTER", (0.0,))
    save, attempts = checkpoints.Checkpoint.save, []

    def failing(self: checkpoints.Checkpoint, directory: str) -> str:
        if directory.endswith("result"):
            return save(self, directory)
        attempts.append(self.step)
        raise DigerError("the object store does not answer")

    monkeypatch.setattr(checkpoints.Checkpoint, "save", failing)
    recorder = Recorder()
    artefact, _ = world.compute("joint_model", joint_model, params(), key="4" * 64, progress=recorder)
    assert len(attempts) == 2 * 2
    assert sum("training continues without it" in text for text in recorder.messages) == 2
    assert artefact.names


def test_a_short_training_runs_in_this_process_and_is_the_one_that_no_workers_would_have_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_train, "_on_ray", None)
    events = 2 * world.inputs["sequences"].facts["events"]  # two epochs
    without, _ = world.compute("joint_model", joint_model, params(), key="a" * 64)
    recorder = Recorder()
    short = ClusterConfig(workers=2, min_workers=1, short_training=events)
    artefact, notes = world.compute("joint_model", joint_model, params(cluster=short), key="5" * 64, progress=recorder)
    assert (artefact.hash, notes["workers"]) == (without.hash, 0)
    assert any(f"{events:,} events in all, so it is trained in this process" in text for text in recorder.messages)
    longer = ClusterConfig(workers=2, short_training=events - 1)
    with pytest.raises(TypeError, match="not callable"):  # Ray is asked for
        world.compute("joint_model", joint_model, params(cluster=longer), key="6" * 64)


# On Ray


def test_the_controller_has_no_use_for_torch() -> None:
    """It unpickles these before it starts workers, which wait for it."""
    code = "import sys; import orchestration.on_ray.loopback, orchestration.on_ray.mailbox; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_actor_is_started_that_no_training_needs(tmp_path) -> None:
    job = SimpleNamespace(stage="joint_model", key="7" * 64)
    trainer = ray_train._trainer({"job": None, "mailbox": None, "gpu": False}, job, ClusterConfig(workers=2), False, str(tmp_path))
    made = {type(each).__name__ for each in trainer._create_default_callbacks()}
    assert "BackendSetupCallback" in made
    assert not {"DatasetsCallback", "PlacementGroupCleanerCallback"} & made


def test_two_workers_give_the_table_and_the_weights_of_one(world: World) -> None:
    one, _ = world.compute("joint_model", joint_model, params(), key="a" * 64)
    recorder = Recorder()
    two, notes = world.compute("joint_model", joint_model, params(cluster=ClusterConfig(workers=2)), key="b" * 64, progress=recorder)
    assert notes["starts"] == 1
    assert two.facts["assignment_hash"] == one.facts["assignment_hash"]
    expected = one.tensors("model.safetensors")
    for name, value in two.tensors("model.safetensors").items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4)
    assert any("epoch 2/2" in text for text in recorder.messages)
    assert recorder.updates[-1] == ("joint_model", 26)


@pytest.mark.slow
def test_a_killed_worker_costs_a_restart_and_no_bit_of_the_result(world: World) -> None:
    changed = params(training=replace(params().training, epochs=40), cluster=ClusterConfig(workers=2, checkpoint_steps=5))
    unbroken, _ = world.compute("joint_model", joint_model, changed, key="c" * 64)

    class Killer(Recorder):
        killed: int | None = None

        def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
            super().update(what, done, total, **values)
            if self.killed is None and done > 60:
                self.killed = done
                os.kill(train_workers()[-1], signal.SIGKILL)

    killer = Killer()
    broken, notes = world.compute("joint_model", joint_model, changed, key="d" * 64, progress=killer)
    assert killer.killed is not None
    assert notes["starts"] == 2
    assert any("resumed at" in text for text in killer.messages)
    assert broken.hash == unbroken.hash


@pytest.mark.slow
def test_a_fault_the_user_can_mend_comes_back_as_one_line_without_further_attempts(world: World) -> None:
    key = "e" * 64
    world.compute("joint_model", joint_model, params(), key=key)
    world.store.root.remove_directory("checkpoints", key, "result")
    other = params(training=replace(params().training, seed=5), cluster=ClusterConfig(workers=1))
    with pytest.raises(DigerError, match=r"^checkpoint of step \d+: written with another configuration"):
        world.compute("joint_model", joint_model, other, key=key)


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_process_and_goes_on_where_it_was(world: World) -> None:
    changed = params(training=replace(params().training, epochs=40), cluster=ClusterConfig(workers=2, checkpoint_steps=5))

    class Interrupter(Recorder):
        def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
            if done > 60:
                raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        world.compute("joint_model", joint_model, changed, key="5" * 64, progress=Interrupter())
    _wait(lambda: train_workers() == [], 10)
    assert "fit-joint_model" not in {thread.name for thread in threading.enumerate()}
    rays_own = [path for path in (world.folder / "scratch" / "ray").rglob("*") if path.is_file()]
    assert rays_own
    for path in rays_own:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # Train's snapshots decide nothing
    recorder = Recorder()
    world.compute("joint_model", joint_model, changed, key="5" * 64, progress=recorder)
    assert any("resumed at" in text for text in recorder.messages), time.monotonic() - started


_DRIVER = """
import sys
from pathlib import Path
from dataclasses import replace
from orchestration.params.cluster import ClusterConfig
from orchestration.training.joint_model import joint_model
from tests.support.ray_processes import marked, train_workers
from tests.support.training_world import World, params
if __name__ == "__main__":
    joint = replace(params().joint_model, collapse_unique_prefixes=0.0, collapse_perplexity=0.0)  # so many epochs on a toy do collapse
    training = replace(params().training, epochs=60, patience=60)  # it must not be over before the processes have noticed that the driver is gone
    World(Path(sys.argv[1])).compute(
        "joint_model", joint_model, params(training=training, joint_model=joint, cluster=ClusterConfig(workers=2, checkpoint_steps=5)), key="6" * 64
    )
"""


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_and_its_successor_goes_on_from_the_checkpoint(tmp_path) -> None:
    mark = uuid.uuid4().hex
    script = tmp_path / "driver.py"
    script.write_text(_DRIVER)
    environment = os.environ | {"DIGER_TEST_MARK": mark, "PYTHONPATH": os.pathsep.join(sys.path)}
    driver = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    saved = tmp_path / "store" / "checkpoints" / ("6" * 64)
    try:
        _wait(lambda: saved.is_dir() and len(checkpoints.steps(saved)) >= 2, 200)
    finally:
        driver.kill()
        driver.wait()
    # Two seconds, or a minute more where Ray's two agents had the time to begin a report to the control service that has just died (60 s, fixed).
    _wait(lambda: marked(mark) == [], 120)
    recorder = Recorder()
    joint = replace(params().joint_model, collapse_unique_prefixes=0.0, collapse_perplexity=0.0)
    changed = params(training=replace(params().training, epochs=60, patience=60), joint_model=joint)
    artefact, _ = World(tmp_path).compute("joint_model", joint_model, changed, key="6" * 64, progress=recorder)
    assert any("resumed at" in text for text in recorder.messages), recorder.messages
    assert artefact.facts["epochs"] == 60


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
