"""A second snapshot continues from the champion: tokenizer, frozen_model, joint_model, semantic_ids, id_diff and bundle, warm and from scratch."""

from __future__ import annotations

import math

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from diger_core.errors import DigerError
from diger_core.ids.id_diff import apply
from diger_core.ids.id_table import from_arrow
from orchestration.champion.baseline import extra_inputs, released_table
from orchestration.champion.bundle import load_bundle
from orchestration.champion.model_artefact import load_model
from orchestration.engine.runner import MissingInput
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from orchestration.params.training import RetrainingConfig
from tests.support.retraining_world import TO_BUNDLE, UNTIL_EMBEDDINGS, RetrainingWorld, shop

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = RetrainingWorld(tmp_path_factory.mktemp("retraining"))
    made.results = made.run(made.first())
    made.champion = made.release(made.results)
    made.arrived = made.second()
    made.run(made.arrived, UNTIL_EMBEDDINGS)
    return made


@pytest.fixture(scope="module")
def warm(world):
    return world.run(world.arrived, retraining={"stability": {"mode": "anchored", "anchor": 2.0}})


def codes_moved(world, results):
    """Known items of the second snapshot whose ID is not the champion's."""
    ids, table = from_arrow(results["semantic_ids"].artefact.table("semantic_ids.parquet"))
    old = released_table(world.champion, ids)
    known = old.suffix_N >= 0
    return int((old.tuples[known] != table.tuples[known]).any(1).sum()), int(known.sum())


def test_the_first_snapshot_keeps_its_results_after_its_own_release(world):
    again = world.run(world.first())
    assert all(result.reused for result in again.values())
    assert again["tokenizer"].artefact.facts.get("start") is None


def test_a_warm_start_takes_over_tokenizer_statistics_and_factors(world, warm):
    tok = warm["tokenizer"].artefact
    assert tok.facts["taken_from"] == world.champion.hash
    assert all(torch.equal(value, world.champion.tokenizer.state_dict()[name]) for name, value in tok.tensors("tokenizer.safetensors").items())
    ids = warm["sequences"].artefact.table("items.parquet")["item_id"]
    factors = tok.tensors("inputs.safetensors")["factors"]
    new = np.isin(ids.to_numpy(), range(60, 66))
    assert not factors[torch.from_numpy(new)].any()
    old = world.champion.factors_NF[pc.index_in(ids.filter(~new), value_set=world.champion.item_ids.combine_chunks()).to_pylist()]
    assert torch.equal(factors[torch.from_numpy(~new)], old)
    assert warm["tokenizer"].artefact.json("curves.json") == []


def test_both_models_start_from_the_champion_and_remember_the_mode(world, warm):
    for name in ("frozen_model", "joint_model"):
        assert name in warm
        model = load_model(warm[name].artefact)
        start = world.champion.recommender.state_dict()
        distance = sum(float((value - start[key]).square().sum()) for key, value in model.recommender.state_dict().items())
        fresh = sum(float(value.square().sum()) for value in start.values())
        assert distance < 0.5 * fresh  # a new recommender would lie about sqrt(2) of their lengths away


def test_pinned_ids_never_move_and_free_ones_do(world):
    stages = [name for name in TO_BUNDLE if name not in ("frozen_model", "id_diff", "bundle", "cold_start", "catalogue_diff")]
    fast = {"codebook_learning_rate": 0.1, "collapse_unique_prefixes": 0.0, "collapse_perplexity": 0.0}
    moved = {}
    for mode in ("pinned", "free"):
        results = world.run(world.arrived, stages, retraining={"stability": {"mode": mode}}, joint_model=fast, training={"patience": 1})
        moved[mode], _ = codes_moved(world, results)
    assert moved["pinned"] == 0
    assert moved["free"] > 0


def test_semantic_ids_refuses_a_table_that_another_mode_would_give(world):
    fast = {"codebook_learning_rate": 0.1, "collapse_unique_prefixes": 0.0, "collapse_perplexity": 0.0}
    stages = [name for name in TO_BUNDLE[: TO_BUNDLE.index("joint_model") + 1] if name != "frozen_model"]
    session = world.session(world.arrived, retraining={"stability": {"mode": "free"}}, joint_model=fast)
    for name in stages:
        session.materialise(BY_NAME[name])
    pinned = world.session(world.arrived, retraining={"stability": {"mode": "pinned"}}, joint_model=fast)
    pinned._known.update(session._known)
    with pytest.raises(DigerError, match="get other codes from the joint model's tokenizer"):
        pinned.materialise(BY_NAME["semantic_ids"])


