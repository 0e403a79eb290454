"""The store and the checkpoints on an object store that fails: right bytes or a clear refusal, never wrong bytes and never half a thing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diger_core.errors import DigerError
from diger_core.progress import Silent
from diger_core.store import listing
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from diger_core.store.files import Root
from diger_core.store.owner import signature
from diger_core.training import checkpoint as checkpoints
from diger_core.training.checkpoint import Checkpoint, newest_valid
from tests.support.s3_faults import FAULTS, FaultyS3, environment, faulty_s3


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultyS3]:
    import s3fs

    with faulty_s3() as (store, endpoint):
        for name, value in {**environment(endpoint), "DIGER_CACHE": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield store
        s3fs.S3FileSystem.clear_instance_cache()


def made(step: int) -> Checkpoint:
    return Checkpoint({name: {"a": torch.full((1000,), step)} for name in ("recommender", "tokenizer")}, {"step": step})


def survived(work: object) -> bool:
    """Whether the work was done; a clear refusal is the only other end."""
    try:
        work()  # type: ignore[operator]
    except DigerError as error:
        said = str(error)
    else:
        return True
    assert "canary-secret" not in said
    assert "\n" not in said
    return False


@pytest.mark.parametrize("method", ["PUT", pytest.param("GET", marks=pytest.mark.slow), pytest.param("HEAD", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_passing_fault_costs_at_most_the_newest_checkpoint(faulty: FaultyS3, kind: str, method: str) -> None:
    place = "s3://bucket/run"
    made(1).save(place)
    faulty.fail(method, kind, times=2, words="00000002" if method == "PUT" else "")
    done = survived(lambda: made(2).save(place))
    found = newest_valid(place)
    faulty.planned.clear()
    if found is None:  # the reads failed: a second look, once the fault is over
        found = newest_valid(place)
    assert found is not None
    assert found.step in (1, 2)
    if done and method == "PUT":
        assert found.step == 2
    assert torch.equal(found.tensors["recommender"]["a"], torch.full((1000,), found.step))
    made(2).save(place)
    again = newest_valid(place)
    assert again is not None
    assert again.step == 2


@pytest.mark.parametrize("kind", ["500", "503", "reset", "hang"])
def test_a_fault_that_passes_is_not_seen_at_all(faulty: FaultyS3, kind: str) -> None:
    place = "s3://bucket/run"
    faulty.fail("PUT", kind, times=1)
    made(1).save(place)
    faulty.fail("GET", kind, times=1)
    found = newest_valid(place)
    assert found is not None
    assert found.step == 1


def test_refused_access_is_told_at_once_with_its_remedy(faulty: FaultyS3) -> None:
    faulty.fail("PUT", "403", times=99)
    with pytest.raises(DigerError, match="AWS_ACCESS_KEY_ID"):
        made(1).save("s3://bucket/run")
    assert sum(method == "PUT" for method, _ in faulty.requests) <= 2, "no use in asking again"
    assert newest_valid("s3://bucket/run") is None


@pytest.mark.slow
def test_an_artefact_behind_a_failing_store_is_whole_or_absent(faulty: FaultyS3) -> None:
    for kind in FAULTS:
        faulty.objects.clear()
        store = Store("s3://bucket/store")

        def publish(store: Store = store) -> str:
            with store.writer("sequences") as out:
                out.tensors("t.safetensors", {"t": torch.arange(500)})
                out.json("a.json", {"a": 1})
                return store.publish(out).hash

        expected = publish()
        faulty.objects.clear()
        faulty.fail("PUT", kind, times=3)
        survived(publish)
        found = store.find("sequences", expected)
        assert found is None or found.verify() == []
        faulty.planned.clear()
        assert publish() == expected
        found = store.find("sequences", expected)
        assert found is not None
        assert found.verify() == []


@pytest.mark.slow
def test_a_store_that_hangs_for_thirty_seconds_is_waited_for(faulty: FaultyS3) -> None:
    faulty.hang = 30.0
    faulty.fail("PUT", "hang", times=1)
    made(1).save("s3://bucket/run")
    found = newest_valid("s3://bucket/run")
    assert found is not None
    assert found.step == 1


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the tests' size go up in several parts, as those above 100 MB do."""
    import s3fs.core

    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda size, chunksize=None: 1000)


@pytest.mark.parametrize("times", [1, 99])
def test_an_upload_whose_completion_says_200_and_then_an_error_is_done_again_or_refused(faulty: FaultyS3, in_parts: None, times: int) -> None:
    place = "s3://bucket/run"
    made(1).save(place)
    assert any(method == "COMPLETE" for method, _ in faulty.requests), "the files must go up in parts"
    faulty.fail("COMPLETE", "200 with an error", times=times)
    done = survived(lambda: made(2).save(place))
    assert done == (times == 1)
    found = newest_valid(place)
    assert found is not None
    assert found.step == (2 if done else 1), "what was never put together is no checkpoint"
    assert faulty.uploads == {}, "a refused upload is given up, not left begun"
    faulty.planned.clear()
    made(2).save(place)
    again = newest_valid(place)
    assert again is not None
    assert again.step == 2


def test_what_a_killed_upload_has_begun_is_removed_and_other_runs_uploads_stay(faulty: FaultyS3) -> None:
    faulty.uploads = {"a": ("bucket/store/checkpoints/mine/00000002/x", {}), "b": ("bucket/store/checkpoints/minetoo/00000002/x", {})}
    told = Recorded()
    checkpoints.sweep("s3://bucket/store/checkpoints/mine", told)
    assert list(faulty.uploads) == ["b"]
    assert told.messages == ["1 unfinished uploads of a run that was killed were removed"]
    faulty.fail("GET", "403", times=99)
    checkpoints.sweep("s3://bucket/store/checkpoints/mine", told)
    assert told.messages[1].startswith("warning: unfinished uploads")


