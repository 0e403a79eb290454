"""A question to an object store takes few requests, and no pack, however damaged or old, changes an answer."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator

import pytest

from benchmarks.audit_store import generate
from benchmarks.tamper import flip
from diger_core.store.artefacts import Store
from diger_core.store.record import seal
from orchestration.audit import documents, tree
from orchestration.audit.chain import chain
from orchestration.audit.index import Index
from orchestration.audit.names import resolve
from orchestration.audit.verify import verify_chain
from orchestration.cli import main
from tests.support.s3_faults import FaultyS3, environment, faulty_s3

PLACE = "shop/store/"
Answer = tuple[list[str], dict[str, object], list[str]]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyS3]:
    import s3fs

    with faulty_s3() as (objects, endpoint), pytest.MonkeyPatch.context() as patch:
        for name, value in environment(endpoint).items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        generate(Store("s3://shop/store"), 30)
        yield objects
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def store(server: FaultyS3, monkeypatch, tmp_path) -> Iterator[Store]:
    """One run, no pack, nothing cached; what a test changes is put back."""
    kept = dict(server.objects)
    monkeypatch.setenv("DIGER_CACHE", str(tmp_path / "cache"))
    server.requests.clear()
    yield Store("s3://shop/store")
    server.objects.clear()
    server.objects |= kept
    server.page = 1000
    server.planned.clear()


@pytest.fixture(scope="module")
def first(server: FaultyS3, tmp_path_factory) -> tuple[Answer, dict[str, bytes]]:
    """The first reader's answer, and the objects after it."""
    kept = dict(server.objects)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGER_CACHE", str(tmp_path_factory.mktemp("first")))
        told = answer(Store("s3://shop/store"))
    after = dict(server.objects)
    server.objects.clear()
    server.objects |= kept
    return told, after


@pytest.fixture
def wanted(server: FaultyS3, first: tuple[Answer, dict[str, bytes]], store: Store) -> Answer:
    """The right answer; the store has the first reader's pack."""
    server.objects |= first[1]
    return first[0]


def answer(store: Store, cached: bool = True) -> Answer:
    index = Index(store, cached=cached)
    found = chain(index, resolve(index, "report"))
    told = list(tree.text(index, found, whole=True)), tree.as_json(index, found), index.faults
    index.remember()
    return told


def packs(server: FaultyS3) -> list[str]:
    return [key for key in server.objects if key.startswith(f"{PLACE}index/")]


def packed(entries: dict[str, bytes]) -> tuple[str, bytes]:
    return documents._packed(entries)


def held(server: FaultyS3) -> dict[str, bytes]:
    (key,) = packs(server)
    return documents._unpacked(key.rpartition("/")[2], server.objects[key])


def test_the_next_reader_asks_for_listings_and_the_pack_alone(server, store, wanted):
    assert len(packs(server)) == 1
    for _ in ("nothing cached", "the graph and the verdict cached"):
        server.requests.clear()
        assert answer(store) == wanted
        read = [path for _, path in server.requests if path.rstrip("/") != "shop"]
        assert [path for path in read if "/gate/" not in path] == packs(server)
        assert len(server.requests) - len(read) == 6, "one listing of each section"
    assert answer(store, cached=False) == wanted


def test_a_question_from_the_command_line_leaves_the_pack(server, store, capsys):
    main(["why", "report", "--store", store.url])
    assert len(packs(server)) == 1
    server.requests.clear()
    main(["where-used", "embeddings", "--store", store.url])
    assert len(server.requests) < 12, server.requests


