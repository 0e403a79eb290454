"""`cold_start`, `diger assign` and `diger ids diff`: new items get IDs in seconds and nobody else's changes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diger_core.config import TokenizerConfig
from diger_core.errors import DigerError
from diger_core.ids.id_diff import id_diff, migration
from diger_core.ids.id_table import argmin_codes, from_arrow, to_arrow
from diger_core.progress import Silent
from orchestration.champion.model_artefact import ASSIGNMENT
from orchestration.change.cold_start import no_room
from orchestration.change.new_ids import child_assignment
from orchestration.cli import main
from orchestration.training.tokenizer import _enough_suffixes
from tests.support.retraining_world import SECOND, SMALL, UNTIL_EMBEDDINGS, RetrainingWorld, shop


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = RetrainingWorld(tmp_path_factory.mktemp("cold"))
    made.first_results = made.run(made.first())
    made.champion = made.release(made.first_results)
    made.arrived = made.run(made.second(), (*UNTIL_EMBEDDINGS, "cold_start"))
    return made


def width(bundle):
    return bundle.tokenizer.dim - bundle.factors_NF.shape[1]


def test_the_child_holds_the_champions_ids_and_those_of_the_new_items(world):
    artefact = world.arrived["cold_start"].artefact
    child, new = artefact.table("id_table.parquet"), artefact.table("new_items.parquet")
    assert new["item_id"].to_pylist() == list(range(60, 66))
    old = to_arrow(world.champion.item_ids, world.champion.table)
    assert id_diff(migration(old, child))["counts"] == {"kept": 60, "suffix": 0, "moved": 0, "added": 6, "removed": 0}
    document = artefact.json("cold_start.json")
    assert document["parent"] == world.champion.hash
    assert document["parent_assignment"] == world.champion.assignment_hash
    assert child.schema.metadata[ASSIGNMENT.encode()].decode() == document["assignment_hash"] == artefact.facts["assignment_hash"]


def test_new_codes_are_the_argmin_under_the_champions_tokenizer_with_no_factors(world):
    embeddings = world.arrived["embeddings"].artefact
    ids = embeddings.table("texts.parquet")["item_id"].to_numpy()
    vectors = embeddings.tensors("vectors.safetensors")["vectors"][torch.from_numpy(ids >= 60)]
    wanted = argmin_codes(world.champion.tokenizer, torch.cat([vectors, torch.zeros(6, world.champion.factors_NF.shape[1])], 1))
    _, found = from_arrow(world.arrived["cold_start"].artefact.table("new_items.parquet"))
    assert torch.equal(found.codes_NM, wanted)


def test_a_first_snapshot_has_nothing_to_keep(world):
    artefact = world.first_results["cold_start"].artefact
    assert artefact.json("cold_start.json") == {"parent": None, "new_items": 0}
    assert artefact.names == ["cold_start.json"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_id_changes_and_none_is_given_twice_whatever_arrives(world, data):
    bundle = world.champion
    fresh = data.draw(st.lists(st.integers(100, 200), unique=True, max_size=20))
    known = data.draw(st.lists(st.sampled_from(bundle.item_ids.to_pylist()), unique=True, max_size=5))
    ids = data.draw(st.permutations(fresh + known))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    # a text belongs to an item, wherever it stands
    vectors = {i: rng.normal(size=width(bundle)).astype(np.float32) if i % 3 else np.ones(width(bundle), np.float32) for i in sorted(ids)}
    child = child_assignment(bundle, pa.array(ids, pa.int64()), np.array([vectors[i] for i in ids], np.float32).reshape(len(ids), width(bundle)))
    assert child.table.duplicates() == 0
    assert child.new_N.sum() == len(fresh)
    report = id_diff(migration(to_arrow(bundle.item_ids, bundle.table), child.arrow()))
    assert report["counts"] == {"kept": 60, "suffix": 0, "moved": 0, "added": len(fresh), "removed": 0}
    shuffled = list(reversed(ids))
    again = child_assignment(
        bundle, pa.array(shuffled, pa.int64()), np.array([vectors[i] for i in shuffled], np.float32).reshape(len(ids), -1 if ids else 12)
    )
    assert again.assignment == child.assignment


def test_reserved_tuples_stay_reserved(world):
    bundle = world.champion
    vectors = np.ones((1, width(bundle)), np.float32)
    (codes,) = argmin_codes(bundle.tokenizer, torch.cat([torch.ones(1, width(bundle)), torch.zeros(1, bundle.factors_NF.shape[1])], 1)).tolist()
    first = child_assignment(bundle, pa.array([777]), vectors).arrow(new_only=True)["suffix"].to_pylist()[0]
    taken = pa.table(
        {"code_1": [codes[0]], "code_2": [codes[1]], "suffix": [first]}, pa.schema([(n, pa.int32()) for n in ("code_1", "code_2", "suffix")])
    )
    kept = type(bundle)(bundle.artefact, bundle.document, bundle.model, taken)
    assert child_assignment(kept, pa.array([777]), vectors).arrow(new_only=True)["suffix"].to_pylist()[0] != first


def test_of_ten_thousand_equal_texts_those_get_ids_that_have_room_and_the_others_are_counted(world):
    ids = pa.array(range(1000, 11_000))
    vectors = np.ones((10_000, width(world.champion)), np.float32)
    child = child_assignment(world.champion, ids, vectors)
    assert child.new_N.sum() + child.no_room == 10_000
    assert 0 < child.new_N.sum() <= 32
    assert child.table.duplicates() == 0
    assert id_diff(migration(to_arrow(world.champion.item_ids, world.champion.table), child.arrow()))["counts"]["kept"] == 60
    rows = np.random.default_rng(0).permutation(10_000)
    assert child_assignment(world.champion, ids.take(pa.array(rows)), vectors).assignment == child.assignment
    assert f"{child.no_room:,} new items get no ID" in no_room(child, world.champion)


def test_items_that_nothing_tells_apart_get_enough_suffixes_at_a_first_training():
    told = Messages()
    inputs = torch.zeros(700, 4)
    inputs[:100] = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    config = TokenizerConfig()
    assert _enough_suffixes(inputs, config, told) == 2048, "600 items are equal: as many again may come"
    assert "600 items have equal text and factors" in told.lines[0]
    assert _enough_suffixes(inputs, replace(config, suffixes=32), told) == 32, "what a person sets is kept"
    assert _enough_suffixes(inputs[:200], config, told) is None
    assert len(told.lines) == 1


class Messages(Silent):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def test_a_training_with_more_equal_texts_than_suffixes_stops_with_the_count(world):
    events, catalogue = shop(range(60), 60)
    flood = pa.table({"item_id": range(1000, 1300), "title": ["one and the same"] * 300, "brand": ["x"] * 300})
    flooded = world.snapshot("flooded", events, pa.concat_tables([catalogue, flood]))
    with pytest.raises(DigerError, match=r"\d+ items have no semantic ID of their own"):
        world.run(flooded, (*UNTIL_EMBEDDINGS, "tokenizer", "joint_model"))


def test_vectors_of_another_width_and_repeated_items_are_refused(world):
    with pytest.raises(DigerError, match="use its own encoder"):
        child_assignment(world.champion, pa.array([900]), np.ones((1, 3), np.float32))
    with pytest.raises(DigerError, match="more than once"):
        child_assignment(world.champion, pa.array([900, 900]), np.ones((2, width(world.champion)), np.float32))
    with pytest.raises(DigerError, match="item_id: .* text, .* integers: keep one type"):
        child_assignment(world.champion, pa.array(["900"]), np.ones((1, width(world.champion)), np.float32))


def test_another_encoder_in_params_encodes_the_new_texts_with_the_champions(world):
    done = world.run(world.second(), ("embeddings", "cold_start"), embeddings={"dimensions": 9, "min_df": 1})
    same = world.arrived["cold_start"].artefact
    assert done["cold_start"].artefact.facts["assignment_hash"] == same.facts["assignment_hash"]


# The command line


@pytest.fixture
def cli(world, tmp_path, capsys):
    params = tmp_path / "params.yaml"
    params.write_text(json.dumps({"embeddings": SMALL["embeddings"]}))

    def call(*arguments):
        try:
            main([*arguments, "--store", world.store.url])
        except SystemExit as ended:
            if ended.code:
                raise
        return capsys.readouterr().out

    call.params = str(params)
    return call


def test_assign_prints_what_the_stage_computes(world, cli, tmp_path):
    out = tmp_path / "table.parquet"
    printed = cli("assign", str(world.folder / "second"), "--params", cli.params, "--json", "--out", str(out))
    found = json.loads(printed)
    artefact = world.arrived["cold_start"].artefact
    rows = artefact.table("new_items.parquet").to_pylist()
    assert [{name: row[name] for name in rows[0]} for row in found["new"]] == rows
    assert [row["id"] for row in found["new"]] == [f"{row['code_1']}-{row['code_2']}-{row['suffix']}" for row in rows]
    assert found["assignment_hash"] == artefact.facts["assignment_hash"]
    assert found["kept"] == 60
    assert pq.read_table(out).equals(artefact.table("id_table.parquet"))
    assert "6 new items" in cli("assign", str(world.folder / "second" / "items.parquet"), "--params", cli.params)


def test_ids_diff_compares_aliases_hashes_and_files(world, cli, tmp_path):
    child = world.arrived["cold_start"].artefact
    found = json.loads(cli("ids", "diff", "champion", child.hash[:12], "--json"))
    assert found["counts"] == {"kept": 60, "suffix": 0, "moved": 0, "added": 6, "removed": 0}
    for name in ("champion~0", world.champion.assignment_hash[:16], world.first().key):
        assert json.loads(cli("ids", "diff", name, "cold_start", "--json"))["counts"] == found["counts"]
    file, out = tmp_path / "old.parquet", tmp_path / "migration.parquet"
    pq.write_table(child.table("id_table.parquet"), file)
    shown = cli("ids", "diff", str(file), "champion", "--migration", str(out))
    assert "100.0%" in shown
    assert "users have an item with another ID" in shown
    assert pq.read_table(out).filter(pa.compute.field("status") == "removed").num_rows == 6


def test_ids_diff_names_what_it_cannot_find(world, capsys):
    for name, told in (
        ("123456", "no artefact"),
        ("champion~7", "1 entries"),
        ("sequences", "no artefact with an ID table"),
        ("previous", "no previous bundle yet"),
        ("nothing.parquet", "no such file"),
    ):
        with pytest.raises(SystemExit):
            main(["ids", "diff", "champion", name, "--store", world.store.url])
        assert told in capsys.readouterr().err


def test_lookup_falls_back_on_the_newest_ids_of_the_snapshot_and_says_so(world, capsys):
    main(["lookup", "--snapshot", str(world.folder / "first"), "--item", "7", "--json", "--store", world.store.url])  # not the parameters of the run
    shown = capsys.readouterr()
    assert [row["item_id"] for row in json.loads(shown.out)] == [7]
    table = world.first_results["semantic_ids"].artefact
    assert f"the newest IDs of snapshot {world.first().key}: {table.hash[:12]}" in shown.err


# The last of all: its snapshot becomes the newest of the store.


def test_another_kind_of_encoder_stops_nothing_and_a_new_start_takes_it(world):
    """The champion cannot read the vectors; the remedy that the message names works."""
    events, items = shop(SECOND, 70, 9)
    ids = items["item_id"].to_pylist()
    random = np.random.default_rng(3).normal(size=(len(ids), 6)).astype(np.float32)
    table = pa.table({"item_id": ids, "vector": pa.array(list(random), pa.list_(pa.float32()))})
    arrived = world.snapshot("with-vectors", events, items, table)
    any_size: dict[str, Any] = {"min_volume_ratio": 0}  # whichever snapshot of these tests was accepted last
    for how in ({"start": "scratch"}, {"baseline": "none"}):
        done = world.run(
            arrived,
            (*UNTIL_EMBEDDINGS, "cold_start", "tokenizer"),
            embeddings={"encoder": "vectors"},
            retraining=how,
            validated_items=any_size,
        )
        document = done["cold_start"].artefact.json("cold_start.json")
        assert (document["parent"], document["new_items"]) == (None, 0)
        assert "retraining.start=scratch" in document["reason"]
        assert done["tokenizer"].artefact.facts["width"] == 6
