"""Faults that no other test file owns: a crash at every step of publishing and of an upload, a killed Dagster run."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from diger_core.errors import DigerError
from diger_core.store import lease
from diger_core.store.artefacts import Store
from diger_core.store.files import Root
from diger_core.training import checkpoint as checkpoints
from diger_core.training.checkpoint import Checkpoint, newest_valid
from tests.support.dvc_project import TINY
from tests.support.snapshot_material import interactions, items, write


class Killed(BaseException):
    """Stands for the process's end: nothing may catch it."""


@contextlib.contextmanager
def killed_at(patched: pytest.MonkeyPatch, count: int, *places: tuple[Any, str], after: bool = False) -> Iterator[list[str]]:
    """The process ends at the count-th call of one of the named functions, before or after it has done its work."""
    calls: list[str] = []

    def dying(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) == count and not after:
                raise Killed
            result = original(*args, **kwargs)
            if len(calls) == count and after:
                raise Killed
            return result

        return call

    with patched.context() as patch:
        for owner, name in places:
            patch.setattr(owner, name, dying(name, getattr(owner, name)))
        yield calls


def published(store: Store) -> Any:
    with store.writer("sequences") as out:
        out.json("a.json", {"a": 1})
        out.tensors("t.safetensors", {"t": torch.arange(4)})
        out.facts["rows"] = 4
        return store.publish(out)


def visible(store: Store) -> list[Any]:
    """What a reader sees: everything that is named, verified byte by byte."""
    found = [store.find("sequences", name) for name in store.root.list("artefacts", "sequences")]
    seen = [artefact for artefact in found if artefact is not None]
    assert all(artefact.verify() == [] for artefact in seen)
    return seen


STEPS = ((os, "fsync"), (os, "rename"), (os, "link"), (os, "makedirs"), (Path, "chmod"))


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_step_of_publishing_shows_nothing_or_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    whole = published(Store(tmp_path / "whole"))
    count = died = 0
    while True:
        count += 1
        store = Store(tmp_path / f"{after}-{count}")
        with killed_at(monkeypatch, count, *STEPS, after=after) as calls:
            try:
                artefact = published(store)
                store.append_record("sequences", "k" * 64, {"artefact": artefact.hash})
            except Killed:
                died += 1
        assert len(visible(store)) <= 1
        for record in store.records("sequences", "k" * 64):
            assert store.find("sequences", record["artefact"]) is not None, "a record never names what is not there"
        assert published(store).hash == whole.hash, "the next run fixes it"
        assert not [path for path in (tmp_path / f"{after}-{count}" / "artefacts").rglob("*.tmp")]
        if len(calls) < count:
            break
    assert died >= 8, "there are at least eight steps to die at"


