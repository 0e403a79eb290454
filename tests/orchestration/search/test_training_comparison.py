"""`diger compare-training`: variants times seeds through the ordinary stages, found again, and what may be claimed."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.cli import main
from orchestration.params.comparison import ComparisonConfig
from orchestration.params.load import build_params, load_params
from orchestration.search.comparison_page import page, summary_markdown, told, warnings
from orchestration.search.training_comparison import continued, seeded
from tests.support.retraining_world import FIRST, SMALL, shop
from tests.support.snapshot_material import write

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    write(folder / "snap", *shop(FIRST, 60))
    training = SMALL["training"] | {"epochs": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(SMALL | {"training": training, "evaluation": {"beams": 20, "bootstrap": 100}}))
    return folder


@pytest.fixture
def call(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    def run(*arguments):
        code = 0
        try:
            main(["compare-training", "--snapshot", "snap", *arguments])
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def records(here, stage):
    return sorted(path.name for path in (here / "store" / "records" / stage).glob("*"))


def test_variants_are_paired_by_seed_and_trained_once(call, here):
    code, out, _ = call("frozen", "joint", "--seeds", "2", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["reference"], found["seeds"], [v["label"] for v in found["variants"]]) == ("frozen", [0, 1], ["frozen", "joint"])
    scores = {v["name"]: [t["ndcg@10"] for t in v["trainings"]] for v in found["variants"]}
    gain = next(g for g in found["gains"] if g["metric"] == "ndcg@10")
    assert gain["each"] == pytest.approx([b - a for a, b in zip(scores["frozen"], scores["joint"], strict=True)])
    assert gain["mean"] == pytest.approx(sum(gain["each"]) / 2)
    assert gain["low"] <= gain["mean"] <= gain["high"]
    assert gain["word"] == "unclaimed", "two seeds claim nothing"
    before = {stage: records(here, stage) for stage in ("tokenizer", "frozen_model", "joint_model")}
    assert {stage: len(names) for stage, names in before.items()} == {"tokenizer": 2, "frozen_model": 2, "joint_model": 2}
    models = {t["model"] for v in found["variants"] for t in v["trainings"]}
    assert len(models) == 4

    code, out, _ = call("frozen", "joint", "wide: recommender.d_ff=48", "--seeds", "2")  # a variant more: the others are found
    assert code == 0
    assert "wide against frozen: NDCG@10" in out
    assert "a claim needs 3" in out
    after = {stage: records(here, stage) for stage in before}
    assert after["tokenizer"] == before["tokenizer"]
    assert after["frozen_model"] == before["frozen_model"]
    assert len(after["joint_model"]) == 4
    assert set(before["joint_model"]) < set(after["joint_model"])


def test_the_first_seed_is_the_runs_own_model(call, here):
    _, out, _ = call("frozen", "joint", "--seeds", "2", "--json")
    ours = json.loads(out)["variants"][1]["trainings"][0]["model"]
    from orchestration.engine.registry import register
    from orchestration.engine.runner import Session
    from orchestration.graph import BY_NAME

    store = Store(here / "store")
    session = Session(store, load_params(here / "params.yaml"), register(store, str(here / "snap")))
    assert session.find(BY_NAME["joint_model"]).hash == ours


@pytest.mark.parametrize(
    ("variants", "wrong"),
    [
        (["frozen"], "at least two"),
        (["joint", "joint"], "different names"),
        (["frozen", "joint: gate.judge=mean"], "section.key=value of"),
        (["frozen", "joint: training.seed=3"], "without a seed"),
        (["frozen", "joint: model=sasrec"], "model=joint or model=frozen"),
        (["frozen", "a b c"], "written as NAME"),
    ],
)
def test_a_malformed_variant_is_named(variants, wrong):
    with pytest.raises(DigerError, match=f"training_comparison.variants.*{wrong}"):
        build_params({"training_comparison": {"variants": variants}})


def test_an_unknown_key_of_a_variant_is_named(call):
    code, _, error = call("frozen", "joint: recommender.width=3")
    assert code == 1
    assert "recommender.width: unknown key" in error


def test_a_variant_changes_its_own_keys_and_the_seeds():
    params = build_params({"training": {"seed": 5}, "frozen_model": {"enabled": False}})
    config = ComparisonConfig(("frozen", "slow: training.learning_rate=0.0001 model=frozen"))
    variant = config.parsed()[1]
    assert (variant.name, variant.model) == ("slow", "frozen_model")
    made = seeded(params, variant, 2)
    assert (made.training.seed, made.tokenizer.seed, made.training.learning_rate) == (7, 2, 0.0001)
    assert made.frozen_model.enabled
    assert seeded(params, config.parsed()[0], 0).training == params.training


def document(word="better", seeds=3, start=None, label="frozen", alarm=None):
    """A comparison of two variants whose figures are given."""
    trainings = [{"seed": s, "model": "m" * 64, "alarm": alarm, "ndcg@10": 0.1, "recall@10": 0.2} for s in range(seeds)]
    gain = {
        "variant": "joint",
        "mean": 0.01,
        "low": 0.002,
        "high": 0.018,
        "seed_error": 0.001,
        "user_error": 0.002,
        "word": word,
        "each": [0.01] * seeds,
    }
    found = {
        "format": 1, "reference": "frozen", "seeds": list(range(seeds)), "users": 1000, "split": "temporal",
        "variants": [{"name": n, "label": text, "model": "joint_model", "overrides": [], "trainings": trainings}
                     for n, text in (("frozen", label), ("joint", "joint"))],
        "gains": [{**gain, "metric": metric} for metric in ("ndcg@10", "recall@10")],
    }  # fmt: skip
    return found if start is None else {**found, "start": start}


def test_a_claim_is_made_only_where_the_document_makes_it():
    assert told(document(), document()["gains"][0]).endswith("3 seeds, 1,000 users): better")
    unclaimed = document("unclaimed", 2)
    assert "better" not in told(unclaimed, unclaimed["gains"][0])
    assert "say nothing about others" in warnings(unclaimed)[0]


def test_a_control_that_continues_from_a_joint_champion_is_called_so_everywhere():
    found = document(start="s" * 64, label="continued frozen")
    assert told(found, found["gains"][0]).startswith("joint against continued frozen:")
    for text in (page(found, [("sequences", "h" * 64)]), summary_markdown(found)):
        assert "continued frozen" in text
        assert "not a frozen control" in text
    warm, baseline = build_params({}), {"baseline": SimpleNamespace(hash="s" * 64)}
    assert continued(warm, baseline)
    assert not continued(warm, {})
    assert not continued(build_params({"retraining": {"start": "scratch"}}), baseline)


def test_an_alarm_stands_on_the_page_escaped():
    found = document(alarm="collapse <script>")
    html = page(found, [])
    assert "stopped on an alarm: collapse &lt;script&gt;" in html
    assert "<script>" not in html
