"""Two models on two snapshots with three ID assignments: which made which, from what, what became of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.audit import tree
from orchestration.audit.chain import chain
from orchestration.audit.forward import where_used
from orchestration.audit.index import EARLIER, Index
from orchestration.audit.items import history
from orchestration.audit.names import Thing, item_meant, resolve
from orchestration.audit.picture import STYLE, picture
from orchestration.cli import main


@pytest.fixture
def index(audit_world) -> Index:
    return Index(audit_world.store, cached=False)


def follow(index: Index, text: str):
    return chain(index, resolve(index, text))


def diger(store: Store, *arguments: str) -> int:
    """The command's exit code."""
    try:
        main([*arguments, "--store", str(store.url)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


# Backwards


def test_the_champions_chain_ends_at_the_registered_bytes_and_holds_the_verdict(index, audit_world):
    found = follow(index, "champion")
    stages = {node.stage for node in found.nodes.values()}
    assert {
        "champion",
        "release",
        "gate",
        "bundle",
        "joint_model",
        "tokenizer",
        "encoder",
        "embeddings",
        "sequences",
        "raw_items",
        "snapshot",
    } <= stages
    assert {n.hash for n in found.nodes.values() if n.kind == "snapshot"} == {entry.key for entry in audit_world.snapshots}
    shown = list(tree.text(index, found))
    text = " ".join(" ".join(shown).split())
    for entry in audit_world.snapshots:
        assert f"sha256 {entry.files['items.parquet']['sha256'][:12]}  " in " ".join(shown)
    assert "verdict accept against" in text
    assert found.problems == []


def test_a_node_is_shown_once_and_an_earlier_release_is_folded_unless_asked_for(index, audit_world):
    found = follow(index, "champion")
    whole = list(tree.lines(found, whole=True))
    assert sorted(line.node.id for line in whole) == sorted(found.nodes)
    folded = [line for line in tree.lines(found) if line.folded]
    assert [line.node.hash for line in folded] == [audit_world.runs[0][stage] for stage in ("bundle", "gate")]  # and the verdict that let it serve
    assert audit_world.runs[0]["joint_model"] not in {line.node.hash for line in tree.lines(found)}


def test_a_chain_fits_80_columns_and_can_be_cut_at_a_depth(index, audit_world):
    found = follow(index, "champion")
    for whole in (False, True):
        long = [line for line in tree.text(index, found, whole) if len(line) > 80 and str(Path(audit_world.store.root.base).parent) not in line]
        assert long == []
    near = list(tree.lines(found, deepest=2))
    assert max(line.depth for line in near) == 2
    assert [line.node.stage for line in near[:3]] == ["champion", "release", "report"]
    assert sum(line.folded for line in near) + len(near) == len(list(tree.lines(found)))
    text = " ".join(" ".join(tree.text(index, found, deepest=0)).split())
    assert "nodes further back: diger why" in text
    assert "a larger --depth" in text


def test_the_picture_leads_from_the_snapshots_to_what_was_asked_for(index):
    found = follow(index, "champion")
    shown = list(tree.lines(found))
    drawn = picture(found, shown)
    assert drawn.count("<rect") == len(shown)
    place = {node: float(x) for node, x in re.findall(r'<a href="#([^"]+)".*?<rect x="(\d+)"', drawn)}
    assert max(place, key=place.get) in (found.root, *(line.node.id for line in shown if line.node.stage in ("release", "champion")))
    stages = {line.node.stage: place[line.node.id] for line in shown if line.name not in EARLIER}
    assert stages["raw_items"] < stages["validated_items"] < stages["embeddings"] < stages["tokenizer"] < stages["gate"] < stages["release"]
    assert min(place.values()) == next(place[line.node.id] for line in shown if line.name in EARLIER), "the release before comes first"
    assert all(line.node.id in place for line in shown)


def test_the_pictures_style_is_its_own_so_that_it_scrolls_on_a_phone(index):
    """A rule of the page's style for the same class, `display: flex`, once made the picture 360 pixels wide there."""
    found = follow(index, "champion")
    of_picture, of_page = (
        re.search(r'^<div class="(\w+)"', picture(found, list(tree.lines(found))))[1],
        resources.files("orchestration.verdict.report"),
    )
    assert f".{of_picture} " in STYLE
    assert f"@media print {{ .{of_picture} svg {{ width: 100%" in STYLE, "paper does not scroll"
    assert f".{of_picture}" not in (of_page / "style.css").read_text()


@pytest.mark.parametrize(
    "command", ["where-used champion", "why champion", "champion", "champion --history", "item 1 --history", "verify", "snapshot list"]
)
def test_what_is_read_ends_with_what_to_do_next(audit_world, capsys, command):
    assert diger(audit_world.store, *command.split()) == 0
    told = capsys.readouterr()
    assert told.err.splitlines()[-1].startswith(("Next: diger ", "      diger "))
    if command in ("item 1 --history", "verify"):
        assert max(map(len, told.out.splitlines())) <= 80


def test_each_model_is_tied_to_its_own_assignment(index, audit_world):
    assignments = {}
    for run in audit_world.runs:
        node = follow(index, run["joint_model"][:10])
        list(tree.text(index, node))
        assignments[node.nodes[node.root].detail["assignment"]] = run
    assert len(assignments) == 3
    for assignment, run in assignments.items():
        back = follow(index, assignment[:12])
        assert back.root in run.values()
        models = [line.node.hash for line in tree.lines(back) if line.node.stage == "joint_model"]
        assert models == [run["joint_model"]]


def test_json_has_every_record_and_input(index, audit_world, capsys):
    assert diger(audit_world.store, "why", "report", "--json", "--verify") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["verification"]["passed"]
    assert value["faults"] == []
    for node in value["nodes"].values():
        assert all(edge["node"] in value["nodes"] for edge in node["inputs"])
        if node["kind"] == "artefact" and node["stage"] != "encoder":
            assert node["record"]["code"]["commit"]
            assert node["record"]["dagster_run_id"].startswith("run-of-")


def test_the_page_escapes_what_a_snapshot_may_be_called(index, audit_world, tmp_path):
    from orchestration.audit.page import write_page

    index.snapshots[audit_world.snapshots[1].key]["url"] = "/data/<script>alert(1)</script>&\"'"
    write_page(str(tmp_path / "page.html"), index, follow(index, "champion"), None)
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<li") == page.count("</li>")
    assert "default-src 'none'" in page


# Names


def test_aliases_and_paths_mean_what_they_say(index, audit_world, tmp_path):
    first, second, third = audit_world.runs
    assert resolve(index, "champion") == Thing("release", "2")
    assert resolve(index, "champion~1") == Thing("release", "1")
    assert resolve(index, "joint_model").value == third["joint_model"]
    assert resolve(index, audit_world.snapshots[0].key).kind == "snapshot"
    artefact = audit_world.store.artefact("evaluation", first["evaluation"])
    path = artefact.path("recommendations.parquet")
    assert resolve(index, str(path)).value == first["evaluation"]
    assert resolve(index, str(path.parent)).value == first["evaluation"]
    assert resolve(index, f"{path}#2") == Thing("artefact", first["evaluation"], 2, "recommendations.parquet")
    copy = shutil.copy(path, tmp_path / "sent-to-the-app.parquet")
    assert resolve(index, f"{copy}#0").value == first["evaluation"]
    assert resolve(index, second["gate"][:8]).value == second["gate"]


def test_an_ambiguous_prefix_lists_the_candidates(index, audit_world, monkeypatch):
    twin = audit_world.runs[0]["tokenizer"][:6] + "f" * 58
    index.present[twin] = "tokenizer"
    with pytest.raises(DigerError, match=rf"begins 2 hashes.*\n  {audit_world.runs[0]['tokenizer'][:16]}  tokenizer  20"):
        resolve(index, audit_world.runs[0]["tokenizer"][:6])


@pytest.mark.parametrize("text", ["ffffffffffff", "nonsense", "champion~9", "item:no-such-item", "../../etc/passwd"])
def test_what_is_not_there_is_said_in_one_line(audit_world, text, capsys):
    assert diger(audit_world.store, "why", text) == 1
    assert capsys.readouterr().err.startswith("diger: ")


def test_a_row_of_recommendations_leads_to_its_model(audit_world, capsys):
    path = audit_world.store.artefact("evaluation", audit_world.runs[1]["evaluation"]).path("recommendations.parquet")
    assert diger(audit_world.store, "why", f"{path}#0") == 0
    out = capsys.readouterr().out
    assert out.startswith("row 0: user_index=")
    assert audit_world.runs[1]["joint_model"][:12] in out
    assert diger(audit_world.store, "why", f"{path}#100000") == 1


# Forwards


def test_a_snapshot_leads_to_what_was_made_of_it_and_to_its_releases_alone(index, audit_world):
    first, second, third = audit_world.runs
    uses = where_used(index, resolve(index, audit_world.snapshots[1].key))
    models = set(uses.reached["joint_model"])
    assert models == {second["joint_model"], third["joint_model"]}
    assert {entry.number for entry in uses.releases} == {2}
    assert first["report"] not in uses.reached["report"]
    assert set(uses.reached["bundle"]) == {second["bundle"], third["bundle"]}


def test_an_encoder_an_assignment_and_a_commit_lead_forward(index, audit_world):
    encoder = index.makers[audit_world.runs[0]["embeddings"]][0].inputs["encoder"]
    assert set(where_used(index, resolve(index, encoder[:12])).reached["joint_model"]) == {run["joint_model"] for run in audit_world.runs}
    assignment = index.artefact(audit_world.runs[0]["semantic_ids"]).facts["assignment_hash"]
    assert audit_world.runs[0]["evaluation"] in where_used(index, resolve(index, assignment[:12])).reached["evaluation"]
    commit = next(made.commit for made in index.made if made.commit)
    if commit != "unknown":
        assert len(where_used(index, Thing("commit", commit)).reached["joint_model"]) == 3


def test_an_items_history_says_when_and_why_its_id_changed(index, audit_world):
    episodes = history(index, "58")
    assert [e.released for e in episodes if e.released] == [[1], [2]]
    moved = next(e for e in episodes if e.released == [2])
    assert "its text or vector changed" in moved.why or moved.why == "unchanged"
    new = [e.why for e in history(index, "63")]
    assert new[0] == "not in the catalogue yet"
    assert new[1].startswith("new: ID given under the champion's tokenizer")
    assert [e.id for e in history(index, "7")][-1] is None
    with pytest.raises(DigerError, match="in none of the"):
        history(index, "4711")


def test_the_item_command_agrees_with_the_table(audit_world, capsys):
    assert diger(audit_world.store, "item", "12", "--json") == 0
    (episode,) = json.loads(capsys.readouterr().out)
    table = audit_world.store.artefact("semantic_ids", audit_world.runs[1]["semantic_ids"]).table("semantic_ids.parquet").to_pylist()
    row = next(row for row in table if row["item_id"] == 12)
    assert episode["id"] == [row["code_1"], row["code_2"], row["suffix"]]


def test_every_command_takes_an_id_as_it_is_written(index, audit_world, capsys):
    assert diger(audit_world.store, "item", "12", "--json") == 0
    written = "-".join(map(str, json.loads(capsys.readouterr().out)[0]["id"]))
    assert diger(audit_world.store, "item", written) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("item 12 (")
    assert resolve(index, written) == resolve(index, "item:12") == resolve(index, f"item:{written}")
    assert item_meant(index, "12") == "12"
    assert item_meant(index, "1-2-3-4-5") == "1-2-3-4-5", "no ID of this table: it is taken for an item's own id, and then not found"


def test_where_used_says_why_nobody_is_listed(audit_world, tmp_path, capsys):
    store, tuesday = audit_world.copy(tmp_path), audit_world.snapshots[1].key
    assert diger(store, "where-used", tuesday, "--item", "no-such-item") == 0
    assert "item no-such-item: nobody can be listed: " in capsys.readouterr().out
    for folder in (Path(store.root.base) / "records" / "recommendations", Path(store.root.base) / "artefacts" / "recommendations"):
        shutil.rmtree(folder, ignore_errors=True)
    assert diger(store, "where-used", tuesday, "--item", "12") == 0
    assert "item 12: no stored recommendations were made with this" in capsys.readouterr().out
    assert diger(store, "where-used", tuesday, "--item", "12", "--json") == 0
    assert "no stored recommendations" in json.loads(capsys.readouterr().out)["customers_note"]


def test_a_row_that_recommend_wrote_elsewhere_leads_to_its_champion(audit_world, tmp_path, capsys):
    import pyarrow as pa

    from diger_core.store.files import Root
    from orchestration.serving.shards import DOCUMENT, Shards

    champion, store = audit_world.runs[1]["bundle"], audit_world.store
    entry = Shards(Root(tmp_path / "out")).write(0, pa.table({"user_id": [7], "item_id": [58], "rank": [1], "score": [-1.0]}))
    (tmp_path / "out" / DOCUMENT).write_text(json.dumps({"champion": champion, "shards": [entry]}))
    shard = tmp_path / "out" / entry["file"]
    assert diger(store, "why", f"{shard}#0") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "row 0: user_id=7, item_id=58" in shown
    assert f"written by `diger recommend` with champion {champion[:12]}" in shown
    assert f"bundle {champion[:12]}" in shown
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes() + b"x")
    assert diger(store, "why", f"{shard}#0") != 0
    assert "changed since `diger recommend` wrote it" in capsys.readouterr().err


# Speed and the cache


def test_why_loads_no_training_framework(audit_world):
    code = (
        "import sys; from orchestration.cli import main; main(sys.argv[1:]); sys.exit(3 if 'torch' in sys.modules or 'dagster' in sys.modules else 0)"
    )
    for arguments in (["why", "report", "--verify"], ["where-used", "encoder"], ["item", "3", "--history"], ["verify"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments, "--store", audit_world.store.url], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-300:]}{done.stderr}"


