"""DVC: the same stages, outs that are links of the store's files, and a store that `dvc pull` alone restores."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration import on_dvc as bridge
from orchestration.engine import removal
from orchestration.engine.registry import DEMO, lookup, register
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME, FLOW
from orchestration.params.load import build_params
from tests.support.dvc_project import PROJECT, TINY, project
from tests.support.snapshot_material import interactions, items, write

RAW = ("raw_items", "raw_interactions")
EARLY = (*RAW, "validated_items")


def inodes(folder: Path) -> set[int]:
    """Of all files below a folder."""
    return {p.stat().st_ino for p in folder.rglob("*") if p.is_file()}


def assert_stored_once(root: Path) -> None:
    """Every file of every stage's artefact is one inode in the store, below pipeline/ and in DVC's cache.

    Where equal bytes had entered the cache before, from another artefact or as the snapshot itself, the out is a link of those.
    """
    cached, known = inodes(root / ".dvc" / "cache"), inodes(root / "store" / "artefacts") | inodes(root / "data")
    for directory in (root / "pipeline").iterdir():
        manifest = json.loads((directory / "manifest.json").read_text())
        for entry in manifest["files"]:
            out = (directory / entry["name"]).stat().st_ino
            stored = (root / "store" / "artefacts" / manifest["stage"] / manifest["hash"] / entry["path"]).stat().st_ino
            assert stored == out or out in known, f"{directory.name}/{entry['name']} is a copy"
            assert out in cached, f"{directory.name}/{entry['name']} is another file than DVC's"


# The bridge alone, without DVC's start-up: seconds


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """The first two stages computed, and linked as dvc.yaml's commands do: (session, results)."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / "snap", interactions(), items())
    store = Store("store")
    session = Session(store, build_params({}), register(store, str(tmp_path / "data" / "snap")))
    results = [session.materialise(BY_NAME[name]) for name in ("raw_items", "raw_interactions", "validated_items")]
    for result in results:
        bridge.link_artefact(store, result, f"pipeline/{result.stage.name}")
    return session, results


def test_an_out_is_the_stores_files_by_the_same_inodes(linked):
    _, results = linked
    for result in results:
        for name in result.artefact.names:
            assert os.path.samefile(result.artefact.path(name), f"pipeline/{result.stage.name}/{name}")


def test_adoption_rebuilds_an_empty_store_so_that_nothing_is_computed(linked):
    session, results = linked
    other = Store("other")
    assert bridge.adopt(other) == 3
    again = Session(other, session.params, register(other, "data/snap"))
    for result in results:
        found = again.materialise(result.stage)
        assert (found.reused, found.key, found.artefact.hash) == (True, result.key, result.artefact.hash)
        assert not found.artefact.verify()
        for name in found.artefact.names:
            assert os.path.samefile(found.artefact.path(name), result.artefact.path(name))
        assert other.records(result.stage.name, result.key) == session.store.records(result.stage.name, result.key)


def test_adopting_twice_changes_nothing(linked):
    other = Store("other")
    bridge.adopt(other)
    before = sorted(Path("other").rglob("*"))
    assert bridge.adopt(other) == 0
    assert [p for p in sorted(Path("other").rglob("*")) if p not in before] == []


def test_what_was_forgotten_does_not_come_back_from_the_outs(linked):
    _, results = linked
    other, gone = Store("other"), results[1].artefact
    removal.note(other, gone.stage, gone.hash, "forget", "a test")
    assert bridge.adopt(other) == 2
    assert other.find(gone.stage, gone.hash) is None


def test_the_champion_log_of_another_history_is_not_continued_here(linked):
    log = Path("pipeline/release/champion")
    log.mkdir(parents=True)
    for number in (1, 2):
        (log / f"{number:06d}.json").write_text(f"theirs {number}")
    same, other = Store("same"), Store("other")
    same.root.create(b"theirs 1", "champion", "000001.json")
    other.root.create(b"ours 1", "champion", "000001.json")
    bridge.adopt(same)
    bridge.adopt(other)
    assert same.root.list("champion") == ["000001.json", "000002.json"]
    assert other.root.list("champion") == ["000001.json"]


def test_a_snapshot_inside_the_project_is_found_in_every_clone(linked, tmp_path, monkeypatch):
    session, _ = linked
    clone = tmp_path / "elsewhere" / "clone"
    clone.mkdir(parents=True)
    (tmp_path / "pipeline").rename(clone / "pipeline")
    (tmp_path / "data").rename(clone / "data")
    monkeypatch.chdir(clone)
    store = Store("store")
    bridge.adopt(store)
    entry = lookup(store, session.snapshot.key)
    assert entry.url == "data/snap"
    store.root.remove_directory("artefacts", "raw_items")
    assert not Session(store, session.params, entry).materialise(BY_NAME["raw_items"]).reused


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


