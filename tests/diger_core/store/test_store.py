"""The store: content decides the name, a manifest means complete, and nothing stored is ever lost or changed."""

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from diger_core.errors import DigerError, holds_credentials
from diger_core.store.artefact import MANIFEST
from diger_core.store.artefacts import Store
from diger_core.store.faults import describe_os_error
from diger_core.store.files import Root, safe_name


def write(store: Store, rows=(1, 2, 3), **facts):
    with store.writer("sequences") as out:
        out.table("t.parquet", pa.table({"a": list(rows)}), sort_by=("a",))
        out.tensors("x.safetensors", {"x": torch.arange(4.0)}, {"diger.k": "v"})
        out.json("j.json", {"k": [1, float("inf")]})
        out.facts.update(facts)
        return store.publish(out)


def test_equal_content_has_one_name_whatever_the_row_order(tmp_path):
    store = Store(tmp_path / "s")
    assert write(store).hash == write(store, (3, 1, 2)).hash != write(store, (1, 2)).hash
    assert write(store, rows_seen=3).hash != write(store).hash


def test_reading_gives_back_what_was_written(tmp_path):
    artefact = write(Store(tmp_path / "s"))
    assert artefact.table("t.parquet").to_pydict() == {"a": [1, 2, 3]}
    assert torch.equal(artefact.tensors("x.safetensors")["x"], torch.arange(4.0))
    assert artefact.tensors_metadata("x.safetensors") == {"diger.k": "v"}
    assert artefact.json("j.json") == {"k": [1, "inf"]}
    assert artefact.verify() == []


@pytest.mark.parametrize("name", ["t.parquet", "x.safetensors", "j.json"])
def test_a_flipped_bit_is_refused_by_name_and_mended_by_the_next_run(tmp_path, name):
    store = Store(tmp_path / "s")
    path = write(store).path(name)
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    fresh = Store(tmp_path / "s")
    damaged = fresh.artefact("sequences", path.parent.name)
    with pytest.raises(DigerError, match=rf"{name}.*SHA-256.*remove"):
        damaged.path(name)
    assert len(damaged.verify()) == 1
    assert write(fresh).verify() == []
    assert path.read_bytes() == good


def test_an_edited_manifest_is_refused(tmp_path):
    store = Store(tmp_path / "s")
    artefact = write(store, items=3)
    manifest = tmp_path / "s" / "artefacts" / "sequences" / artefact.hash / MANIFEST
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text().replace('"items":3', '"items":4'))
    with pytest.raises(DigerError, match="edited"):
        store.artefact("sequences", artefact.hash)


def test_a_directory_without_manifest_is_not_an_artefact(tmp_path):
    store = Store(tmp_path / "s")
    artefact = write(store)
    (tmp_path / "s" / "artefacts" / "sequences" / artefact.hash / MANIFEST).unlink()
    assert store.find("sequences", artefact.hash) is None
    assert write(store).verify() == []


def test_an_exception_while_writing_leaves_nothing_behind(tmp_path):
    store = Store(tmp_path / "s")

    def interrupted():
        with store.writer("sequences") as out:
            out.json("j.json", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert store.root.list("artefacts") == []
    assert store.root.list("tmp") == []


def test_stored_files_are_read_only(tmp_path):
    path = write(Store(tmp_path / "s")).path("t.parquet")
    assert not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)


def _claim(arguments):
    url, number = arguments
    store = Store(url)
    store.append_record("sequences", "k" * 64, {"artefact": str(number)})
    return store.root.create(str(number).encode(), "pointers", "encoder", "p.json")


def test_concurrent_writers_never_share_a_record_or_a_pointer(tmp_path):
    url = str(tmp_path / "s")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        won = pool.map(_claim, [(url, n) for n in range(16)], chunksize=1)
    records = Store(url).records("sequences", "k" * 64)
    assert sum(won) == 1
    assert [r["number"] for r in records] == list(range(1, 17))
    assert {r["artefact"] for r in records} == {str(n) for n in range(16)}


def test_a_pointer_never_changes(tmp_path):
    store = Store(tmp_path / "s")
    assert store.create_pointer("encoder", "a", {"artefact": "1"}) == {"artefact": "1"}
    assert store.create_pointer("encoder", "a", {"artefact": "2"}) == {"artefact": "1"}


def test_lookup_passes_over_records_whose_artefact_is_gone(tmp_path):
    store = Store(tmp_path / "s")
    first, second = write(store), write(store, (9,))
    store.append_record("sequences", "k" * 64, {"artefact": first.hash})
    store.append_record("sequences", "k" * 64, {"artefact": second.hash})
    store.root.remove_directory("artefacts", "sequences", second.hash)
    assert store.lookup("sequences", "k" * 64).hash == first.hash