def test_the_cache_changes_no_answer_and_may_be_garbage(audit_world, tmp_path, monkeypatch):
    monkeypatch.setenv("DIGER_CACHE", str(tmp_path))
    wanted = Index(audit_world.store, cached=False).made
    assert Index(audit_world.store).made == wanted
    (file,) = tmp_path.rglob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:5]) + b'{"not": "a record"}\n' + lines[6][:40])
    assert Index(audit_world.store).made == wanted
    assert Index(audit_world.store).made == wanted


def test_a_store_that_was_deleted_and_made_again_is_read_again(audit_world, tmp_path, monkeypatch):
    """Same place, same keys, same sizes, other records: the demo run twice in one directory."""
    monkeypatch.setenv("DIGER_CACHE", str(tmp_path / "cache"))
    store = audit_world.copy(tmp_path)
    before = Index(store).made
    for path in Path(store.root.base, "records").rglob("*.json"):
        record = json.loads(path.read_bytes())
        text = path.read_text(encoding="utf-8").replace(record["started_at"], f"1{record['started_at'][1:]}")
        path.unlink()
        path.write_text(text, encoding="utf-8")
    again = Index(store).made
    assert {made.at[0] for made in before} == {"2"}
    assert {made.at[0] for made in again} == {"1"}


def test_a_new_record_is_seen_though_the_cache_is_older(audit_world, tmp_path, monkeypatch):
    monkeypatch.setenv("DIGER_CACHE", str(tmp_path / "cache"))
    store = audit_world.copy(tmp_path)
    before = len(Index(store).made)
    store.append_record("raw_items", "0" * 64, {"artefact": audit_world.runs[0]["raw_items"], "inputs": {}, "started_at": "2026-01-01"})
    assert len(Index(store).made) == before + 1


