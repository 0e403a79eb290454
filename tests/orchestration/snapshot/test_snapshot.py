"""Opening a snapshot: what it describes, and one clear line for what cannot be opened."""

import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diger_core.errors import DigerError
from orchestration.snapshot.files import content_hash, describe, fetch, open_root
from tests.support import snapshot_material as material


@pytest.fixture
def directory(tmp_path):
    return material.write(tmp_path / "shop", material.interactions(), material.items())


def refused(url) -> str:
    with pytest.raises(DigerError) as caught:
        describe(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_describes_files_by_rows_columns_and_hash(directory):
    found = describe(directory)
    assert set(found.files) == {"interactions.parquet", "items.parquet"}
    assert found.files["items.parquet"].rows == 40
    assert found.files["items.parquet"].columns == {"item_id": "int64", "title": "string", "brand": "string"}
    assert found.files["items.parquet"].bytes == (directory / "items.parquet").stat().st_size
    assert re.fullmatch("[0-9a-f]{64}", found.content_hash)


def test_vectors_are_part_of_the_snapshot(directory):
    without = describe(directory).content_hash
    pq.write_table(material.vectors(), directory / "vectors.parquet")
    found = describe(directory)
    assert found.files["vectors.parquet"].rows == 40
    assert found.content_hash != without


def test_content_hash_follows_bytes_not_place_or_foreign_files(directory, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(directory, copy)
    (copy / "_SUCCESS").write_text("")
    assert describe(copy).content_hash == describe(directory).content_hash
    pq.write_table(material.items(41), copy / "items.parquet")
    assert describe(copy).content_hash != describe(directory).content_hash


def test_content_hash_cannot_be_confused_by_moving_a_boundary():
    assert content_hash({"ab": "c"}) != content_hash({"a": "bc"})
    assert content_hash({"a": "1", "b": "2"}) == content_hash({"b": "2", "a": "1"})
    assert content_hash({"a": "1", "b": "2"}) != content_hash({"a": "2", "b": "1"})


def test_missing_directory(tmp_path):
    message = refused(tmp_path / "nowhere")
    assert "nowhere" in message
    assert "no such directory" in message


def test_a_file_instead_of_a_directory(directory):
    assert "give the directory" in refused(directory / "items.parquet")


def test_missing_file_names_the_nearest_one(directory):
    (directory / "items.parquet").rename(directory / "item.parquet")
    message = refused(directory)
    assert "items.parquet is missing" in message
    assert "rename item.parquet" in message


def test_missing_file_with_a_csv_beside_it_points_to_ingest(directory):
    (directory / "items.parquet").unlink()
    (directory / "items.csv").write_text("item_id\n1\n")
    assert "convert items.csv with diger ingest" in refused(directory)


def test_empty_file(directory):
    (directory / "items.parquet").write_bytes(b"")
    message = refused(directory)
    assert "items.parquet: is empty (0 bytes)" in message


@pytest.mark.parametrize("share", [0.99, 0.5, 0.01])
def test_truncated_parquet(directory, share):
    path = directory / "interactions.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(len(data) * share))])
    message = refused(directory)
    assert "interactions.parquet: not a complete Parquet file" in message
    assert "write or copy it again" in message


def test_no_rows(directory):
    pq.write_table(material.items().slice(0, 0), directory / "items.parquet")
    assert "items.parquet: has no rows" in refused(directory)


def test_fetch_copies_bytes_and_refuses_changed_ones(directory, tmp_path):
    known = describe(directory).files["items.parquet"].sha256
    copy = fetch(directory, "items.parquet", tmp_path / "copy.parquet", known)
    assert copy.read_bytes() == (directory / "items.parquet").read_bytes()
    pq.write_table(material.items(39), directory / "items.parquet")
    with pytest.raises(DigerError, match=r"items\.parquet: its bytes changed since .* register"):
        fetch(directory, "items.parquet", tmp_path / "again.parquet", known)


def test_a_url_with_credentials_is_refused_without_repeating_them():
    with pytest.raises(DigerError) as caught:
        open_root("s3://AKIAXYZ:verysecret@bucket/shop")
    assert "verysecret" not in str(caught.value)
    assert "AKIAXYZ" not in str(caught.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value)


def test_wrong_s3_endpoint_is_one_line_without_secrets(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAXYZ")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    message = refused("s3://nobucket/shop")
    assert "s3://nobucket/shop" in message
    assert "AWS_ENDPOINT_URL" in message
    assert "verysecret" not in message


def test_foreign_columns_are_described_not_refused(directory):
    pq.write_table(material.items().append_column("stars", pa.array([1.5] * 40)), directory / "items.parquet")
    assert describe(directory).files["items.parquet"].columns["stars"] == "double"


@pytest.mark.s3
def test_a_snapshot_on_s3_is_the_same_as_on_disk(directory, s3_bucket, tmp_path):
    import s3fs

    s3fs.S3FileSystem().put(str(directory), f"{s3_bucket}/data/shop", recursive=True)
    found = describe(f"{s3_bucket}/data/shop")
    assert found.content_hash == describe(directory).content_hash
    assert found.files == describe(directory).files
    copy = fetch(f"{s3_bucket}/data/shop", "items.parquet", tmp_path / "copy.parquet", found.files["items.parquet"].sha256)
    assert copy.read_bytes() == (directory / "items.parquet").read_bytes()
    s3fs.S3FileSystem().pipe_file(f"{s3_bucket}/data/shop/items.parquet", (directory / "items.parquet").read_bytes()[:500])
    assert "items.parquet: not a complete Parquet file" in refused(f"{s3_bucket}/data/shop")


@pytest.mark.s3
@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_s3_credentials(directory, s3_bucket, monkeypatch, variable):
    import s3fs

    s3fs.S3FileSystem().put(str(directory), f"{s3_bucket}/shop", recursive=True)
    monkeypatch.setenv(variable, "diger:wrong-canary-99")
    s3fs.S3FileSystem.clear_instance_cache()
    message = refused(f"{s3_bucket}/shop")
    assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in message
    assert "canary" not in message


@pytest.mark.s3
def test_a_missing_bucket_or_prefix_is_named(s3_bucket):
    assert f"{s3_bucket}/nowhere: no such directory" in refused(f"{s3_bucket}/nowhere")
    assert "s3://no-such-bucket/shop: no such directory" in refused("s3://no-such-bucket/shop")
