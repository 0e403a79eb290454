"""The evaluation stage: its files agree with each other, baselines and control stand beside the model, mixed artefacts are refused."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
import torch

from diger_core.config import EvaluationConfig, NeighboursConfig, RecommenderConfig, TokenizerConfig, TrainingConfig
from diger_core.data.neighbours import empty_table, transitions
from diger_core.data.sequences import Sequences, sequences
from diger_core.data.splits import Moments, targets, time_boundaries, up_to_test
from diger_core.errors import DigerError
from diger_core.evaluation.baselines import markov
from diger_core.evaluation.counts import Counts
from diger_core.evaluation.metrics import ranks
from diger_core.evaluation.recipes import Fitted, Recipe, ranked
from diger_core.ids.id_table import IdTable, to_arrow
from diger_core.recommender.model import Recommender
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from diger_core.tokenizer.rqvae import Tokenizer, tokenizer_state
from orchestration.champion.model_artefact import write_model
from orchestration.features.neighbours import read_counts
from orchestration.params.verdict import ReportConfig
from orchestration.verdict import evaluation as evaluation_stage
from orchestration.verdict.evaluation import beams_of, checked_table, evaluation
from orchestration.verdict.report.material import Material
from orchestration.verdict.report.page import page
from tests.support.release_world import MODEL_ALONE
from tests.support.report_material import IDENTITY, fake_curves, fake_run

SHAPE = RecommenderConfig(encoder_layers=1, decoder_layers=1, d_model=16, d_ff=32, heads=2, d_head=8, history=6, history_input="hard")
CONFIG = EvaluationConfig(beams=20, bootstrap=100)
ITEMS, CODES, SUFFIXES = 40, 8, 8
NAMES = ["lists", "joint_model", "frozen_model", "item_item", "lists_earlier", "baseline_earlier", "lists_frozen", "most_popular", "markov"]


def made_inputs(root, shuffle: bool = False, temporal: bool = False) -> dict[str, Artefact]:
    """Sequences of 60 users over 40 items, two untrained models with their tables, and the joint model's table as semantic_ids."""
    store, random = Store(root), np.random.default_rng(3)
    users = np.repeat(np.arange(60), random.integers(2, 12, 60))
    names = pa.array([f"{i:03d}" for i in range(ITEMS)])
    events = pa.table({"user_id": users, "item_id": names.take(pa.array(random.integers(0, ITEMS, len(users)))), "pos": np.arange(len(users))})
    if temporal:
        events = events.append_column("timestamp", pa.array(random.permutation(len(users)) * 86_400))
    seq, items, user_table = sequences(events, pa.table({"item_id": names}), by_time=temporal)
    if temporal:
        seq = dataclasses.replace(seq, boundaries=time_boundaries(Moments.of(seq), 0.6, 0.8))
    made: dict[str, Artefact] = {}
    with store.writer("sequences") as out:
        out.table("items.parquet", items)
        out.table("users.parquet", user_table)
        out.tensors("sequences.safetensors", seq.to_tensors())
        made["sequences"] = store.publish(out)
    made |= counted(store, seq)
    for seed, name in enumerate(("joint_model", "frozen_model")):
        torch.manual_seed(seed)
        model = Recommender(SHAPE, CODES, 2, SUFFIXES)
        codes = torch.from_numpy(random.integers(0, CODES, (ITEMS, 2)).astype(np.int32))
        seen: dict[tuple, int] = {}
        suffix = torch.tensor([_next(seen, prefix) for prefix in map(tuple, codes.tolist())])
        table = IdTable(codes, suffix.int())
        weights, tokenizer = tokenizer_state(Tokenizer(5, CODES, TokenizerConfig(levels=2, codes=CODES, code_dim=4, hidden=(8,))))
        tensors = {f"recommender.{k}": v for k, v in model.state_dict().items()} | {f"tokenizer.{k}": v for k, v in weights.items()}
        shapes = {"recommender": asdict(SHAPE), "tokenizer": tokenizer, "codes": CODES, "levels": 2, "suffixes": SUFFIXES}
        config = {**shapes, "training": asdict(TrainingConfig()), "alarm": None}
        with store.writer(name) as out:
            write_model(out, tensors, config, items["item_id"], table, fake_curves(3))
            made[name] = store.publish(out)
        if name == "joint_model":
            with store.writer("semantic_ids") as out:
                stored = to_arrow(items["item_id"], table)
                stored = stored.take(pa.array(np.random.default_rng(9).permutation(ITEMS))) if shuffle else stored
                out.table("semantic_ids.parquet", stored, sort_by=() if shuffle else ("item_id",))
                made["semantic_ids"] = store.publish(out)
    return made


