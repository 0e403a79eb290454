"""What a run of the UI may name: files and stores of the project, and no other."""

from __future__ import annotations

import pytest

from diger_core.errors import DigerError
from orchestration.on_dagster.resources import params_of, store_of


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    place = tmp_path / "project"
    place.mkdir()
    (place / "fast.yaml").write_text("training: {epochs: 2}\n")
    (place / "key.txt").write_text("hunter2: x\n")
    (tmp_path / "outside.yaml").write_text("training: {epochs: 3}\n")
    (place / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    monkeypatch.chdir(place)
    monkeypatch.delenv("DIGER_STORE", raising=False)
    return place


def test_params_of_the_project_are_read(project):
    assert params_of("fast.yaml", []).training.epochs == 2
    assert params_of(str(project / "fast.yaml"), ["training.epochs=4"]).training.epochs == 4
    assert params_of(None, []).training.epochs > 0


@pytest.mark.parametrize("file", ["../outside.yaml", "link.yaml", "/etc/passwd", "key.txt", "sub/../../outside.yaml", "/proc/self/environ"])
def test_other_files_are_refused_unread(file):
    with pytest.raises(DigerError, match=r"pipeline\.params_file: .* below ") as told:
        params_of(file, [])
    assert "hunter" not in str(told.value)


@pytest.mark.parametrize("url", ["store", "other/store"])
def test_a_store_of_the_project_is_opened(project, url):
    assert store_of(url).url == url


def test_the_store_that_the_ui_was_started_with_is_opened_wherever_it_lies(monkeypatch):
    monkeypatch.setenv("DIGER_STORE", "memory://the-ui-s-own")
    assert store_of("memory://the-ui-s-own").url == "memory://the-ui-s-own"


@pytest.mark.parametrize("url", ["", " ", "file:/etc", "local:/etc", "file:../store", "store\0", "a::b"])
def test_a_name_that_hides_another_place_is_refused(url):
    with pytest.raises(DigerError, match="not a usable location"):
        store_of(url)


def test_a_params_file_with_a_nul_byte_is_refused():
    with pytest.raises(DigerError, match=r"pipeline\.params_file: "):
        params_of("fast\0.yaml", [])


@pytest.mark.parametrize("url", ["../store", "/tmp", "~", "~/store", "s3://bucket/store", "file:///etc", "memory://x"])
def test_other_stores_are_refused(url):
    with pytest.raises(DigerError, match=r"pipeline\.store: "):
        store_of(url)
