"""The store on a real S3 server: the same promises as on a local disk."""

import pytest

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from diger_core.store.files import Root
from tests.diger_core.store.test_store import write
from tests.support.s3 import SECRET

pytestmark = pytest.mark.s3


def test_artefacts_records_and_pointers_work_on_s3(s3_bucket):
    store = Store(f"{s3_bucket}/store")
    artefact = write(store)
    assert write(store, (3, 2, 1)).hash == artefact.hash
    assert Store(f"{s3_bucket}/store").artefact("sequences", artefact.hash).table("t.parquet").to_pydict() == {"a": [1, 2, 3]}
    first = store.append_record("sequences", "k" * 64, {"artefact": artefact.hash})
    second = store.append_record("sequences", "k" * 64, {"artefact": artefact.hash})
    assert (first["number"], second["number"]) == (1, 2)
    assert store.create_pointer("encoder", "a", {"artefact": "1"}) == store.create_pointer("encoder", "a", {"artefact": "2"})


def test_a_second_client_sees_what_the_first_has_just_written(s3_bucket):
    reader, writer = Store(f"{s3_bucket}/store"), Store(f"{s3_bucket}/store")
    assert reader.records("sequences", "k" * 64) == []
    writer.append_record("sequences", "k" * 64, {"artefact": "1"})
    assert len(reader.records("sequences", "k" * 64)) == 1


def test_a_conditional_create_never_overwrites(s3_bucket):
    store = Store(f"{s3_bucket}/store")
    assert store.root.create(b"one", "pointers", "a.json")
    assert not store.root.create(b"two", "pointers", "a.json")
    assert store.root.read("pointers", "a.json") == b"one"


def test_an_upload_without_its_manifest_is_invisible(s3_bucket, monkeypatch):
    store = Store(f"{s3_bucket}/store")

    def reset(*_):
        raise OSError(104, "reset by peer")

    with monkeypatch.context() as patched:
        patched.setattr(Root, "create", reset)
        with pytest.raises(DigerError):
            write(store)
    names = store.root.list("artefacts", "sequences")
    assert len(names) == 1
    assert store.find("sequences", names[0]) is None


def test_wrong_credentials_are_refused_without_showing_them(s3_bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET + "-wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DigerError) as error:
        Store(f"{s3_bucket}/other").root.writable()
    assert SECRET not in str(error.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(error.value)


def test_a_wrong_endpoint_is_named_with_a_remedy(s3_bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DigerError, match="AWS_ENDPOINT_URL"):
        Store(f"{s3_bucket}/other").root.writable()


def test_a_missing_bucket_is_named(s3_bucket):
    with pytest.raises(DigerError, match="no-such-bucket"):
        Store("s3://no-such-bucket/store").root.writable()


def test_an_upload_in_parts_that_nobody_will_end_is_removed_below_its_directory_only(s3_bucket):
    root = Root(f"{s3_bucket}/store")
    bucket, _, base = root.base.partition("/")
    for name in ("mine", "minetoo"):
        root.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=f"{base}/checkpoints/{name}/00000001/x.safetensors")
    assert root.abandon_uploads("checkpoints", "mine") == 1
    assert root.abandon_uploads("checkpoints", "mine") == 0
    left = root.fs.call_s3("list_multipart_uploads", Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == [f"{base}/checkpoints/minetoo/00000001/x.safetensors"]
