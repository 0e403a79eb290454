"""The stages decay_search and tuned_model: trials in this process and on Ray Tune, stopped and resumed from the journal alone, promoted."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diger_core.config import JointModelConfig, ScheduleConfig
from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from orchestration.on_ray import tune as ray_tune
from orchestration.params.cluster import ClusterConfig
from orchestration.params.search import SearchConfig
from orchestration.params.sections import Params
from orchestration.search import study as course
from orchestration.search.decay_search import decay_search
from orchestration.search.journal import Journal, Trial
from orchestration.search.space import Dimension, SpaceConfig
from orchestration.training.joint_model import joint_model
from tests.support.ray_processes import tune_workers
from tests.support.training_world import Recorder, World, params

pytestmark = pytest.mark.usefixtures("no_pictures")

SPACE = SpaceConfig(
    schedule=Dimension(choice=("frqud", "sdud", "gumbel")), sigma_0=None, lambda_=None, r=None, codebook_learning_rate=Dimension(fixed=1e-3)
)
SEARCH = SearchConfig(trials=6, epochs=4, finalists=2, seeds=2, reduction=2.0, space=SPACE)


def search_params(search: SearchConfig = SEARCH, workers: int = 0, **changes: Any) -> Params:
    small = params()
    training = replace(small.training, learning_rate=2e-2, epochs=4)
    sections: dict[str, Any] = {name: getattr(small, name) for name in ("tokenizer", "recommender", "joint_model", "semantic_ids")}
    return replace(Params(), **sections, training=training, cluster=ClusterConfig(workers=workers), decay_search=search, **changes)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Stopper(Recorder):
    """Stops the study after the given number of epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.left = epochs

    def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
        super().update(what, done, total, **values)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials whose scores are known and cost nothing: the larger tau the better, a little luck by seed; tau above 2.9 collapses after two epochs."""

    monkeypatch.setattr(ray_tune, "run_trial", quick_trial)


def quick_trial(job: Any, trial: Trial, on_epoch: Any) -> tuple[str, str | None]:
    for epoch in range(1, job.model.training.epochs + 1):
        tau = float(trial.config["tau"])
        if tau > 2.9 and epoch > 2:
            return "collapsed", "codebooks collapsed"
        score = tau / 10 * epoch / job.model.training.epochs + trial.seed % 3 / 1000
        row = {"epoch": epoch, "validation_ndcg_10": score, "unique_prefixes": 30 - epoch, "churn": 0.01 * epoch, "perplexity": [5.0, 4.0]}
        on_epoch({**row, "sigma": 1 / epoch, "loss_gen": 2.0, "noisy_share": 0.5, "largest_group": 3, "validation_recall_10": score}, 0.5)
    return "finished", None


Unbroken = tuple[Artefact, Mapping[str, Any], Recorder]


@pytest.fixture(scope="module")
def unbroken(world: World) -> Unbroken:
    """A quick study that nothing has stopped: its artefact, its notes and what it said."""
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ray_tune, "run_trial", quick_trial)
        return *world.compute("decay_search", decay_search, search_params(), key="a" * 64, progress=recorder), recorder


def test_a_study_prunes_repeats_its_finalists_and_names_a_winner(unbroken: Unbroken) -> None:
    artefact, notes, recorder = unbroken
    study, trials = artefact.json("study.json"), artefact.json("trials.json")
    searched = [t for t in trials if t["repeats"] is None]
    assert [t["number"] for t in searched] == [1, 2, 3, 4, 5, 6]
    assert searched[0]["config"]["schedule"] == "sdud+frqud", "the first is the present configuration"
    assert study["states"] == {"collapsed": 1, "finished": 3, "pruned": 2}
    ended = {t["number"]: t["config"]["tau"] for t in searched if t["state"] == "finished"}
    assert max(ended.values()) == max(t["config"]["tau"] for t in searched if t["state"] != "collapsed"), "the best is never pruned"
    assert study["winner"]["config"]["tau"] == max(ended.values())
    assert study["epochs"]["search"] == sum(len(t["rows"]) for t in searched) < study["epochs"]["search_without_pruning"] == 24
    repeats = [t for t in trials if t["repeats"] is not None]
    assert sorted((t["repeats"], t["seed"]) for t in repeats) == sorted((f["trial"], seed) for f in study["finalists"] for seed in (1, 2))
    assert study["winner"]["mean"] == max(f["mean"] for f in study["finalists"])
    assert all(len(f["scores"]) == 2 for f in study["finalists"])
    assert artefact.facts["winner"] == study["winner"]["trial"]
    assert notes["cpu_seconds"] > 0
    page = artefact.path("report.html").read_text()
    assert f"Winner: trial {study['winner']['trial']}" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert sum("Trials of the search" in text for text in recorder.messages) == 1


def test_the_page_in_dagster_shows_the_winner_and_where_the_whole_report_is(unbroken: Unbroken) -> None:
    from orchestration.engine.runner import Result
    from orchestration.graph import BY_NAME
    from orchestration.on_dagster.presentation import present

    artefact = unbroken[0]
    shown = present(Result(BY_NAME["decay_search"], "a" * 64, artefact, False, 1.0))
    assert "# Decay search" in shown["report"].md_str
    assert "data:image/png;base64" in shown["report"].md_str
    assert shown["page"].path == str(artefact.path("report.html"))
    assert shown["winner"] == artefact.json("study.json")["winner"]["trial"]


def test_a_long_study_shows_its_trials_as_a_table_from_time_to_time(world: World, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "TABLE_EVERY", 0.0)
    recorder = Recorder()
    world.compute("decay_search", decay_search, search_params(), key="9" * 64, progress=recorder)
    tables = [text for text in recorder.messages if text.startswith("Trials so far")]
    assert len(tables) > 6
    first, last = tables[0].splitlines(), tables[-1].splitlines()
    assert "running" in first[4]
    assert "1/4" in first[4]
    assert {"repeats", "seed", "schedule", "tau", "rate"} <= {word.strip() for word in last[2].strip("┃").split("┃")}
    assert max(len(line) for line in last) <= 120, "no line is folded in a log"


def test_a_trial_is_the_joint_models_own_training(world: World) -> None:
    artefact, _ = world.compute("decay_search", decay_search, search_params(replace(SEARCH, trials=2, seeds=0)), key="7" * 64)
    best = artefact.json("study.json")["finalists"][0]
    trial = next(t for t in artefact.json("trials.json") if t["number"] == best["trial"])
    from orchestration.search.space import applied

    same = search_params()
    chosen = replace(same, joint_model=applied(same.joint_model, best["config"]))
    model, _ = world.compute("joint_model", joint_model, chosen, key="b" * 64)
    curves = model.json("curves.json")
    assert [row["validation_ndcg_10"] for row in curves] == [row["validation_ndcg_10"] for row in trial["rows"]]
    assert [row["loss_gen"] for row in curves] == [row["loss_gen"] for row in trial["rows"]]


@pytest.mark.parametrize("stopped_after", [6, 19, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 11, 14, 25))])
def test_a_stopped_study_goes_on_with_all_trials_and_ends_the_same(world: World, quick: None, unbroken: Unbroken, stopped_after: int) -> None:
    key = f"{stopped_after:064d}"
    with pytest.raises(KeyboardInterrupt):
        world.compute("decay_search", decay_search, search_params(), key=key, progress=Stopper(stopped_after))
    before = Journal(world.store, key).read()
    recorder = Recorder()
    resumed, _ = world.compute("decay_search", decay_search, search_params(), key=key, progress=recorder)
    assert any("continues" in text for text in recorder.messages)
    after = Journal(world.store, key).read()
    for number, told in before.items():
        assert after[number].trial == told.trial
        if told.state != "running":
            assert after[number].curve == told.curve
    assert _without_names(resumed) == _without_names(unbroken[0])


def _without_names(artefact: Any) -> dict:
    return {**artefact.json("study.json"), "study": None, "trials": artefact.json("trials.json")}


def test_a_collapse_and_a_loss_that_is_not_finite_prune_their_trial_only(world: World) -> None:
    wild = SpaceConfig(schedule=None, sigma_0=None, lambda_=None, r=None, tau=None, codebook_learning_rate=Dimension(choice=(1e-4, 5.0)))
    search = replace(SEARCH, trials=5, pruning="none", seeds=0, searcher="grid", space=wild)
    fragile = JointModelConfig(schedule=ScheduleConfig(name="none"), collapse_unique_prefixes=0.9, weight_vq=0.0, weight_recon=0.0)
    artefact, _ = world.compute("decay_search", decay_search, replace(search_params(search), joint_model=fragile), key="c" * 64)
    ends = {t["number"]: (t["state"], t["config"]["codebook_learning_rate"], t["reason"]) for t in artefact.json("trials.json")}
    assert {state for state, rate, _ in ends.values() if rate == 5.0} == {"collapsed"}
    assert all("collapsed" in reason for state, _, reason in ends.values() if state == "collapsed")
    assert {state for state, rate, _ in ends.values() if rate != 5.0} == {"finished"}
    assert artefact.json("study.json")["winner"]["config"]["codebook_learning_rate"] < 1


def test_a_study_in_which_nothing_ends_well_is_one_clear_line(world: World) -> None:
    hot = replace(search_params().training, learning_rate=1e30, weight_decay=0.0)
    with pytest.raises(DigerError, match=r"none of 6 trials ended well: the loss or its gradient was not finite"):
        world.compute("decay_search", decay_search, replace(search_params(), training=hot), key="d" * 64)
    assert {told.state for told in Journal(world.store, "d" * 64).read().values()} == {"diverged"}


# On Ray


def test_on_ray_two_trials_at_a_time_give_the_curves_of_this_process(world: World) -> None:
    unpruned = replace(SEARCH, trials=3, epochs=2, pruning="none", seeds=0)
    here, _ = world.compute("decay_search", decay_search, search_params(unpruned), key="e" * 64)
    ray, _ = world.compute("decay_search", decay_search, search_params(unpruned, workers=2), key="f" * 64)
    assert _without_names(ray)["trials"] == _without_names(here)["trials"]


@pytest.mark.slow
def test_a_killed_trial_worker_costs_that_trial_a_restart(world: World) -> None:
    class Killer(Recorder):
        killed = 0

        def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
            if not self.killed and done >= 3:
                self.killed = tune_workers()[0]
                os.kill(self.killed, signal.SIGKILL)

    unpruned = replace(SEARCH, pruning="none", seeds=0)
    here, _ = world.compute("decay_search", decay_search, search_params(unpruned), key="1" * 64)
    killer = Killer()
    ray, _ = world.compute("decay_search", decay_search, search_params(unpruned, workers=2), key="2" * 64, progress=killer)
    assert killer.killed
    starts = [entry["trial"] for entry in Journal(world.store, "2" * 64).entries() if entry["event"] == "start"]
    assert len(starts) == 7, "six trials, one of them twice"
    assert _without_names(ray)["trials"] == _without_names(here)["trials"]


def ray_files(folder: Path) -> list[Path]:
    """Ray's own state of a study, below the run's scratch directory."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def harm(path: Path, damage: str) -> None:
    """What can become of one of Ray's files."""
    if damage == "delete":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(bytes(reversed(path.read_bytes())))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncate", "delete", "overwrite"])
