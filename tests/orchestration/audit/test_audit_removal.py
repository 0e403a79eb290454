"""gc removes nothing that is needed, at no moment half; forget leaves nothing of a user but the models, which it names."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from diger_core.data import sequences as core
from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.store import lease
from diger_core.store.artefacts import Store
from orchestration.audit import collect
from orchestration.audit.chain import chain
from orchestration.audit.collect import Rules, execute, plan
from orchestration.audit.documents import PACKS
from orchestration.audit.forget import find, forget, user_number, was_forgotten
from orchestration.audit.index import Index
from orchestration.audit.names import Thing, resolve
from orchestration.audit.verify import verify_chain, verify_store
from orchestration.champion import log
from orchestration.engine import removal
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from tests.support.audit_world import LENIENT, SMALL

NOW = Rules(age=timedelta(0))


@pytest.fixture
def store(audit_world, tmp_path) -> Store:
    return audit_world.copy(tmp_path)


def fresh(store: Store) -> Index:
    return Index(store, cached=False)


# gc


def test_everything_of_a_release_or_a_report_is_kept(store, audit_world):
    found = plan(fresh(store), NOW)
    removed = {hash_ for _, hash_, _ in found.remove}
    for run in audit_world.runs[:2]:
        assert not removed & ({*run.values()} - {run["cold_start"], run["catalogue_diff"], run["id_diff"]})
    assert removed
    kept = set(found.keep)
    for made in fresh(store).made:
        if made.artefact in kept:
            assert set(made.inputs.values()) <= kept, f"an input of {made.stage} would go"


def test_a_dry_run_changes_nothing_and_a_deletion_leaves_a_sound_store(store):
    before = store.root.tree()
    agreed = plan(fresh(store), NOW)
    assert store.root.tree() == before
    done = execute(fresh(store), NOW, agreed)
    assert {hash_ for _, hash_, _ in done.remove} == {hash_ for _, hash_, _ in agreed.remove}
    index = fresh(store)
    assert verify_store(index).faults == []
    assert plan(fresh(store), NOW).remove == []
    for _, hash_, _ in done.remove:
        assert hash_ not in index.present
        assert chain(index, Thing("artefact", hash_)).nodes[hash_].status == "removed"
        assert index.makers[hash_], "records stay"


def test_only_the_last_releases_and_reports_are_kept_when_asked(store, audit_world):
    rules = Rules(releases=1, reports=0, age=timedelta(0))
    execute(fresh(store), rules, plan(fresh(store), rules))
    index = fresh(store)
    first, second, third = audit_world.runs
    assert {second["bundle"], second["joint_model"], second["raw_items"], second["gate"]} <= set(index.present)
    assert not {first["bundle"], first["joint_model"], third["bundle"]} & set(index.present)
    assert verify_chain(index, chain(index, resolve(index, "champion"))).faults == []
    from orchestration.champion.bundle import load_bundle
    from orchestration.champion.log import current

    entry = current(store)
    assert entry is not None
    assert load_bundle(store, entry.bundle).hash == second["bundle"]


def test_what_is_young_stays(store):
    assert plan(fresh(store), Rules(age=timedelta(days=1))).remove == []


def test_a_deletion_killed_in_the_middle_is_never_half_visible_and_goes_on(store, monkeypatch):
    agreed, real, calls = plan(fresh(store), NOW), removal.take_out, []

    def dies(root, *names):
        calls.append(names)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(root, *names)

    monkeypatch.setattr(collect.removal, "take_out", dies)
    with pytest.raises(KeyboardInterrupt):
        execute(fresh(store), NOW, agreed)
    monkeypatch.undo()
    assert verify_store(fresh(store)).faults == []
    execute(fresh(store), NOW, plan(fresh(store), NOW))
    assert verify_store(fresh(store)).faults == []
    assert plan(fresh(store), NOW).remove == []


def test_a_removal_cut_short_leaves_litter_and_no_artefact(store, audit_world, monkeypatch):
    hash_ = audit_world.runs[2]["bundle"]
    monkeypatch.setattr("shutil.rmtree", lambda path: (_ for _ in ()).throw(OSError(28, "stopped")))
    with pytest.raises(DigerError):
        removal.take_out(store.root, "artefacts", "bundle", hash_)
    monkeypatch.undo()
    assert store.find("bundle", hash_) is None
    assert not store.root.list("artefacts", "bundle", hash_)
    litter = plan(fresh(store), NOW).litter
    assert [names[0] for names, _ in litter] == ["tmp"]


def test_nothing_is_deleted_while_a_stage_is_at_work_and_the_message_says_whose(store):
    agreed = plan(fresh(store), NOW)
    with lease.hold(store.root, "stage", "stage tokenizer of snapshot monday"):
        found = plan(fresh(store), NOW)
        assert found.running[0].startswith("stage tokenizer of snapshot monday by ")
        with pytest.raises(DigerError, match="diger gc cannot start beside stage tokenizer of snapshot monday by .* for 0:0"):
            execute(fresh(store), NOW, found)
        with pytest.raises(DigerError, match="diger forget cannot start beside stage tokenizer"):
            forget(fresh(store), "5")
    assert plan(fresh(store), NOW).remove == agreed.remove
    execute(fresh(store), NOW, agreed)


def test_a_change_of_champion_waits_for_gc_and_then_sees_what_gc_left(store, monkeypatch):
    """The log must never name a bundle that gc has removed."""
    seen = []
    take_out = collect.removal.take_out
    target = log.history(store)[-2].bundle  # other bundles are removed beside it, in any order

    def slowly(*given):
        if target in given:
            with pytest.raises(DigerError, match=r"rollback of bundle .* cannot start beside diger gc"):
                log.rollback(store, "while gc removes")
            seen.append(given)
        take_out(*given)

    monkeypatch.setattr(collect.removal, "take_out", slowly)
    monkeypatch.setattr(log, "PATIENCE", 0.0)
    rules = Rules(releases=1, reports=0, age=timedelta(0))
    execute(fresh(store), rules, plan(fresh(store), rules))
    assert seen
    assert store.find("bundle", log.current(store).bundle) is not None
    with pytest.raises(DigerError, match="was removed by `diger gc`"):
        log.rollback(store, "after gc")


def test_unfinished_artefacts_are_litter_only_when_old(store):
    folder = Path(store.root.at("artefacts", "bundle", "e" * 64))
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"half")
    assert [names for names, _ in plan(fresh(store), NOW).litter] == [("artefacts", "bundle", "e" * 64)]
    assert plan(fresh(store), Rules(age=timedelta(hours=1))).litter == []


# forget


def holds(store: Store, user: int) -> list[str]:
    """Parquet files below the store with a row of the user."""
    found = []
    for path in Path(store.root.base).rglob("*.parquet"):
        if "user_id" in pq.read_schema(path).names and user in pq.read_table(path)["user_id"].to_pylist():
            found.append(str(path))
    return found


def test_nothing_of_the_user_is_left_but_the_models_which_are_named(store, audit_world):
    assert holds(store, 5)
    index = fresh(store)
    found = find(index, "5")
    models = {hash_ for _, hash_ in found.models}
    for run in audit_world.runs:
        assert {run["tokenizer"], run["joint_model"], run["frozen_model"], run["bundle"]} <= models
    assert [entry.number for entry in found.releases] == [1, 2]
    assert len(found.copies) == 2
    store.root.create(b"<p>a shopper's history</p>", removal.PAGES, "report-shop.html")  # as `diger report show` writes it
    store.root.create(b"manifests of what goes", PACKS, "a.gz")
    forget(index, "5")

    assert holds(store, 5) == []
    assert not store.root.exists(removal.PAGES, "report-shop.html")
    assert store.root.list(PACKS) == []
    index = fresh(store)
    assert find(index, "5").holders == []
    assert was_forgotten(index, "5")
    assert not was_forgotten(index, "6")
    assert verify_store(index, content=True).faults == []
    champion = chain(index, resolve(index, "champion"))
    assert verify_chain(index, champion).faults == []
    gone = {node.stage for node in champion.nodes.values() if node.status == "removed"}
    assert {"raw_interactions", "validated_interactions", "sequences"} <= gone


def test_other_users_keep_every_event_and_their_rows(store, audit_world):
    before = {run["sequences"]: _events(store.artefact("sequences", run["sequences"])) for run in audit_world.runs}
    ranks = store.artefact("evaluation", audit_world.runs[1]["evaluation"])
    users = store.artefact("sequences", audit_world.runs[1]["sequences"]).table("users.parquet")["user_id"].to_pylist()
    rank_of = {users[row["user_index"]]: row["joint_model"] for row in ranks.table("per_user.parquet").to_pylist()}
    index = fresh(store)
    _, replaced = forget(index, "5")
    for old, events in before.items():
        events.pop(5)
        assert _events(store.artefact("sequences", replaced[old])) == events
    users = store.artefact("sequences", replaced[audit_world.runs[1]["sequences"]]).table("users.parquet")["user_id"].to_pylist()
    left = store.artefact("evaluation", replaced[ranks.hash]).table("per_user.parquet").to_pylist()
    rank_of.pop(5)
    assert {users[row["user_index"]]: row["joint_model"] for row in left} == rank_of


def _events(sequences):
    seq = Sequences.from_tensors(sequences.tensors("sequences.safetensors"))
    users = sequences.table("users.parquet")["user_id"].to_pylist()
    bounds = zip(seq.offsets_U1[:-1], seq.offsets_U1[1:], strict=True)
    return {user: seq.events_E[a:b].tolist() for user, (a, b) in zip(users, bounds, strict=True)}


def test_the_rewritten_sequences_are_what_the_stage_makes_of_the_rewritten_events(store, audit_world):
    index = fresh(store)
    run = audit_world.runs[0]
    _, replaced = forget(index, "5")
    items = store.artefact("validated_items", run["validated_items"]).table("items.parquet", ["item_id"])
    seq, _, users = core.sequences(
        store.artefact("validated_interactions", replaced[run["validated_interactions"]]).table("interactions.parquet"), items
    )
    rewritten = store.artefact("sequences", replaced[run["sequences"]])
    tensors = rewritten.tensors("sequences.safetensors")
    for name, wanted in seq.to_tensors().items():
        assert np.array_equal(tensors[name].numpy(), wanted.numpy()), name
    assert rewritten.table("users.parquet").equals(users)


def test_a_later_run_finds_the_rewritten_data_and_must_train_again(store, audit_world):
    index = fresh(store)
    _, replaced = forget(index, "5")
    session = Session(store, build_params(SMALL | LENIENT), audit_world.snapshots[0])
    assert session.find(BY_NAME["sequences"]).hash == replaced[audit_world.runs[0]["sequences"]]
    with pytest.raises(DigerError, match="tokenizer was never made"):
        session.find(BY_NAME["tokenizer"])


def test_a_run_from_files_that_still_hold_the_user_takes_what_is_left_and_reads_them_anew_in_vain(store, audit_world):
    run, snapshot = audit_world.runs[0], audit_world.snapshots[0]
    _, replaced = forget(fresh(store), "5")
    params = build_params(SMALL | LENIENT)
    results = [Session(store, params, snapshot).materialise(BY_NAME[name]) for name in ("raw_interactions", "validated_interactions", "sequences")]
    assert [(result.reused, result.artefact.hash) for result in results] == [(True, replaced[run[result.stage.name]]) for result in results]
    anew = dataclasses.replace(BY_NAME["raw_interactions"], version="another")  # as where no record of the store knows the files yet
    with pytest.raises(DigerError, match=r"its result raw_interactions .* holds a user who asked to be forgotten: take the user out"):
        Session(store, params, snapshot).materialise(anew)
    assert holds(store, 5) == []


def test_what_is_left_is_kept_as_what_it_replaced_was(store, audit_world):
    """The champion serves from it, though no record of the champion names it."""
    _, replaced = forget(fresh(store), "5")
    _, again = forget(fresh(store), "6")
    execute(fresh(store), Rules(age=timedelta(0), reports=0), plan(fresh(store), Rules(age=timedelta(0), reports=0)))
    for name in ("raw_interactions", "validated_interactions", "sequences"):
        assert store.find(name, again[replaced[audit_world.runs[1][name]]]) is not None, name
    assert verify_store(fresh(store)).faults == []


def test_the_notes_hold_no_id_in_clear(audit_world, tmp_path):
    store = audit_world.copy(tmp_path)
    index = fresh(store)
    forget(index, "57")
    for entry in fresh(store).removed.values():
        assert entry.get("row") not in range(1000), "the row of a table of dense ids is the id"
        text = json.dumps({name: value for name, value in entry.items() if name not in ("artefact", "replaced_by", "seal", "subject", "at", "row")})
        assert "57" not in text
        assert set(entry["subject"]) == {"scrypt_16384_8_1", "salt"}
    records = [record for made in fresh(store).made if "forgotten" in (record := fresh(store).record(made))]
    assert records
    assert all(set(record["forgotten"]) == {"replaces", "subject", "at"} for record in records)


@pytest.mark.parametrize(("asked", "left"), [("5", True), ("11", False)])
def test_an_artefact_that_comes_after_the_forgetting_is_found_by_the_old_numbering(store, audit_world, asked, left):
    """As another clone's would come, made from a table of users that was removed here: the forgotten user's rows go; for anybody else's sake the
    artefact goes as a whole, because nobody can tell which rows are theirs."""
    run = audit_world.runs[0]
    late = store.artefact("evaluation", run["evaluation"])
    copy = Path(store.root.base).with_name("late")
    shutil.copytree(store.root.at("artefacts", "evaluation", late.hash), copy)
    number = user_number(store.artefact("sequences", run["sequences"]), "5")
    assert number in late.table("per_user.parquet")["user_index"].to_pylist()
    rows = len(late.table("per_user.parquet"))
    forget(fresh(store), "5")
    shutil.copytree(copy, store.root.at("artefacts", "evaluation", late.hash))
    found, replaced = forget(fresh(store), asked)
    assert store.find("evaluation", late.hash) is None
    if left:
        assert len(store.artefact("evaluation", replaced[late.hash]).table("per_user.parquet")) == rows - 1
    else:
        assert late.hash in {page.hash for page in found.pages}
    assert verify_store(fresh(store)).faults == []


def test_forgetting_goes_on_after_a_crash(store, monkeypatch):
    from orchestration.audit import forget as module

    monkeypatch.setattr(module.removal, "take_out", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
    index = fresh(store)
    with pytest.raises(KeyboardInterrupt):
        forget(index, "5")
    monkeypatch.undo()
    assert holds(store, 5)
    records = len(fresh(store).made)
    index = fresh(store)
    forget(index, "5")
    assert holds(store, 5) == []
    assert len(fresh(store).made) == records, "a record was written twice"
    assert verify_store(fresh(store)).faults == []


@pytest.mark.parametrize("user", ["nobody", "05", "5.0", "-5", "--5", "5²", "", "5 OR 1=1"])
def test_an_id_that_is_not_the_users_own_spelling_touches_nothing(store, user):
    assert find(fresh(store), user).holders == []


def test_a_later_run_compares_its_catalogue_with_what_forgetting_left_of_the_baselines_data(store, audit_world):
    index = fresh(store)
    _, replaced = forget(index, "5")
    session = Session(store, build_params(SMALL | LENIENT), audit_world.snapshots[1])
    result = session.materialise(BY_NAME["catalogue_diff"])
    left = store.artefact("sequences", replaced[audit_world.runs[0]["sequences"]])
    assert not result.reused
    assert result.artefact.json("diff.json")["events"]["old"] == left.facts["events"]


def test_what_was_collected_and_made_again_is_noted_as_forgotten(store):
    removal.note(store, "sequences", "a" * 64, "gc", "a test")
    removal.note(store, "sequences", "a" * 64, "forget", "a test", "b" * 64)
    removal.note(store, "sequences", "a" * 64, "gc", "a test")
    entry = fresh(store).removed["a" * 64]
    assert (entry["why"], entry["replaced_by"]) == ("forget", "b" * 64)
    assert verify_store(fresh(store)).faults == []


def test_nothing_is_collected_where_a_record_is_damaged(store):
    record = next(Path(store.root.at("records", "joint_model")).rglob("*.json"))
    record.write_text("{")
    with pytest.raises(DigerError, match=r"gc: .*not valid JSON.*nothing is removed"):
        plan(fresh(store), NOW)


@pytest.mark.parametrize("data", [b"", b"{", b"[]"])
@pytest.mark.parametrize("section", ["snapshots", "pointers", "records"])
def test_a_damaged_file_stops_what_needs_it_whole_and_no_question_about_others(store, audit_world, section, data):
    (place, *_) = sorted(Path(store.root.at(section)).rglob("*.json"))
    place.chmod(0o644)
    place.write_bytes(data)
    named = str(place.relative_to(store.root.base))
    for work in (lambda: execute(fresh(store), NOW, plan(fresh(store), NOW)), lambda: forget(fresh(store), "5")):
        with pytest.raises(DigerError, match=f"{named}: .*damaged"):
            work()
    assert holds(store, 5), "nothing was done by half"
    assert any(named in fault for fault in verify_store(fresh(store)).faults)
    assert len(chain(fresh(store), resolve(fresh(store), audit_world.runs[1]["bundle"])).nodes) > 3
