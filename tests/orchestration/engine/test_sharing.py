"""A damaged file stops only what needs it, and is named; stages share a store with gc, forget, killed runs and read-only disks."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from diger_core.errors import DigerError
from diger_core.progress import Silent
from diger_core.store import lease
from orchestration.engine import removal, runner
from orchestration.engine.registry import lookup, register, registered
from orchestration.engine.runner import Session
from orchestration.graph import BY_NAME
from tests.orchestration.engine.test_runner import session
from tests.support.snapshot_material import interactions, items, write

# What is damaged stops only what needs it, and is named with the remedy


@pytest.mark.parametrize("data", [b"", b'{"key": "sn', b"[]", b"null", b'{"key": 1}', b"\x00" * 300])
def test_a_damaged_snapshot_entry_stops_its_own_snapshot_and_new_ones(tmp_path, data):
    s = session(tmp_path)
    other = register(s.store, str(write(tmp_path / "other", interactions(26), items())))
    entry = tmp_path / "store" / "snapshots" / f"{other.key}.json"
    entry.write_bytes(data)
    assert register(s.store, str(tmp_path / "snap")) == s.snapshot
    s.materialise(BY_NAME["raw_items"])
    assert [e.key for e in registered(s.store)] == [s.snapshot.key]
    for again in (lambda: register(s.store, str(tmp_path / "other")), lambda: lookup(s.store, other.key)):
        with pytest.raises(DigerError, match=rf"snapshots/{other.key}\.json: damaged.*remove it"):
            again()
    with pytest.raises(DigerError, match=rf"snapshots/{other.key}\.json: damaged"):
        register(s.store, str(write(tmp_path / "third", interactions(27), items())))
    entry.unlink()  # the remedy
    assert register(s.store, str(tmp_path / "other")).key == other.key


@pytest.mark.parametrize("data", [b"", b'{"artefact": ', b"[1]"])
def test_a_damaged_record_stops_its_stage_alone_and_its_remedy_works(tmp_path, data):
    s = session(tmp_path)
    done = s.materialise(BY_NAME["raw_items"])
    s.materialise(BY_NAME["raw_interactions"])
    record = tmp_path / "store" / "records" / "raw_items" / done.key / "000001.json"
    record.write_bytes(data)
    again = session(tmp_path)
    again.materialise(BY_NAME["raw_interactions"])
    with pytest.raises(DigerError, match=rf"records/raw_items/{done.key}/000001\.json: damaged.*remove it"):
        again.materialise(BY_NAME["raw_items"])
    record.unlink()
    assert session(tmp_path).materialise(BY_NAME["raw_items"]).artefact.hash == done.artefact.hash


# Leases


def test_no_stage_publishes_from_an_input_that_was_taken_out_meanwhile(tmp_path, monkeypatch):
    s = session(tmp_path)
    raw = s.materialise(BY_NAME["raw_items"]).artefact
    real = removal.refuse_forgotten
    calls = []

    def then_gone(store, what, inputs):
        calls.append(what)
        if len(calls) == 2:  # while it computed: this process had been taken for dead
            removal.note(store, raw.stage, raw.hash, "forget", "asked", subject={})
            removal.take_out(store.root, "artefacts", raw.stage, raw.hash)
        real(store, what, inputs)

    monkeypatch.setattr(runner, "refuse_forgotten", then_gone)
    with pytest.raises(DigerError, match=r"stage validated_items .*its input raw_items .* was removed meanwhile by diger forget: nothing was stored"):
        s.materialise(BY_NAME["validated_items"])
    assert s.store.root.list("artefacts", "validated_items") == []
    assert s.store.root.list("leases") == []
    with pytest.raises(DigerError, match=r"its result raw_items .* holds a user who asked to be forgotten: take the user out of the snapshot"):
        session(tmp_path).materialise(BY_NAME["raw_items"])  # the snapshot's files are as they were
    assert s.store.find("raw_items", raw.hash) is None


def test_a_stage_waits_for_gc_and_then_looks_at_its_inputs_again(tmp_path):
    s = session(tmp_path)
    raw = s.materialise(BY_NAME["raw_items"]).artefact
    said = []

    class Said(Silent):
        def message(self, text):
            said.append(text)
            over.set()

    over = threading.Event()
    failed = []

    def compute():
        try:
            Session(s.store, s.params, s.snapshot, Said(), _known=dict(s._known)).materialise(BY_NAME["validated_items"])
        except DigerError as error:
            failed.append(str(error))

    thread = threading.Thread(target=compute)
    with lease.hold(s.store.root, "gc", "diger gc"):
        thread.start()
        assert over.wait(20)
        removal.take_out(s.store.root, "artefacts", raw.stage, raw.hash)
    thread.join(20)
    assert "stage validated_items" in said[0]
    assert "waits for diger gc by" in said[0]
    assert "was removed meanwhile" in failed[0]


def test_what_is_stored_is_used_and_what_is_not_is_refused_in_a_store_that_nobody_may_write(tmp_path, monkeypatch):
    s = session(tmp_path)
    s.materialise(BY_NAME["raw_items"])
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system")))
    real = open

    def read_only(path, mode="r", *given, **named):
        if any(letter in mode for letter in "wax+") and str(path).startswith(str(tmp_path / "store")):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, mode, *given, **named)

    monkeypatch.setattr("builtins.open", read_only)
    assert session(tmp_path).materialise(BY_NAME["raw_items"]).reused
    with pytest.raises(DigerError, match="read-only.*choose another --store"):
        session(tmp_path).materialise(BY_NAME["raw_interactions"])


def test_the_next_start_sweeps_what_a_killed_run_left_in_the_store(tmp_path):
    s = session(tmp_path)
    program = (
        "import sys, os; from diger_core.store.artefacts import Store\n"
        "with Store(sys.argv[1]).writer('raw_items') as out:\n"
        "    out.bytes('half.bin', b'x' * 100_000); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, s.store.url], check=False)
    (left,) = s.store.root.list("tmp")
    assert left.startswith("raw_items-")
    with s.store.writer("raw_items") as alive:
        s.materialise(BY_NAME["raw_interactions"])
        assert alive.directory.exists()
        assert s.store.root.list("tmp") == [alive.directory.parent.name]