def test_exit_code_1_where_something_is_missing(audit_world, tmp_path, capsys):
    store = audit_world.copy(tmp_path)
    assert diger(store, "verify") == 0
    shutil.rmtree(Path(store.root.base) / "artefacts" / "embeddings" / audit_world.runs[1]["embeddings"])
    assert diger(store, "why", "champion") == 1
    assert diger(store, "verify") == 1
    assert f"{audit_world.runs[1]['embeddings']}: missing" in capsys.readouterr().out


def interrupted(store: Store, path: Path, monkeypatch) -> None:
    """A verification that breaks off after the artefacts."""
    from orchestration.audit import verify
    from orchestration.audit.journal import Journal

    def broken(*_):
        raise DigerError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(verify, "_records", broken)
        with pytest.raises(DigerError, match="broken off"):
            verify.verify_store(Index(store, cached=False), journal=Journal(path))


def test_an_interrupted_verification_goes_on_where_it_stopped(audit_world, tmp_path, monkeypatch):
    from orchestration.audit.journal import Journal
    from orchestration.audit.verify import verify_store

    interrupted(audit_world.store, tmp_path / "journal", monkeypatch)
    outcome = verify_store(Index(audit_world.store, cached=False), journal=Journal(tmp_path / "journal"))
    total = len(Index(audit_world.store, cached=False).present)
    assert (outcome.artefacts, outcome.passed_over, outcome.faults) == (0, total, [])
    assert f"{total} more were verified by the run that was interrupted at 20" in outcome.summary
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("change", ["damaged", "replaced by a copy"])
def test_what_changed_since_an_interrupted_verification_is_read_again(audit_world, tmp_path, monkeypatch, change):
    import os

    from orchestration.audit.journal import Journal
    from orchestration.audit.verify import verify_store

    store = audit_world.copy(tmp_path)
    interrupted(store, tmp_path / "journal", monkeypatch)
    base = Path(store.root.base)
    if change != "damaged":
        shutil.copytree(base, tmp_path / "another", copy_function=shutil.copy2)
        shutil.rmtree(base)
        (tmp_path / "another").rename(base)
    victim = next((base / "artefacts" / "joint_model").glob("*/model.safetensors"))
    before = victim.stat()
    victim.chmod(0o644)
    with open(victim, "r+b") as f:
        f.seek(-1, os.SEEK_END)
        f.write(b"x")
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    outcome = verify_store(Index(store, cached=False), journal=Journal(tmp_path / "journal"))
    assert [str(victim) in fault for fault in outcome.faults] == [True]
    assert outcome.artefacts == (1 if change == "damaged" else len(Index(store, cached=False).present))