@pytest.mark.parametrize("name", ["..", "a/b", "/etc", "", "a\nb", "x" * 300, "s3:x", "-rf", "..a"])
def test_names_that_could_leave_the_root_are_refused(name):
    with pytest.raises(DigerError):
        safe_name(name)


def test_a_symbolic_link_out_of_the_root_is_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "s").mkdir()
    os.symlink(tmp_path / "outside", tmp_path / "s" / "artefacts")
    with pytest.raises(DigerError, match="symbolic link"):
        Store(tmp_path / "s").find("sequences", "a" * 64)


def test_an_unwritable_root_is_named_with_a_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DigerError, match="file"):
        Store(tmp_path / "file" / "store").root.writable()


def test_a_full_disk_is_named_with_a_remedy():
    assert "disk is full" in str(describe_os_error(OSError(28, "No space left on device"), "store/x"))


def test_error_texts_carry_no_secret():
    text = str(describe_os_error(OSError("failed: aws_secret_access_key=hunter2 Signature=abc"), "s3://b/x"))
    assert "hunter2" not in text
    assert "abc" not in text


def test_a_root_lists_nothing_where_there_is_nothing(tmp_path):
    assert Root(tmp_path / "none").list("a") == []


def test_manifest_names_every_file_with_its_hashes(tmp_path):
    artefact = write(Store(tmp_path / "s"))
    manifest = json.loads((tmp_path / "s" / "artefacts" / "sequences" / artefact.hash / MANIFEST).read_text())
    assert [f["name"] for f in manifest["files"]] == ["j.json", "t.parquet", "x.safetensors"]
    assert all(len(f["sha256"]) == len(f["canonical"]) == 64 for f in manifest["files"])


# Power loss


def test_every_new_directory_and_file_is_on_the_disk_before_it_is_relied_on(tmp_path, monkeypatch):
    """Each name that leads to a stored file is synchronised in the directory above it; else a power loss leaves a file that nobody can find."""
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store = Store(tmp_path / "a" / "b" / "store")
    artefact = write(store)
    record = store.append_record("sequences", "k" * 64, {"artefact": artefact.hash})
    base = Path(store.root.base)
    for path in (base / "artefacts" / "sequences" / artefact.hash / "manifest.json", base / "records" / "sequences" / record["key"] / "000001.json"):
        for folder in [parent for parent in path.parents if parent.is_relative_to(tmp_path)]:
            assert str(folder) in synced or folder.name == artefact.hash, folder
    moved = {name.rsplit("/", 1)[-1] for name in synced if "/store/tmp/" in name}
    assert {*artefact.names, "manifest.json", "files"} <= moved, "the files and their directory themselves, before they are renamed into place"


@pytest.mark.parametrize("data", [b"", b"{", b"[]"])
def test_a_damaged_pointer_is_named_with_a_remedy_that_works(tmp_path, data):
    store = Store(tmp_path / "store")
    store.create_pointer("encoder", "a", {"artefact": "1"})
    place = tmp_path / "store" / "pointers" / "encoder" / "a.json"
    place.write_bytes(data)
    for ask in (lambda: store.pointer("encoder", "a"), lambda: store.create_pointer("encoder", "a", {"artefact": "2"})):
        with pytest.raises(DigerError, match=r"pointers/encoder/a\.json: damaged.*remove it"):
            ask()
    place.unlink()
    assert store.create_pointer("encoder", "a", {"artefact": "2"}) == {"artefact": "2"}


# Credentials in addresses


@pytest.mark.parametrize(
    "url",
    ["s3://AKIA:hunter2@bucket/x", "s3://AKIA:hun/ter2@bucket/x", "s3://hunter2@bucket", "https://h/?X-Amz-Signature=hunter2", "file://u:hunter2@/x"],
)
def test_an_address_with_credentials_is_refused_unseen(url):
    with pytest.raises(DigerError, match="credentials") as told:
        Store(url)
    assert "hunter" not in str(told.value)
    assert "hunter" not in str(DigerError(f"{url}: does not answer; retry {url}"))


@pytest.mark.parametrize(
    "url", ["s3://bucket/a@b/c", "http://127.0.0.1:8265/x@y", "s3://bucket/monday:1/x", "/home/a@b/store", "http://h:80 at @now"]
)
def test_an_address_without_credentials_is_left_as_it_is(url):
    assert not holds_credentials(url)
    assert str(DigerError(f"{url}: gone")) == f"{url}: gone"