class Recorded(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.mark.parametrize(
    ("kind", "remedy"), [("expired", "the credentials have expired: renew them"), ("skewed", "check the clock"), ("403", "access refused")]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_refusal_names_its_cause_whatever_the_request(faulty: FaultyS3, kind: str, remedy: str, method: str) -> None:
    """The answer to HEAD has no body, so no code: 400 for an expired token, 403 for a clock that is off."""
    root = Root("s3://bucket/store")
    root.create(b"{}", "pointers", "a.json")
    for each in ("GET", "HEAD", "PUT"):
        faulty.fail(each, kind, times=99)
    work = {"GET": lambda: root.read("pointers", "a.json"), "HEAD": lambda: root.exists("pointers", "a.json"), "PUT": lambda: root.create(b"", "b")}
    with pytest.raises(DigerError, match=f"^s3://bucket/store.*{remedy}") as told:
        work[method]()
    assert "canary" not in str(told.value)


def test_a_damaged_cached_copy_is_fetched_again_and_nothing_remote_is_deleted_for_it(faulty: FaultyS3, tmp_path: Path) -> None:
    artefact = written("s3://bucket/store")
    (copy,) = (tmp_path / "cache" / "files").glob("*/a.json")
    killed, running = copy.parent / f".{os.uname().nodename}-999999999-5.x.tmp", copy.parent / f".{signature()}.x.tmp"
    killed.touch()
    running.touch()
    for damaged in (b"", b'{"a', b"x" * 5000):
        copy.write_bytes(damaged)
        assert Store("s3://bucket/store").artefact("stage", artefact.hash).json("a.json") == {"value": 1}
        copy.write_bytes(damaged)
        faulty.requests.clear()
        assert written("s3://bucket/store").hash == artefact.hash
        assert [request for request in faulty.requests if request[0] in ("DELETE", "POST")] == []
    assert (killed.exists(), running.exists()) == (False, True), "what a killed download has left goes, another one's stays"


def test_an_artefact_that_cannot_be_read_now_is_not_taken_for_a_damaged_one(faulty: FaultyS3, tmp_path: Path) -> None:
    artefact = written("s3://bucket/store")
    shutil.rmtree(tmp_path / "cache")
    before = dict(faulty.objects)
    faulty.fail("GET", "expired", times=99, words="a.json")
    faulty.requests.clear()
    with pytest.raises(DigerError, match="credentials have expired"):
        written("s3://bucket/store")
    assert faulty.objects == before
    assert [request for request in faulty.requests if request[0] in ("DELETE", "POST", "PUT")] == [], "nothing was removed and written again"
    assert artefact.hash in "".join(before)


def test_an_artefact_that_is_damaged_in_the_object_store_is_named_and_replaced_by_a_sound_one(faulty: FaultyS3, tmp_path: Path) -> None:
    artefact = written("s3://bucket/store")
    shutil.rmtree(tmp_path / "cache")
    (name,) = (name for name in faulty.objects if name.endswith("a.json"))
    faulty.objects[name] = b"damaged"
    with pytest.raises(DigerError, match=r"s3://bucket/store/artefacts/stage/.*a\.json: its bytes are not those of the manifest"):
        Store("s3://bucket/store").artefact("stage", artefact.hash).json("a.json")
    assert written("s3://bucket/store").json("a.json") == {"value": 1}


def written(place: str) -> Artefact:
    store = Store(place)
    with store.writer("stage") as out:
        out.json("a.json", {"value": 1})
        artefact = store.publish(out)
    artefact.path("a.json")
    return artefact


@pytest.mark.parametrize("folders", [3, listing._FOLDERS + 1])
def test_a_listing_of_many_pages_is_whole(faulty: FaultyS3, folders: int) -> None:
    faulty.page = 7
    wanted = {f"{number % folders:03d}/{number:04d}": b"x" * number for number in range(3 * 40)} | {"beside": b"", ".hidden": b""}
    faulty.objects |= {f"bucket/store/many/{name}": data for name, data in wanted.items()} | {"bucket/store/manyother/a": b""}
    root = Root("s3://bucket/store")
    assert root.tree("many") == {name: len(data) for name, data in wanted.items() if name != ".hidden"}
    stamps = root.stamps("many")
    assert all(listing.stands_for(stamps[name], data) for name, data in wanted.items() if name in stamps)
    assert not listing.stands_for(stamps["000/0000"], b"x")
    assert not listing.stands_for(stamps["000/0000"].replace('" ', '-2" '), b"")  # the tag of an upload in several parts
    assert root.tree("nothing") == {}


def test_a_small_file_is_one_request_whether_it_exists_or_not(faulty: FaultyS3) -> None:
    faulty.objects["bucket/store/a/b"] = b"text"
    root = Root("s3://bucket/store")
    assert (root.read("a", "b"), root.read_if_there("a", "b"), root.read_if_there("a", "c")) == (b"text", b"text", None)
    assert [method for method, _ in faulty.requests] == ["GET"] * 3


def test_times_are_read_whatever_kind_of_answer_they_come_in(faulty: FaultyS3) -> None:
    faulty.objects["bucket/store/a/b"] = b"text"
    root = Root("s3://bucket/store")
    (stamp,) = root.stamps("a").values()
    assert stamp.endswith(" 2024-01-01 00:00:00+00:00")
    assert root.fs.info("bucket/store/a/b")["LastModified"].isoformat() == "2024-01-01T00:00:00+00:00"