def _truncated(key: str, data: bytes, entries: dict[str, bytes]) -> tuple[str, bytes]:
    return key, data[: len(data) // 2]


def _flipped(key: str, data: bytes, entries: dict[str, bytes]) -> tuple[str, bytes]:
    return key, flip(data)


def _empty(key: str, data: bytes, entries: dict[str, bytes]) -> tuple[str, bytes]:
    return key, b""


def _named(data: bytes) -> tuple[str, bytes]:
    return f"{hashlib.sha256(data).hexdigest()}.gz", data


def _no_gzip(key: str, data: bytes, entries: dict[str, bytes]) -> tuple[str, bytes]:
    return _named(b"not a pack")


def _cut_gzip(key: str, data: bytes, entries: dict[str, bytes]) -> tuple[str, bytes]:
    return _named(data[:-9])


def _no_list(key: str, data: bytes, entries: dict[str, bytes]) -> tuple[str, bytes]:
    return _named(gzip.compress(b'[["records/a", "b"], 3]\nbody'))


def _other_lengths(key: str, data: bytes, entries: dict[str, bytes]) -> tuple[str, bytes]:
    return _named(gzip.compress(json.dumps([[path, 7] for path in entries]).encode() + b"\n" + b"".join(entries.values())))


def _altered_entries(key: str, data: bytes, entries: dict[str, bytes]) -> tuple[str, bytes]:
    return packed({path: text.replace(b'"commit": "0', b'"commit": "1').replace(b'"items":0', b'"items":7') for path, text in entries.items()})


def _swapped_entries(key: str, data: bytes, entries: dict[str, bytes]) -> tuple[str, bytes]:
    return packed(dict(zip(entries, reversed(entries.values()), strict=True)))


@pytest.mark.parametrize("damage", [_truncated, _flipped, _empty, _no_gzip, _cut_gzip, _no_list, _other_lengths, _altered_entries, _swapped_entries])
def test_a_damaged_pack_changes_no_answer(server, store, wanted, damage: Callable[..., tuple[str, bytes]]):
    (key,) = packs(server)
    name, data = damage(key.rpartition("/")[2], server.objects[key], held(server))
    del server.objects[key]
    server.objects[f"{PLACE}index/{name}"] = data
    assert answer(store) == wanted


def test_what_was_removed_is_not_told_from_the_pack(server, store, wanted):
    before = Index(store, cached=False)
    made, artefact = before.made[0], before.made[5]
    del server.objects[f"{PLACE}records/{made.path}"]
    del server.objects[f"{PLACE}artefacts/{artefact.stage}/{artefact.artefact}/manifest.json"]
    snapshot = next(iter(before.snapshots))
    del server.objects[f"{PLACE}snapshots/{snapshot}.json"]
    index = Index(store)
    assert [each.path for each in index.made] == [each.path for each in before.made if each.path != made.path]
    assert index.artefact(artefact.artefact) is None
    assert snapshot not in index.snapshots


def test_the_pack_of_a_store_that_was_deleted_and_made_again_at_the_same_place_is_not_believed(server, store, wanted):
    records = [key for key in server.objects if key.startswith(f"{PLACE}records/")]
    for key in records:  # same names, same sizes, other records
        server.objects[key] = server.objects[key].replace(b'"started_at": "2', b'"started_at": "1')
    assert {made.at[0] for made in Index(store).made} == {"1"}
    assert held(server).keys() >= {key.removeprefix(PLACE) for key in records}


def test_an_altered_record_is_found_though_the_pack_has_the_right_one(server, store, wanted):
    made = Index(store, cached=False).maker(resolve(Index(store), "report").value, None)
    assert made is not None
    key = f"{PLACE}records/{made.path}"
    server.objects[key] = server.objects[key].replace(b'"commit": "0', b'"commit": "1')
    index = Index(store)
    assert index.record(made)["code"]["commit"][0] == "1"
    outcome = verify_chain(index, chain(index, resolve(index, "report")))
    assert any(f"records/{made.path}: edited or damaged: expected seal" in fault for fault in outcome.faults)


def test_verification_reads_each_record_and_manifest_itself(server, store, wanted, monkeypatch):
    """Even where a pack's forged entry would be taken for the object's bytes."""
    (made, *_) = Index(store, cached=False).made
    forged = json.loads(server.objects[f"{PLACE}records/{made.path}"]) | {"code_version": "another"}
    data = json.dumps(forged | {"seal": seal(forged)}).encode()
    name, pack = packed({**held(server), f"records/{made.path}": data})
    server.objects[f"{PLACE}index/{name}"] = pack
    monkeypatch.setattr(documents, "stands_for", lambda stamp, data: True)
    index = Index(store)
    found = chain(index, resolve(index, made.artefact))
    server.requests.clear()
    verify_chain(index, found)
    read = {path.removeprefix(PLACE) for _, path in server.requests}
    assert {f"records/{made.path}", f"artefacts/{made.stage}/{made.artefact}/manifest.json"} <= read
    assert index.record(made)["code_version"] != "another"


def test_many_packs_become_one_that_holds_what_still_counts(server, store, monkeypatch):
    monkeypatch.setattr(documents, "ENOUGH", 1)
    monkeypatch.setattr(documents, "MANY", 3)
    paths = [made.path for made in Index(store, cached=False).made[:4]]
    gone = f"{PLACE}records/{paths[0]}"
    for number, path in enumerate(paths):
        kept = documents.Documents(store.root)
        kept.read("records", *path.split("/"))
        if number == 3:
            del server.objects[gone]
            kept = documents.Documents(store.root)
            kept.read("records", *path.split("/"))
        kept.remember()
        assert len(packs(server)) == (number + 1 if number < 3 else 1)
    assert set(held(server)) == {f"records/{path}" for path in paths[1:]}


def test_a_reader_who_may_not_write_is_answered_too(server, store, first):
    server.fail("PUT", "403", times=99)
    told = answer(store)
    assert packs(server) == []
    assert told == first[0]


def test_forgotten_packs_are_gone(server, store, wanted):
    documents.forget_packs(store.root)
    assert packs(server) == []
    documents.forget_packs(store.root)


def test_a_local_store_gets_no_pack(tmp_path, monkeypatch):
    monkeypatch.setenv("DIGER_CACHE", str(tmp_path / "cache"))
    local = Store(tmp_path / "store")
    generate(local, 30)
    answer(local)
    assert local.root.list("index") == []