def test_a_study_is_resumed_whatever_became_of_rays_files(tmp_path: Path, damage: str) -> None:
    world = World(tmp_path)
    search = replace(SEARCH, pruning="none", seeds=0)
    with pytest.raises(KeyboardInterrupt):
        world.compute("decay_search", decay_search, search_params(search, workers=2), key="a" * 64, progress=Stopper(9))
    assert "fit-decay_search" not in {thread.name for thread in threading.enumerate()}, "it would meet the next study's cluster"
    assert tune_workers() == []
    before = Journal(world.store, "a" * 64).read()
    ended = {number for number, told in before.items() if told.state != "running"}
    assert ended
    files = ray_files(tmp_path / "scratch" / "ray")
    assert "tuner.pkl" in {path.name for path in files}
    for path in files:
        harm(path, damage)
    artefact, _ = world.compute("decay_search", decay_search, search_params(search, workers=2), key="a" * 64)
    starts = [entry["trial"] for entry in Journal(world.store, "a" * 64).entries() if entry["event"] == "start"]
    assert all(starts.count(number) == 1 for number in ended), "what had ended is kept"
    whole = World(tmp_path / "other")
    expected, _ = whole.compute("decay_search", decay_search, search_params(search), key="a" * 64)
    assert _without_names(artefact) == _without_names(expected)