FAULTS = {
    "a flipped bit": (lambda p: _flip(p / "items.parquet"), r"items\.parquet: its bytes are not those"),
    "a missing file": (lambda p: (p / "items.parquet").unlink(), r"items\.parquet: named by its manifest but missing"),
    "a truncated manifest": (lambda p: (p / "manifest.json").write_text('{"format": 1,'), r"manifest\.json: not valid JSON"),
    "an edited manifest": (
        lambda p: (p / "manifest.json").write_text((p / "manifest.json").read_text().replace('"facts":{', '"facts":{"x":1,')),
        r"does not hash to the name",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_out_is_refused_and_never_enters_the_store(linked, fault):
    damage, message = FAULTS[fault]
    damage(Path("pipeline/validated_items"))
    other = Store("other")
    with pytest.raises(DigerError, match=message + r".*(dvc pull|dvc checkout)"):
        bridge.adopt(other)
    assert not any(p.name.startswith("manifest") for p in Path("other/artefacts").glob("validated_items/**/*"))
    assert not list(Path("other/tmp").iterdir())


def test_a_store_named_on_the_command_line_does_not_take_up_the_projects_outs(linked, monkeypatch):
    from orchestration.cli.options import open_store

    monkeypatch.delenv("DIGER_STORE", raising=False)
    assert open_store("other").root.list("artefacts") == []
    assert open_store("store").root.list("artefacts") == ["raw_interactions", "raw_items", "validated_items"]
    monkeypatch.setenv("DIGER_STORE", "mine")
    assert open_store("mine").root.list("artefacts") == ["raw_interactions", "raw_items", "validated_items"]


# The committed configuration


def _dvc_hash(directory: Path) -> str:
    """DVC's name of a directory: MD5 of its listing."""
    listing = [{"md5": hashlib.md5(p.read_bytes()).hexdigest(), "relpath": p.name} for p in sorted(directory.iterdir())]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def test_the_committed_demo_snapshots_are_what_the_generator_writes(tmp_path):
    from orchestration.snapshot.demo_shop import write_demo_snapshots

    for written in write_demo_snapshots(tmp_path):
        tracked = yaml.safe_load((PROJECT / Path(DEMO[0]).parent / f"{written.name}.dvc").read_text())["outs"][0]
        assert tracked["path"] == written.name
        assert tracked["md5"] == _dvc_hash(written)


def test_the_remote_verifies_and_links_come_before_copies():
    text = (PROJECT / ".dvc" / "config").read_text()
    assert "verify = true" in text
    assert 'type = "hardlink,' in text  # DVC moves outs into its cache by links only where this comes first


# With DVC itself


@pytest.mark.parametrize("name", ["dvc.yaml", "on_demand/dvc.yaml"])
def test_the_params_of_these_tests_have_every_section_that_dvc_reads(name):
    """Else `dvc repro` says that parameters are missing, and the slow tests below fail for nothing."""
    wanted = set()
    for stage in yaml.safe_load((PROJECT / name).read_text())["stages"].values():
        wanted |= {section for section in stage.get("params", []) if isinstance(section, str)}
    given = yaml.safe_load(TINY)
    assert sorted(wanted - set(given)) == []


@pytest.mark.slow
def test_the_first_stages_come_back_in_a_clone_by_dvc_pull_alone(tmp_path):
    here = project(tmp_path / "here")
    here.run("dvc", "repro", *EARLY)
    assert set(here.hashes()) == set(EARLY)
    assert_stored_once(here.root)
    assert "Data and pipelines are up to date" in here.run("dvc", "repro", *EARLY)
    here.commit("a run")
    assert here.run("git", "ls-files", "data", "pipeline", "store", "dvc-remote").split() == ["data/snapshots/tiny.dvc"]
    here.run("dvc", "push")

    there = here.clone(tmp_path / "there")
    assert there.hashes() == here.hashes()
    assert "validated_items: unchanged, reused" in there.run("diger", "stage", "validated_items")
    assert_stored_once(there.root)
    assert all(len(list((there.root / "store" / "records" / stage).rglob("*.json"))) == 1 for stage in EARLY), "something was computed again"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_runs_under_dvc_and_only_when_it_is_asked_for(tmp_path):
    here = project(tmp_path / "here")
    here.run("dvc", "repro", "on_demand/dvc.yaml:tuned_model")
    assert set(here.hashes()) == {
        *EARLY,
        "validated_interactions",
        "sequences",
        "embeddings",
        "neighbours",
        "tokenizer",
        "decay_search",
        "tuned_model",
    }
    listed = here.run("dvc", "stage", "list", "--name-only").split()
    assert "joint_model" in listed
    assert "decay_search" not in listed  # what `dvc repro` alone runs


def test_neither_data_nor_outs_can_be_committed(tmp_path):
    here = project(tmp_path / "here")
    shutil.rmtree(here.root / "data")  # with whatever ignore rules lay in it
    for name in ("data/snapshots/tiny/items.parquet", "pipeline/sequences/x.safetensors", "store/artefacts/a", "dvc-remote/files/a", "dvc_plots/x"):
        (here.root / name).parent.mkdir(parents=True)
        (here.root / name).write_bytes(b"data")
    here.run("git", "add", "-A")
    assert here.run("git", "status", "--short").split("\n")[0] == "D  data/snapshots/tiny.dvc"
    assert len(here.run("git", "status", "--short").splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_whole_flow_under_dvc(tmp_path):
    here = project(tmp_path / "here")
    here.run("dvc", "repro")
    first = here.hashes()
    assert set(first) == {stage.name for stage in FLOW}
    assert_stored_once(here.root)
    assert "Data and pipelines are up to date" in here.run("dvc", "repro")
    metrics = json.loads(here.run("dvc", "metrics", "show", "--json"))
    assert set(metrics[""]["data"]["pipeline/evaluation/summary.json"]["data"]) >= {"joint_model", "frozen_model", "most_popular", "markov"}
    page = here.run("dvc", "plots", "show").strip().splitlines()[-1]
    assert Path(page.removeprefix("file://")).is_file()
    here.commit("a run")
    here.run("dvc", "push")

    # Edits run again only what depends on them.
    here.set("examples: 2", "examples: 3")
    assert _ran(here.run("dvc", "repro")) == {"report", "release"}
    here.set("name: sdud+frqud", "name: gumbel")
    behind = {"joint_model", "semantic_ids", "id_diff", "fusion", "evaluation", "refit", "bundle", "gate", "report", "release"}
    assert _ran(here.run("dvc", "repro")) == behind
    page = here.run("dvc", "plots", "diff", "HEAD").strip().splitlines()[-1]
    assert Path(page.removeprefix("file://")).is_file()
    here.run("git", "checkout", "-q", "params.yaml", "dvc.lock")
    here.run("dvc", "checkout", "--allow-missing")
    assert here.hashes() == first
    assert "didn't change" in here.run("dvc", "repro")

    # Another clone, from the remote alone: nothing is computed, and everything answers.
    there = here.clone(tmp_path / "there")
    summary = json.loads(_last_json(there.run("diger", "run", "--json")))
    assert summary["artefacts"] == first
    assert all(len(list((there.root / "store" / "records" / stage.name).rglob("*.json"))) == 1 for stage in FLOW)
    assert "1 item" in there.run("diger", "lookup", "--item", "7")
    assert_stored_once(there.root)
    assert "Data and pipelines are up to date" in there.run("dvc", "repro")


@pytest.mark.slow
def test_a_run_without_dvc_and_a_repro_lead_to_the_same_artefacts(tmp_path):
    here = project(tmp_path / "here")
    artefacts = json.loads(_last_json(here.run("diger", "run", "--until", "tokenizer", "--json")))["artefacts"]
    output = here.run("dvc", "repro", "tokenizer")
    assert output.count("unchanged, reused") == len(artefacts)
    assert here.hashes() == artefacts
    elsewhere = project(tmp_path / "elsewhere")
    elsewhere.run("dvc", "repro", "tokenizer")
    assert elsewhere.hashes() == artefacts


def test_a_flipped_bit_in_the_remote_makes_the_pull_fail(tmp_path):
    here = project(tmp_path / "here")
    here.run("dvc", "push")
    objects = [p for p in (here.root / "dvc-remote" / "files").rglob("*") if p.is_file() and p.suffix != ".dir"]
    there = here.clone(tmp_path / "there", bring=False)
    _flip(max(objects, key=lambda p: p.stat().st_size))
    assert "failed to pull" in there.run("dvc", "pull", ok=False)
    assert not (there.root / "data" / "snapshots" / "tiny" / "interactions.parquet").exists()


def _ran(output: str) -> set[str]:
    """The stages that DVC ran."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def _last_json(output: str) -> str:
    """The JSON object at the end of a command's output."""
    return output[output.index("\n{") if "\n{" in output else output.index("{") :]
