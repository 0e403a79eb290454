"""The parts of a decay search that need no trial: the typed space, the searchers, the journal, and what is concluded from the trials."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diger_core.config import JointModelConfig, ScheduleConfig
from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.on_ray.tune import Halving
from orchestration.params.load import build_params
from orchestration.params.search import SearchConfig
from orchestration.search.journal import Journal, Told, Trial, described, studies
from orchestration.search.page import verdict
from orchestration.search.ranking import finalists, importance, pareto, ranked_finalists
from orchestration.search.searchers import searcher
from orchestration.search.space import Dimension, SpaceConfig, applied, grid, overrides, present, relevant
from orchestration.search.study import Source
from orchestration.search.terminal import trials_table
from orchestration.search.writing import summary
from tests.support.training_world import Recorder

# The space


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"sigma_zero": {"fixed": 1.0}}, r"space\.sigma_zero: unknown key \(did you mean sigma_0\?\)"),
        ({"tau": {"unifrom": [1, 2]}}, r"space\.tau\.unifrom: unknown key"),
        ({"tau": {"uniform": [1, 2], "fixed": 1.5}}, "exactly one of choice, uniform, loguniform, fixed"),
        ({"tau": {}}, "exactly one of"),
        ({"tau": {"uniform": [2, 1]}}, "low < high"),
        ({"tau": {"uniform": [-1, 1]}}, r"tau = -1\.0: must be positive"),
        ({"r": {"loguniform": [0, 1]}}, "must be positive"),
        ({"schedule": {"choice": ["frqud", "frequd"]}}, "'frequd' is no schedule"),
        ({"schedule": {"uniform": [0, 1]}}, "not a name"),
        ({"forward": {"choice": ["cached", "cached"]}}, "none twice"),
        ({"paths": {"choice": ["all", "labels+decoder"]}}, "some of history, teacher, labels"),
        ({"tau": {"choice": ["warm"]}}, "not a number"),
    ],
)
def test_a_space_that_cannot_be_meant_is_refused_by_name(space: dict, said: str) -> None:
    with pytest.raises(DigerError, match=said):
        build_params({"decay_search": {"space": space}})


def test_every_value_of_the_default_space_trains_a_valid_configuration() -> None:
    config = SearchConfig(trials=200)
    source = searcher(config, "frqud")
    for number in range(1, 200):
        proposed = source.propose(number)
        assert proposed is not None
        applied(JointModelConfig(), proposed)


def test_a_configuration_holds_only_what_its_schedule_reads() -> None:
    drawn = {"schedule": "sdud", "sigma_0": 1.0, "lambda_": 1.5, "r": 2.0, "tau": 1.0}
    assert relevant(drawn, "none") == {"schedule": "sdud", "sigma_0": 1.0, "lambda_": 1.5, "tau": 1.0}
    assert relevant({**drawn, "schedule": "frqud"}, "none") == {"schedule": "frqud", "r": 2.0, "tau": 1.0}
    assert relevant({"r": 2.0, "sigma_0": 1.0}, "none") == {}


def test_overrides_and_applied_say_the_same_configuration() -> None:
    config = {
        "schedule": "sdud+frqud",
        "sigma_0": 0.5,
        "lambda_": 1.5,
        "r": 2.0,
        "tau": 1.25,
        "codebook_learning_rate": 1.5e-05,
        "forward": "sampled",
    }
    config["paths"] = "labels+teacher"
    from orchestration.params.load import load_params

    loaded = load_params(None, overrides(config)).joint_model
    base = load_params(None).joint_model
    assert loaded == applied(base, config)
    assert loaded.paths.history is False
    assert present(SpaceConfig(forward=Dimension(fixed="cached"), paths=Dimension(fixed="all")), loaded)["paths"] == "teacher+labels"


def test_the_grid_has_each_distinct_training_once() -> None:
    space = SpaceConfig(
        schedule=Dimension(choice=("frqud", "sdud")), r=Dimension(uniform=(1.0, 3.0)), sigma_0=Dimension(choice=(1.0, 2.0)),
        lambda_=None, tau=Dimension(fixed=2.0), codebook_learning_rate=Dimension(loguniform=(1e-5, 1e-3)),
    )  # fmt: skip
    cells = grid(space, 3, "frqud")
    assert len(cells) == 3 * 3 + 2 * 3, "frqud reads r and not sigma_0, sdud the other way round"
    assert sorted({cell["codebook_learning_rate"] for cell in cells}) == pytest.approx([1e-5, 1e-4, 1e-3])
    assert {cell["r"] for cell in cells if "r" in cell} == {1.0, 2.0, 3.0}
    proposed = [searcher(SearchConfig(searcher="grid", space=space), "frqud").propose(n) for n in range(1, len(cells) + 2)]
    assert proposed[-1] is None
    assert all(cell in cells for cell in proposed[:-1])


# The searchers


def test_a_random_trial_is_a_function_of_its_number_alone() -> None:
    config = SearchConfig()
    forwards = [searcher(config, "frqud").propose(n) for n in range(1, 9)]
    backwards = [searcher(config, "frqud").propose(n) for n in range(8, 0, -1)][::-1]
    assert forwards == backwards
    assert forwards != [searcher(SearchConfig(seed=1), "frqud").propose(n) for n in range(1, 9)]
    more = SearchConfig(space=SpaceConfig(forward=Dimension(choice=("cached", "sampled"))))
    assert [p["tau"] for p in forwards] == [searcher(more, "frqud").propose(n)["tau"] for n in range(1, 9)], "a dimension more changes no other"


def test_random_draws_fill_ranges_evenly() -> None:
    drawn = [searcher(SearchConfig(), "frqud").propose(n) for n in range(1, 801)]
    rates = np.log10([p["codebook_learning_rate"] for p in drawn])
    assert np.histogram(rates, 4, (-5, -3))[0].min() > 150
    names = [p["schedule"] for p in drawn]
    assert min(names.count(name) for name in set(names)) > 150


def test_optuna_learns_from_the_journal_and_repeats_itself() -> None:
    pytest.importorskip("optuna")
    space = SpaceConfig(schedule=None, sigma_0=None, lambda_=None, r=None, tau=Dimension(uniform=(1.0, 3.0)), codebook_learning_rate=None)
    config = SearchConfig(searcher="optuna", space=space)
    known = [_told(n, {"tau": 1 + 2 * n / 30}, [1 - abs(n / 30 - 0.9)]) for n in range(1, 31)]
    proposed = [searcher(config, "frqud", known).propose(n)["tau"] for n in (31, 31)]
    assert proposed[0] == proposed[1]
    source = searcher(config, "frqud", known)
    near = [float(source.propose(n)["tau"]) for n in range(31, 51)]
    assert np.mean(np.abs(np.array(near) - 2.8) < 0.5) > 0.6, "most proposals lie where the scores were high"


def test_a_score_goes_to_the_proposal_that_it_belongs_to_also_where_trials_run_beside_each_other() -> None:
    pytest.importorskip("optuna")
    schedule, tau = Dimension(choice=("frqud", "gumbel")), Dimension(uniform=(1.0, 3.0))
    space = SpaceConfig(schedule=schedule, sigma_0=None, lambda_=None, r=None, tau=tau, codebook_learning_rate=None)
    source = searcher(SearchConfig(searcher="optuna", space=space), "frqud")
    present = Trial(1, {"schedule": "sdud", "tau": 5.0}, 0)  # outside the space
    queue = Source([present], lambda number: Trial(number, source.propose(number - 1), 0), [2, 3], source)
    trials = [queue.next() for _ in range(3)]
    for trial, score in ((trials[0], 0.9), (trials[2], 0.3), (trials[1], 0.2)):
        queue.done(trial, score)
    told = sorted((t.value, t.params.get("tau")) for t in source.study.trials)
    assert [value for value, _ in told] == [0.2, 0.3, 0.9]
    assert [round(tau, 2) for _, tau in told[:2]] == [round(trials[n].config["tau"], 2) for n in (1, 2)]


def test_a_missing_optuna_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(DigerError, match=r"pip install 'diger\[tune\]'"):
        searcher(SearchConfig(searcher="optuna"), "frqud")


# The journal


def test_the_journal_gives_back_what_was_told_and_never_overwrites(tmp_path: Path) -> None:
    store, trial = Store(tmp_path / "store"), Trial(3, {"schedule": "sdud", "tau": 1.5}, 0)
    journal = Journal(store, "s" * 64)
    journal.append("start", trial)
    journal.append("epoch", trial, row=_row(1, 0.2), cpu_seconds=1.5)
    told = Journal(store, "s" * 64).read()[3]
    assert (told.trial, told.state, told.score, told.cpu_seconds) == (trial, "running", 0.2, 1.5)
    second = Journal(store, "s" * 64)
    journal.append("epoch", trial, row=_row(2, 0.3), cpu_seconds=1.0)
    second.append("end", trial, rows=[_row(1, 0.2), _row(2, 0.3)], state="finished", reason=None)
    names = sorted(p.name for p in (tmp_path / "store" / "studies" / ("s" * 64) / "journal").iterdir())
    assert [name[:6] for name in names] == ["000001", "000002", "000003", "000004"]
    told = journal.read()[3]
    assert (told.state, told.score, sorted(told.rows)) == ("finished", 0.3, [1, 2])


@pytest.mark.parametrize("damage", ["truncate", "empty", "edit", "delete"])
def test_a_damaged_entry_costs_what_it_said_and_no_more(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path / "store")
    journal = Journal(store, "s" * 64)
    for number in (1, 2):
        trial = Trial(number, {"tau": float(number)}, 0)
        journal.append("start", trial)
        journal.append("end", trial, rows=[_row(1, 0.1 * number)], state="finished", reason=None)
    victim = sorted((tmp_path / "store" / "studies" / ("s" * 64) / "journal").iterdir())[3]
    data = victim.read_bytes()
    victim.chmod(0o644)
    if damage == "delete":
        victim.unlink()
    else:
        victim.write_bytes({"truncate": data[:40], "empty": b"", "edit": data.replace(b"finished", b"pruned__")}[damage])
    recorder = Recorder()
    told = Journal(store, "s" * 64, recorder).read()
    assert told[1].state == "finished"
    assert told[2].state == "running", "it starts again with its own configuration"
    assert told[2].trial.config == {"tau": 2.0}
    assert len(recorder.messages) == (damage != "delete")
    assert all("damaged" in text and victim.name in text for text in recorder.messages)


def test_studies_are_found_by_the_beginning_of_their_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for name in ("ab" * 32, "ac" * 32):
        Journal(store, name).describe({"snapshot": "snap", "params": {}, "created_at": name})
        Journal(store, name).describe({"snapshot": "another", "params": {}, "created_at": "later"})
    assert [d["study"][:2] for d in studies(store)] == ["ab", "ac"]
    assert described(store, "ac")["snapshot"] == "snap", "the first description stays"
    with pytest.raises(DigerError, match="several studies"):
        described(store, "a")
    with pytest.raises(DigerError, match="no study of this store"):
        described(store, "b")


def test_a_store_without_studies_is_told_so_and_json_is_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from orchestration.cli.tune import list_studies

    list_studies(Store(tmp_path / "store"), False)
    assert "`diger tune` starts one" in capsys.readouterr().out
    list_studies(Store(tmp_path / "store"), True)
    assert capsys.readouterr().out.strip() == "[]"


def test_the_table_of_trials_has_a_column_for_each_dimension_and_fits_a_log() -> None:
    config = {"schedule": "sdud+frqud", "sigma_0": 1.234, "lambda_": 1.567, "r": 2.345, "tau": 1.111, "codebook_learning_rate": 1.234e-05}
    trials = [_told(1, config, [0.1234], "collapsed"), _told(12, {"schedule": "frqud", "r": 1.5}, [0.2])]
    again = [*trials, _told(13, {"schedule": "frqud", "r": 1.5}, [0.3], seed=3, repeats=12)]
    dimensions = ["schedule", "sigma_0", "lambda", "r", "tau", "rate"]
    for listed, head, best in (
        (trials, ["trial", "state", "epochs", "NDCG@10", "prefixes", "churn"], ["12", "finished", "1/5", "0.2000", "5", "10.0%"]),
        (again, ["trial", "repeats", "seed", "state", "epochs", "NDCG@10"], ["13", "12", "3", "finished", "1/5", "0.3000"]),
    ):
        lines = trials_table("Trials", listed, 5).splitlines()
        assert [cell.strip() for cell in lines[2].strip("┃").split("┃")] == [*head, *dimensions]
        assert [cell.strip() for cell in lines[4].strip("│").split("│")] == [*best, "frqud", "–", "–", "1.5", "–", "–"]
        assert len(lines) == 5 + len(listed), "a row is one line"
        assert max(len(line) for line in lines) <= 120


# Pruning


def test_pruning_judges_a_new_trial_by_those_in_the_journal() -> None:
    config = SearchConfig(grace_epochs=1, reduction=2.0)
    known = {n: _told(n, {"tau": float(n)}, [0.1 * n]) for n in range(1, 5)}
    weak, strong = Trial(9, {}, 0), Trial(10, {}, 0)
    halving = Halving(config, 4, known)
    assert halving.stops(weak, 1, 0.15)
    assert not halving.stops(strong, 1, 0.45)
    assert not Halving(config, 4, {}).stops(weak, 1, 0.15), "alone, it is the best so far"


def test_a_trial_with_half_of_its_epochs_behind_it_is_not_pruned() -> None:
    """Five epochs, the best quarter goes on: one look after the first epoch, none after the fourth, where one epoch would be all that is saved."""
    config = SearchConfig(grace_epochs=1, reduction=4.0)
    known = {n: _told(n, {"tau": float(n)}, [0.5, 0.6, 0.7, 0.8, 0.9]) for n in range(1, 9)}
    trial, halving = Trial(9, {}, 0), Halving(config, 5, known)
    assert not halving.stops(trial, 1, 0.51)
    assert not any(halving.stops(trial, epoch, 0.51) for epoch in (2, 3, 4, 5))
    assert Halving(config, 5, known).stops(Trial(10, {}, 0), 1, 0.49)
    long = Halving(config, 40, {n: _told(n, {}, [0.5] * 40) for n in range(1, 9)})
    for falls, stopped in ((4, 4), (16, 16), (17, None)):
        trial = Trial(100 + falls, {}, 0)
        assert next((e for e in range(1, 41) if long.stops(trial, e, 0.6 if e < falls else 0.4)), None) == stopped
    assert Halving(replace(config, grace_epochs=5), 5, known).stops(trial, 5, 0.1), "the grace period is kept, whatever its share of a trial"


# Conclusions


def test_the_winner_has_the_best_mean_on_other_seeds_not_the_best_single_score() -> None:
    trials = {1: _told(1, {"tau": 1.0}, [0.5]), 2: _told(2, {"tau": 2.0}, [0.6]), 3: _told(3, {"tau": 3.0}, [0.4])}
    trials |= {n: _told(n, {"tau": 1.0}, [s], seed=n, repeats=1) for n, s in ((4, 0.5), (5, 0.52))}
    trials |= {n: _told(n, {"tau": 2.0}, [s], seed=n, repeats=2) for n, s in ((6, 0.3), (7, 0.4))}
    ranked = ranked_finalists(trials, 2)
    assert [f.trial for f in ranked] == [1, 2]
    assert ranked[0].scores == (0.5, 0.52)
    assert ranked[0].mean == pytest.approx(0.51)
    low, high = ranked[0].interval or (0, 0)
    assert high - low == pytest.approx(2 * 12.706 * 0.0141421 / 2**0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ((0.3, 0.31), "above trial 2: beyond the seeds' spread"),
        ((0.4, 0.58), "above trial 2: a lead that more seeds may reverse"),
        ((0.5, 0.51), "level with trial 2"),
    ],
)
def test_the_page_says_how_certain_the_lead_is(others: tuple[float, float], said: str) -> None:
    trials = {1: _told(1, {"tau": 1.0}, [0.5]), 2: _told(2, {"tau": 2.0}, [0.45])}
    trials |= {n: _told(n, {"tau": 1.0}, [s], seed=n, repeats=1) for n, s in ((3, 0.5), (4, 0.51))}
    trials |= {n: _told(n, {"tau": 2.0}, [s], seed=n, repeats=2) for n, s in zip((5, 6), others, strict=True)}
    sentence, _, tone = verdict(summary("s" * 64, SearchConfig(), 1, trials))
    assert said in sentence
    assert (tone == "better") == ("beyond" in said)


def test_pruned_collapsed_and_repeated_configurations_are_no_finalists() -> None:
    trials = {
        1: _told(1, {"tau": 1.0}, [0.9], state="pruned"),
        2: _told(2, {"tau": 2.0}, [0.8], state="collapsed"),
        3: _told(3, {"tau": 3.0}, [0.3]),
        4: _told(4, {"tau": 3.0}, [0.3]),
        5: _told(5, {"tau": 4.0}, [0.2]),
    }
    assert [t.trial.number for t in finalists(trials, 3)] == [3, 5]


def test_the_pareto_set_against_brute_force() -> None:
    random = np.random.default_rng(0)
    trials = {}
    for number in range(1, 41):
        ndcg, prefixes, churn = float(random.integers(1, 6)) / 10, int(random.integers(1, 6)), float(random.integers(1, 6)) / 10
        trials[number] = Told(Trial(number, {}, 0), {1: {**_row(1, ndcg), "unique_prefixes": prefixes, "churn": churn}}, "finished")

    def point(told: Told) -> tuple[float, float, float]:
        best = told.best or {}
        return best["validation_ndcg_10"], best["unique_prefixes"], -best["churn"]

    def beaten(told: Told) -> bool:
        mine = point(told)
        return any(all(o >= m for o, m in zip(point(other), mine, strict=True)) and point(other) != mine for other in trials.values())

    expected = {number for number, told in trials.items() if not beaten(told)}
    assert {t.trial.number for t in pareto(trials)} == expected
    assert 0 < len(expected) < 40


def test_importance_finds_what_decides_and_says_where_nothing_does() -> None:
    random = np.random.default_rng(1)
    trials = {}
    for number in range(1, 61):
        config = {"schedule": str(random.choice(["frqud", "sdud"])), "tau": float(random.uniform(1, 3)), "r": float(random.uniform(1, 3))}
        trials[number] = _told(number, config, [config["tau"] / 10 + (0.1 if config["schedule"] == "sdud" else 0.0)])
    found = {i.name: i for i in importance(trials, 1)}
    assert list(found)[:2] == ["tau", "schedule"]
    assert found["tau"].p < 0.01
    assert found["schedule"].p < 0.05
    assert found["r"].share < 0.2
    assert importance(dict(list(trials.items())[:3]), 1) == [], "three trials say nothing"


def test_the_present_configuration_is_a_point_of_the_space() -> None:
    base = JointModelConfig(schedule=ScheduleConfig(name="sdud", sigma_0=0.7))
    config = present(SpaceConfig(), base)
    assert config["schedule"] == "sdud"
    assert "r" not in config
    assert applied(base, config) == base


def _row(epoch: int, score: float) -> dict:
    return {"epoch": epoch, "validation_ndcg_10": score, "unique_prefixes": 5, "churn": 0.1, "sigma": 1.0, "perplexity": [4.0, 3.0]}


def _told(number: int, config: dict, scores: list[float], state: str = "finished", seed: int = 0, repeats: int | None = None) -> Told:
    return Told(Trial(number, config, seed, repeats), {i: _row(i, s) for i, s in enumerate(scores, 1)}, state)  # type: ignore[arg-type]