def counted(store: Store, seq: Sequences) -> dict[str, Artefact]:
    """The tables of the sequences, and a recipe that mixes the model with them."""
    tables = {"transitions": transitions(seq, NeighboursConfig()), "text": empty_table(seq.items)}
    tables["transitions_eve"] = transitions(up_to_test(seq), NeighboursConfig())
    made = {}
    with store.writer("neighbours") as out:
        out.tensors("neighbours.safetensors", {key: tensor for name, table in tables.items() for key, tensor in table.to_tensors(name).items()})
        made["neighbours"] = store.publish(out)
    with store.writer("fusion") as out:
        out.json("fusion.json", dataclasses.replace(MODEL_ALONE, lists=Recipe({"generative": 0.5, "transitions": 0.5})).document())
        made["fusion"] = store.publish(out)
    return made


def _next(seen: dict[tuple, int], prefix: tuple) -> int:
    seen[prefix] = seen.get(prefix, -1) + 1
    return seen[prefix]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return made_inputs(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def run(inputs):
    made = fake_run(inputs, evaluation=CONFIG)
    evaluation(made)
    return made


def test_metrics_are_those_of_the_stored_ranks(run):
    metrics, ranks = run.out.files["metrics.json"], run.out.files["per_user.parquet"]
    assert list(metrics["models"]) == NAMES
    assert ranks.num_rows == metrics["users"]
    for name, values in metrics["models"].items():
        rank = ranks[name].to_numpy()
        hit = (rank >= 1) & (rank <= 10)
        assert values["recall@10"] == pytest.approx(hit.mean())
        assert values["ndcg@10"] == pytest.approx(np.where(hit, 1 / np.log2(1 + np.maximum(rank, 1)), 0).mean())
        low, high = values["intervals"]["recall@10"]
        assert low <= values["recall@10"] <= high
        assert run.said[f"{name}_recall_10"] == values["recall@10"]
    assert run.said["gain_recall_10_mean"] == pytest.approx(
        metrics["models"]["joint_model"]["recall@10"] - metrics["models"]["frozen_model"]["recall@10"]
    )


def test_the_lists_are_those_of_the_stored_recipe(inputs, run):
    """Half model, half counts: neither the one alone nor the other."""
    recipe = Recipe({"generative": 0.5, "transitions": 0.5})
    seq = Sequences.from_tensors(inputs["sequences"].tensors("sequences.safetensors"))
    users_T, end_T, target_T = targets(seq, "test")
    eve = read_counts(inputs["neighbours"], up_to_test(seq), "transitions_eve")
    items_Tk, _ = ranked(recipe, eve, seq, users_T, end_T, 20, beams_of(run, "joint_model", seq, "test"))
    stored = run.out.files["per_user.parquet"]
    assert stored["lists"].to_pylist() == ranks(items_Tk, target_T).tolist()
    assert stored["lists"].to_pylist() not in (stored["joint_model"].to_pylist(), stored["item_item"].to_pylist())
    items_Tk, _ = ranked(recipe, eve, seq, users_T, end_T, 20, beams_of(run, "frozen_model", seq, "test"))
    assert stored["lists_frozen"].to_pylist() == ranks(items_Tk, target_T).tolist(), "the control in the joint model's place, the recipe unchanged"


@pytest.mark.parametrize("temporal", [False, True])
def test_blocks_of_users_change_nothing(tmp_path, monkeypatch, temporal):
    made, written = made_inputs(tmp_path, temporal=temporal), []
    for block in (1 << 19, 7):
        monkeypatch.setattr(evaluation_stage, "BLOCK", block)
        run = fake_run(made, evaluation=CONFIG, neighbours=NeighboursConfig())
        evaluation(run)
        written.append(run.out.files)
    whole, parts = written
    assert len(whole["per_user.parquet"]) > 7
    assert whole["per_user.parquet"].equals(parts["per_user.parquet"])
    assert whole["recommendations.parquet"].equals(parts["recommendations.parquet"])
    assert ("period" in whole["metrics.json"]) == temporal
    for part in ("models", "differences", "slices"):
        assert parts["metrics.json"][part] == whole["metrics.json"][part]
    if temporal:
        found, wanted = (files["metrics.json"]["period"]["models"]["lists"] for files in (parts, whole))
        assert found["ndcg@10"] == pytest.approx(wanted["ndcg@10"])
        assert found["intervals"]["ndcg@10"] == pytest.approx(wanted["intervals"]["ndcg@10"])


def test_under_a_temporal_split_lists_and_baselines_count_up_to_the_test(tmp_path):
    made = made_inputs(tmp_path, temporal=True)
    run = fake_run(made, evaluation=CONFIG, neighbours=NeighboursConfig())
    evaluation(run)
    metrics = run.out.files["metrics.json"]
    assert {"lists", "lists_earlier", "item_item", "baseline_earlier"} <= set(metrics["models"])
    stored = run.out.files["per_user.parquet"]
    assert stored["lists"].to_pylist() != stored["lists_earlier"].to_pylist(), "the events between training and test count"
    seq = Sequences.from_tensors(made["sequences"].tensors("sequences.safetensors"))
    users_T, end_T, target_T = targets(seq, "test")
    fitted = Fitted.from_document(made["fusion"].json("fusion.json"))
    beams = beams_of(run, "joint_model", seq, "test")
    eve, training = read_counts(made["neighbours"], up_to_test(seq), "transitions_eve"), read_counts(made["neighbours"], seq)
    counted = {"lists": (fitted.lists, eve), "item_item": (fitted.baselines["item_item"], eve), "lists_earlier": (fitted.lists, training)}
    for name, (recipe, counts) in counted.items():
        assert stored[name].to_pylist() == ranks(ranked(recipe, counts, seq, users_T, end_T, 20, beams)[0], target_T).tolist(), name
    assert stored["markov"].to_pylist() == ranks(markov(up_to_test(seq), users_T, end_T, 20), target_T).tolist()
    assert stored["user_index"].to_pylist() == users_T.tolist()
    ends = dict(zip(users_T.tolist(), zip(end_T.tolist(), target_T.tolist(), strict=True), strict=True))
    for row in run.out.files["recommendations.parquet"].to_pylist():
        end, target = ends[row["user_index"]]
        assert row["history"] == seq.events_E[seq.offsets_U1[row["user_index"]] : end].tolist(), "what lies after the target is not shown as history"
        assert row["target"] == target


def test_facts_are_flat_numbers(run):
    assert all(isinstance(value, (int, float)) for value in run.said.values())


def test_recommendations_agree_with_the_ranks_and_the_sequences(run, inputs):
    ranks = {row["user_index"]: row for row in run.out.files["per_user.parquet"].to_pylist()}
    tensors = inputs["sequences"].tensors("sequences.safetensors")
    events, offsets = tensors["events"].numpy(), tensors["offsets"].numpy()
    rows = run.out.files["recommendations.parquet"].to_pylist()
    assert len(rows) == min(50, len(ranks))
    for row in rows:
        user = row["user_index"]
        assert row["history"] == events[offsets[user] : offsets[user + 1] - 1].tolist()
        assert row["target"] == events[offsets[user + 1] - 1]
        for model in ("lists", "joint_model", "frozen_model"):
            place = row[model].index(row["target"]) + 1 if row["target"] in row[model] else 0
            assert place == ranks[user][model]


def test_with_a_split_by_time_histories_end_before_the_test_and_counts_up_to_it_are_rows(tmp_path):
    inputs = made_inputs(tmp_path, temporal=True)
    made = fake_run(inputs, evaluation=CONFIG, neighbours=NeighboursConfig())
    evaluation(made)
    metrics = made.out.files["metrics.json"]
    assert list(metrics["models"]) == NAMES
    assert "lists_earlier - baseline_earlier" in metrics["differences"]
    seq = Sequences.from_tensors(inputs["sequences"].tensors("sequences.safetensors"))
    ends = dict(zip(*(array.tolist() for array in targets(seq, "test")[:2]), strict=True))
    assert metrics["users"] == len(ends)
    for row in made.out.files["recommendations.parquet"].to_pylist():
        user = row["user_index"]
        assert row["history"] == seq.events_E[seq.offsets_U1[user] : ends[user]].tolist()
        assert seq.timestamps_E[ends[user] - 1] <= seq.boundaries[1] < seq.timestamps_E[ends[user]]
        assert row["target"] == seq.events_E[ends[user]]


def test_beside_a_temporal_split_counting_is_ranked_by_the_published_protocol_too(tmp_path, run):
    """The rows are those that an evaluation of the same events under leave one out gives, and the page says what they are."""
    inputs = made_inputs(tmp_path, temporal=True)
    made = fake_run(inputs, evaluation=CONFIG, neighbours=NeighboursConfig())
    evaluation(made)
    found = made.out.files["leave_one_out.json"]
    assert set(found["models"]) == {"item_item", "most_popular", "markov"}, "what needs a training is no row"
    seq = dataclasses.replace(Sequences.from_tensors(inputs["sequences"].tensors("sequences.safetensors")), boundaries=None)
    users_T, end_T, target_T = targets(seq, "test")
    assert found["users"] == len(users_T) > made.out.files["metrics.json"]["users"]
    counts = Counts.of(up_to_test(seq), transitions(up_to_test(seq), NeighboursConfig()), empty_table(seq.items))
    items_Tk, _ = ranked(MODEL_ALONE.baselines["item_item"], counts, seq, users_T, end_T, 20)
    assert found["models"]["item_item"]["recall@10"] == pytest.approx((items_Tk[:, :10] == target_T[:, None]).any(1).mean())
    assert "leave_one_out.json" not in run.out.files, "a split that is leave one out already needs no second table"


def test_the_row_order_of_the_table_does_not_matter(run, tmp_path):
    shuffled = fake_run(made_inputs(tmp_path, shuffle=True), evaluation=CONFIG)
    evaluation(shuffled)
    assert shuffled.out.files["metrics.json"] == run.out.files["metrics.json"]
    assert shuffled.out.files["per_user.parquet"].equals(run.out.files["per_user.parquet"])


def test_a_table_of_another_model_is_refused(inputs):
    item_ids = inputs["sequences"].table("items.parquet")["item_id"]
    assert len(checked_table(inputs["semantic_ids"], "semantic_ids.parquet", inputs["joint_model"], item_ids).codes_NM) == ITEMS
    with pytest.raises(DigerError, match=r"semantic_ids/semantic_ids.parquet: its assignment .* is not the one that frozen_model"):
        checked_table(inputs["semantic_ids"], "semantic_ids.parquet", inputs["frozen_model"], item_ids)
    mixed = fake_run({**inputs, "joint_model": inputs["frozen_model"]}, evaluation=CONFIG)
    with pytest.raises(DigerError, match="only reads its own IDs"):
        evaluation(mixed)
    assert mixed.out.files == {}


def test_a_table_of_another_catalogue_is_refused(inputs):
    item_ids = inputs["sequences"].table("items.parquet")["item_id"]
    for other in (item_ids.slice(1), pa.chunked_array([pa.concat_arrays([item_ids.combine_chunks(), pa.array(["x"], item_ids.type)])])):
        with pytest.raises(DigerError, match="run the stages again"):
            checked_table(inputs["semantic_ids"], "semantic_ids.parquet", inputs["joint_model"], other)


def test_without_the_control_the_rest_is_evaluated(inputs, run):
    alone = fake_run({k: v for k, v in inputs.items() if k != "frozen_model"}, evaluation=CONFIG)
    evaluation(alone)
    models = ["lists", "joint_model", "item_item", "lists_earlier", "baseline_earlier", "most_popular", "markov"]
    assert list(alone.out.files["metrics.json"]["models"]) == models
    assert alone.out.files["per_user.parquet"]["joint_model"].equals(run.out.files["per_user.parquet"]["joint_model"])
    assert "gain_recall_10_mean" not in alone.said


def test_a_control_that_was_switched_off_leaves_an_artefact_without_a_model(inputs, tmp_path):
    store = Store(tmp_path)
    with store.writer("frozen_model") as out:
        out.json("config.json", {"enabled": False})
        out.json("curves.json", [])
        off = store.publish(out)
    alone = fake_run({**inputs, "frozen_model": off}, evaluation=CONFIG)
    evaluation(alone)
    assert "frozen_model" not in alone.out.files["metrics.json"]["models"]
    with store.writer("evaluation") as out:
        out.json("metrics.json", alone.out.files["metrics.json"])
        made = store.publish(out)
    html = page(Material({**inputs, "frozen_model": off, "evaluation": made}), ReportConfig(), IDENTITY)
    assert "switched off" in html
    assert off.hash in html


def test_the_report_reads_what_the_evaluation_writes(inputs, run, tmp_path):
    store = Store(tmp_path)
    with store.writer("evaluation") as out:
        out.json("metrics.json", run.out.files["metrics.json"])
        out.table("recommendations.parquet", run.out.files["recommendations.parquet"], sort_by=("user_index",))
        stored = store.publish(out)
    html = page(Material({**inputs, "evaluation": stored}), ReportConfig(), IDENTITY)
    assert "frozen control" in html
    assert "Shopper A" in html
    assert f"{run.out.files['metrics.json']['models']['markov']['recall@10']:.4f}" in html