def test_an_edited_note_of_removal_explains_nothing(audit_world, tmp_path):
    from orchestration.audit.verify import verify_store
    from orchestration.engine import removal

    store, hash_ = audit_world.copy(tmp_path), audit_world.runs[2]["bundle"]
    removal.note(store, "bundle", hash_, "gc", "a test")
    removal.take_out(store.root, "artefacts", "bundle", hash_)
    assert verify_store(Index(store, cached=False)).faults == []
    path = Path(store.root.at("removed", f"{hash_}.json"))
    path.write_text(path.read_text().replace("a test", "a lie"))
    (fault,) = verify_store(Index(store, cached=False)).faults
    assert f"removed/{hash_}.json: edited" in fault


@pytest.mark.slow
def test_a_result_is_rebuilt_bit_for_bit_and_the_store_is_only_read(audit_world, capsys):
    before = {path: path.stat().st_mtime_ns for path in Path(audit_world.store.root.base).rglob("*")}
    assert diger(audit_world.store, "reproduce", audit_world.runs[1]["semantic_ids"], "--here", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["equal"]
    assert {stage["name"] for stage in value["stages"]} >= {"raw_items", "sequences", "tokenizer", "joint_model", "semantic_ids"}
    assert {path: path.stat().st_mtime_ns for path in Path(audit_world.store.root.base).rglob("*")} == before


def test_a_run_that_took_no_baseline_is_rebuilt_without_one(audit_world, monkeypatch):
    """The snapshot had found a champion, which run 2 was told to leave alone and run 1 continued from."""
    from orchestration.audit import reproduce

    asked = []

    def runs(code, scratch, given):
        asked.append(given["params"].get("retraining", {}))
        raise DigerError("far enough")

    monkeypatch.setattr(reproduce, "_run", runs)
    for run in audit_world.runs:
        with pytest.raises(DigerError, match="far enough"):
            reproduce.rebuild(Index(audit_world.store, cached=False), Thing("artefact", run["tokenizer"]), reproduce.How(here=True))
    assert [retraining.get("baseline") for retraining in asked] == [None, "champion", "none"]


def test_differences_come_with_their_sizes(audit_world):
    from orchestration.audit.compare import compare

    first, second = (audit_world.store.artefact("joint_model", run["joint_model"]) for run in (audit_world.runs[1], audit_world.runs[2]))
    lines = compare(first, second)
    assert any(line.startswith("model.safetensors: tokenizer.codebooks: max abs") and "relative" in line for line in lines)
    assert any(line.startswith("id_table.parquet") for line in lines)
    assert compare(first, first) == []


def test_a_run_with_uncommitted_changes_is_not_passed_off_as_its_commit(audit_world, monkeypatch):
    from orchestration.audit.reproduce import How, rebuild

    index = Index(audit_world.store, cached=False)
    made = index.makers[audit_world.runs[0]["sequences"]][0]
    index.record(made)["code"]["dirty_diff"] = "d" * 64
    with pytest.raises(DigerError, match=r"uncommitted changes.*--allow-dirty.*--here"):
        rebuild(index, Thing("artefact", audit_world.runs[0]["sequences"]), How())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_another_clone_answers_after_dvc_pull_alone(tmp_path):
    from tests.support.dvc_project import project

    here = project(tmp_path / "here")
    stages = ("raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences", "embeddings")
    here.run("dvc", "repro", *stages)
    wanted = here.run("diger", "why", "embeddings", "--verify")
    here.commit("a run")
    here.run("dvc", "push")
    there = here.clone(tmp_path / "there")
    assert not (there.root / "store").exists()
    found = there.run("diger", "why", "embeddings", "--verify")
    assert "all as recorded" in found
    assert [line for line in found.splitlines() if "verified" not in line] == [line for line in wanted.splitlines() if "verified" not in line]
    assert here.hashes()["sequences"][:12] in there.run("diger", "why", "pipeline/sequences")
    (there.root / "pipeline" / "embeddings" / "texts.parquet").unlink()
    there.run("bash", "-c", "rm -rf store/artefacts/embeddings/*/texts.parquet && diger why embeddings --verify", ok=False)