# Promotion


def test_promotion_trains_the_winner_as_the_flows_own_joint_model(tmp_path: Path) -> None:
    from diger_core.store.artefacts import Store
    from orchestration.audit import tree
    from orchestration.audit.chain import chain
    from orchestration.audit.index import Index
    from orchestration.audit.names import resolve
    from orchestration.engine.registry import register
    from orchestration.engine.runner import Session
    from orchestration.graph import BY_NAME, upstream
    from orchestration.search.space import applied
    from tests.support.snapshot_material import interactions, items, write

    store = Store(tmp_path / "store")
    tiny = replace(SEARCH, trials=2, epochs=1, finalists=1, seeds=0)
    chosen = replace(search_params(tiny), training=replace(params().training, epochs=1))
    session = Session(store, chosen, register(store, str(write(tmp_path / "snap", interactions(), items()))))
    for name in (name for name in BY_NAME if name in upstream({"tuned_model"})):
        result = session.materialise(BY_NAME[name])
    promotion = result.artefact.json("promotion.json")
    study = session.find(BY_NAME["decay_search"]).json("study.json")
    assert (promotion["study"], promotion["trial"]) == (study["study"], study["winner"]["trial"])
    later = Session(store, replace(chosen, joint_model=applied(chosen.joint_model, study["winner"]["config"])), session.snapshot)
    key, _ = later.resolve(BY_NAME["joint_model"])
    record = store.records("joint_model", key)[0]
    assert (record["study"], record["trial"], record["decay_search"]) == (study["study"], study["winner"]["trial"], promotion["decay_search"])
    index = Index(store, cached=False)
    told = "\n".join(tree.text(index, chain(index, resolve(index, promotion["joint_model"]))))
    assert f"configuration of trial {promotion['trial']} of study {study['study'][:12]}" in told
    assert promotion["decay_search"][:12] in told
    found = later.materialise(BY_NAME["joint_model"])
    assert found.reused, "a run with the winner's parameters finds the promoted model"
    assert found.artefact.hash == promotion["joint_model"]
    with pytest.raises(DigerError, match=r"tuned_model\.trial = 99: no finalist"):
        Session(store, replace(chosen, tuned_model=replace(chosen.tuned_model, trial=99)), session.snapshot).materialise(BY_NAME["tuned_model"])


def test_inputs_are_shared_only_by_trials_that_go_on_in_the_same_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from diger_core.config import ModelConfig
    from diger_core.ids.id_table import IdTable
    from diger_core.training.inputs import TrainingInputs
    from orchestration.params.training import RetrainingConfig
    from orchestration.search import trial
    from orchestration.training.job import Job
    from tests.support import small_setting

    def inputs(job: Job) -> TrainingInputs:
        items = small_setting.ITEMS
        previous = IdTable(torch.zeros((items, 3)), torch.zeros(items))
        return small_setting.inputs(previous=previous, start={job.retraining.start: torch.zeros(1)})

    monkeypatch.setattr(trial, "training_inputs", inputs)
    given = {"sequences": ("sequences", "a" * 64)}
    warm = Job(world.store.url, "k", "decay_search", given, ModelConfig(), None, None)
    scratch = replace(warm, retraining=RetrainingConfig(start="scratch"))
    assert [list(trial._opened(job)[0].start or ()) for job in (warm, scratch)] == [["warm"], ["scratch"]]
    assert trial._opened(scratch)[0] is trial._opened(replace(scratch, key="other"))[0]