def test_no_released_tuple_changes_hands_and_removed_items_keep_theirs_reserved(world, warm):
    bundle = load_bundle(world.store, warm["bundle"].artefact.hash)
    owner = {tuple(t): i for i, t in zip(world.champion.item_ids.to_pylist(), world.champion.table.tuples.tolist(), strict=True)}
    for item, held in zip(bundle.item_ids.to_pylist(), bundle.table.tuples.tolist(), strict=True):
        assert owner.get(tuple(held), item) == item
    row = world.champion.item_ids.to_pylist().index(7)  # the item that the second snapshot lacks
    assert world.champion.table.tuples[row].tolist() in bundle.reserved_RQ.tolist()
    assert bundle.document["parent"] == world.champion.hash


def test_id_diff_tells_what_happened_and_its_migration_makes_the_new_table(world, warm):
    artefact = warm["id_diff"].artefact
    report = artefact.json("id_diff.json")
    moved, known = codes_moved(world, warm)
    assert report["counts"]["added"] == 6
    assert report["counts"]["removed"] == 1
    assert report["counts"]["moved"] + report["counts"]["suffix"] == moved
    assert report["shares"]["kept"] == pytest.approx(1 - moved / known)
    assert "whole ID kept" in artefact.path("id_diff.md").read_text()
    carried = apply(artefact.table("migration.parquet"), world.results["semantic_ids"].artefact.table("semantic_ids.parquet"))
    assert carried.equals(warm["semantic_ids"].artefact.table("semantic_ids.parquet").cast(carried.schema).replace_schema_metadata(None))
    assert world.results["id_diff"].artefact.json("id_diff.json") == {"baseline": None}


def test_the_report_shows_what_changed_and_says_nothing_of_it_in_a_first_training(world, warm):
    from orchestration.verdict.report.change import change_part
    from orchestration.verdict.report.material import Material
    from orchestration.verdict.report.sections import change_section

    inputs = {name: result.artefact for name, result in warm.items()}
    section = change_section(Material(inputs))
    assert section["catalogue"]["decision"] == "Retrain"
    assert section["ids"]["rows"][0][:2] == ("whole ID kept", str(warm["id_diff"].artefact.json("id_diff.json")["counts"]["kept"]))
    assert [picture.sentence for picture in section["pictures"]][0] == "6 of 65 items are new, 1 are gone"
    assert change_part(Material({name: result.artefact for name, result in world.results.items()})) is None
    assert change_part(Material({})) is None


def test_the_report_says_that_a_warm_start_had_no_warm_up(world, warm):
    from orchestration.verdict.report.material import Material
    from orchestration.verdict.report.sections import training_section

    pages = [training_section(Material({"tokenizer": results["tokenizer"].artefact})) for results in (world.results, warm)]
    assert [bool(page["tokenizer"]) for page in pages] == [True, False]
    assert [page["taken_over"] for page in pages] == [None, world.champion.hash]


def test_from_scratch_codes_are_named_like_the_champions(world):
    scratch = world.run(world.arrived, ("tokenizer", "joint_model", "semantic_ids", "id_diff"), retraining={"start": "scratch"})
    facts = scratch["tokenizer"].artefact.facts
    assert facts["aligned"] is True
    assert facts["codes"] == world.champion.tokenizer.codes
    report = scratch["id_diff"].artefact.json("id_diff.json")
    before = facts["same_codes"]
    assert before > 3 / 64  # unaligned codes would agree by chance, one in 64 of two levels of 8
    assert report["shares"]["kept"] < 1
    assert scratch["joint_model"].artefact.json("curves.json")