def test_a_crash_between_any_two_uploads_leaves_the_checkpoint_before(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.filesystem("memory").store.clear()

    def made(step: int) -> Checkpoint:
        return Checkpoint({name: {"a": torch.full((3,), step)} for name in ("recommender", "tokenizer", "optimizer")}, {"step": step})

    place, count = "memory://faults/run", 0
    made(1).save(place)
    while True:
        count += 1
        with killed_at(monkeypatch, count, (Root, "upload")) as calls, contextlib.suppress(Killed):
            made(2).save(place)
        found = newest_valid(place)
        assert found is not None
        assert found.step == (2 if len(calls) < count else 1)
        if len(calls) < count:
            break
        made(2).save(place)
        fixed = newest_valid(place)
        assert fixed is not None
        assert fixed.step == 2, "the next attempt replaces the partial one"
        Root(place).remove_directory("00000002")
    assert count == 6, "four files and the manifest"


@pytest.mark.parametrize("errno_", [28, 30], ids=["disk full", "read-only"])
def test_a_disk_that_takes_no_more_is_one_clear_line_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errno_: int) -> None:
    places = ((os, "fsync"), (os, "rename"), (os, "link"), (os, "makedirs"))
    count = failed = 0
    while True:
        count += 1
        store, calls = Store(tmp_path / f"{errno_}-{count}"), 0

        def failing(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == count:  # noqa: B023 - called within this turn of the loop
                    raise OSError(errno_, os.strerror(errno_))
                return original(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for owner, name in places:
                patch.setattr(owner, name, failing(getattr(owner, name)))
            try:
                artefact = published(store)
                store.append_record("sequences", "k" * 64, {"artefact": artefact.hash})
            except DigerError as error:
                failed += 1
                said = str(error)
            else:
                said = None
        assert said is None or (("disk is full" if errno_ == 28 else "read-only") in said and "\n" not in said)
        assert len(visible(store)) <= 1
        assert len(visible(store)) == 1 or published(store).names
        if calls < count:
            break
    assert failed >= 6


def diger(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DIGER_", "DAGSTER_"))}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder / "tmp")}
    code = "import sys; from orchestration.cli import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_a_killed_dagster_run_is_taken_up_under_a_new_run_id_and_leaves_one_model(tmp_path: Path) -> None:
    write(tmp_path / "data" / "snapshots" / "tiny", interactions(), items())
    (tmp_path / "tmp").mkdir()
    (tmp_path / "params.yaml").write_text(TINY)
    given = ("run", "--until", "joint_model", "--store", "store", "--set", "training.epochs=60", "--set", "training.patience=60")
    first = diger(tmp_path, *given)
    saved = tmp_path / "store" / "checkpoints"
    deadline = time.monotonic() + 120
    try:
        while not (saved.is_dir() and any(len(checkpoints.steps(folder)) >= 2 for folder in saved.iterdir())):
            assert first.poll() is None, first.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        first.kill()
        first.wait()
    assert list((tmp_path / "tmp").glob("diger-joint_model-*")), "a killed run cannot clean up"
    second = diger(tmp_path, *given)
    told, _ = second.communicate(timeout=200)
    assert second.returncode == 0, told
    assert "resumed at" in told
    records = list((tmp_path / "store" / "records" / "joint_model").rglob("*.json"))
    assert len(records) == 1
    assert len(list((tmp_path / "store" / "artefacts" / "joint_model").iterdir())) == 1
    assert json.loads(records[0].read_text())["dagster_run_id"]
    assert not list((tmp_path / "tmp").glob("diger-*")), "what the killed run left is removed"
    assert not [path for path in saved.iterdir() if path.name in str(records[0])]


@contextlib.contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """A mount that goes with the test; skips where this user may mount nothing."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("kilobytes", [16, 48, 96, 160, 400])
def test_a_disk_that_is_full_at_five_sizes_is_one_clear_line_and_more_space_is_enough(tmp_path: Path, kilobytes: int) -> None:
    """From a disk that takes not even the scratch files to one that is full somewhere between artefact and record."""
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs"):
        store, said = Store(place / "store"), []
        for number in range(40):
            try:
                with lease.hold(store.root, "stage", "stage sequences"), store.writer("sequences") as out:
                    out.bytes("a.bin", bytes([number]) * 20_000)
                    artefact = store.publish(out)
                    store.append_record("sequences", f"{number:064d}", {"artefact": artefact.hash})
            except DigerError as error:
                said.append(str(error))
                break
        assert said, "the disk never filled up"
        assert "disk is full" in said[0]
        assert "\n" not in said[0]
        for hash_ in store.root.list("artefacts", "sequences"):
            found = store.find("sequences", hash_)
            assert found is None or found.verify() == []
        subprocess.run(["mount", "-o", "remount,size=4m", str(place)], check=True)
        assert store.sweep() == []  # the failed attempt left nothing that it would have to wait for
        with lease.hold(store.root, "gc", "diger gc", wait=0):
            pass
        assert published(store).verify() == []


def test_a_store_that_is_remounted_read_only_is_read_and_says_so_where_it_is_written(tmp_path: Path) -> None:
    place = tmp_path / "store"
    place.mkdir()
    with mounted(place, "--bind", str(place)):
        store = Store(place)
        artefact = published(store)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        assert Store(place).artefact("sequences", artefact.hash).verify() == []
        assert lease.at_work(store.root) == []
        writes = (
            lambda: store.append_record("sequences", "k" * 64, {"artefact": artefact.hash}),
            lambda: store.root.writable(),
            lambda: store.create_pointer("encoder", "a", {}),
            lambda: lease.hold(store.root, "gc", "diger gc", wait=0).__enter__(),
            lambda: store.writer("sequences").__enter__(),
        )
        for write in writes:
            with pytest.raises(DigerError, match="read-only.*choose another --store"):
                write()