def test_a_warm_start_that_does_not_fit_names_the_key_and_the_way_out(world):
    for section, change, told in (
        ("tokenizer", {"levels": 3}, "tokenizer.levels is 3 here and 2"),
        ("tokenizer", {"item_factors": 8}, "tokenizer.item_factors is 8 here and 4"),
        ("tokenizer", {"codes": 16}, "tokenizer.codes is 16 here and 8"),
        ("tokenizer", {"suffixes": 64}, "tokenizer.suffixes is 64 here and 32"),
    ):
        with pytest.raises(DigerError, match=rf"{told}.*retraining.start=scratch"):
            world.run(world.arrived, ("tokenizer",), **{section: change})
    with pytest.raises(DigerError, match=r"warm start: .*retraining.start=scratch"):
        world.run(world.arrived, ("tokenizer", "joint_model"), recommender={"d_ff": 48})


def test_another_encoder_is_refused_and_from_scratch_goes_on(world):
    changed = {"dimensions": 10, "min_df": 1}
    with pytest.raises(DigerError, match="embeddings were made with encoder"):
        world.run(world.arrived, ("embeddings", "tokenizer"), embeddings=changed)
    done = world.run(world.arrived, ("tokenizer",), embeddings=changed, retraining={"start": "scratch"})
    assert done["tokenizer"].artefact.facts["width"] == 10


def test_without_a_baseline_the_retraining_section_changes_no_key(world):
    plain = world.session(world.first(), retraining={"baseline": "none"})
    tuned = world.session(world.first(), retraining={"baseline": "none", "start": "scratch", "epochs": 3})
    assert plain.resolve(BY_NAME["tokenizer"])[0] == tuned.resolve(BY_NAME["tokenizer"])[0]
    warm = [world.session(world.arrived, retraining={"epochs": n}) for n in (1, 2)]
    assert warm[0].resolve(BY_NAME["tokenizer"])[0] != warm[1].resolve(BY_NAME["tokenizer"])[0]


def test_warm_epochs_and_rate_replace_those_of_a_first_training(world):
    done = world.run(world.arrived, ("tokenizer", "joint_model"), retraining={"epochs": 1, "learning_rate": 0.0005})
    config = done["joint_model"].artefact.json("config.json")["training"]
    assert (config["epochs"], config["learning_rate"]) == (1, 0.0005)
    assert len(done["joint_model"].artefact.json("curves.json")) == 1


def test_the_baseline_is_the_champion_at_arrival_and_stays_it(tmp_path):
    world = RetrainingWorld(tmp_path)
    first = world.first()
    params = world.session(first).params
    assert extra_inputs(params, world.store, {}, snapshot=first, fit=False) is None
    world.run(first, UNTIL_EMBEDDINGS)
    with pytest.raises(MissingInput):
        world.session(first).find(BY_NAME["catalogue_diff"])
    assert extra_inputs(params, world.store, {}, snapshot=first, fit=True) == {}
    assert extra_inputs(params, world.store, {}, snapshot=first, fit=False) == {}


def test_a_baseline_can_be_named_by_its_hash(world):
    params = build_params({"retraining": {"baseline": world.champion.hash[:16]}})
    found = extra_inputs(params, world.store, {}, snapshot=world.arrived, fit=False)
    assert found["baseline"].hash == world.champion.hash
    with pytest.raises(DigerError, match="no bundle's hash begins with 'abcdef'"):
        extra_inputs(build_params({"retraining": {"baseline": "abcdef"}}), world.store, {}, snapshot=world.arrived, fit=False)
    with pytest.raises(ValueError, match="champion, none or the hash"):
        RetrainingConfig(baseline="the last one")


def test_an_infinite_anchor_can_be_written_in_params():
    assert math.isinf(build_params({"retraining": {"stability": {"anchor": math.inf}}}).retraining.stability.anchor)


def test_a_baseline_whose_bundle_is_gone_is_told_by_name(tmp_path):
    world = RetrainingWorld(tmp_path)
    snapshot = world.snapshot("lost", *shop(range(60), 60))
    world.store.create_pointer("baseline", snapshot.key, {"bundle": "0" * 64})
    with pytest.raises(DigerError, match=r"000000000000, the starting bundle of snapshot lost-.*restore it"):
        extra_inputs(world.session(snapshot).params, world.store, {}, snapshot=snapshot, fit=True)
